"""Files that others open: NIfTI, VTI (ParaView, pyvista), .npz, .h5, .npy.

Volumes of a body that was read from a file get its axes and its affine back. VTI has cell data on a
grid with an origin and directions (VTK file formats, "ImageData", VTK 9): in mm of the world where
there is one, else in m of the grid.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.reading import FileError, failures, open_h5, read_npy, read_npz
from physics_hybrid.writing import STORED, create_h5, written

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.field import Field

#: Share of a voxel by which a field may lie beside its segmentation: rounding of a header.
PLACED = 0.05


def save(field: Field, path: Path) -> Path:
    """Write a field by the suffix of a path; the path.

    Raises
    ------
    ValueError
        Another suffix.
    OSError
        The file cannot be written.
    """
    writer_of(path)(field, path)
    return path


def writer_of(path: str | Path) -> Callable[[Any, Path], None]:
    """What writes a field to a path, by its suffix. Raises ValueError for another one."""
    for suffix, writer in WRITERS.items():
        if Path(path).name.lower().endswith(suffix):
            return writer
    raise ValueError(f"{path}: fields are written as {', '.join(WRITERS)}")


def check_nifti(path: str | Path) -> None:
    """Raises ValueError where the suffix is not that of a volume."""
    if not str(path).lower().endswith((".nii.gz", ".nii")):
        raise ValueError(f"{path}: a volume is written as .nii.gz or .nii")


def file_axes(body: Body, values: np.ndarray) -> np.ndarray:
    """A volume (D, H, W, ...) with the axes of the file that the body was read from."""
    back = [int(a) for a in np.argsort(body.order)]
    return values.transpose(*back, *range(3, values.ndim))


def file_affine(body: Body) -> np.ndarray:
    """From the index of a voxel, in the axes of the file, to its centre, mm; without a world the
    corner of the grid is its origin.
    """
    affine = body.affine
    if affine is None:
        affine = np.diag([*(1e3 * body.spacing), 1.0])
        affine[:3, 3] = 500 * body.spacing
    columns = [int(a) for a in np.argsort(body.order)]
    return affine[:, [*columns, 3]]


def write_nifti(body: Body, values: np.ndarray, path: str | Path, said: str) -> None:
    """A volume (D, H, W) or (D, H, W, n) as NIfTI-1, float32. Raises ValueError, OSError."""
    import nibabel

    make: Any = nibabel.Nifti1Image
    image = make(np.ascontiguousarray(file_axes(body, values), dtype=np.float32), file_affine(body))
    check_nifti(path)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = said.encode()[:79]
    with written(path) as temporary:
        nibabel.save(image, temporary)


def read_volts(body: Body, path: str | Path) -> np.ndarray:
    """phi of a file that `save` wrote, or of the same kind: V, (D, H, W) or (K, D, H, W).

    Raises
    ------
    FileError (a ValueError)
        No such file, a damaged one, one without phi, another suffix.
    """
    path = Path(path).expanduser()
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        import nibabel

        with failures(str(path), "NIfTI"):
            image: Any = nibabel.load(path)
            volts = np.asarray(image.get_fdata())
        if volts.ndim not in (3, 4):
            raise FileError(str(path), None, f"must hold volumes, 3D or 4D; got {volts.shape}")
        _check_place(body, image.affine, path)
        turned = volts.transpose(*body.order, *range(3, volts.ndim))
        return np.moveaxis(turned, -1, 0) if turned.ndim == 4 else turned
    if name.endswith(".npy"):
        return read_npy(path)
    if name.endswith(".npz"):
        arrays = read_npz(path, ["phi"])
        if "phi" not in arrays:
            raise FileError(str(path), "phi", "is missing")
        return arrays["phi"]
    if name.endswith(".h5"):
        with open_h5(path) as file:
            return np.asarray(file.dataset("phi")[()])
    raise FileError(str(path), None, "is none of .nii.gz, .nii, .npy, .npz, .h5")


def _check_place(body: Body, affine: np.ndarray, path: Path) -> None:
    """Raises FileError where the voxels of a file lie elsewhere than those of a body."""
    shape = file_axes(body, body.tissue).shape
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    there = np.column_stack([corners, np.ones(8)])
    apart = np.abs(there @ (affine - file_affine(body)).T).max()
    if apart > PLACED * 1e3 * body.spacing.min():
        rule = f"lies up to {apart:.3g} mm from the segmentation: is it of another body, or turned?"
        raise FileError(str(path), "affine", rule)


def _nifti(field: Field, path: Path) -> None:
    """phi in V; many sources are the fourth axis."""
    volts = np.moveaxis(field.array(), 0, -1)
    write_nifti(field.body, volts if field.many else volts[..., 0], path, "electric potential, V")


def _npy(field: Field, path: Path) -> None:
    """phi alone, V."""
    with written(path) as temporary, open(temporary, "wb") as file:
        np.save(file, _shown(field.array(), field.many))


def _npz(field: Field, path: Path) -> None:
    """phi and what it belongs to."""
    with written(path) as temporary, open(temporary, "wb") as file:
        contents: dict[str, Any] = _contents(field)
        np.savez_compressed(file, **contents)


def _h5(field: Field, path: Path) -> None:
    """phi and what it belongs to, with units, held to checksums."""
    with create_h5(path) as file:
        file.attrs["ends"] = np.bytes_(field.ends.kind)
        file.attrs["engine"] = np.bytes_(field.engine)
        for name, value in _contents(field).items():
            filters = STORED if value.ndim else {"track_times": False}
            data = file.create_dataset(name, data=value, **filters)
            data.attrs["unit"] = np.bytes_(UNITS[name])


#: Of what is stored.
UNITS = {
    "phi": "V",
    "sigma": "S/m",
    "spacing": "m",
    "affine": "mm",
    "current": "A",
    "points": "m",
    "returns": "m",
    "currents": "A",
    "voltages": "V",
    "tolerance": "1",
}


def _contents(field: Field) -> dict[str, np.ndarray]:
    """phi, sigma (D, H, W, C), spacing, places, currents: SI units, axes (D, H, W)."""
    body = field.body
    out = {
        "phi": _shown(field.array(), field.many),
        "sigma": np.moveaxis(body.sigma[0].detach().cpu().numpy(), 0, -1),
        "spacing": body.spacing,
        "tolerance": np.array(field.tolerance),
        **field.driven_by(),
    }
    if body.affine is not None:
        out["affine"] = body.affine
    return out


def _shown(values: np.ndarray, many: bool) -> np.ndarray:
    return values if many else values[0]


def _vti(field: Field, path: Path) -> None:
    """phi (V), E (V/m), J (A/m^2) and the mean diagonal of sigma (S/m) as cell data; vectors along
    the axes of the world.
    """
    body, volts = field.body, field.array()
    E, J = (np.asarray(like_array(v)) for v in (field.E, field.J))
    if not field.many:
        E, J = E[None], J[None]
    arrays: dict[str, np.ndarray] = {}
    for k in range(len(volts)):
        name = f" {k}" if field.many else ""
        arrays[f"phi{name} [V]"] = volts[k]
        arrays[f"E{name} [V per m]"] = _along_world(body, E[k])
        arrays[f"J{name} [A per m2]"] = _along_world(body, J[k])
    sigma = body.sigma[0, :3].detach().cpu().numpy().mean(axis=0)
    arrays["sigma [S per m]"] = sigma
    if body.labels is not None:
        arrays["label"] = body.labels.astype(np.int32)
    write_vti(body, arrays, path)


def like_array(value: Any) -> np.ndarray:
    """A tensor or an array as an array."""
    out: np.ndarray = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    return out


def _along_world(body: Body, vectors: np.ndarray) -> np.ndarray:
    """Components (D, H, W) of vectors as those along x, y, z of the file that is written."""
    turned: np.ndarray = vectors @ _axes_in_world(body).T
    return turned


def _axes_in_world(body: Body) -> np.ndarray:
    """Columns: unit vectors of D, H, W in x, y, z. (3, 3)"""
    if body.affine is None:
        return np.eye(3)
    columns = body.affine[:3, :3]
    axes: np.ndarray = columns / np.linalg.norm(columns, axis=0)
    return axes


def write_vti(body: Body, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Volumes (D, H, W) and vectors (D, H, W, 3) as cell data of one .vti, raw, appended."""
    world = body.affine is not None
    affine = file_affine(body)
    columns = affine[:3, :3] if world else affine[:3, :3] / 1e3
    sizes = np.linalg.norm(columns, axis=0)
    corner = affine[:3, 3] - columns.sum(axis=1) / 2 if world else np.zeros(3)
    shape = file_axes(body, body.tissue).shape
    extent = " ".join(f"0 {n}" for n in shape)
    blob, lines = io.BytesIO(), []
    for name, values in arrays.items():
        turned = file_axes(body, values)
        number, kind = (turned.astype("<f4"), "Float32")
        if values.dtype.kind in "iu":
            number, kind = (turned.astype("<i4"), "Int32")
        # x runs fastest, components of a vector faster still
        order = [2, 1, 0, *range(3, number.ndim)]
        data = np.ascontiguousarray(number.transpose(order)).tobytes()
        components = f' NumberOfComponents="{values.shape[3]}"' if values.ndim == 4 else ""
        lines.append(
            f'        <DataArray type="{kind}" Name="{name}"{components} format="appended"'
            f' offset="{blob.tell()}"/>'
        )
        blob.write(len(data).to_bytes(8, "little") + data)
    head = "\n".join(
        [
            '<?xml version="1.0"?>',
            '<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian"'
            ' header_type="UInt64">',
            f'  <ImageData WholeExtent="{extent}" Origin="{_numbers(corner)}"'
            f' Spacing="{_numbers(sizes)}" Direction="{_numbers((columns / sizes).ravel())}">',
            f'    <Piece Extent="{extent}">',
            f'      <CellData Scalars="{next(iter(arrays))}">',
            *lines,
            "      </CellData>",
            "    </Piece>",
            "  </ImageData>",
            '  <AppendedData encoding="raw">',
            "_",
        ]
    )
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(written(path))
        file = stack.enter_context(open(temporary, "wb"))
        file.write(head.encode())
        file.write(blob.getvalue())
        file.write(b"\n  </AppendedData>\n</VTKFile>\n")


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{x:.9g}" for x in values)


#: How each suffix is written.
WRITERS: dict[str, Callable[[Any, Path], None]] = {
    ".nii.gz": _nifti,
    ".nii": _nifti,
    ".vti": _vti,
    ".npz": _npz,
    ".h5": _h5,
    ".npy": _npy,
}
