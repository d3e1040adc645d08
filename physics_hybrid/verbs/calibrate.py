"""What a shipped model is likely to be wrong by, and which bodies are unlike those it knows.

    python -m physics_hybrid calibrate [FOLDER] [--limbs 300] [--grids 48x24x24,96x48x48]

FOLDER is what `ship` wrote; without it, the model in the package. Limbs of its recipe that it has
not seen are drawn, solved and predicted, and their errors written into its limb.json, with what
bodies of its training look like. `ph.solve(..., engine="network")` then says what 9 of 10 such
bodies have at most, and warns of bodies of another kind. Statistics: no bound.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from physics_hybrid.checks import at_least
from physics_hybrid.command_line import readable_errors
from physics_hybrid.evidence.grids import grids_of

#: Of fewer none lies farther out than 99 of 100, and no body is ever warned of.
FEWEST = 99


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="default: the package's")
    parser.add_argument("--limbs", type=int, default=300)
    parser.add_argument("--grids", type=grids_of, help="taken in turn; default: those of its tests")
    given = parser.parse_args(arguments)
    from physics_hybrid.problems.potential.evidence.calibration import calibrate
    from physics_hybrid.problems.potential.predictor import FOLDER

    with readable_errors():
        at_least(FEWEST, "--limbs", given.limbs)
        found = calibrate(given.folder or FOLDER, given.grids, given.limbs)
        for share in (0.5, 0.9, 0.95):
            print(f"{share:.0%} of such bodies: relative L2 at most {found.likely(share):.3g}")
