"""Files that others made, or that were damaged on the way: whatever fails while one is read becomes
one error, which names file, key, index and what to do.

    with open_h5("samples.h5") as file:
        u = file.dataset("u")
        first = u[0]

h5py answers a flipped byte with KeyError, RuntimeError, OSError, TypeError, ValueError, MemoryError
or words of the HDF5 library, depending on where it lies. A reader that goes through `open_h5` meets
a `FileError` alone. Other formats: `with failures("file.npz", "a NumPy file"): ...`.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import importlib
import io
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

#: Filters of HDF5 that the library may lack, by their registered number
#: (github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md).
FILTERS = {
    4: "szip",
    307: "bzip2",
    32000: "lzf",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32024: "SZ3",
    32026: "Blosc2",
    32028: "SPERR",
}
#: Bytes of a dataset for one that is stored. Deflate reaches 1032, of zeros; a dataset that claims
#: more, and much, has a damaged shape, and reading it would fill the memory.
DEFLATED = 2000
#: Bytes that are too few to care.
MUCH = 1 << 26


class FileError(ValueError):
    """A file that breaks a rule. The message names file, key and rule, in one line.

    where : file, and what in it: ``a.h5[3]``.
    key : of what is wrong, or None where that is the whole file.
    rule : what was wrong, and what to do.
    """

    def __init__(self, where: str, key: str | None, rule: str):
        self.parts = (where, key, rule)
        named = f"key {key!r}: " if key else ""
        super().__init__(_one_line(f"{where}: {named}{rule}"))

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str | None, str]]:
        """A reading process hands it to the training process."""
        return type(self), self.parts


def _one_line(text: str) -> str:
    """Without line breaks, and without halves of characters, which no terminal can show."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


class failures:
    """Whatever fails inside becomes a `FileError`; those that are one already stay as they are.

    where, key : of what is read.
    kind : what the file should be, such as ``an HDF5 file``.
    raises : the kind of FileError that a problem calls its own.
    """

    def __init__(
        self, where: str, kind: str, key: str | None = None, raises: type[FileError] = FileError
    ):
        self.where, self.kind, self.key, self.raises = where, kind, key, raises

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, FileError):
            rule = meaning(error, self.kind, self.where)
            raise self.raises(self.where, self.key, rule) from error


def meaning(error: Exception, kind: str, where: str) -> str:
    """What an error of a library means for who reads a file, and what to do, in one line.

    kind : what the file should be, such as ``an HDF5 file``. where : the file.
    """
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    said = _one_line(said) or type(error).__name__
    meant = _of_the_machine(error) or _of_the_content(said, where)
    if meant is not None:
        return meant
    # an argument is invalid where a damaged table sends the reader before the beginning
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"cannot be read ({error.strerror})"
    if isinstance(error, MemoryError):
        return f"cannot be read ({said}): more than the memory holds, or a damaged shape"
    named = said if isinstance(error, OSError) else f"{type(error).__name__}: {said}"
    why = f"damaged, still being written, or not {kind}"
    return f"cannot be read ({named}): {why}. Take it from where it was made"


