"""How far the truth of the flavour closure depends on step, cells, directions, time and noise.

    python -m physics_hybrid flavour-convergence --folder PARTS --output FILE.json [--samples 20]

The first samples of the generated set, again in finer and longer boxes. Finished simulations stay
in PARTS, and the same command goes on where it was killed; `pages --flavour-convergence FILE.json`
puts the table on the page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for the simulations")
    parser.add_argument("--output", type=Path, required=True, help="differences, JSON")
    parser.add_argument("--samples", type=int, default=20, help="a fifth of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="without PyTorch's compiler: slower")
    asked = parser.parse_args(arguments)
    with readable_errors():
        import torch

        from physics_hybrid.checks import at_least
        from physics_hybrid.problems.flavour.evidence.convergence import convergence_table, measure
        from physics_hybrid.writing import write_text

        at_least(1, "--samples", asked.samples)
        torch.set_num_threads(1)
        result = measure(asked.samples, asked.folder, asked.seed, not asked.eager)
        write_text(asked.output, json.dumps(result, indent=1))
        print(convergence_table(result))
        print(asked.output)
