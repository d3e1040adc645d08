"""Lead fields on disk: one .h5 whose values lie in one piece, so that they are mapped, not read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.sources import Deposit
from physics_hybrid.problems.potential.physics.ends import Ends
from physics_hybrid.reading import FileError, Group, open_h5, text_of
from physics_hybrid.writing import STORED, create_h5

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.lead_field import Electrode, LeadField


def identity(body: Body) -> str:
    """What tells a body: a digest of conductivity and spacing."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(body.sigma.detach().cpu().numpy()).tobytes())
    digest.update(body.spacing.tobytes())
    return digest.hexdigest()


def write_lead_field(lead: LeadField, path: Path) -> None:
    """`lead`, (D, H, W, E) float32 in V/A, as it is; electrodes and reference beside it.

    Raises OSError as `create_h5`.
    """
    from physics_hybrid.problems.potential.door.lead_field import Electrode

    with create_h5(path) as file:
        data = file.create_dataset(
            "lead", shape=lead.volts.shape, dtype="<f4", track_times=False, chunks=None
        )
        for plane in range(len(lead.volts)):
            data[plane] = lead.volts[plane]
        data.attrs["unit"] = np.bytes_("V/A")
        file.attrs["body"] = np.bytes_(identity(lead.body))
        file.attrs["ends"] = np.bytes_(lead.ends.kind)
        file.attrs["beta"] = np.float64(np.nan if lead.ends.beta is None else lead.ends.beta)
        file.attrs["frame"] = np.bytes_(lead.frame)
        file.attrs["tolerance"] = lead.tolerance
        alone = lead.reference if isinstance(lead.reference, Electrode) else None
        kind = "electrode" if alone is not None else str(lead.reference)
        file.attrs["reference"] = np.bytes_(kind)
        everyone = [*lead.electrodes, *([] if alone is None else [alone])]
        points = [np.full(3, np.nan) if e.point is None else e.point for e in everyone]
        contents = {
            "points": np.array(points),
            "voxels": np.concatenate([e.over.voxels for e in everyone]),
            "shares": np.concatenate([e.over.shares for e in everyone]),
            "counts": np.array([len(e.over.voxels) for e in everyone]),
        }
        for name, values in contents.items():
            file.create_dataset(name, data=values, **STORED)


def read_lead_field(path: Path, body: Body) -> LeadField:
    """See `LeadField.load`."""
    from physics_hybrid.problems.potential.door.lead_field import LeadField

    with open_h5(path) as file:
        if text_of(file.attribute("body") or b"") != identity(body):
            raise FileError(str(path), None, "is the lead field of another body, or none of ours")
        data = file.dataset("lead")
        shape, start = data.shape, data.offset
        if shape[:-1] != body.shape or data.dtype != np.dtype("<f4") or start is None:
            raise file.error(
                f"must be float32 (D, H, W, electrodes) in one piece; got {data.dtype} {shape}",
                "lead",
            )
        everyone = _electrodes(file)
        reference: Electrode | str | None = None
        kind = text_of(file.attribute("reference"))
        if kind == "electrode":
            *everyone, reference = everyone
        elif kind == "average":
            reference = kind
        beta = float(file.attribute("beta"))
        ends = Ends(text_of(file.attribute("ends")), None if np.isnan(beta) else beta)
        frame, tolerance = text_of(file.attribute("frame")), float(file.attribute("tolerance"))
    if len(everyone) != shape[-1]:
        raise FileError(str(path), "points", f"must hold {shape[-1]} electrodes")
    volts = np.memmap(path, dtype="<f4", mode="r", offset=start, shape=shape)
    return LeadField(body, tuple(everyone), reference, volts, ends, frame, tolerance)


def _electrodes(file: Group) -> list[Electrode]:
    """The electrodes of a file, and of one that has it the reference."""
    from physics_hybrid.problems.potential.door.lead_field import Electrode

    points, counts = file.dataset("points")[:], file.dataset("counts")[:]
    voxels, shares = file.dataset("voxels")[:], file.dataset("shares")[:]
    after = np.cumsum(counts)
    found = []
    for point, last, count in zip(points, after, counts, strict=True):
        own = slice(int(last - count), int(last))
        place = None if np.isnan(point).any() else point
        found.append(Electrode(Deposit(voxels[own], shares[own]), place))
    return found
