"""Bodies, as a user gives them: conductivity on voxels, and where these lie in the world.

    body = Body(sigma, spacing)            S/m (D, H, W[, 3 or 6]), 0 is air; m (3,)
    body = read_labels("thigh.nii.gz")     a segmentation and a table of tissues
    body = Limb.random(0)                  a limb of those that networks are trained on

Positions are metres from the outer corner of voxel (0, 0, 0), in the order (D, H, W), or
millimetres in the world of a file (right, anterior, superior).
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from physics_hybrid.command_line import CONF
from physics_hybrid.grid import Grid, is_grid
from physics_hybrid.problems.potential.bodies import body as bodies
from physics_hybrid.problems.potential.bodies import label_files
from physics_hybrid.problems.potential.bodies.anisotropy import (
    REPLACED,
    Fibres,
    Segment,
    Tensors,
    with_fibres,
    with_tensors,
)
from physics_hybrid.problems.potential.bodies.limb import LimbDistribution
from physics_hybrid.problems.potential.bodies.tissue_table import (
    Tissue,
    components,
    conductivities,
    read_table,
    with_air_below,
)
from physics_hybrid.problems.potential.bodies.tissues import TISSUES
from physics_hybrid.problems.potential.data.plausible import wrong_box
from physics_hybrid.problems.potential.data.sample import SampleError
from physics_hybrid.problems.potential.door.arrays import Array, is_tensor, numbers
from physics_hybrid.problems.potential.physics.conductor import Conductor, matrix
from physics_hybrid.problems.potential.physics.ends import Ends

#: How far an affine may be from its spacing, and its axes from right angles: headers are float32.
ROUNDED = 1e-3
#: Conductivities that a body may have, S/m, and how far they may lie apart: double precision has 16
#: digits, and what conducts less than the rest is off by has no potential that is known.
LEAST, MOST, APART = 1e-30, 1e30, 1e14
#: m, beyond which a place is as far as that: squares of more overflow.
FAR = 1e9


class Body:
    """A voxelised conductor in air: no current passes its skin.

    Parameters
    ----------
    sigma : array or tensor (D, H, W), (D, H, W, 3) or (D, H, W, 6)
        Conductivity in S/m; 0 is air. Three values are (DD, HH, WW), six add (DH, DW, HW). D is the
        axis that is cut at both ends, where it is; of a limb its long one.
    spacing : (3,)
        Edges of a voxel in m, (D, H, W).
    affine : array (4, 4) or None
        From the index of a voxel to its centre in the world, mm, as NIfTI has it.
    air_below : float or None
        What conducts less along D is air, S/m.
    keep_largest : bool
        Of tissue in several pieces keep the largest; else such tissue is refused where it matters.
    labels : array (D, H, W) or None
        Tissues, for figures and files, and for what is asked of one tissue.
    names : {label: name} or None
        What tissues are called; None: by their labels.
    order : which axes of a file became D, H, W: exports turn back.
    notes : what was understood of files, a line each.

    Raises
    ------
    ValueError
        Another shape; whole numbers (labels); values that are negative or not finite; tensors that
        are not positive; no tissue; a
        box, or the tissue in it, of a size that no body has; an affine that shears, or contradicts
        the spacing.

    Source
    ------
    Conductivities of tissues: Gabriel, Gabriel and Corthout, Phys. Med. Biol. 41 (1996) 2231.

    Examples
    --------
    A cylinder of muscle, 5 times better along its fibres.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> h, w = np.meshgrid(np.arange(16) - 7.5, np.arange(16) - 7.5, indexing="ij")
    >>> sigma = np.zeros((24, 16, 16, 3))
    >>> sigma[:, h**2 + w**2 < 49] = 1.2, 0.24, 0.24                                       # S/m
    >>> body = ph.Body(sigma, spacing=(0.004, 0.004, 0.004))                              # m
    >>> body.shape, int(body.tissue.sum())
    ((24, 16, 16), 3744)
    """

    def __init__(
        self,
        sigma: Array,
        spacing: Array | Sequence[float],
        affine: Array | None = None,
        *,
        air_below: float | None = None,
        keep_largest: bool = False,
        labels: np.ndarray | None = None,
        names: Mapping[int, str] | None = None,
        order: Sequence[int] = (0, 1, 2),
        notes: Sequence[str] = (),
    ) -> None:
        values = _conductivity(sigma)
        self.spacing: np.ndarray = _edges(spacing, values.shape[:3])
        if air_below is not None:
            if not air_below > 0:
                raise ValueError(f"air_below must be > 0 S/m; got {air_below}")
            low = values.detach()[..., :1] < air_below
            values = torch.where(low, 0.0, values)
        if keep_largest:
            values = torch.where(_largest(values.detach())[..., None], values, 0.0)
        if values.requires_grad:  # air stays air
            values = torch.where(values.detach()[..., :1] > 0, values, 0.0)
        #: Whether sigma was a tensor, so that answers are.
        self.of_tensor = is_tensor(sigma)
        #: (1, C, D, H, W), S/m.
        self.sigma: Tensor = values.movedim(-1, 0)[None].contiguous()
        self.labels = labels
        self.notes = tuple(notes)
        self.names: dict[int, str] = {int(n): str(name) for n, name in (names or {}).items()}
        self.order = tuple(int(a) for a in order)
        count = int((self.sigma.detach()[0, 0] > 0).sum())
        if count < 2:
            where = "everywhere" if count == 0 else "but in one voxel"
            raise ValueError(
                f"sigma is 0 {where}: a body needs tissue (S/m > 0) that a current can cross"
            )
        _check_range(self.sigma.detach())
        self.affine = None if affine is None else _affine(affine, self.spacing)
        self._check_size()
        # its own checks: signs, tensors that conduct across D only
        self.conductor("sink")

    @property
    def shape(self) -> Grid:
        """Grid (D, H, W)."""
        d, h, w = self.sigma.shape[2:]
        return d, h, w

    @property
    def extent(self) -> np.ndarray:
        """Edges of the box, (3,) m."""
        return self.spacing * self.shape

    @cached_property
    def tissue(self) -> np.ndarray:
        """True where current can flow. (D, H, W)"""
        tissue: np.ndarray = (self.sigma.detach()[0, 0] > 0).cpu().numpy()
        return tissue

    def __repr__(self) -> str:
        edges = " x ".join(f"{1e3 * h:.3g}" for h in self.spacing)
        grid = " x ".join(map(str, self.shape))
        kind = {1: "scalar", 3: "diagonal", 6: "symmetric"}[self.sigma.shape[1]]
        return f"Body({grid} voxels of {edges} mm, {self.tissue.mean():.0%} tissue, {kind} sigma)"

    def conductor(self, ends: Ends | str) -> Conductor:
        """The body with a way out for the current, as the physics takes it; without derivatives
        kept, since each is checked anew.
        """
        if self.sigma.requires_grad:
            return self._conductor(ends)
        if ends not in self._conductors:
            self._conductors[ends] = self._conductor(ends)
        return self._conductors[ends]

    def _conductor(self, ends: Ends | str) -> Conductor:
        return Conductor(self.sigma, torch.from_numpy(self.spacing)[None].to(self.sigma), ends)

    @cached_property
    def _conductors(self) -> dict[Ends | str, Conductor]:
        return {}

    def conducting(self, sigma: Array) -> Body:
        """The same body with another conductivity, (D, H, W) or (D, H, W, C) S/m."""
        return Body(
            sigma,
            self.spacing,
            self.affine,
            labels=self.labels,
            names=self.names,
            order=self.order,
            notes=self.notes,
        )

    def nearest(self, points: Array | Sequence[Any], frame: str = "grid") -> np.ndarray:
        """Where current can enter that is nearest to points: those in tissue as they are, for
        others the centre of the nearest voxel of tissue. (..., 3) -> (..., 3), in the same frame.

        Raises
        ------
        ValueError
            Points that are not finite; a frame that the body does not have.
        """
        from physics_hybrid.problems.potential.door.places import in_frame, in_metres

        given = numbers(points, "points").detach().cpu()
        metres = in_metres(self, given.reshape(-1, 3), frame, "points").numpy().copy()
        for k, point in enumerate(metres):
            if not self.in_tissue(point):
                metres[k] = self.nearest_voxel(point)
        return in_frame(self, metres, frame).reshape(given.shape)

    def nearest_skin(self, point: Array | Sequence[Any], frame: str = "grid") -> np.ndarray:
        """The middle of the face of skin nearest to a point: where an electrode lies. (3,) -> (3,)

        Raises
        ------
        ValueError
            A point that is none; a frame that the body does not have.
        """
        from physics_hybrid.problems.potential.door.places import in_frame, in_metres

        given = numbers(point, "point").detach().cpu()
        if tuple(given.shape) != (3,):
            raise ValueError(f"point must be (3,); got {tuple(given.shape)}")
        metres = in_metres(self, given[None], frame, "point").numpy()[0]
        _, place = self._surface_tree.query(metres, k=min(8, len(self.surface)))
        best, least = metres, np.inf
        for voxel in self.surface[np.atleast_1d(place)]:
            for axis, side in itertools.product(range(3), (0, 1)):
                beside = voxel.copy()
                beside[axis] += 2 * side - 1
                inside = 0 <= beside[axis] < self.shape[axis]
                if inside and self.tissue[tuple(beside)]:
                    continue
                centre = (voxel + 0.5) * self.spacing
                centre[axis] += (side - 0.5) * self.spacing[axis]
                far = float(np.linalg.norm(centre - metres))
                if far < least:
                    best, least = centre, far
        return np.asarray(in_frame(self, best[None], frame)[0])

    def in_tissue(self, point: np.ndarray) -> bool:
        """Whether a point (3,) m lies in tissue, or on its surface."""
        return bool(self.hold(np.asarray(point, dtype=float)[None])[0])

    def hold(self, points: np.ndarray) -> np.ndarray:
        """Which of points (P, 3) m lie in tissue, or on its surface. (P,)"""
        inside = ((points >= 0) & (points <= self.extent)).all(axis=1)
        conductor = self.plain
        held = conductor.in_tissue(torch.from_numpy(points).to(conductor.sigma))
        voxels, within = conductor.index_of(held)
        d, h, w = voxels.cpu().numpy().T
        found: np.ndarray = inside & within.cpu().numpy() & self.tissue[d, h, w]
        return found

    @cached_property
    def plain(self) -> Conductor:
        """The body without derivatives."""
        plain = self.sigma.detach()
        return Conductor(plain, torch.from_numpy(self.spacing)[None].to(plain), "sink")

    def nearest_voxel(self, point: np.ndarray) -> np.ndarray:
        """The centre of the voxel of tissue nearest to a point in air, (3,) m."""
        distance, place = self._surface_tree.query(np.clip(point, -FAR, FAR))
        centre: np.ndarray = (self.surface[place] + 0.5) * self.spacing
        return centre

    @cached_property
    def surface(self) -> np.ndarray:
        """Voxels of tissue with a face to air, or to the outside of the grid. (n, 3)"""
        padded = np.pad(self.tissue, 1)
        inner = slice(1, -1)
        inside = self.tissue.copy()
        for axis in range(3):
            for step in (slice(0, -2), slice(2, None)):
                window = [inner, inner, inner]
                window[axis] = step
                inside &= padded[tuple(window)]
        return np.argwhere(self.tissue & ~inside)

    @cached_property
    def _surface_tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree((self.surface + 0.5) * self.spacing)

    @cached_property
    def pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Pieces of tissue that share faces, numbered from 1 (D, H, W), and their sizes."""
        return bodies.numbered_pieces(self.tissue)

    def _check_size(self) -> None:
        """Raises ValueError for a box, or tissue in it, of a size that no body has."""
        wrong = wrong_box(self.spacing, self.shape)
        if wrong:
            raise ValueError(f"spacing {wrong} Metres are expected")
        used = [np.flatnonzero(self.tissue.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        long = max((u[-1] + 1 - u[0]) * h for u, h in zip(used, self.spacing, strict=True))
        if long < 1e-3:
            raise ValueError(
                f"the tissue is {1e3 * long:.3g} mm long, and a body of 1 mm or more is expected:"
                " is the spacing in metres, and sigma > 0 where tissue is?"
            )


def _conductivity(sigma: Array) -> Tensor:
    """sigma as (D, H, W, C) float64. Raises ValueError for what is none."""
    _refuse_labels(sigma)
    values = numbers(sigma, "sigma")
    if not (values.ndim == 3 or (values.ndim == 4 and values.shape[3] in (1, 3, 6))):
        first = values.ndim == 4 and values.shape[0] in (1, 3, 6)
        hint = "; components come last: np.moveaxis(sigma, 0, -1)" if first else ""
        raise ValueError(
            "sigma must have shape (D, H, W), (D, H, W, 3) or (D, H, W, 6); got"
            f" {tuple(values.shape)}{hint}"
        )
    if min(values.shape[:3]) < 2:
        raise ValueError(
            f"sigma must have at least 2 voxels along every axis; got {tuple(values.shape[:3])}"
        )
    plain = values.detach()
    wrong = ~torch.isfinite(plain)
    diagonal = plain if plain.ndim == 3 else plain[..., :3]
    if bool(wrong.any()):
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"sigma must be finite; {int(wrong.sum())} values are not, the first at {where}"
            " (air is 0: np.nan_to_num(sigma) if NaN stands for it)"
        )
    if bool((diagonal < 0).any()):
        where = tuple((diagonal < 0).nonzero()[0].tolist())
        raise ValueError(
            f"sigma must be >= 0 S/m; it is {float(diagonal.min()):g} at its lowest, and negative"
            f" first at {where}"
        )
    if plain.ndim == 4 and plain.shape[3] == 6:
        _check_positive(plain)
    return values if values.ndim == 4 else values[..., None]


def _check_positive(sigma: Tensor) -> None:
    """Raises ValueError where a tensor (D, H, W, 6) in tissue is not positive definite: by its
    leading minors (Sylvester).
    """
    DD, HH, WW, DH, DW, HW = sigma.unbind(dim=-1)
    second = DD * HH - DH**2
    third = WW * second - DD * HW**2 - HH * DW**2 + 2 * DH * DW * HW
    wrong = sigma.any(dim=-1) & ~((DD > 0) & (second > 0) & (third > 0))
    if not bool(wrong.any()):
        return
    where = tuple(wrong.nonzero()[0].tolist())
    values = torch.linalg.eigvalsh(matrix(sigma[where])).tolist()
    shown = ", ".join(f"{v:.3g}" for v in values)
    raise ValueError(
        f"tensors (DD, HH, WW, DH, DW, HW) must be positive definite in tissue; {int(wrong.sum())}"
        f" voxels of sigma are not, the first at {where}, with eigenvalues {shown} S/m: are the"
        " components in another order?"
    )


def _check_range(sigma: Tensor) -> None:
    """Raises ValueError for conductivities (1, C, D, H, W) that double precision cannot tell."""
    along = sigma[0, :3]
    conducting = along[along > 0]
    low, high = float(conducting.min()), float(conducting.max())
    if low < LEAST or high > MOST or high > APART * low:
        raise ValueError(
            f"sigma of tissue goes from {low:.3g} to {high:.3g} S/m, and what is more than"
            f" {APART:g} times apart, or beyond {LEAST:g} to {MOST:g}, cannot be solved in double"
            " precision: what hardly conducts is air (0, or air_below)"
        )


def _refuse_labels(sigma: Array) -> None:
    """Raises ValueError for whole numbers."""
    if is_tensor(sigma):
        whole = not (sigma.is_floating_point() or sigma.is_complex())
        kind = str(sigma.dtype)
    else:
        given = np.asarray(sigma)
        whole, kind = given.dtype.kind in "iub", str(given.dtype)
    if whole:
        raise ValueError(
            f"sigma holds {kind}, and conductivities in S/m are floats: are these labels? Then"
            " ph.read_labels reads their file, or table[labels] makes sigma of them"
            " (sigma.astype(float) if it is meant so)"
        )


def _edges(spacing: Any, shape: Sequence[int]) -> np.ndarray:
    """Edges of a voxel, (3,) m. Raises ValueError."""
    edges = numbers(spacing, "spacing").detach().cpu().numpy()
    if edges.shape == ():
        raise ValueError(
            f"spacing must be three edges of a voxel, (D, H, W) in m; got one number: ({edges:g},"
            f" {edges:g}, {edges:g}) for cubes"
        )
    if edges.shape != (3,) or not (np.isfinite(edges) & (edges > 0)).all():
        raise ValueError(
            f"spacing must be three positive edges of a voxel, (D, H, W) in m; got {edges.tolist()}"
        )
    wrong = wrong_box(edges, shape)
    if wrong:
        raise ValueError(f"spacing {wrong} Metres are expected")
    return edges


def _affine(affine: Any, spacing: np.ndarray) -> np.ndarray:
    """An affine (4, 4), mm. Raises ValueError where it is none of this grid."""
    values = numbers(affine, "affine").detach().cpu().numpy()
    plain = values.shape == (4, 4) and np.isfinite(values).all()
    if not plain or not np.allclose(values[3], [0, 0, 0, 1]):
        raise ValueError(
            "affine must be (4, 4) with the last row 0, 0, 0, 1, from the index of a voxel to mm;"
            f" got {values.tolist() if values.size <= 16 else values.shape}"
        )
    sizes = np.linalg.norm(values[:3, :3], axis=0)
    if not np.allclose(sizes, 1e3 * spacing, rtol=ROUNDED, atol=0):
        raise ValueError(
            f"affine has voxels of {sizes.round(4).tolist()} mm, spacing of"
            f" {(1e3 * spacing).round(4).tolist()} mm, (D, H, W): one of them is in another unit,"
            " or in another order"
        )
    units = values[:3, :3] / sizes
    if np.abs(units.T @ units - np.eye(3)).max() > ROUNDED:
        raise ValueError(
            "affine is sheared: its axes are not at right angles; resample to a rectangular grid"
        )
    return values


def _largest(values: Tensor) -> Tensor:
    """Where the largest piece of tissue is. (D, H, W)"""
    pieces, sizes = bodies.numbered_pieces((values[..., 0] > 0).cpu().numpy())
    return torch.from_numpy(pieces == sizes.argmax() + 1 if sizes.size else pieces > 0).to(
        values.device
    )


def read_labels(
    path: str | Path,
    tissues: Mapping[str, Any] | str | Path | None = None,
    *,
    spacing: Sequence[float] | None = None,
    long_axis: int | None = None,
    slices: Sequence[int] | None = None,
    nan_is_air: bool = False,
    air_below: float | None = None,
    keep_largest: bool = False,
    tensors: Tensors | str | Path | None = None,
    fibres: Fibres | str | None = None,
) -> Body:
    """A body of a segmentation: .nii.gz, .nrrd, .mgz, .img, .mat, .npz, .npy.

    Parameters
    ----------
    path : str or Path
        The file. Its axes become (D, H, W): the one within 30 degrees of inferior-superior is D,
        the other two keep their order, none is flipped.
    tissues : dict, path of a YAML file, or None
        {name: {label: 3 or [3, 4], sigma: 1, 3 or 6 values in S/m}}; None: 0 air, 1 skin, 2 fat,
        3 muscle (with fibres along D), 4 bone, as conf/data/labels.yaml has them.
    spacing : (3,) or None
        Edges of a voxel in m, in the order of the file's axes, where the file does not say, or says
        it wrong.
    long_axis : which axis of the file (0, 1, 2) is D.
    slices : [first, last) along D to keep.
    nan_is_air : voxels that hold NaN are air.
    air_below : tissues that conduct less than so many S/m are air.
    keep_largest : of tissue in several pieces keep the largest.
    tensors : Tensors, path, or None
        Conductivity tensors of tissues from a diffusion image; a path where the file says itself
        what it holds. What was done is in `Body.notes`.
    fibres : Fibres, "axis", or None
        "axis": what the table says along and across counts along the own axis of each muscle, piece
        by piece, and not along D. Both: fibres first, so that tensors count in their tissues.

    Raises
    ------
    SampleError (a ValueError)
        No such file, or not a segmentation; labels that the table does not name; tissue in several
        pieces; spacing that is missing or implausible; tensors that are not positive, or no file of
        tensors; a muscle without an axis.
    ValueError
        A table that is none.

    Source
    ------
    NIfTI-1 (Cox et al., 2004), sform and qform; conductivities as in conf/data/stream.yaml.

    Examples
    --------
    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> labels = np.zeros((24, 12, 12), dtype=np.uint8)
    >>> labels[:, 2:-2, 2:-2] = 3
    >>> np.save("muscle.npy", labels)
    >>> ph.read_labels("muscle.npy", spacing=(0.004, 0.004, 0.004))
    Body(24 x 12 x 12 voxels of 4 x 4 x 4 mm, 44% tissue, diagonal sigma)
    """
    try:
        table = with_air_below(read_table(tissues_of(tissues)), air_below)
        air = table[0].labels[0] if table[0].labels else 0
        volume = label_files.read_labels(path, spacing, long_axis, air if nan_is_air else None)
        cut = bodies.Cut(slices, None, keep_largest)
        body, _ = bodies.fit(volume, table, "sink", cut)
    except SampleError as error:
        where, key, rule = error.parts
        raise SampleError(where, key, _as_arguments(rule)) from error
    except ValueError as error:
        raise ValueError(_as_arguments(str(error))) from error
    affine = volume.affine
    if affine is not None:
        affine = _of_cut(affine, body.spacing, body.origin)
    sigma, notes = conductivities(table)[body.index], list(volume.notes)
    if tensors is not None or fibres is not None:
        segment = _segment(volume, body, table, affine)
        sigma, said = _oblique(segment, tensors, fibres)
        notes += said
    labels = _names(table)
    return Body(
        sigma,
        body.spacing,
        affine,
        labels=labels[body.index],
        names={int(n): t.name for n, t in zip(labels, table, strict=True) if t.name != "air"},
        order=volume.order,
        notes=notes,
    )


def _segment(
    volume: label_files.LabelVolume,
    body: bodies.Body,
    table: list[Tissue],
    affine: np.ndarray | None,
) -> Segment:
    """A segmentation as it became a body."""
    first = np.rint(body.origin / body.spacing).astype(int)
    held = tuple(slice(a, a + n) for a, n in zip(first, body.index.shape, strict=True))
    return Segment(
        index=body.index,
        labels=volume.labels[held],
        table=table,
        spacing=body.spacing,
        affine=affine,
        order=volume.order,
        first=first,
        whole=volume.labels.shape,
        name=volume.name,
    )


def _oblique(
    segment: Segment, tensors: Tensors | str | Path | None, fibres: Fibres | str | None
) -> tuple[np.ndarray, list[str]]:
    """sigma (D, H, W, 6), S/m, and what was understood; what was replaced is a warning, too."""
    rows = np.stack([components(tissue.sigma, 6) for tissue in segment.table])
    sigma, notes = rows[segment.index], list[str]()
    if fibres is not None:
        along = fibres if isinstance(fibres, Fibres) else Fibres(fibres)
        notes += with_fibres(segment, along, sigma)
    if tensors is not None:
        image = tensors if isinstance(tensors, Tensors) else Tensors(tensors)
        notes += with_tensors(segment, image, sigma)
    for note in notes:
        if note.endswith(REPLACED):
            warnings.warn(note, stacklevel=4)
    return sigma, notes


def tissues_of(given: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """A table of tissues as plain values. Raises ValueError where there is none."""
    if given is None:
        path: Path = CONF / "data" / "labels.yaml"
        table = yaml.safe_load(path.read_text())["tissues"]
    elif isinstance(given, Mapping):
        table = dict(given)
    else:
        try:
            table = yaml.safe_load(Path(given).expanduser().read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"tissues: {given} cannot be read as a table ({said})") from error
    if not isinstance(table, dict):
        raise ValueError(
            "tissues must be {name: {label: .., sigma: ..}}, or a YAML file that holds that;"
            f" got {table!r}"
        )
    return {str(name): entry for name, entry in table.items()}


def _as_arguments(text: str) -> str:
    """A message that names keys of the configuration, in the words of a function."""
    text = re.sub(
        r"'\+data\.tissues\.NAME=\{label: (\[.*?\]), sigma: (\[.*?\])\}'",
        r"tissues={..., 'NAME': {'label': \1, 'sigma': \2}}",
        text,
    )
    text = text.replace("=true", "=True")
    return re.sub(r"\b(data|problem)\.", "", text)


def _of_cut(affine: np.ndarray, spacing: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The affine of a volume with other edges of voxels, whose first voxel is at `origin` (m)."""
    own = affine.copy()
    own[:3, :3] *= 1e3 * spacing / np.linalg.norm(affine[:3, :3], axis=0)
    own[:3, 3] += own[:3, :3] @ np.round(origin / spacing)
    return own


def _names(table: list[Tissue]) -> np.ndarray:
    """The first label of the file for each row of a table; for air 0. (rows,)"""
    return np.array([t.labels[0] if t.labels else 0 for t in table], dtype=np.int32)


class Limb(Body):
    """A limb of those that networks are trained on: skin, fat, muscle, bones.

    electrode : (3,) m, where its current comes in: on the skin or in muscle.

    Raises
    ------
    ValueError
        From `random`: a grid that is none, or too coarse for a limb.

    Source
    ------
    conf/data/stream.yaml: what limbs are drawn from, and where its numbers come from.

    Examples
    --------
    >>> import physics_hybrid as ph
    >>> limb = ph.Limb.random(0, grid=(24, 12, 12))
    >>> limb.shape, limb.in_tissue(limb.electrode)
    ((24, 12, 12), True)
    """

    electrode: np.ndarray

    @classmethod
    def random(cls, seed: int = 0, grid: Sequence[int] = (96, 48, 48)) -> Limb:
        """The limb that belongs to a seed, on a grid (D, H, W).

        Raises
        ------
        ValueError
            A seed that is no whole number >= 0; a grid that is none, or too coarse.

        Source
        ------
        As `Limb`.

        Examples
        --------
        The same limb on a finer grid is the same limb.

        >>> import physics_hybrid as ph
        >>> coarse, fine = (ph.Limb.random(3, grid) for grid in ((24, 12, 12), (48, 24, 24)))
        >>> bool((coarse.extent.round(9) == fine.extent.round(9)).all())
        True
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed must be a whole number >= 0; got {seed!r}")
        sizes = [int(n) if isinstance(n, np.integer) else n for n in grid]
        if not is_grid(sizes):
            raise ValueError(f"grid must be three whole sizes >= 2, (D, H, W); got {grid}")
        settings = yaml.safe_load((CONF / "data" / "stream.yaml").read_text())["phantom"]
        limbs, size = LimbDistribution.of(settings), (sizes[0], sizes[1], sizes[2])
        drawn = limbs.draw(int(seed)).voxelise(size)
        limb = cls(
            np.moveaxis(drawn.sigma, 0, -1),
            drawn.spacing,
            labels=drawn.labels,
            names=dict(enumerate(TISSUES)),
        )
        limb.electrode = np.asarray(drawn.source_point, dtype=float)
        return limb
