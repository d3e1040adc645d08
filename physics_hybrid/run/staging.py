"""Copy data to the scratch disk of each node once, verified, before training reads it there in
every epoch.

One rank a node copies (local rank 0), the others of that node wait. A scratch that is too small or
fails is reported, and training reads from where the data was: slower, but right. The copy is
removed when the run ends, however it ends; what a killed one left is removed when the same run
comes back to the node.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch.distributed as dist

from physics_hybrid.cluster.machine import Machine

CHUNK = 1 << 22


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def copy_verified(source: Path, target: Path) -> tuple[int, float]:
    """Copy a file or folder and compare SHA-256 sums of what was read and what lies there now;
    (bytes, seconds).

    Raises
    ------
    OSError
        No room (asked before the first byte), an error of the disk, or a sum that differs. Nothing
        is left behind, nor when a signal ends it.
    """
    started = time.perf_counter()
    files = _files(source)
    size = sum(f.stat().st_size for f in files)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if size > free:
            raise OSError(f"{size / 1e9:.2f} GB do not fit into the {free / 1e9:.2f} GB free there")
        for file in files:
            to = target if source.is_file() else target / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            if _copy(file, to) != _digest(to):
                raise OSError(f"{to} differs from {file} after copying")
    except BaseException:
        remove(target)
        raise
    return size, time.perf_counter() - started


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    with open(source, "rb") as a, open(target, "wb") as b:
        while block := a.read(CHUNK):
            digest.update(block)
            b.write(block)
        b.flush()
        os.fsync(b.fileno())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there and the disk lets us: a copy that stays must not end
    a training.
    """
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(
    source: str | None,
    scratch: str | None,
    machine: Machine,
    run: Path,
    job: str,
    at_loss: list[Callable[[], None]],
) -> Iterator[str | None]:
    """The path to read from on this node: the copy under `scratch`, or `source` itself where
    nothing is (or can be) staged.

    run, job : the folder of the run and a name for this start of it; copies of earlier starts on
        this node are removed first.
    at_loss : is given what removes the copy, for a process that must leave without unwinding
        (`Heartbeat.before_leaving`).

    All ranks must enter. The copy is removed on the way out.
    """
    if not scratch or not source:
        yield source
        return
    origin = Path(source)
    # named for the host, too: a scratch may be shared by nodes, and each removes its own copies
    mark = hashlib.sha256(f"{run.resolve()} {socket.gethostname()}".encode()).hexdigest()[:12]
    ours = re.sub(r"[^\w.-]", "_", f"physics_hybrid-{run.name}-{mark}-")
    folder = Path(scratch) / (ours + re.sub(r"[^\w.-]", "_", job))
    target = folder / origin.name
    try:
        if machine.local_rank == 0:
            at_loss.append(lambda: remove(folder))
            _fetch(origin, target, lambda name: name.startswith(ours) and name != folder.name)
        if machine.world_size > 1:
            dist.barrier()
        # unlike Path's, False where the scratch may not be entered
        yield str(target if os.path.exists(target) else origin)
    finally:
        if machine.local_rank == 0:
            remove(folder)


def _fetch(origin: Path, target: Path, stale: Callable[[str], bool]) -> None:
    """Copy, with the space that earlier copies took; say how it went."""
    try:
        scratch = target.parent.parent
        for old in [p for p in scratch.iterdir() if stale(p.name)] if scratch.is_dir() else []:
            print(f"removing {old}, which a run that was killed left there", flush=True)
            remove(old)
        remove(target)
        size, seconds = copy_verified(origin, target)
        print(
            f"staged {size / 1e6:.1f} MB to {target} in {seconds:.1f} s"
            f" ({size / 1e6 / max(seconds, 1e-9):.0f} MB/s), checksums agree",
            flush=True,
        )
    except OSError as error:
        print(
            f"WARNING: cannot stage {origin} to {target}: {error}; reading it where it is",
            file=sys.stderr,
            flush=True,
        )
