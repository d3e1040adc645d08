"""Bodies with oblique conductivity: tensors of a diffusion image, fibres along a muscle's own axis.

    Segment (labels, table, where it lies)  +  Tensors | Fibres  ->  sigma (D, H, W, 6), notes

A tissue that no tensor reaches, a tensor that is none: nothing is passed over in silence. What
cannot be used is an error that counts and names it, or, with bad='isotropic', conducts alike in all
directions, and is counted in the notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physics_hybrid.checks import is_number, one_of
from physics_hybrid.problems.potential.bodies.fibre_axes import Piece, pieces_of
from physics_hybrid.problems.potential.bodies.fibres import along_fibres, matrices, six
from physics_hybrid.problems.potential.bodies.tensor_image import (
    ORDERS,
    TensorImage,
    read_tensors,
    rotation,
)
from physics_hybrid.problems.potential.bodies.tensors import (
    Fault,
    direct,
    eigenvalues,
    faults,
    fitted_scale,
    geometric_mean,
    main_direction,
    volume_normalised,
)
from physics_hybrid.problems.potential.bodies.tissue_table import Tissue, components
from physics_hybrid.problems.potential.data.sample import SampleError

MAPPINGS = ("volume", "direct", "direction")
BAD = ("error", "isotropic")

#: Tissues whose fibres diffusion shows, as tables name them.
FIBROUS = (
    "muscle",
    "white_matter",
    "whitematter",
    "white",
    "wm",
    "grey_matter",
    "gray_matter",
    "greymatter",
    "graymatter",
    "grey",
    "gray",
    "gm",
)

#: Share of tensors that are no conductor's from which the order is doubted.
DOUBTED = 0.05

#: How a note ends that says of voxels that they lost their directions.
REPLACED = "isotropic there"

#: How many pieces a note names.
NAMED = 6


@dataclass(frozen=True)
class Tensors:
    """Conductivity tensors from a diffusion image, for `ph.read_labels(..., tensors=...)`.

    volume     sigma = sigma_t D / (det D)^(1/3)                                          [S/m]
    direct     sigma = s D                                                                [S/m]
    direction  sigma = across 1 + (along - across) v v^T,  v the main eigenvector of D    [S/m]

    path : str or Path
        NIfTI, (X, Y, Z, 6) or (X, Y, Z, 1, 6). On another grid than the labels' its tensors are
        interpolated by their logarithms.
    order : "fsl", "mrtrix", "nifti" or None
        dtifit: xx, xy, xz, yy, yz, zz. dwi2tensor: xx, yy, zz, xy, xz, yz. Symmetric matrices of
        NIfTI: xx, yx, yy, zx, zy, zz. None: as the file says (intent 1005).
    axes : "fsl", "world", "voxel" or None
        What the components are along. None: FSL's for fsl, the world's for mrtrix.
    mapping : "volume", "direct" or "direction"
        sigma_t is (det sigma)^(1/3) of the tissue in the table; along and across are the table's.
    tissues : names of the table that get tensors; None: muscle, white and grey matter.
    scale : float or None
        s of direct, S s/mm^3 for tensors in mm^2/s; None: the one that fits the table best.
        Tuch et al. have 0.844 for brain.
    max_ratio : largest over smallest eigenvalue of a tensor that is believed.
    bad : "error" or "isotropic"
        Tensors that are not finite, zero, not positive, too anisotropic, or not there: an error
        that counts and names them, or sigma_t in every direction and a warning that counts them.

    Raises
    ------
    ValueError
        Another order, axes, mapping; a scale or ratio that is none.
    SampleError (a ValueError)
        Where it is used: a file that is missing, damaged, or holds no tensors; tissues that are not
        in the body; tensors that are bad.

    Source
    ------
    volume: Opitz et al., NeuroImage 58 (2011) 849. direct: Tuch et al., PNAS 98 (2001) 11697;
    the fitted scale: Rullmann et al., NeuroImage 44 (2009) 399. Interpolation: Arsigny et al.,
    Magn. Reson. Med. 56 (2006) 411.

    Examples
    --------
    Muscle whose fibres rise by 30 degrees, as dtifit would see them.

    >>> import nibabel, numpy as np
    >>> import physics_hybrid as ph
    >>> affine = np.diag([-4.0, 4.0, 4.0, 1.0])                                           # mm
    >>> labels = np.full((12, 12, 24), 3, dtype=np.uint8)
    >>> nibabel.save(nibabel.Nifti1Image(labels, affine), "leg.nii.gz")
    >>> v = np.array([0.0, np.sin(np.pi / 6), np.cos(np.pi / 6)])
    >>> D = 1.4e-3 * np.eye(3) + 0.7e-3 * np.outer(v, v)                                  # mm^2/s
    >>> six = D[[0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]] * np.ones((12, 12, 24, 1))
    >>> nibabel.save(nibabel.Nifti1Image(six, affine), "dti.nii.gz")
    >>> body = ph.read_labels("leg.nii.gz", tensors=ph.Tensors("dti.nii.gz", order="fsl"))
    >>> body
    Body(24 x 12 x 12 voxels of 4 x 4 x 4 mm, 100% tissue, symmetric sigma)
    >>> sigma = body.sigma[0, :, 5, 5, 5]                                     # DD HH WW DH DW HW
    >>> bool(sigma[0] > sigma[2] > sigma[1]), bool(sigma[4] > 0)
    (True, True)
    """

    path: str | Path
    order: str | None = None
    axes: str | None = None
    mapping: str = "volume"
    tissues: str | Sequence[str] | None = None
    scale: float | None = None
    max_ratio: float = 10.0
    bad: str = "error"

    def __post_init__(self) -> None:
        one_of(MAPPINGS, "mapping", self.mapping, quoted=True)
        one_of(BAD, "bad", self.bad, quoted=True)
        if not (is_number(self.max_ratio) and self.max_ratio >= 1):
            raise ValueError(f"max_ratio must be a number >= 1; got {self.max_ratio!r}")
        _check_tissues(self.tissues)
        if self.scale is not None and self.mapping != "direct":
            raise ValueError(f"scale belongs to mapping='direct', and mapping is {self.mapping!r}")
        if self.scale is not None and not (is_number(self.scale) and 0 < self.scale < np.inf):
            raise ValueError(f"scale must be a number > 0, S s/mm^3; got {self.scale!r}")


@dataclass(frozen=True)
class Fibres:
    """Fibres along the axis of each muscle, for `ph.read_labels(..., fibres=...)`.

    sigma = across 1 + (along - across) t t^T                                             [S/m]

    t is the tangent of the centre line of a piece of a label: centroids of its slices, smoothed.
    Muscles that touch and share a label are one piece: give each its own.

    by : "axis". tissues : names of the table; None: those whose three values are along and across.
    bad : "error" or "isotropic"
        Pieces without an axis (a few voxels, as thick as long): an error that counts and names
        them, or (det sigma)^(1/3) in every direction and a warning that counts them.

    Raises
    ------
    ValueError
        Another by, another bad.
    SampleError (a ValueError)
        Where it is used: tissues that are not in the body, or conduct alike in all directions; a
        piece without an axis.

    Source
    ------
    Local linear regression: Fan and Gijbels, Local Polynomial Modelling and Its Applications, 1996,
    eq. 3.6.

    Examples
    --------
    A muscle that leans by 20 degrees from D towards W.

    >>> import numpy as np
    >>> import physics_hybrid as ph
    >>> d, h, w = np.meshgrid(np.arange(32), np.arange(20), np.arange(28), indexing="ij")
    >>> lean = np.tan(np.radians(20))
    >>> round_it = (h - 9.5) ** 2 + (w - 8 - lean * d) ** 2 < 36
    >>> np.save("leaning.npy", np.where(round_it, 3, 2).astype(np.uint8))
    >>> body = ph.read_labels("leaning.npy", spacing=(0.004,) * 3, fibres="axis")
    >>> DD, HH, WW, DH, DW, HW = body.sigma[0, :, 16, 9, 14].tolist()
    >>> round(np.degrees(np.arctan2(2 * DW, DD - WW) / 2))
    20
    """

    by: str = "axis"
    tissues: str | Sequence[str] | None = None
    bad: str = "error"

    def __post_init__(self) -> None:
        if not (isinstance(self.by, str) and self.by == "axis"):
            raise ValueError(f"fibres must be 'axis'; got {self.by!r}")
        one_of(BAD, "bad", self.bad, quoted=True)
        _check_tissues(self.tissues)


def _check_tissues(given: object) -> None:
    """Raises ValueError for what is no name, no list of names, or a list of none."""
    listed = [given] if isinstance(given, str) else given
    if listed is None:
        return
    if isinstance(listed, Sequence) and listed and all(isinstance(n, str) for n in listed):
        return
    raise ValueError(f"tissues must be names of the table, or None; got {given!r}")


@dataclass(frozen=True, eq=False)
class Segment:
    """A segmentation as it became a body.

    index : (D, H, W) rows of the table. labels : (D, H, W) of the file. spacing : (3,) m.
    affine : (4, 4) from (D, H, W) to the world, mm, or None. order : axes of the file that became
    D, H, W. first : (3,) the first voxel, in a file of `whole` voxels, both (D, H, W). name : of
    the file.
    """

    index: np.ndarray
    labels: np.ndarray
    table: list[Tissue]
    spacing: np.ndarray
    affine: np.ndarray | None
    order: tuple[int, ...]
    first: np.ndarray
    whole: tuple[int, ...]
    name: str

    def rows(self, tissues: Sequence[str], key: str) -> list[int]:
        """Rows of the table. Raises SampleError for a tissue that the table or the body lacks."""
        names = [tissue.name for tissue in self.table]
        there = [n for row, n in enumerate(names) if row and (self.index == row).any()]
        for name in tissues:
            if name not in there:
                lacks = "body" if name in names[1:] else "table"
                rule = f"the {lacks} has no tissue {name!r}; the body has {', '.join(there)}"
                raise SampleError(self.name, key, rule)
        return [names.index(name) for name in tissues]

    def present(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows that occur."""
        return [row for row in rows if (self.index == row).any()]

    def isotropic(self) -> np.ndarray:
        """(det sigma)^(1/3) of each row, S/m; 0 for air. (rows,)"""
        means = [geometric_mean(matrices(components(t.sigma, 6))) for t in self.table]
        return np.array(means, dtype=float)