def _of_the_machine(error: Exception) -> str | None:
    """What the operating system says no to."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "does not exist"
    if number in (errno.EACCES, errno.EPERM):
        return "may not be read (permission denied): ask its owner, or chmod +r"
    if number == errno.EISDIR:
        return "is a folder, not a file"
    if "unable to lock file" in str(error) or number in (errno.ENOLCK, errno.EAGAIN):
        return (
            "cannot be locked: another program writes it, or its file system has no locks, and "
            "HDF5_USE_FILE_LOCKING asks for them; set HDF5_USE_FILE_LOCKING=FALSE"
        )
    return None


def _of_the_content(said: str, where: str) -> str | None:
    """What a library says of a file, in words that help."""
    cut = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", said)
    if cut:
        return f"is truncated: {cut[1]} of {cut[2]} bytes are there. Copy it again"
    if "allow_pickle" in said:
        return "holds Python objects (a pickle), which are never loaded: they could run code"
    if "file signature not found" in said:
        return "cannot be opened as HDF5: empty, truncated at its beginning, or another format"
    if "consistency flags" in said or "already open for write" in said:
        return (
            "is being written, or its writer was killed: wait, or take back the mark with "
            f"h5clear -s {where}"
        )
    if "end-of-stream" in said:
        return f"is truncated ({said}). Copy it again"
    if re.search("Fletcher32|checksum|CRC", said):
        return (
            f"is damaged: a checksum does not match ({said}), so bits have changed since it was "
            "written. Take it from where it was made"
        )
    return None


def text_of(value: Any) -> str:
    """A text that was stored as an array, as bytes or as text: UTF-8, else Latin-1."""
    value = np.asarray(value)
    value = value.item() if value.size == 1 else value.tolist()
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def unpacked(path: Path, raises: type[FileError] = FileError) -> bytes:
    """The content of a file; of a .gz what is packed in it, whole, and held to its checksum.

    A reader that unpacks only as far as it needs never comes to the checksum.
    """
    with failures(str(path), "a whole .gz file", raises=raises):
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix.lower() == ".gz" else content


# --- NumPy


def read_npz(
    path: Path, keys: Collection[str] | None = None, raises: type[FileError] = FileError
) -> dict[str, np.ndarray]:
    """Those arrays of an .npz file that are named (None: all), without pickles, each held to its
    checksum.

    `numpy.load` reads an array only as far as its header says, and does not look at what has
    another name than expected: a flipped bit there takes rows or whole arrays away in silence.
    """
    arrays = {}
    with failures(str(path), "an .npz file", raises=raises), zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            key = part.filename.removesuffix(".npy")
            with archive.open(part) as packed:  # its name stands in two places, which must agree
                if keys is None or key in keys:
                    with failures(str(path), "a NumPy array", key, raises):
                        arrays[key] = _array(packed.read())
    return arrays


def read_npy(path: Path, raises: type[FileError] = FileError) -> np.ndarray:
    """The array of an .npy file, without pickles."""
    with failures(str(path), "a NumPy file", raises=raises):
        return _array(path.read_bytes())


def _array(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):
        raise ValueError("there is more than its shape says")
    return array


# --- HDF5


@contextlib.contextmanager
def open_h5(path: str | Path, raises: type[FileError] = FileError) -> Iterator[Group]:
    """An HDF5 file to read, without a lock: file systems that have none serve as well.

    raises : the kind of FileError that a problem calls its own.

    Raises
    ------
    FileError
        Here, and from whatever is asked of what is yielded: see the module.
    """
    path = Path(path)
    with failures(str(path), "an HDF5 file", raises=raises):
        file = h5py.File(path, "r", locking=False)
    try:
        yield Group(file, str(path), "", raises)
    finally:
        # what was read was held to its checksums; a file that closes badly changes nothing
        with contextlib.suppress(Exception):
            file.close()


class _Node:
    """Something in an HDF5 file.

    where : the file.
    key : the name in it, '' for the file itself.
    """

    def __init__(self, node: Any, where: str, key: str, raises: type[FileError]):
        self._node, self.where, self.key, self._raises = node, where, key, raises

    def _failures(self, key: str | None = None, where: str = "") -> failures:
        return failures(where or self.where, "an HDF5 file", key or self.key, self._raises)

    def error(self, rule: str, key: str | None = None) -> FileError:
        """To raise: this node, or the one with a key in it, breaks a rule of the reader's."""
        return self._raises(self.where, key or self.key, rule)

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes."""
        with self._failures():
            return sorted(text_of(name) for name in self._node.attrs)

    def attribute(self, name: str) -> Any:
        """The value of an attribute; None where there is none, or an empty one."""
        with self._failures(name):
            if name not in self._node.attrs:
                return None
            value = self._node.attrs[name]
            return None if isinstance(value, h5py.Empty) else value


class Group(_Node):
    """A group of an HDF5 file, or the file."""

    def keys(self) -> list[str]:
        """Names of what is in it."""
        with self._failures():
            return sorted(text_of(name) for name in self._node)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: str) -> bool:
        """Whether there is something of that name, be it a link that leads nowhere."""
        with self._failures(key):
            return key in self._node

    def is_group(self, key: str) -> bool:
        """Whether there is a group of that name."""
        return key in self and isinstance(self._get(key), h5py.Group)

    def group(self, key: str) -> Group:
        """A group in this one. Raises FileError where there is none."""
        node = self._get(key)
        if not isinstance(node, h5py.Group):
            raise self.error("must be a group", self._name(key))
        return Group(node, self.where, self._name(key), self._raises)

    def dataset(self, key: str) -> Dataset:
        """A dataset in this group. Raises FileError where there is none, or none to be read."""
        node = self._get(key)
        if not isinstance(node, h5py.Dataset):
            raise self.error("must be a dataset", self._name(key))
        return Dataset(node, self.where, self._name(key), self._raises)

    def _name(self, key: str) -> str:
        return f"{self.key}/{key}".lstrip("/")

    def _get(self, key: str) -> Any:
        name = self._name(key)
        with self._failures(name):
            try:
                return self._node[key]
            except Exception as error:
                rule = self._absent(key)
                if rule is None:
                    raise
                raise self.error(rule, name) from error

    def _absent(self, key: str) -> str | None:
        """Why there is nothing of that name; None where there is something."""
        if key not in self._node:
            place = "group" if self.key else "file"
            return f"is missing; the {place} has {', '.join(self.keys()) or 'nothing'}"
        leads = _leads(self._node.get(key, getlink=True))
        if leads is None:
            return None
        return f"is a link to {leads}, which is not there: put that back, or copy it in"


def _leads(link: Any) -> str | None:
    """Where a link leads; None for what lies in the group itself."""
    if isinstance(link, h5py.ExternalLink):
        return f"{link.path} in the file {link.filename}"
    if isinstance(link, h5py.SoftLink):
        return str(link.path)
    return None


class Dataset(_Node):
    """A dataset of an HDF5 file: `shape`, `dtype`, and values by index."""

    def __init__(self, node: Any, where: str, key: str, raises: type[FileError]):
        super().__init__(node, where, key, raises)
        with self._failures():
            self.shape: tuple[int, ...] = node.shape or ()
            self.dtype: np.dtype[Any] = node.dtype
            empty = node.shape is None
            size, stored = node.size or 0, node.id.get_storage_size()
            properties = node.id.get_create_plist()
            virtual = properties.get_layout() == h5py.h5d.VIRTUAL
            missing = _missing_filters(properties)
            absent = _missing_sources(node, where) if virtual else []
            elsewhere = virtual or properties.get_external_count() > 0
        if empty:
            raise self.error("is empty: it has a type, and no values")
        if missing:
            raise self.error(
                f"is compressed with {', '.join(missing)}, which this Python cannot read: "
                "pip install hdf5plugin, and start again; the file is not damaged"
            )
        if absent:
            raise self.error(
                f"is put together from {', '.join(absent)}, which is not there: put it back"
            )
        claimed = size * self.dtype.itemsize
        if not elsewhere and claimed > max(MUCH, DEFLATED * stored):
            raise self.error(
                f"claims {claimed / 1e9:.3g} GB, and {stored} bytes are stored: it was never "
                "written, or its shape is damaged"
            )

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def offset(self) -> int | None:
        """Byte of the file at which its values begin, where they lie in one piece as they are."""
        with self._failures():
            place: int | None = self._node.id.get_offset()
            return place

    def __len__(self) -> int:
        if not self.shape:
            raise self.error("is one value, and has no length")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """A row, a part, with `()` or `...` all of it: as h5py gives it."""
        row = f"{self.where}[{index}]" if isinstance(index, int) else self.where
        with self._failures(where=row):
            return self._node[index]


def _missing_filters(properties: Any) -> list[str]:
    """Filters that a dataset needs and that are not there, with names and numbers.

    hdf5plugin brings the most common ones as soon as it is imported.
    """
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    missing = [(code, name) for code, _, _, name in filters if not h5py.h5z.filter_avail(code)]
    if missing:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
    return [
        f"{FILTERS.get(code) or text_of(name) or 'a filter'} (HDF5 filter {code})"
        for code, name in missing
        if not h5py.h5z.filter_avail(code)
    ]


def _missing_sources(node: Any, where: str) -> list[str]:
    """Files that a virtual dataset is put together from and that are not there.

    The library gives zeros for them.
    """
    names = {source.file_name for source in node.virtual_sources()} - {"."}
    beside = Path(where).parent
    return sorted(n for n in names if "%" not in n and not (beside / n).exists())
