"""Diffusion tensors of a NIfTI file: six components a voxel, in which order, along which axes.

| order | components | along | source |
|---|---|---|---|
| `fsl` | xx, xy, xz, yy, yz, zz | voxels, the first against its axis where the affine keeps the \
hand (`axes` fsl) | dtifit --save_tensor |
| `mrtrix` | xx, yy, zz, xy, xz, yz | the world (`axes` world) | dwi2tensor |
| `nifti` | xx, yx, yy, zx, zy, zz | the format does not say: `axes` is needed | nifti1.h, \
NIFTI_INTENT_SYMMATRIX (1005), (X, Y, Z, 1, 6) |

FSL gives its gradients, and so its tensors, along the axes of a voxel grid that is left-handed in
the world; one that is right-handed (the determinant of the affine is positive) is read with its
first axis turned round (FSL, FDT user guide, "bvecs"). MRtrix takes gradients to the world of the
scanner first (MRtrix3, "Orthonormality and frames of gradient tables").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physics_hybrid.checks import one_of
from physics_hybrid.problems.potential.bodies.fibres import matrices
from physics_hybrid.problems.potential.bodies.label_formats import axes_of, opened, suffix_of
from physics_hybrid.problems.potential.bodies.tensors import eigenvalues, log_euclidean
from physics_hybrid.problems.potential.data.sample import SampleError

#: Where xx, yy, zz, xy, xz, yz stand in a file.
ORDERS = {
    "fsl": (0, 3, 5, 1, 2, 4),
    "mrtrix": (0, 1, 2, 3, 4, 5),
    "nifti": (0, 2, 5, 1, 3, 4),
}
#: What the components are along: see above.
AXES = ("fsl", "voxel", "world")
AXES_OF = {"fsl": "fsl", "mrtrix": "world"}

#: The code of symmetric matrices (nifti1.h).
SYMMETRIC = 1005

#: Positions within so many voxels of a centre are that centre.
CENTRE = 1e-3

#: Of the weights of an interpolation, what tensors that are positive must have.
ENOUGH = 0.5

#: The eight voxels round a position.
CORNERS = np.array(list(np.ndindex(2, 2, 2)))


@dataclass(frozen=True, eq=False)
class TensorImage:
    """Tensors as their file has them.

    values : (X, Y, Z, 6), xx, yy, zz, xy, xz, yz.
    affine : (4, 4) from the index of a voxel to the world, mm; None where the file knows no world.
    order, axes : see above. where : the file.
    """

    values: np.ndarray
    affine: np.ndarray | None
    order: str
    axes: str
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z)"""
        return self.values.shape[:3]

    def voxel_axes(self) -> np.ndarray:
        """Columns: what the components are along, in the axes of the voxels. (3, 3)"""
        if self.axes == "world":
            assert self.affine is not None
            return rotation(self.affine).T
        handed = self.affine is not None and np.linalg.det(self.affine[:3, :3]) > 0
        return np.diag([-1.0 if self.axes == "fsl" and handed else 1.0, 1.0, 1.0])

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tensors at positions, voxels of the file, (n, 3) -> (n, 3, 3); which lie outside, (n,).

        At a centre as they are; between centres by `log_euclidean` over those of the eight round
        them that are positive, and where these have less than half of the weights, that of the
        nearest voxel: what is wrong with it is seen.
        """
        last = np.array(self.shape) - 1
        beyond = (positions < -0.5 - CENTRE) | (positions > last + 0.5 + CENTRE)
        outside: np.ndarray = np.any(beyond, axis=1)
        near = np.clip(np.rint(positions), 0, last).astype(int)
        tensors = self._held(near)
        between = ~outside & (np.abs(positions - near).max(axis=1, initial=0) > CENTRE)
        tensors[between] = self._between(positions[between], tensors[between])
        tensors[outside] = np.nan
        return tensors, outside

    def _held(self, voxels: np.ndarray) -> np.ndarray:
        """(..., 3) -> (..., 3, 3)"""
        i, j, k = np.moveaxis(voxels, -1, 0)
        return matrices(self.values[i, j, k])

    def _between(self, positions: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Interpolated; else as the nearest voxel has it. (n, 3), (n, 3, 3) -> (n, 3, 3)"""
        low = np.floor(positions).astype(int)
        part = positions - low
        weights = np.where(CORNERS, part[:, None], 1 - part[:, None]).prod(axis=2)
        eight = self._held(np.clip(low[:, None] + CORNERS, 0, np.array(self.shape) - 1))
        flat = eight.reshape(-1, 3, 3)
        good = (eigenvalues(flat)[:, 0] > 0).reshape(weights.shape)
        weights = weights * good
        total = weights.sum(axis=1)
        use = total > ENOUGH
        harmless = np.where(good[..., None, None], eight, np.eye(3))
        out = nearest.copy()
        out[use] = log_euclidean(harmless[use], weights[use] / total[use, None])
        return out


