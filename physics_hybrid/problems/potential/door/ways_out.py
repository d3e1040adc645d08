"""How the current leaves a body, and whether all of its tissue has a potential."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from physics_hybrid.problems.potential.door.body import Body
from physics_hybrid.problems.potential.door.sources import Sources
from physics_hybrid.problems.potential.physics.ends import ENDS, Ends


def open_or_sealed(body: Body) -> str:
    """The ends of a body with one electrode: grounded where tissue touches them, else sink."""
    return "grounded" if body.tissue[[0, -1]].any() else "sink"


def ends_of(body: Body, ends: Ends | str, beta: float | None, paired: bool, points: bool) -> Ends:
    """How the current leaves.

    paired : whether second electrodes take it out. points : whether electrodes are points.

    Raises
    ------
    ValueError
        Ends that contradict the electrodes, or the body.
    """
    if isinstance(ends, str) and ends == "auto" and beta is None:
        way_out = Ends("pair" if paired else open_or_sealed(body))
    elif isinstance(ends, Ends):
        way_out = ends
    elif ends == "auto":
        way_out = Ends("robin", beta)
    else:
        way_out = Ends(ends, beta)
    if paired and way_out.kind != "pair" and points:
        raise ValueError(
            f"returns with ends={way_out.kind!r}: a pair has ends='pair' (nothing passes any other"
            " surface); with open ends subtract the fields of two single electrodes"
        )
    if not paired and way_out.kind == "pair":
        raise ValueError("ends='pair' needs returns, where the current is taken out")
    if way_out.kind in ("grounded", "robin") and not body.tissue[[0, -1]].any():
        raise ValueError(
            f"ends={way_out.kind!r} lets the current out at the first and last plane along D, and"
            f" no tissue touches them: ends='sink' ({ENDS['sink']}), or returns="
        )
    return way_out


def reached(body: Body, sources: Sources, ends: Ends) -> Tensor | None:
    """Where the current of each source can flow, (K, D, H, W) of bool: not in pieces of tissue that
    have ends of their own and no electrode. None: everywhere.
    """
    pieces, sizes = body.pieces
    if ends.floating or len(sizes) < 2:
        return None
    found = []
    for k in range(len(sources)):
        own = {int(pieces[tuple(voxel)]) for voxel in sources.voxels(body, k)}
        found.append(np.isin(pieces, [*own]))
    return torch.from_numpy(np.stack(found)).to(body.sigma.device)


def connected(body: Body, ends: Ends) -> None:
    """Raises ValueError where tissue in several pieces leaves a potential undefined."""
    pieces, sizes = body.pieces
    if len(sizes) < 2:
        return
    floating = {*range(1, len(sizes) + 1)}
    if not ends.floating:
        floating -= {*np.unique(pieces[[0, -1]]).tolist()}
    if not floating:
        return
    if ends.floating:
        said = f"tissue is in {len(sizes)} pieces that share no face"
    else:
        said = f"{len(floating)} of {len(sizes)} pieces of tissue touch no end that is open"
    some = sorted((int(sizes[p - 1]) for p in floating), reverse=True)[:4]
    more = ", ..." if len(floating) > 4 else ""
    raise ValueError(
        f"{said} ({', '.join(map(str, some))}{more} voxels), and have no potential of their own:"
        " keep_largest=True (of Body, read_labels) turns all but the largest piece into air"
    )
