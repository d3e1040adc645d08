"""What becomes of damaged files: a clear error, or the right values; never a library's trace, never
other values in silence.

    python tests/damage.py [COUNT]

damages COUNT (1500) files of each kind that the programs read, and says how many ended how. Exits 1
where one ended wrongly. `tests/test_reading.py` does the same with fewer.
"""

from __future__ import annotations

import collections
import io
import os
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

#: Seconds in which a file of a few kilobytes is read, or hangs.
LONG = 60


def flipped(content: bytearray, random: np.random.Generator) -> None:
    """One bit."""
    content[random.integers(len(content))] ^= 1 << random.integers(8)


def overwritten(content: bytearray, random: np.random.Generator) -> None:
    """Some bytes, with others."""
    start, count = random.integers(len(content)), random.integers(1, 65)
    part = content[start : start + count]
    content[start : start + len(part)] = random.bytes(len(part))


def blanked(content: bytearray, random: np.random.Generator) -> None:
    """A block, with zeros or ones, as disks leave it."""
    start, count = random.integers(len(content)), random.choice([8, 64, 512])
    part = content[start : start + count]
    content[start : start + len(part)] = random.choice([b"\0", b"\xff"]) * len(part)


def cut(content: bytearray, random: np.random.Generator) -> None:
    """The end."""
    del content[random.integers(len(content)) :]


def shortened(content: bytearray, random: np.random.Generator) -> None:
    """Some bytes in the middle."""
    start = random.integers(len(content))
    del content[start : start + random.integers(1, 65)]


def lengthened(content: bytearray, random: np.random.Generator) -> None:
    """Some bytes more."""
    start = random.integers(len(content) + 1)
    content[start:start] = random.bytes(int(random.integers(1, 65)))


DAMAGES = (flipped, flipped, overwritten, blanked, cut, shortened, lengthened)


class Hangs(BaseException):
    """A reader did not come back."""


def ends(path: Path, read: Callable[[Path], Any], right: Any, clear: type[Exception]) -> str:
    """How reading a damaged file ends: 'right', 'refused', or what is wrong with it.

    clear : the error that a reader may raise; it names the file in one line.
    """

    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONG)
    try:
        got = read(path)
    except Hangs:
        return "hangs"
    except clear as error:
        said = str(error)
        if path.name not in said or "\n" in said:
            return f"unclear: {said}"
        return "refused"
    except Exception as error:
        return f"trace: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return "right" if same(got, right) else "changed"


def same(got: Any, right: Any) -> bool:
    """Whether two values, or dicts and lists of them, are the same to the bit."""
    if isinstance(right, dict):
        return got.keys() == right.keys() and all(same(got[key], right[key]) for key in right)
    if isinstance(right, (list, tuple)):
        return len(got) == len(right) and all(map(same, got, right))
    if isinstance(right, np.ndarray):
        same_kind = got.dtype == right.dtype and got.shape == right.shape
        return same_kind and got.tobytes() == right.tobytes()
    return bool(got == right)


def damaged(
    whole: Path,
    read: Callable[[Path], Any],
    clear: type[Exception],
    count: int,
    seed: int = 0,
) -> collections.Counter[str]:
    """How `count` damaged copies of a file end, by the words of `ends`."""
    right, good = read(whole), whole.read_bytes()
    # a folder of its own: readers look at names
    path = whole.parent / "damaged" / whole.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(good)
    assert ends(path, read, right, clear) == "right"
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(count):
        random = np.random.default_rng([seed, zlib.crc32(whole.name.encode()), number])
        content = bytearray(good)
        DAMAGES[number % len(DAMAGES)](content, random)
        path.write_bytes(content)
        outcome = "right" if bytes(content) == good else ends(path, read, right, clear)
        outcomes[outcome] += 1
    return outcomes


def fill_disk(monkeypatch: Any, size: int) -> None:
    """From now on files of `writing.py` find a disk that is full after so many bytes each."""

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(content) > size:
                raise OSError(28, "No space left on device")
            return super().write(content)

    def opened(path: Path, mode: str, **_: Any) -> io.FileIO:
        return Full(path, mode)

    monkeypatch.setattr("physics_hybrid.writing.open", opened, raising=False)


# --- files of each kind, and their readers


def limbs(folder: Path) -> Path:
    """Solved limbs, as we write them."""
    import torch

    from physics_hybrid.problems.potential.data.generated import generate
    from physics_hybrid.problems.potential.data.stream import LimbStream, Solver
    from tests.conftest import limb_distribution

    stream = LimbStream(limb_distribution(), (12, 8, 8), 1, "train", Solver(), torch.device("cpu"))
    return generate(folder / "limbs.h5", stream, 2, progress=False)


def read_samples(path: Path) -> list[dict[str, Any]]:
    from physics_hybrid.problems.potential.data.files import find

    samples = [vars(address.read()) for address in find(path)]
    return [{k: v for k, v in sample.items() if k != "name"} for sample in samples]