def rotation(affine: np.ndarray) -> np.ndarray:
    """Columns: unit vectors of the axes of a grid in the world; orthogonal to rounding. (3, 3)

    Headers are float32: the nearest orthogonal matrix, of the polar decomposition, is taken.
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(columns)
    return np.asarray(left @ right)


def read_tensors(
    path: str | Path, order: str | None = None, axes: str | None = None
) -> TensorImage:
    """The diffusion tensors of a NIfTI file.

    Raises
    ------
    SampleError
        File missing, damaged, not NIfTI; not six components a voxel; complex numbers; an order that
        is not given and not said by the file, or contradicts it; an affine that shears; tensors
        along the world in a file that knows none.
    ValueError
        No path; another order, other axes.
    """
    if not isinstance(path, (str, Path)):
        raise ValueError(f"tensors must be ph.Tensors(path, ...), or a path; got {path!r}")
    path = Path(path).expanduser()
    where = str(path)
    if order is not None:
        one_of(ORDERS, "order", order, quoted=True)
    if axes is not None:
        one_of(AXES, "axes", axes, quoted=True)
    if suffix_of(path) not in (".nii", ".nii.gz"):
        rule = "is no NIfTI file (.nii, .nii.gz); of MRtrix: mrconvert tensor.mif tensor.nii.gz"
        raise SampleError(where, None, rule)
    loaded, array, affine = opened(path)
    values = _components(array, where)
    symmetric = int(loaded.header["intent_code"]) == SYMMETRIC
    known = bool(int(loaded.header["sform_code"]) or int(loaded.header["qform_code"]))
    order = _order(order, symmetric, where)
    axes = _axes(order, axes, known, where)
    if known:
        axes_of(affine[:3, :3], where)
    picked = np.moveaxis(values, -1, 0)[list(ORDERS[order])]
    return TensorImage(
        np.ascontiguousarray(np.moveaxis(picked, 0, -1)),
        affine if known else None,
        order,
        axes,
        where,
    )


def _components(array: np.ndarray, where: str) -> np.ndarray:
    """(X, Y, Z, 6) float64. Raises SampleError for another image."""
    given = array.shape
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim != 4 or array.shape[3] != 6:
        rule = (
            "must be six components a voxel, (X, Y, Z, 6) or (X, Y, Z, 1, 6), as"
            f" dtifit --save_tensor or dwi2tensor write them; got {given}"
        )
        if array.ndim == 3:
            rule += ": a map of one number a voxel (FA, MD) has no directions"
        raise SampleError(where, "tensors", rule)
    if array.dtype.kind not in "fiu":
        raise SampleError(where, "tensors", f"must be real numbers; got {array.dtype}")
    return array.astype(float)


def _order(order: str | None, symmetric: bool, where: str) -> str:
    """The order of the components. Raises SampleError where nobody says it, or two differ."""
    if order is None:
        if symmetric:
            return "nifti"
        rule = (
            "does not say the order of its components: order='fsl' (dtifit: xx, xy, xz, yy, yz,"
            " zz), 'mrtrix' (dwi2tensor: xx, yy, zz, xy, xz, yz) or 'nifti' (xx, yx, yy, zx, zy,"
            " zz)"
        )
        raise SampleError(where, "tensors", rule)
    if symmetric and order != "nifti":
        rule = (
            f"says that it holds symmetric matrices (NIfTI intent {SYMMETRIC}: xx, yx, yy, zx, zy,"
            f" zz), and order={order!r} is another order: leave it out, or order='nifti'"
        )
        raise SampleError(where, "tensors", rule)
    return order


def _axes(order: str, axes: str | None, known: bool, where: str) -> str:
    """What the components are along. Raises SampleError where nobody says it."""
    axes = AXES_OF.get(order) if axes is None else axes
    if axes is None:
        rule = (
            "does not say what its components are along, and neither does NIfTI: axes='world'"
            " (right, anterior, superior), 'voxel' or 'fsl' (voxels, the first against its axis"
            " where the affine keeps the hand)"
        )
        raise SampleError(where, "tensors", rule)
    if axes == "world" and not known:
        rule = (
            "has no orientation (sform and qform are unset), and its tensors are along the world:"
            " copy the header of the diffusion images, or say axes='voxel'"
        )
        raise SampleError(where, "tensors", rule)
    return axes
