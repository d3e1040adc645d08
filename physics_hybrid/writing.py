"""Files of ours get their name when they are whole and on disk, and carry checksums.

A full disk, a quota or a kill leaves the file that was there before, or none; never half of one.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

#: How every dataset of our HDF5 files is stored: compressed, held to a checksum when it is read,
#: and with the same bytes whenever it is written.
STORED: dict[str, Any] = {
    "compression": "gzip",
    "compression_opts": 1,
    "shuffle": True,
    "fletcher32": True,
    "track_times": False,
}
#: The format of HDF5 (1.10 and later) whose own tables carry checksums, too: shapes, attributes,
#: where the chunks lie.
FORMAT = ("v110", "v110")


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A name to write to, with the same ending; what is there at the end gets the name `path`.

    Raises
    ------
    OSError
        Disk full, folder not writable: names `path`, and leaves what was there.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"writing {path} failed ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """A text under its name, whole. Raises OSError as `written`."""
    with written(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def create_h5(path: str | Path) -> Iterator[h5py.File]:
    """A new HDF5 file, in the format whose tables carry checksums; datasets take ``**STORED``.

    Texts are best stored with fixed length (``numpy.bytes_``): those of variable length lie in a
    heap without a checksum. No lock is asked for.

    Raises
    ------
    OSError
        As `written`.
    """
    with written(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "w", libver=FORMAT) as file:
                yield file
        finally:
            disk.settle()


class _Disk(io.RawIOBase):
    """A file for HDF5 to write to, which keeps its first error for later.

    The library, once it could not write, cannot close either: it fills the screen with traces, and
    crashes when the program ends.
    """

    def __init__(self, raw: io.FileIO):
        self.raw = raw
        self.error: OSError | None = None

    def settle(self) -> None:
        """Raise what went wrong."""
        if self.error is not None:
            raise self.error

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while len(left) and self.error is None:
                left = left[self.raw.write(left) :]
        except OSError as error:
            self.error = error
        return size

    def readinto(self, content: Any) -> int:
        return self.raw.readinto(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self.raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def flush(self) -> None:
        """Nothing: what is written is with the operating system already."""
