"""The tissues of a body, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from physics_hybrid.checks import is_number
from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.uncertain.conductivities import PARTS
from physics_hybrid.problems.potential.uncertain.distributions import (
    Distribution,
    LogNormal,
    Normal,
    Triangular,
    Uniform,
)

#: Relative difference of conductivities of one tissue that is rounding.
ALIKE = 1e-9


def tissues_of(body: Body) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which tissue every voxel is of, -1 in air (D, H, W), and what each conducts, (3,) S/m.

    Raises
    ------
    ValueError
        A body without labels, or with labels of another shape; a tissue that does not conduct alike
        everywhere; oblique tensors.
    """
    if body.labels is None:
        raise ValueError(
            "the body has no tissues: ph.read_labels and ph.Limb have them, and"
            " ph.Body(sigma, spacing, labels=(D, H, W), names={1: 'skin', ...}) is told them"
        )
    labels = np.asarray(body.labels)
    if labels.shape != body.shape:
        raise ValueError(f"labels must have the shape {body.shape}; got {labels.shape}")
    sigma = body.sigma.detach()[0].cpu().numpy()
    if len(sigma) == 6 and sigma[3:].any():
        raise ValueError(
            "sigma has off-diagonal components (oblique fibres), which uncertain conductivities do"
            " not take yet: scalar and diagonal tensors only"
        )
    diagonal = np.moveaxis(np.broadcast_to(sigma[:3], (3, *body.shape)), 0, -1)
    index = np.full(body.shape, -1)
    found: dict[str, np.ndarray] = {}
    for label in np.unique(labels[body.tissue]):
        name = body.names.get(int(label), str(int(label)))
        own = (labels == label) & body.tissue
        values = diagonal[own]
        mean = values.mean(axis=0)
        if np.abs(values - mean).max() > ALIKE * mean.max():
            raise ValueError(
                f"tissue {name!r} conducts {values.min():.4g} to {values.max():.4g} S/m: one"
                " conductivity (or tensor) a tissue is expected; give its parts labels of their own"
            )
        if name in found:
            raise ValueError(f"two labels are called {name!r}: give them names of their own")
        index[own] = len(found)
        found[name] = mean
    return index, found


def distributions_of(given: Any, tissues: Mapping[str, np.ndarray]) -> dict[str, Distribution]:
    """A distribution for each name, about what the tissue conducts where it has no mean.

    given : {name: distribution}, or a number: the cv of a LogNormal of every tissue.

    Raises
    ------
    ValueError
        What is neither; no such tissue; a value that is no distribution.
    """
    if is_number(given):
        given = {name: LogNormal(cv=float(given)) for name in tissues}
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            "distribution must be {tissue: ph.LogNormal(mean, cv=..), ...}, or one number, the cv"
            f" of all tissues; got {given!r}"
        )
    found: dict[str, Distribution] = {}
    for key, value in given.items():
        name = str(key)
        tissue, _, part = name.rpartition(".")
        if name not in tissues and not (tissue in tissues and part in PARTS):
            near = difflib.get_close_matches(name, tissues, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(
                f"distribution: there is no tissue {name!r}{hint} The body has"
                f" {', '.join(tissues)}; a tensor has parts, such as 'muscle.along' and"
                " 'muscle.across'"
            )
        if not isinstance(value, (LogNormal, Normal, Uniform, Triangular)):
            raise ValueError(
                f"distribution[{name!r}] must be a ph.LogNormal, ph.Normal, ph.Uniform or"
                f" ph.Triangular; got {value!r}"
            )
        sigma = tissues.get(name, tissues.get(tissue))
        assert sigma is not None
        found[name] = value.around(float(sigma[PARTS.get(part, 0) if name not in tissues else 0]))
    return found
