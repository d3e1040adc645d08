"""Solved samples: what one is, and what the files that hold them contain.

| format | content |
|---|---|
| `.npz` (one sample) | the entries below |
| `.h5` (many) | `sigma` to `u_nodes` with a leading sample axis; optional `phantom` (N,); \
`ends` to `tissues` are attributes of the file |
| folder of `.npy` | `sigma.npy`, `source.npy`, `u.npy`, ... in one folder per sample |

| entry | shape | unit |
|---|---|---|
| `sigma` | (D, H, W[, 3 or 6]) | S/m |
| `source` | (D, H, W) | A/m^3 |
| `u` | (D, H, W) | V |
| `spacing` | (3,) | m |
| `mask`, `labels`, optional as all that follow | (D, H, W) | |
| `source_point`, with `ends` pair `return_point` | (3,) | m |
| `u_nodes` | (D+1, H+1, W+1) | V |
| `ends` and `beta` | one word, one number | 1/m |
| `singularity` | one word | |
| `tissues` | names that `labels` count, as strings (in `.h5` as JSON); else they are ours | |

`files.py` reads them. Every sample is checked when it is read (`checks.py`), and a broken one is an
error that names file, key, index and rule. Pickles are never loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from physics_hybrid.checks import one_of, positive
from physics_hybrid.grid import Grid
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.reading import FileError

SCHEMA_VERSION = 1
REQUIRED = ("sigma", "source", "u")
OPTIONAL = (
    "mask",
    "spacing",
    "source_point",
    "return_point",
    "current",
    "labels",
    "u_nodes",
    "phi",
)
#: What an .h5 may hold once for all of its samples, and the shape that a sample's has then.
SHARED: dict[str, tuple[int, ...]] = {
    "spacing": (3,),
    "source_point": (3,),
    "return_point": (3,),
    "current": (),
}
#: How the current leaves, how the truth treats the source, what labels mean: entries of an .npz or
#: folder, attributes of an .h5.
ATTRIBUTES = ("ends", "beta", "singularity", "tissues")
AXES = "sample, D (long axis, fibres), H, W[, component DD HH WW [DH DW HW]]"
UNITS = {
    "sigma": "S/m",
    "source": "A/m^3",
    "u": "V",
    "u_nodes": "V",
    "spacing": "m",
    "source_point": "m from the outer corner of voxel (0,0,0)",
    "return_point": "m from the outer corner of voxel (0,0,0)",
    "mask": "1 in tissue",
    "labels": "index into attribute tissues",
}


class SampleError(FileError):
    """A file or sample that breaks a rule. The message names file, key, index and rule."""


@dataclass(frozen=True)
class Sample:
    """One solved conductor, checked.

    sigma : (C, D, H, W) float32, S/m.
    source : (D, H, W) float32, A/m^3; negative round the electrode that takes the current out.
    u : (D, H, W) float32, V, 0 in air.
    mask : (D, H, W) bool, True in tissue.
    spacing : (3,) m.
    source_point : (3,) m.
    labels : (D, H, W) uint8, indices into our tissues, or None.
    phantom : what must not be split.
    name : where it is from.
    return_point : (3,) m of the electrode of a pair that takes the current out, or None.
    nodes : (D+1, H+1, W+1) float32, V, the truth at voxel corners where trilinear finite elements
        made it, or None.
    singularity : how the truth treats the source, 'subtraction' or 'nodal'.
    region : (D, H, W) bool, the tissue where losses and metrics count; None for all of it.
    notes : what was understood that we would write otherwise.
    """

    sigma: np.ndarray
    source: np.ndarray
    u: np.ndarray
    mask: np.ndarray
    spacing: np.ndarray
    source_point: np.ndarray
    labels: np.ndarray | None
    phantom: str
    name: str
    return_point: np.ndarray | None = None
    nodes: np.ndarray | None = None
    singularity: str = "subtraction"
    region: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Grid:
        D, H, W = self.source.shape
        return D, H, W

    @property
    def current(self) -> float:
        """Injected current, A."""
        source = self.source if self.return_point is None else self.source.clip(min=0)
        return float(source.sum(dtype=np.float64) * np.prod(self.spacing, dtype=np.float64))


@dataclass(frozen=True)
class Conventions:
    """How a user's files are to be read.

    source_units : 'density' (A/m^3) or 'current' (A per voxel).
    source_point : 'metres' or 'index'.
    ends : how the current leaves, where the files do not say.
    spacing : edges of a voxel (D, H, W) in metres, where the files do not say.
    air_below : what conducts less is air, S/m; None: what does not conduct.
    mask : 'tissue' (mask is where sigma > 0) or 'region' (losses and metrics count there).
    nan_is_air : NaN in sigma is air.

    Raises
    ------
    ValueError
        For another word, or a conductivity that is none.
    """

    source_units: str = "density"
    source_point: str = "metres"
    ends: Ends = Ends()
    spacing: Sequence[float] | None = None
    air_below: float | None = None
    mask: str = "tissue"
    nan_is_air: bool = False

    def __post_init__(self) -> None:
        units, point = ("density", "current"), ("metres", "index")
        one_of(units, "data.source_units", self.source_units, quoted=True)
        edges = self.spacing
        if edges is not None and not (isinstance(edges, (list, tuple)) and len(edges) == 3):
            raise ValueError(
                f"data.spacing must be null or three edges of a voxel in metres; got {edges!r}"
            )
        one_of(point, "data.source_point", self.source_point, quoted=True)
        if self.air_below is not None:
            positive("data.air_below", self.air_below)
        one_of(("tissue", "region"), "data.mask", self.mask, quoted=True)
        one_of((True, False), "data.nan_is_air", self.nan_is_air)


#: How files are read where nobody says otherwise: as we write them.
OURS = Conventions()
