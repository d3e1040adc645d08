"""A user's own scan, `.h5` or `.npz`.

    diffraction   (frames, N, N)   amplitudes or intensities, zero frequency in the middle
    probe         (N, N)           complex
    positions     (frames, 2)      row and column of each frame in pixels
    object        (H, W)           complex, optional: the truth; positions are places on it

Positions are rounded to whole pixels; without an object they may begin anywhere. A broken scan is a
`ScanError` with file, key, index and rule.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from physics_hybrid.problems.ptychography.data.scan import Scan
from physics_hybrid.problems.ptychography.physics import forward
from physics_hybrid.reading import FileError, open_h5, read_npz

NEEDED = ("diffraction", "probe", "positions")
KEYS = (*NEEDED, "object")
#: Pixels along a side beyond which positions are taken to be in another unit.
LARGEST = 20_000
#: Photons of the brightest frame that amplitudes without a unit are taken for.
PHOTONS = 1e9


class ScanError(FileError):
    """A file of a scan that breaks a rule."""


def read(path: Path, measured: str = "amplitude") -> Scan:
    """The scan in a file; the probe is brought to the light of the frames.

    Parameters
    ----------
    path : Path
    measured : str
        amplitude or intensity: what `diffraction` holds.

    Raises
    ------
    ScanError
        The first rule that is broken.
    """
    arrays = _arrays(path)
    frames = _frames(path, arrays["diffraction"])
    intensities = measured == "intensity"
    amplitudes = np.sqrt(frames) if intensities else frames
    probe = _probe(path, arrays["probe"], amplitudes)
    positions = _positions(path, arrays["positions"], len(frames), "object" in arrays)
    size = frames.shape[1]
    corner = positions.max(axis=0) + size
    truth = _truth(path, arrays.get("object"), corner)
    shape = (int(corner[0]), int(corner[1])) if truth is None else truth.shape
    scale = 1.0 if intensities else forward.photon_scale(amplitudes, PHOTONS)
    return Scan(
        name=path.name,
        amplitude=torch.from_numpy(amplitudes).float(),
        probe=torch.from_numpy(probe).to(torch.complex64),
        positions=torch.from_numpy(positions),
        shape=shape,
        photon_scale=scale,
        truth=None if truth is None else torch.from_numpy(truth).to(torch.complex64),
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix.lower() == ".npz":
        arrays = read_npz(path, KEYS, ScanError)
    elif path.suffix.lower() in (".h5", ".hdf5"):
        with open_h5(path, ScanError) as file:
            arrays = {key: file.dataset(key)[()] for key in KEYS if key in file}
    else:
        raise ScanError(str(path), None, "is no scan that is known: give .h5 or .npz")
    for key in NEEDED:
        if key not in arrays:
            raise ScanError(str(path), key, f"is missing; a scan has {', '.join(NEEDED)}")
    for key, values in arrays.items():
        if values.dtype.kind not in "fiuc":
            raise ScanError(str(path), key, f"must hold numbers; it holds {values.dtype}")
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            where = f"{path}[{bad[0][0]}]"
            raise ScanError(where, key, f"must be finite; got {values[tuple(bad[0])]}")
    return arrays


def _frames(path: Path, values: NDArray[Any]) -> NDArray[np.float64]:
    if values.ndim != 3 or values.shape[1] != values.shape[2] or values.shape[1] < 8:
        rule = f"must have shape (frames, N, N), N at least 8; got {values.shape}"
        raise ScanError(str(path), "diffraction", rule)
    if values.dtype.kind == "c":
        raise ScanError(str(path), "diffraction", "must be real: a detector records no phase")
    for frame in np.flatnonzero((values < 0).any(axis=(1, 2)))[:1]:
        rule = f"must be >= 0; got {values[frame].min():g}: subtract less background"
        raise ScanError(f"{path}[{frame}]", "diffraction", rule)
    for frame in np.flatnonzero(~values.any(axis=(1, 2)))[:1]:
        raise ScanError(f"{path}[{frame}]", "diffraction", "is dark: leave this frame out")
    return np.asarray(values, dtype=np.float64)


def _probe(
    path: Path, values: NDArray[Any], amplitudes: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """With the mean energy of a frame: an object of 1 then gives frames as bright as these."""
    if values.shape != amplitudes.shape[1:]:
        rule = f"must have shape {amplitudes.shape[1:]}, that of a frame; got {values.shape}"
        raise ScanError(str(path), "probe", rule)
    energy = float((np.abs(values) ** 2).sum())
    if not energy > 0:
        raise ScanError(str(path), "probe", "is zero everywhere")
    mean = float((amplitudes**2).sum(axis=(1, 2)).mean())
    out: NDArray[np.complex128] = values.astype(np.complex128) * np.sqrt(mean / energy)
    return out


def _positions(path: Path, values: NDArray[Any], count: int, on_object: bool) -> NDArray[np.int64]:
    """Whole pixels: from 0 on, or as they are where they are places on an object that is given."""
    if values.shape != (count, 2):
        rule = f"must have shape ({count}, 2), a row and a column a frame; got {values.shape}"
        raise ScanError(str(path), "positions", rule)
    if values.dtype.kind == "c":
        raise ScanError(str(path), "positions", "must be real: a row and a column, pixels")
    spread = np.ptp(values, axis=0)
    if not 1 <= spread.max() <= LARGEST:
        rule = (
            f"spread over {spread.max():g}, and pixels are expected (1 to {LARGEST}): divide by"
            " the pixel size of the object, wavelength x distance / (N x detector pixel)"
        )
        raise ScanError(str(path), "positions", rule)
    if not on_object:
        values = values - values.min(axis=0)
    elif values.min() < 0:
        rule = f"must be places on the object of the file, >= 0; got {values.min():g}"
        raise ScanError(str(path), "positions", rule)
    out: NDArray[np.int64] = np.rint(values).astype(np.int64)
    return out


def _truth(
    path: Path, values: NDArray[Any] | None, corner: NDArray[np.int64]
) -> NDArray[np.complex128] | None:
    if values is None:
        return None
    if values.ndim != 2 or (np.array(values.shape) < corner).any():
        rule = f"must cover all frames, {tuple(corner.tolist())} pixels; got {values.shape}"
        raise ScanError(str(path), "object", rule)
    return np.asarray(values, dtype=np.complex128)
