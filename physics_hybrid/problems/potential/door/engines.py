"""Who answers: the solver, a network, or a network that the solver takes farther.

What a network is known to reach is what its evaluation on unseen limbs says (`Predictor.about`): a
relative L2 error of phi. A solver's tolerance is a relative residual. The two are not the same:
they are compared as numbers, and `Engine.why` names both. A solver reaches any tolerance, so that
it answers where nothing is known to be sooner.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physics_hybrid.checks import one_of
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.problems.potential.predictor import FOLDER, NAME, Predictor

ENGINES = ("auto", "solver", "network", "hybrid")


@dataclass(frozen=True)
class Engine:
    """name : solver, network or hybrid. why : a line. model : for the latter two."""

    name: str
    why: str
    model: Predictor | None = None


def chosen(
    engine: str, model: Predictor | str | Path | None, body: Body, ends: Ends, tolerance: float
) -> Engine:
    """The engine that answers.

    model : what `load_pretrained` gives, or its folder; None: the shipped one.

    Raises
    ------
    ValueError
        Another engine; a model that was trained with other ends, or without the components that
        oblique fibres need.
    FileNotFoundError
        A network is asked for, and no model is there.
    """
    one_of(ENGINES, "engine", engine, quoted=True)
    if engine == "solver":
        return Engine("solver", "asked for")
    if engine == "auto" and model is None:  # the shipped one, on a CPU: need not be loaded
        path = FOLDER / f"{NAME}.json"
        if not path.exists():
            return Engine("solver", "no model is shipped in this version")
        return Engine("solver", _sooner(json.loads(path.read_text("utf-8")), "cpu", tolerance))
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    if predictor.ends != ends:
        said = f"the model was trained with ends={predictor.ends.kind}, not {ends.kind}"
        if engine == "auto":
            return Engine("solver", said)
        raise ValueError(f"{said}: engine='solver', or ends={predictor.ends.kind!r}")
    components = predictor.network.sigma_components
    if body.plain.oblique and components < 6:
        said = f"the model knows {components} component{'s' * (components > 1)} of sigma, and"
        said += " fibres of this body are oblique (6 components), which it would not see"
        if engine == "auto":
            return Engine("solver", said)
        raise ValueError(f"{said}: engine='solver'")
    if engine != "auto":
        return Engine(engine, "asked for", predictor)
    said = _sooner(predictor.about, predictor.device.type, tolerance)
    if said:
        return Engine("solver", said)
    error = known_error(predictor.about)
    said = f"right to {error:.2g} in relative L2 on limbs it was not trained on"
    return Engine("network", said, predictor)


def _sooner(about: Mapping[str, Any], device: str, tolerance: float) -> str:
    """Why the solver is sooner than a model that is shipped with `about`; empty where it is not."""
    error = known_error(about)
    if error == math.inf:
        return "no error of the model on limbs it was not trained on is known"
    if error > tolerance:
        return (
            f"the model is known to be right to {error:.2g} in relative L2 on limbs it was not"
            f" trained on, and a residual of {tolerance:g} is asked for"
        )
    return "on a CPU it is sooner than a network of the same accuracy" if device == "cpu" else ""


def known_error(about: Mapping[str, Any]) -> float:
    """The largest mean relative L2 of a shipped model over seeds and grids; infinite where nothing
    is known.
    """
    errors = []
    for seed in about.get("metrics", {}).values():
        for rows in seed.values():
            found = rows.get("relative_l2")
            if isinstance(found, Mapping):
                found = found.get("mean")
            if found is not None:
                errors.append(float(found))
    return max(errors, default=math.inf)
