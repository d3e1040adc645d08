"""Activations and gradients block by block: at the start against depth, and during trainings.

    python -m physics_hybrid activations [key=value ...] [--blocks zero_linear post_gelu ...]
        [--depths 4 8 12] [--runs RUN ...] [--output activations]

The configured model (experiment=ptychography, say) is built with each block at each depth and sees
one batch. Runs bring what their monitor has written down (training.monitor_every). Into the folder
go

    activations.json  activations.md  activations.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.checks import among, at_least
from physics_hybrid.command_line import readable_errors


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="configuration overrides, as for train.py")
    parser.add_argument("--blocks", nargs="+", help="all, unless named here")
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 12])
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="run folders")
    parser.add_argument("--output", type=Path, default=Path("activations"))
    given = parser.parse_intermixed_args(arguments)
    with readable_errors():
        from physics_hybrid.evidence import activations
        from physics_hybrid.evidence.bench import configuration
        from physics_hybrid.models.blocks import BLOCKS

        for depth in given.depths:
            at_least(1, "--depths", depth)
        for block in given.blocks or ():
            among(BLOCKS, "--blocks", block)
        found = activations.at_start(given.overrides, given.blocks or BLOCKS, given.depths)
        every = configuration(["run=x", *given.overrides])["training"]["monitor_every"]
        share = activations.cost(given.overrides, every) if every else 0.0
        print(activations.report(found, given.runs, share, given.output))
