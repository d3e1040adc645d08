"""States in HDF5: the generated set, a user's simulations, the consolidated file.

    F_init, F_true     (samples, species, components), axes in any order, in any unit
    F_box              the same, optional: another Box3D, shown beside ours
    u                  (samples, 4), optional: four-velocity of the fluid over c
    dirname, sim_id    (samples,), optional: names
    invariants (samples, 27), residual (samples, 24)   optional: computed here, and checked

A broken sample is a `StateError` with file, key, index and rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.physics.fluxes import COMPONENTS, SPECIES
from physics_hybrid.reading import FileError, Group, open_h5, text_of
from physics_hybrid.writing import STORED, create_h5

Array = NDArray[np.float64]
AXES = ("samples", "species", "components")
SIZES = {"species": len(SPECIES), "components": len(COMPONENTS)}
#: |F| may be above N, and N below 0, by this share of N_tot: rounding of float32.
ROUNDING = 1e-6
#: u . u = -1 within this.
UNIT = 1e-4


class StateError(FileError):
    """A file of states that breaks a rule."""


@dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    axes : names of the axes of F_init and F_true, or None where their sizes tell.
    species, components : their order.
    families : the key that tells families apart, or None: all are one.
    tolerance : of the sum over species, before and after, as a share of N_tot.
    """

    axes: tuple[str, ...] | None = None
    species: tuple[str, ...] = SPECIES
    components: tuple[str, ...] = COMPONENTS
    families: str | None = None
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        _permutation("data.species", self.species, SPECIES)
        _permutation("data.components", self.components, COMPONENTS)
        if self.axes is not None:
            _permutation("data.axes", self.axes, AXES)

    def places(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Which axis holds samples, species and components; None where sizes do not tell."""
        if self.axes is not None:
            return tuple(self.axes.index(name) for name in AXES)
        found = [[i for i, n in enumerate(shape) if n == size] for size in SIZES.values()]
        if any(len(places) != 1 for places in found):
            return None
        species, components = found[0][0], found[1][0]
        return 3 - species - components, species, components


def _permutation(name: str, value: Sequence[str], whole: Sequence[str]) -> None:
    if sorted(value) != sorted(whole):
        raise ValueError(
            f"{name} must name {', '.join(whole)}, each once, in the order of the file; "
            f"got {list(value)}"
        )


def read(path: Path, layout: Layout) -> States:
    """All states of a file.

    Raises
    ------
    StateError
        The first rule that is broken: file, key, index.
    """
    with open_h5(path, StateError) as file:
        before, after = (_fluxes(file, key, layout) for key in ("F_init", "F_true"))
        if len(before) != len(after):
            raise file.error(f"has {len(after)} samples, and F_init has {len(before)}", "F_true")
        box = _fluxes(file, "F_box", layout) if "F_box" in file else None
        u = _velocities(file, len(before), layout) if "u" in file else None
        names = _names(file, len(before))
        families = _families(file, len(before), layout)
    _check_physical(before, path, "F_init")
    _check_physical(after, path, "F_true")
    _check_sum(before, after, path, layout.tolerance)
    return States.of(
        before=torch.from_numpy(before),
        after=torch.from_numpy(after),
        names=names,
        families=families,
        u=None if u is None else torch.from_numpy(u),
        box=None if box is None else torch.from_numpy(box),
    )


def _numbers(file: Group, key: str) -> Array:
    values = file.dataset(key)[()]
    if not np.issubdtype(values.dtype, np.floating) and not np.issubdtype(values.dtype, np.integer):
        raise file.error(f"must hold numbers; it holds {values.dtype}", key)
    out: Array = np.asarray(values, dtype=np.float64)
    return out


def _fluxes(file: Group, key: str, layout: Layout) -> Array:
    """(samples, 6, 4), in our order of species and components."""
    values = _numbers(file, key)
    shape = values.shape
    if len(shape) != 3:
        raise file.error(f"must have 3 axes, {', '.join(AXES)}; its shape is {shape}", key)
    places = layout.places(shape)
    if places is None:
        raise file.error(
            f"has shape {shape}, of which the axes cannot be told apart (species: 6, components:"
            " 4): name them with data.axes, such as data.axes=[samples,species,components]",
            key,
        )
    if (shape[places[1]], shape[places[2]]) != (6, 4):
        raise file.error(
            f"must have 6 species and 4 components; its shape is {shape}, and data.axes says"
            f" {list(layout.axes or ())}",
            key,
        )
    values = values.transpose(places)
    if not len(values):
        raise file.error("holds no sample", key)
    values = values[:, [layout.species.index(name) for name in SPECIES]]
    values = values[:, :, [layout.components.index(name) for name in COMPONENTS]]
    _check_finite(values, file.where, key)
    return values


def _check_finite(values: Array, where: str, key: str) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        sample, *place = bad[0].tolist()
        value = values[tuple(bad[0])]
        raise StateError(f"{where}[{sample}]", key, f"must be finite; got {value}{_of(place)}")


def _of(place: Sequence[int]) -> str:
    """Where in a sample: species, and component."""
    if not place:
        return ""
    component = f", component {COMPONENTS[place[1]]}" if len(place) > 1 else ""
    return f" ({SPECIES[place[0]]}{component})"


def _check_physical(F: Array, path: Path, key: str) -> None:
    """N_tot > 0; N >= 0 and |F| <= N of every species."""
    number = F[..., 3].sum(axis=1)
    for sample in np.flatnonzero(~(number > 0))[:1].tolist():
        raise StateError(f"{path}[{sample}]", key, f"N_tot must be > 0; got {number[sample]:.6g}")
    slack = ROUNDING * number[:, None]
    with np.errstate(over="ignore"):  # then it is infinite, and above N
        size = np.linalg.norm(F[..., :3], axis=-1)
    for sample, species in np.argwhere(F[..., 3] < -slack)[:1].tolist():
        value = F[sample, species, 3]
        rule = f"N must be >= 0; got {value:.6g}{_of([species])}"
        raise StateError(f"{path}[{sample}]", key, rule)
    for sample, species in np.argwhere(size > F[..., 3] + slack)[:1].tolist():
        factor = size[sample, species] / max(F[sample, species, 3], 1e-300)
        rule = f"|F| must be <= N; got |F| / N = {factor:.6g}{_of([species])}"
        raise StateError(f"{path}[{sample}]", key, rule)


def _check_sum(before: Array, after: Array, path: Path, tolerance: float) -> None:
    """The sum over the flavours of neutrinos, and of antineutrinos, is kept."""
    number = before[..., 3].sum(axis=1)
    for name, kind in (("neutrinos", slice(0, 3)), ("antineutrinos", slice(3, 6))):
        change = (after[:, kind].sum(axis=1) - before[:, kind].sum(axis=1)) / number[:, None]
        for sample, component in np.argwhere(np.abs(change) > tolerance)[:1].tolist():
            rule = (
                f"the sum over {name}, component {COMPONENTS[component]}, differs from that of"
                f" F_init by {change[sample, component]:.3g} N_tot, and data.tolerance is"
                f" {tolerance:g}: conversion keeps it"
            )
            raise StateError(f"{path}[{sample}]", "F_true", rule)


def _velocities(file: Group, count: int, layout: Layout) -> Array:
    u = _numbers(file, "u")
    if u.shape != (count, 4):
        raise file.error(f"must have shape ({count}, 4); got {u.shape}", "u")
    u = u[:, [layout.components.index(name) for name in COMPONENTS]]
    _check_finite(u, file.where, "u")
    square = (u[:, :3] ** 2).sum(axis=1) - u[:, 3] ** 2
    for sample in np.flatnonzero(~((np.abs(square + 1) < UNIT * u[:, 3] ** 2) & (u[:, 3] > 0)))[:1]:
        raise StateError(
            f"{file.where}[{sample}]",
            "u",
            f"must be a four-velocity over c: u.u = -1, u_t >= 1; got u.u = {square[sample]:.6g}",
        )
    return u


def _texts(file: Group, key: str, count: int) -> list[str]:
    values = file.dataset(key)
    if values.shape != (count,):
        raise file.error(f"must have shape ({count},); got {values.shape}", key)
    return [text_of(value) for value in values[()]]


def _names(file: Group, count: int) -> list[str]:
    """dirname/sim_id, as far as the file has them."""
    parts = [_texts(file, key, count) for key in ("dirname", "sim_id") if key in file]
    if not parts:
        return [f"{Path(file.where).stem}-{i}" for i in range(count)]
    return ["-".join(words) for words in zip(*parts, strict=True)]


def _families(file: Group, count: int, layout: Layout) -> list[str]:
    if layout.families is None:
        return ["all"] * count
    return _texts(file, layout.families, count)


def write(path: Path, arrays: dict[str, Any], attributes: dict[str, str]) -> None:
    """An HDF5 file whose every part has a checksum; texts are of fixed length. Raises OSError as
    `writing.create_h5`.
    """
    with create_h5(path) as file:
        for key, values in arrays.items():
            data = values if isinstance(values, np.ndarray) else _fixed(values)
            file.create_dataset(key, data=data, **STORED)
        for key, text in attributes.items():
            file.attrs[key] = str(text)


def _fixed(texts: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts])
