"""Who owns a run folder: one training at a time, on whatever host.

A training claims its folder with a file, `owner.N.json`, that names its host, process and start.
It is made by O_EXCL, which file systems without locks know, too: of two that claim the same number
one wins. The claim is touched while the training lives, and removed when it leaves. One that was
killed leaves it behind; the next training takes the number N + 1 where it can tell that the owner
is gone:

- on this host: no such process, or one that was started at another time;
- on another host (or in another container, where process numbers mean something else): the claim
  has not been touched for `patience` seconds, by the clock of the file system.

The ranks of a training are one owner: rank 0 claims.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

CLAIM = "owner.{}.json"

#: Seconds after which a claim without content counts as left by a process killed while it wrote.
UNWRITTEN = 5.0

#: Seconds that a file system which hangs may keep a training from leaving.
GRACE = 5.0

#: Two readings of a process's start may differ by a tick of the kernel's clock, s.
TICK = 0.05


class FolderTaken(OSError):
    """Another training, which lives, owns the folder. Names its host, process and start."""


@dataclass(frozen=True)
class Owner:
    """A process.

    host : its name. place : what tells hosts of one name, and containers, from each other.
    process : its number there. started : seconds since the epoch.
    """

    host: str
    place: str
    process: int
    started: float

    @classmethod
    def this(cls) -> Owner:
        return cls(
            host=socket.gethostname(),
            place=_place(),
            process=os.getpid(),
            started=psutil.Process().create_time(),
        )

    @property
    def is_here(self) -> bool:
        """Whether its number means something in this process."""
        return (self.host, self.place) == (socket.gethostname(), _place())

    def runs(self) -> bool:
        """Whether it is among the processes of this host."""
        try:
            process = psutil.Process(self.process)
            same = abs(process.create_time() - self.started) < TICK
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.process} on {self.host}, started {since}"


def _place() -> str:
    """Boot and process namespace, where the system tells them."""
    known = []
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(known)


@contextlib.contextmanager
def owned(folder: Path, patience: float) -> Iterator[Owner]:
    """Own a folder that is there.

    patience : seconds; see above. Where another host's claim is younger, it is watched for as long.

    Raises
    ------
    FolderTaken
        Another training owns it.
    OSError
        The folder cannot be written.
    """
    owner = Owner.this()
    claim = _claim(folder, owner, patience)
    stop = threading.Event()
    beat = threading.Thread(
        target=_beat, args=(claim, owner, patience / 10, stop), name="owner", daemon=True
    )
    beat.start()
    try:
        yield owner
    finally:
        stop.set()
        beat.join(GRACE)
        release(folder)


def holder(folder: Path, patience: float) -> Owner | None:
    """Who trains in a folder now, by a look at its claims: nothing is waited for, nothing changed.

    patience : seconds of silence after which another host's training counts as gone.
    """
    for claim in _claims(folder).values():
        try:
            owner = Owner(**json.loads(claim.read_text()))
            silent = time.time() - claim.stat().st_mtime
        except (OSError, ValueError, TypeError):  # gone, or its maker was killed while it wrote
            continue
        if owner.runs() if owner.is_here else silent < patience:
            return owner
    return None


def release(folder: Path) -> None:
    """Let go of a folder that this process owns, if it does."""
    owner = Owner.this()
    for claim in _claims(folder).values():
        with contextlib.suppress(OSError):
            if _read(claim) == owner:
                claim.unlink()


def _claim(folder: Path, owner: Owner, patience: float) -> Path:
    """Make the claim of `owner`; what dead owners left is removed."""
    while True:
        stale = _claims(folder)
        for path in stale.values():
            _refuse_if_alive(path, folder, patience)
        claim = folder / CLAIM.format(max(stale, default=0) + 1)
        try:
            handle = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            continue  # another was faster: see who
        try:
            with open(handle, "w") as file:
                file.write(json.dumps(asdict(owner)))
            for path in _claims(folder).values():
                if path != claim and path not in stale.values():
                    _refuse_if_alive(path, folder, patience)
        except OSError:
            claim.unlink()
            raise
        for path in stale.values():
            with contextlib.suppress(OSError):
                path.unlink()
        return claim


def _claims(folder: Path) -> dict[int, Path]:
    """Claims by number."""
    found = {}
    for path in folder.glob(CLAIM.format("*")):
        number = path.name.split(".")[1]
        if number.isdigit():
            found[int(number)] = path
    return found


def _refuse_if_alive(path: Path, folder: Path, patience: float) -> None:
    """Raise FolderTaken unless the owner of a claim is gone."""
    owner = _read(path)
    if owner is None:
        return
    alive = owner.runs() if owner.is_here else _beats(path, owner, patience)
    if alive:
        raise FolderTaken(
            f"{folder} belongs to another training that runs: {owner}. Wait for it, end it, or"
            f" choose another run=NAME (should it be gone all the same: remove {path})"
        )


def _read(path: Path) -> Owner | None:
    """Who made a claim; None where it is gone, or its maker was killed while it wrote."""
    deadline = time.monotonic() + UNWRITTEN
    while True:
        try:
            return Owner(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            if time.monotonic() > deadline:
                return None
        time.sleep(0.05)


def _beats(path: Path, owner: Owner, patience: float) -> bool:
    """Whether a claim of another host is touched, looked at until it would be too old."""
    first, said = _touched(path), False
    while True:
        touched = _touched(path)
        if touched is None:
            return False
        if touched != first:
            return True
        left = touched + patience - _now(path.parent)
        if left <= 0:
            return False
        if not said:
            said = True
            _say(f"the run folder was left or is held by {owner}: looking for {left:.0f} s")
        time.sleep(min(left, max(0.1, patience / 20)))


def _touched(path: Path) -> float | None:
    """When; None where the claim is gone. Opened, since that makes NFS ask its server."""
    try:
        with open(path) as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which need not be that of this host."""
    probe = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    probe.write_text("")
    try:
        os.utime(probe)
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _beat(claim: Path, owner: Owner, interval: float, stop: threading.Event) -> None:
    """Touch the claim until told to stop.

    One that is gone was taken from a process that was thought dead: two must not write, so this one
    leaves.
    """
    while not stop.wait(interval):
        try:
            if _read(claim) == owner:
                os.utime(claim)
                continue
        except OSError:  # a file system that fails for a moment
            continue
        if not stop.is_set():
            _say(
                f"error: {claim} is gone: another training has taken the run folder, as this one"
                " was silent for too long, or it was removed. This one leaves and writes no more"
            )
            os._exit(1)  # no clean-up: that would write


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
