"""Lead fields as MNE has them (Gramfort et al., Front. Neurosci. 7 (2013) 267): `mne.Forward`.

Free dipoles at places of a volume, EEG channels, head coordinates in m: those of the world of the
body, or of its grid where it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from physics_hybrid.problems.potential.door.places import in_frame, places

if TYPE_CHECKING:
    from physics_hybrid.problems.potential.door.lead_field import LeadField


def forward(lead: LeadField, points: Any, names: Sequence[str] | None) -> Any:
    """See `LeadField.to_mne`."""
    try:
        import mne
        from mne.io.constants import FIFF
    except ImportError as error:
        raise ImportError("to_mne needs MNE, which is not installed: pip install mne") from error
    body = lead.body
    metres, _ = places(body, points, lead.frame, "points")
    channels = [f"E{k}" for k in range(len(lead))] if names is None else [str(n) for n in names]
    if len(channels) != len(lead) or len({*channels}) < len(lead):
        raise ValueError(f"names must be {len(lead)} different ones; got {channels}")
    frame = "grid" if body.affine is None else "world"
    scale = 1.0 if frame == "grid" else 1e-3
    where = scale * in_frame(body, metres.cpu().numpy(), frame)
    sensors = scale * in_frame(body, np.stack([e.centre(body) for e in lead.electrodes]), frame)
    axes = np.eye(3)
    if body.affine is not None:
        axes = body.affine[:3, :3] / np.linalg.norm(body.affine[:3, :3], axis=0)
    # rows: electrodes; columns: x, y, z of every place
    along_grid = lead.gradient(metres)
    gain = np.einsum("pae,xa->epx", along_grid, axes).reshape(len(lead), -1)

    info = mne.create_info(channels, 1000.0, "eeg")
    montage = mne.channels.make_dig_montage(
        dict(zip(channels, sensors, strict=True)), coord_frame="head"
    )
    info.set_montage(montage)
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head")
        info["mri_head_t"] = mne.transforms.Transform("mri", "head")
        for key in ("mri_file", "meas_file", "working_dir", "command_line"):
            info[key] = "physics_hybrid"
        info["mri_id"] = info["meas_id"] = None
    count = len(where)
    space = {
        "type": "discrete",
        "id": -1,
        "coord_frame": FIFF.FIFFV_COORD_HEAD,
        "np": count,
        "nuse": count,
        "inuse": np.ones(count, dtype=int),
        "vertno": np.arange(count),
        "rr": where,
        "nn": np.tile([0.0, 0.0, 1.0], (count, 1)),
        "ntri": 0,
        "tris": np.empty((0, 3), dtype=int),
        "nuse_tri": 0,
        "use_tris": np.empty((0, 3), dtype=int),
        "nearest": None,
        "nearest_dist": None,
        "pinfo": None,
        "patch_inds": None,
        "dist": None,
        "dist_limit": None,
        "subject_his_id": "physics_hybrid",
    }
    names_of_columns = [f"{k}" for k in range(gain.shape[1])]
    solution = {
        "data": gain,
        "nrow": gain.shape[0],
        "ncol": gain.shape[1],
        "row_names": channels,
        "col_names": names_of_columns,
    }
    return mne.Forward(
        info=info,
        sol=solution,
        sol_grad=None,
        _orig_sol=gain.copy(),
        _orig_sol_grad=None,
        source_ori=FIFF.FIFFV_MNE_FREE_ORI,
        _orig_source_ori=FIFF.FIFFV_MNE_FREE_ORI,
        surf_ori=False,
        coord_frame=FIFF.FIFFV_COORD_HEAD,
        mri_head_t=mne.transforms.Transform("mri", "head"),
        src=mne.SourceSpaces([space]),
        source_rr=where,
        source_nn=np.tile(np.eye(3), (count, 1)),
        nsource=count,
        nchan=len(channels),
    )
