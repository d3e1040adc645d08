"""Make the generated set of the flavour closure again: draw states, simulate them, write one file.

    python -m physics_hybrid flavour-set --folder PARTS --output FILE.h5 [--samples 2000] [--seed 0]

About 1 s of one core a simulation. Finished parts stay in PARTS, and the same command goes on where
it was killed. `--exact` takes float64 and a shorter step: slower, drifts below 1e-6.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for the parts")
    parser.add_argument("--output", type=Path, required=True, help="the set, HDF5")
    parser.add_argument("--samples", type=int, default=2000, help="rounded up to whole parts of 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", action="store_true", help="float64, a shorter step")
    parser.add_argument(
        "--eager", action="store_true", help="without PyTorch's compiler: five times slower"
    )
    asked = parser.parse_args(arguments)
    with readable_errors():
        import torch

        from physics_hybrid.problems.flavour.data import generate as made
        from physics_hybrid.problems.flavour.physics.simulation import Box

        torch.set_num_threads(1)  # a simulation is too small for two
        box = Box() if asked.exact else made.SHIPPED
        parts = made.generate(asked.samples, asked.folder, box, asked.seed, not asked.eager)
        made.write_set(parts, asked.output, box, asked.seed)
        print(asked.output)