def with_tensors(segment: Segment, asked: Tensors, sigma: np.ndarray) -> list[str]:
    """Write the tensors of an image into sigma (D, H, W, 6), S/m; what was done, a line each.

    Raises SampleError, ValueError: see `Tensors`.
    """
    image = read_tensors(asked.path, asked.order, asked.axes)
    chosen = _tensor_rows(segment, asked)
    where = np.isin(segment.index, chosen)
    voxels = np.argwhere(where)
    positions, turn = _placed(segment, image, voxels)
    raw, outside = image.at(positions)
    wrong = faults(raw, outside, asked.max_ratio)
    tissue = segment.index[where]
    usual = segment.isotropic()[tissue]
    bad = np.zeros(len(voxels), dtype=bool)
    for fault in wrong:
        bad |= fault.where
    tensors = turn @ np.where(bad[:, None, None], np.eye(3), raw) @ turn.T
    if asked.mapping == "direction":
        _, plain = main_direction(tensors)
        if (~bad & ~plain).any():
            wrong.append(Fault("without a main direction", ~bad & ~plain))
            bad |= ~plain
    names = [segment.table[row].name for row in chosen]
    notes = _reported(wrong, bad, asked, image, (voxels, raw, names))
    good = ~bad
    if not good.any():
        rule = f"holds no tensor that can be used in {', '.join(names)}"
        raise SampleError(image.where, "tensors", rule)
    mapped = usual[:, None, None] * np.eye(3)
    mapped[good], said = _mapped(segment, asked, tensors[good], tissue[good], usual[good])
    sigma[where] = six(mapped)
    between = int((np.abs(positions - np.rint(positions)) > 1e-3).any(axis=1).sum())
    how = f"{between} of them interpolated" if between else "voxel by voxel"
    first = (
        f"{Path(image.where).name}: tensors ({image.order}, along {image.axes}) in"
        f" {int(good.sum())} voxels of {', '.join(names)}, {how}; {said}"
    )
    return [first, *notes]


