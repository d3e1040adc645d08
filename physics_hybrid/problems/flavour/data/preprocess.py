"""The consolidated file: what was measured, and all that is computed from it.

python -m physics_hybrid.flavour.preprocess IN.h5 OUT.h5 [--axes samples,species,components] ...

F_init F_true F_box     (N, 6, 4) in the unit of the input, in our order
invariants              (N, 27), of F / N_tot
residual                (N, 24), (F_true - F_box) / N_tot
u dirname sim_id
attributes              target_scale (99th percentile of |F_true| / N_tot), source
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from physics_hybrid.problems.flavour.data.files import Layout, read, write
from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.physics.box3d import box3d
from physics_hybrid.problems.flavour.physics.fluxes import (
    COMPONENTS,
    SPECIES,
    boost,
    invariants,
    reversed_velocity,
)
from physics_hybrid.problems.flavour.physics.sphere import product

PERCENTILE = 0.99


def consolidate(states: States, source: str, path: Path) -> None:
    """Write the consolidated file of checked states."""
    before, u = states.before.double(), states.u.double()
    rest = before @ boost(u).transpose(1, 2)
    box = before + (box3d(rest, product(24, 16)) - rest) @ boost(reversed_velocity(u)).transpose(
        1, 2
    )
    residual = (states.after.double() - box).flatten(1)
    density = states.density[:, None, None]
    scale = states.after.double().abs().flatten().quantile(PERCENTILE)
    write(
        path,
        {
            "F_init": (before * density).numpy(),
            "F_true": (states.after.double() * density).numpy(),
            "F_box": (box * density).numpy(),
            "invariants": invariants(before, u).numpy(),
            "residual": residual.numpy(),
            "u": u.numpy(),
            "dirname": list(states.families),
            "sim_id": list(states.names),
        },
        {"target_scale": f"{float(scale):.9g}", "source": source},
    )


def main(arguments: list[str]) -> None:
    from physics_hybrid.command_line import readable_errors

    parser = argparse.ArgumentParser(
        prog="python -m physics_hybrid.flavour.preprocess",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="IN.h5")
    parser.add_argument("output", type=Path, metavar="OUT.h5")
    parser.add_argument("--axes", help="names of the axes, comma between; none: sizes tell")
    parser.add_argument("--species", default=",".join(SPECIES), help="order in the file")
    parser.add_argument("--components", default=",".join(COMPONENTS), help="order in the file")
    parser.add_argument("--families", help="the key that names families, such as dirname")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of the sum, over N_tot")
    asked = parser.parse_args(arguments)
    with readable_errors():
        layout = Layout(
            axes=tuple(asked.axes.split(",")) if asked.axes else None,
            species=tuple(asked.species.split(",")),
            components=tuple(asked.components.split(",")),
            families=asked.families,
            tolerance=asked.tolerance,
        )
        torch.set_num_threads(1)
        states = read(asked.source, layout)
        consolidate(states, asked.source.name, asked.output)
        counts = ", ".join(
            f"{name} {count}"
            for name, count in zip(*np.unique(states.families, return_counts=True), strict=True)
        )
        print(f"{asked.output}: {len(states)} samples ({counts})", file=sys.stderr)
        print(asked.output)