def npz(folder: Path) -> Path:
    """A sample of a user's."""
    sample = read_samples(limbs(folder))[0]
    sample["sigma"] = np.moveaxis(sample["sigma"], 0, -1)
    keys = ("sigma", "source", "u", "mask", "labels", "spacing", "source_point")
    np.savez_compressed(folder / "sample.npz", **{key: sample[key] for key in keys})
    return folder / "sample.npz"


def others(folder: Path) -> Path:
    """The same samples in an .h5 that h5py writes when it is told nothing: no checksums."""
    import h5py

    from physics_hybrid.reading import open_h5

    with open_h5(limbs(folder)) as file, h5py.File(folder / "others.h5", "w") as out:
        for key in file:
            out[key] = file.dataset(key)[:]
    return folder / "others.h5"


def labels(folder: Path) -> Path:
    import nibabel

    volume = np.random.default_rng(0).integers(0, 5, (12, 10, 8)).astype(np.uint8)
    image = nibabel.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0]))
    nibabel.save(image, folder / "labels.nii.gz")
    return folder / "labels.nii.gz"


def read_volume(path: Path) -> list[Any]:
    from physics_hybrid.problems.potential.bodies.label_files import read_labels

    volume = read_labels(path)
    return [volume.labels, volume.spacing]


def state(folder: Path) -> Path:
    import torch

    from physics_hybrid.training.checkpoint import rng_state, save_state

    weights = torch.randn(500, generator=torch.Generator().manual_seed(0))
    return save_state(folder, {"progress": {"step": 1}, "weights": weights, "rng": [rng_state()]})


def read_state(path: Path) -> Any:
    from physics_hybrid.training.checkpoint import load_state

    return as_arrays(load_state(path))


def as_arrays(value: Any) -> Any:
    """Tensors as arrays, in dicts and lists."""
    if isinstance(value, dict):
        return {key: as_arrays(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_arrays(v) for v in value]
    return value.numpy() if hasattr(value, "numpy") else value


def model(folder: Path) -> Path:
    from physics_hybrid.cluster.machine import initialize
    from physics_hybrid.models.fno import ResidualFNO
    from physics_hybrid.models.model_files import export_model

    initialize("cpu")
    return export_model(folder / "model.mdlus", ResidualFNO(2, width=2, depth=1, modes=[2, 2, 2]))


def read_model(path: Path) -> Any:
    from physics_hybrid.models.model_files import load_model

    loaded = load_model(path)
    return [as_arrays(dict(loaded.state_dict())), loaded.modes]


def states(folder: Path) -> Path:
    """Four-fluxes, as we write them."""
    from physics_hybrid.problems.flavour.data.files import write
    from tests.problems.flavour.test_files import healthy

    content = healthy(7)
    write(folder / "states.h5", {**content, "F_box": content["F_true"]}, {"source": "a test"})
    return folder / "states.h5"


def others_states(folder: Path) -> Path:
    """The same in an .h5 that h5py writes when it is told nothing: no checksums."""
    import h5py

    from tests.problems.flavour.test_files import healthy

    content = healthy(7)
    with h5py.File(folder / "others_states.h5", "w") as out:
        for key, values in {**content, "F_box": content["F_true"]}.items():
            out[key] = values
    return folder / "others_states.h5"


def read_states(path: Path) -> Any:
    from physics_hybrid.problems.flavour.data.files import Layout, read

    return as_arrays(vars(read(path, Layout(families="dirname"))))


def kinds() -> dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any], type[Exception]]]:
    """By name: what makes a whole file in a folder, what reads it, and the error that may come."""
    from physics_hybrid.models.model_files import CheckpointError
    from physics_hybrid.problems.flavour.data.files import StateError
    from physics_hybrid.reading import FileError

    return {
        ".h5": (limbs, read_samples, FileError),
        ".npz": (npz, read_samples, FileError),
        ".nii.gz": (labels, read_volume, FileError),
        ".pt": (state, read_state, CheckpointError),
        ".mdlus": (model, read_model, CheckpointError),
        ".h5 without checksums": (others, read_samples, FileError),
        ".h5 of states": (states, read_states, StateError),
        ".h5 of states without checksums": (others_states, read_states, StateError),
    }


#: Changed values that nothing can find.
UNPROTECTED = (".h5 without checksums", ".h5 of states without checksums")


def wrong(kind: str, outcomes: collections.Counter[str]) -> list[str]:
    """The outcomes that must not be."""
    fine = {"right", "refused"} | ({"changed"} if kind in UNPROTECTED else set())
    return [outcome for outcome in outcomes if outcome not in fine]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
    bad = False
    for kind, (make, read, clear) in kinds().items():
        with tempfile.TemporaryDirectory() as folder:
            outcomes = damaged(make(Path(folder)), read, clear, count)
        print(f"{kind}: {dict(outcomes.most_common())}", flush=True)
        bad = bad or bool(wrong(kind, outcomes))
    sys.exit(int(bad))


if __name__ == "__main__":
    main()