def _tensor_rows(segment: Segment, asked: Tensors) -> list[int]:
    """Rows of the tissues that get tensors. Raises SampleError where the body has none."""
    if asked.tissues is not None:
        return segment.rows(_listed(asked.tissues), "tensors")
    named = [
        row
        for row, tissue in enumerate(segment.table)
        if tissue.name.lower().replace(" ", "_").replace("-", "_") in FIBROUS
    ]
    found = segment.present(named)
    if not found:
        names = ", ".join(t.name for t in segment.table[1:])
        rule = (
            f"no tissue of this body is known to have fibres ({', '.join(FIBROUS[:2])},"
            f" grey_matter); say which get tensors: tissues=[...] of {names}"
        )
        raise SampleError(segment.name, "tensors", rule)
    return found


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _placed(
    segment: Segment, image: TensorImage, voxels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where voxels (n, 3) of a body lie in an image, in its voxels, and the rotation from what its
    components are along to (D, H, W), (3, 3).

    Through the world where both know it; else voxel by voxel, for images of the same shape.
    Raises SampleError for one of another shape.
    """
    if segment.affine is not None and image.affine is not None:
        world = voxels @ segment.affine[:3, :3].T + segment.affine[:3, 3]
        inverse = np.linalg.inv(image.affine)
        positions = world @ inverse[:3, :3].T + inverse[:3, 3]
        grid = rotation(segment.affine).T @ rotation(image.affine)
    else:
        back = np.argsort(segment.order)
        expected = tuple(np.array(segment.whole)[back].tolist())
        if image.shape != expected:
            rule = (
                f"has {image.shape} voxels, and the labels {expected}; where not both files know"
                " the world they must be the same"
            )
            raise SampleError(image.where, "tensors", rule)
        positions = (voxels + segment.first)[:, back].astype(float)
        grid = np.eye(3)[list(segment.order)]
    turn = grid @ image.voxel_axes()
    whole = np.rint(turn)
    return positions, whole if np.abs(turn - whole).max() < 1e-6 else turn


def _reported(
    wrong: list[Fault],
    bad: np.ndarray,
    asked: Tensors,
    image: TensorImage,
    of: tuple[np.ndarray, np.ndarray, list[str]],
) -> list[str]:
    """A note on tensors that are replaced. Raises SampleError where they are not to be."""
    if not wrong:
        return []
    voxels, raw, names = of
    kinds = "; ".join(_kind(fault, voxels, raw) for fault in wrong)
    counted = f"{int(bad.sum())} of {len(bad)} voxels of {', '.join(names)} have tensors"
    if asked.bad == "isotropic":
        return [f"{Path(image.where).name}: {counted} {kinds}: {REPLACED}"]
    rule = f"{counted} {kinds}{_other_order(bad, raw, image)}"
    rule += (
        ". Mend the fit or its mask, name fewer tissues, or bad='isotropic': these voxels conduct"
        " alike in all directions, and are counted"
    )
    raise SampleError(image.where, "tensors", rule)


def _kind(fault: Fault, voxels: np.ndarray, raw: np.ndarray) -> str:
    """How many, and the first of them."""
    first = int(np.flatnonzero(fault.where)[0])
    place = ", ".join(map(str, voxels[first]))
    values = eigenvalues(raw[first : first + 1])[0]
    shown = ", ".join(f"{v:.3g}" for v in values[::-1])
    said = f", with {shown}" if np.isfinite(values).all() and values.any() else ""
    return f"{fault.what} ({int(fault.where.sum())}, the first at (D, H, W) = ({place}){said})"


def _other_order(bad: np.ndarray, raw: np.ndarray, image: TensorImage) -> str:
    """A question, where most tensors would be positive in another order."""
    whole = np.isfinite(raw).all(axis=(1, 2)) & raw.any(axis=(1, 2))
    share = float((bad & whole).sum()) / max(int(whole.sum()), 1)
    if share < DOUBTED:
        return ""
    stored = six(raw[whole])[:, np.argsort(ORDERS[image.order])]
    for other, places in ORDERS.items():
        found = eigenvalues(matrices(stored[:, list(places)]))[:, 0] > 0
        if other != image.order and (~found).mean() < share / 4:
            return f"; in the order of {other} {found.mean():.0%} are positive: order={other!r}?"
    return ""


def _mapped(
    segment: Segment, asked: Tensors, tensors: np.ndarray, tissue: np.ndarray, usual: np.ndarray
) -> tuple[np.ndarray, str]:
    """Conductivities, S/m (n, 3, 3), of tensors along (D, H, W), and how they were made.

    tissue : (n,) rows of the table. usual : (n,) sigma_t, S/m.
    """
    if asked.mapping == "volume":
        return volume_normalised(tensors, usual), "volume-normalised"
    if asked.mapping == "direct":
        scale = fitted_scale(tensors, tissue, usual) if asked.scale is None else asked.scale
        fitted = " (fitted to the table)" if asked.scale is None else ""
        try:
            return direct(tensors, scale), f"direct, {scale:.4g} S s/mm^3{fitted}"
        except ValueError as error:
            raise SampleError(str(asked.path), "tensors", str(error)) from None
    fibres, _ = main_direction(tensors)
    return _turned(segment, tissue, fibres, "tensors"), "along their main directions"


def _turned(segment: Segment, tissue: np.ndarray, fibres: np.ndarray, key: str) -> np.ndarray:
    """The table's conductivity along and across, turned to fibres. (n,), (n, 3) -> (n, 3, 3)

    Raises SampleError for a tissue whose table does not say them.
    """
    out = np.empty((len(tissue), 3, 3))
    for row in np.unique(tissue):
        along, across = _along_and_across(segment, int(row), key)
        mine = tissue == row
        out[mine] = along_fibres(along, across, fibres[mine])
    return out


def _along_and_across(segment: Segment, row: int, key: str) -> tuple[float, float]:
    """S/m. Raises SampleError where the table has no such two values."""
    tissue = segment.table[row]
    sigma = components(tissue.sigma, 6)
    if sigma[3:].any() or sigma[1] != sigma[2] or sigma[0] == sigma[1]:
        rule = (
            f"{tissue.name} has sigma={list(tissue.sigma)} in the table, and fibres need three"
            " values: along, across, across (S/m)"
        )
        raise SampleError(segment.name, key, rule)
    return float(sigma[0]), float(sigma[1])


def with_fibres(segment: Segment, asked: Fibres, sigma: np.ndarray) -> list[str]:
    """Turn the fibres of muscles to their own axes, in sigma (D, H, W, 6), S/m; what was done.

    Raises SampleError: see `Fibres`.
    """
    rows = _fibre_rows(segment, asked)
    usual = segment.isotropic()
    notes, lacking = list[str](), list[Piece]()
    for row in rows:
        along, across = _along_and_across(segment, row, "fibres")
        pieces = pieces_of(segment.labels, segment.index == row, segment.spacing)
        for piece in pieces:
            held = tuple(piece.voxels.T)
            if piece.fibres is None:
                lacking.append(piece)
                sigma[held] = six(usual[row] * np.eye(3))
            else:
                sigma[held] = six(along_fibres(along, across, piece.fibres))
        notes.append(_axes_note(segment.table[row].name, pieces))
    if not lacking:
        return notes
    first = lacking[0]
    voxels = sum(len(piece.voxels) for piece in lacking)
    place = ", ".join(map(str, first.voxels[0]))
    said = (
        f"{len(lacking)} pieces of muscle ({voxels} voxels) have no axis, the first of label"
        f" {first.label} at (D, H, W) = ({place}), {len(first.voxels)} voxels: {first.why}"
    )
    if asked.bad == "isotropic":
        return [*notes, f"{segment.name}: {said}: {REPLACED}"]
    rule = (
        f"{said}. Clean the segmentation, or bad='isotropic': these voxels conduct alike in all"
        " directions, and are counted"
    )
    raise SampleError(segment.name, "fibres", rule)


def _fibre_rows(segment: Segment, asked: Fibres) -> list[int]:
    """Rows of the tissues with fibres. Raises SampleError where the body has none."""
    if asked.tissues is not None:
        return segment.rows(_listed(asked.tissues), "fibres")
    values = [components(t.sigma, 6) for t in segment.table]
    rows = [r for r, s in enumerate(values) if not s[3:].any() and s[1] == s[2] != s[0]]
    found = segment.present(rows)
    if not found:
        rule = "no tissue of this body has three values in the table: along, across, across (S/m)"
        raise SampleError(segment.name, "fibres", rule)
    return found


def _axes_note(name: str, pieces: Sequence[Piece]) -> str:
    """Which pieces have fibres, and how far from D."""
    said = []
    for piece in pieces:
        if piece.fibres is not None:
            angle = np.degrees(np.arccos(np.clip(np.abs(piece.fibres[:, 0]).mean(), 0, 1)))
            said.append(f"label {piece.label}: {1e3 * piece.length:.0f} mm, {angle:.0f} deg from D")
    more = f", and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return f"{name}: fibres along {len(said)} axes ({'; '.join(said[:NAMED])}{more})"
