"""Caches of libraries lie in the home folder; where that cannot be written, or there is none, in a
temporary one.

NVIDIA Warp, which PhysicsNeMo imports, makes its folder when it is imported and fails where it
cannot; matplotlib complains. Compute nodes and containers have such homes. Light to import, and
called ahead of both.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

#: Variable of a library -> the folder that it uses without it: one of XDG, or below the home.
CACHES = {
    "WARP_CACHE_PATH": ("XDG_CACHE_HOME", ".cache"),
    "MPLCONFIGDIR": ("XDG_CONFIG_HOME", ".config"),
}


def find_room() -> None:
    """Point the variables whose folder cannot be written to a temporary one, and say so."""
    if os.name != "posix":
        return
    # without HOME and an entry in passwd even asking for the home is an error, as PhysicsNeMo does
    moved = [] if _has_home() else ["HOME"]
    if not moved:
        moved = [variable for variable in CACHES if not _writable(_folder(variable))]
    if not moved:
        return
    room = _temporary()
    for variable in moved:
        os.environ[variable] = str(room)
    print(
        f"no home folder that can be written: caches of libraries lie in {room}"
        f" ({' and '.join(moved)} choose{'s' if len(moved) == 1 else ''} another place)",
        file=sys.stderr,
        flush=True,
    )


def _has_home() -> bool:
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def _folder(variable: str) -> Path:
    """The folder that a library would use."""
    base, below_home = CACHES[variable]
    chosen = os.environ.get(variable) or os.environ.get(base)
    return Path(chosen) if chosen else Path.home() / below_home


def _writable(folder: Path) -> bool:
    """Whether a folder, or the first one above it that is there, can be written."""
    for place in (folder, *folder.absolute().parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _temporary() -> Path:
    """One for all our processes; a new one where somebody else has made that."""
    folder = Path(tempfile.gettempdir()) / f"physics_hybrid-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and about.st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="physics_hybrid-"))
