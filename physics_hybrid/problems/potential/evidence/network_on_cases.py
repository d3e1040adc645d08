"""A trained network on the exact cases: what it gives where the potential is known.

Only cases with the ends that it was trained for, the source in the centre of its voxel, which is
all that a network knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.data.sigma import components
from physics_hybrid.problems.potential.exact.cases import Case, Posed
from physics_hybrid.problems.potential.physics.electrodes import nodal_source
from physics_hybrid.problems.potential.problem import build_ends
from physics_hybrid.problems.potential.scene import Scene
from physics_hybrid.problems.potential.surrogate import Surrogate
from physics_hybrid.run.load import load

#: What a network without a configuration is taken to be trained for.
UNSAID = {"ends": "grounded", "coordinates": "cell"}

#: The coarsest spacings of a case: a network's grids are no finer.
SPACINGS = 2


def network(checkpoint: Path, chosen: Sequence[Case], quick: bool) -> list[dict[str, Any]]:
    """Error of a trained network, and of its baseline, on each case that a network may be asked, at
    each spacing; or why it cannot be asked.

    Raises
    ------
    CheckpointError
        Nothing there that can be read.
    """
    model, config, _ = load(checkpoint)
    settings = (config or {}).get("problem", UNSAID)
    ends = build_ends({"problem": settings})
    surrogate = Surrogate(model.eval(), ends, settings["coordinates"])
    rows = []
    for case in chosen:
        if not case.network:
            continue
        for h in case.quick if quick else case.spacings[:SPACINGS]:
            posed = case.pose(h, centred=True)
            if posed.conductor.ends != ends:
                break
            found = errors_of(surrogate, model, posed, case.name)
            rows.append({"case": case.name, "spacing_mm": h * 1e3, **found})
    return rows


def errors_of(surrogate: Surrogate, model: Any, posed: Posed, name: str) -> dict[str, Any]:
    """Relative L2 over all voxels whose potential is known; or `skipped`, why not.

    model : the `HybridWrapper` of the surrogate.
    """
    body = posed.conductor
    try:
        sigma = components(body.sigma[0].numpy(), model.sigma_components, name)
        model.check_grid(body.shape)
    except ValueError as error:
        return {"skipped": str(error)}
    scene, whole = scene_of(posed, sigma, name), everywhere(posed)
    with torch.no_grad():
        predictions = {
            "relative_l2": surrogate(scene),
            "baseline_relative_l2": surrogate.baseline(scene),
        }
    return {key: whole.errors(phi.double().numpy())["all"][0] for key, phi in predictions.items()}


def scene_of(posed: Posed, sigma: np.ndarray, name: str) -> Scene:
    """The problem as a network is given it; sigma (C, D, H, W) with the components that it
    takes.
    """
    body, source = posed.conductor, posed.source
    return Scene(
        sigma=_single(torch.from_numpy(sigma)[None]),
        source=_single(nodal_source(body, source)),
        spacing=_single(body.spacing),
        source_point=_single(source.point),
        current=_single(source.current),
        names=(name,),
    )


def _single(values: Tensor) -> Tensor:
    return values.float().contiguous()


def everywhere(posed: Posed) -> Posed:
    """The same problem, all of its regions taken as one, `all`."""
    shape = posed.exact.shape
    marked = [np.broadcast_to(region, shape) for region in posed.regions.values()]
    return replace(posed, regions={"all": np.any(marked, axis=0)})
