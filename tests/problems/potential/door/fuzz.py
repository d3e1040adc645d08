"""Inputs that people give: to the door and to the command line. Each ends in the right field, or in
one line that helps.

    python -m tests.problems.potential.door.fuzz --times 1000 --seed 0

Two changes at random of a small case. A change either keeps the meaning (another order of bytes,
other axes of memory, lists): the field is that of the untouched case. Or it breaks it: an error.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import torch

import physics_hybrid as ph

#: Errors that are meant for people.
MEANT = (ValueError, OSError, RuntimeError)

SHAPE, EDGES = (8, 6, 7), (0.004, 0.005, 0.003)
LABELS = np.zeros(SHAPE, dtype=np.uint8)
LABELS[:, 1:-1, 1:-1] = 2
LABELS[:, 2:-2, 2:-2] = 3
TABLE = np.array([0.0, 0.017, 0.05, 0.3])


def whole_case() -> dict:
    """Arguments of Body and of solve."""
    return {
        "sigma": TABLE[LABELS],
        "spacing": EDGES,
        "affine": None,
        "at": np.array([0.0141, 0.0131, 0.0102]),
        "current": 1e-3,
        "returns": None,
        "ends": "auto",
        "frame": "grid",
        "tolerance": 1e-8,
    }


def _changed(name, change):
    def apply(case, random):
        case[name] = change(np.array(case[name]), random)

    return apply


def _set(**values):
    def apply(case, random):
        case.update(values)

    return apply


def _at_random_voxel(value):
    def change(sigma, random):
        sigma[tuple(random.integers(0, n) for n in sigma.shape)] = value
        return sigma

    return change


def _island(sigma, random):
    sigma[3, 0, 0] = 0.3
    return sigma


def _only(count):
    def change(sigma, random):
        out = np.zeros_like(sigma)
        out[3 : 3 + count, 2, 3] = 0.3
        return out

    return change


def _components(sigma, random):
    return np.stack([sigma] * 3, axis=-1)


def _tensor(sigma, random):
    return np.concatenate([_components(sigma, random), np.zeros((*sigma.shape, 3))], axis=-1)


def _affine(degrees=0.0, scale=1e3, shear=0.0):
    turn = np.radians(degrees)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, shear, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(EDGES) * scale
    affine[:3, 3] = [-11.0, 5.0, 7.0]
    return affine


def _in_world(degrees):
    def apply(case, random):
        affine = _affine(degrees)
        index = np.array(whole_case()["at"]) / EDGES - 0.5
        case.update(affine=affine, at=affine[:3, :3] @ index + affine[:3, 3], frame="world")

    return apply


#: What keeps the meaning.
SAME = {
    "fortran": _changed("sigma", lambda s, r: np.asfortranarray(s)),
    "big endian": _changed("sigma", lambda s, r: s.astype(s.dtype.newbyteorder(">"))),
    "strided": _changed("sigma", lambda s, r: np.repeat(s, 2, axis=0)[::2]),
    "read only": lambda case, r: case["sigma"].flags.writeable and case["sigma"].setflags(write=0),
    "lists": lambda case, r: case.update(at=list(map(float, case["at"]))),
    "tensor": lambda case, r: case.update(
        sigma=torch.from_numpy(np.array(case["sigma"], dtype=float))
    ),
    "array spacing": _changed("spacing", lambda s, r: s.astype(">f8")),
    "three components": _changed("sigma", _components),
    "six components": _changed("sigma", _tensor),
    "affine": _set(affine=_affine()),
    "oblique affine": _set(affine=_affine(31.0)),
    "world": _in_world(0.0),
    "oblique world": _in_world(-17.0),
    "current as array": _set(current=np.array(1e-3)),
    "current as row": _set(current=np.array([1e-3])),
}
#: What breaks it.
WRONG = {
    "nan": _changed("sigma", _at_random_voxel(np.nan)),
    "inf": _changed("sigma", _at_random_voxel(np.inf)),
    "negative": _changed("sigma", _at_random_voxel(-0.3)),
    "labels": _set(sigma=LABELS),
    "bool": _set(sigma=LABELS > 0),
    "complex": _changed("sigma", lambda s, r: s + 0j),
    "words": _set(sigma=np.array([["a"]])),
    "objects": _set(sigma=np.array([None, 1.0])),
    "all air": _changed("sigma", lambda s, r: 0 * s),
    "flat": _changed("sigma", lambda s, r: s[0]),
    "one slice": _changed("sigma", lambda s, r: s[:1]),
    "first components": _changed("sigma", lambda s, r: np.stack([s] * 3)),
    "empty": _changed("sigma", lambda s, r: s[:0]),
    "island": lambda c, r: c.update(sigma=_island(np.array(TABLE[LABELS]), r)),
    "one voxel": lambda c, r: c.update(sigma=_only(1)(TABLE[LABELS], r)),
    "millimetres as metres": _changed("spacing", lambda s, r: 1e3 * s),
    "huge": _set(spacing=(10.0, 10.0, 10.0)),
    "tiny": _set(spacing=(1e-6, 1e-6, 1e-6)),
    "zero spacing": _set(spacing=(0.004, 0.0, 0.004)),
    "negative spacing": _set(spacing=(0.004, -0.004, 0.004)),
    "one spacing": _set(spacing=0.004),
    "spacing of words": _set(spacing="4 mm"),
    "sheared affine": _set(affine=_affine(0.0, shear=0.3)),
    "affine in metres": _set(affine=_affine(scale=1.0)),
    "affine of 3": _set(affine=np.eye(3)),
    "affine with nan": _set(affine=np.full((4, 4), np.nan)),
    "at in air": _set(at=(0.0141, 0.0005, 0.0005), frame="grid"),
    "at outside": _set(at=(0.5, 0.01, 0.01), frame="grid"),
    "at in millimetres": _set(at=(14.1, 13.1, 10.2), frame="grid"),
    "at negative": _set(at=(-0.001, 0.0131, 0.0102), frame="grid"),
    "at of two": _set(at=(0.014, 0.013)),
    "at with nan": _set(at=(0.014, np.nan, 0.01)),
    "at of nothing": _set(at=[]),
    "at none": _set(at=None),
    "at of words": _set(at="middle"),
    "ragged": _set(at=[[0.01, 0.01, 0.01], [0.01, 0.01]]),
    "nan current": _set(current=np.nan),
    "many currents": _set(current=[1e-3, 2e-3]),
    "current of words": _set(current="1 mA"),
    "returns here": lambda c, r: c.update(returns=c["at"]),
    "returns and grounded": _set(returns=(0.02, 0.013, 0.01), ends="grounded", frame="grid"),
    "pair of one": _set(ends="pair"),
    "unknown ends": _set(ends="open"),
    "unknown frame": _set(frame="mni"),
    "no tolerance": _set(tolerance=0.0),
    "tolerance of nan": _set(tolerance=float("nan")),
    "impossible tolerance": _set(tolerance=1e-300),
}


def answered(case: dict) -> np.ndarray:
    """phi of a case, whatever its order of components."""
    body = ph.Body(case["sigma"], case["spacing"], case["affine"])
    asked = {k: case[k] for k in ("current", "returns", "ends", "frame", "tolerance")}
    phi = ph.solve(body, case["at"], progress=False, **asked).phi
    return np.asarray(phi)


def judge(name: str, meant: bool, outcome: object, expected: np.ndarray) -> str | None:
    """What is wrong with how a case ended; None: nothing."""
    if isinstance(outcome, np.ndarray):
        if not meant:
            return f"{name}: a field came of what has none"
        off = np.abs(outcome - expected).max() / np.abs(expected).max()
        return None if off < 1e-6 else f"{name}: a silent wrong field, by {off:.1e}"
    text = str(outcome)
    if meant:
        return f"{name}: refused: {type(outcome).__name__}: {text}"
    if not isinstance(outcome, MEANT) or type(outcome).__module__.startswith("torch"):
        return f"{name}: a library's {type(outcome).__name__}: {text}"
    if "\n" in text or len(text) < 20:
        return f"{name}: says little: {text!r}"
    return None


def door(times: int, seed: int) -> list[str]:
    """What was wrong with so many cases at the door."""
    random = np.random.default_rng(seed)
    expected, wrong = answered(whole_case()), []
    for _ in range(times):
        case, names = whole_case(), []
        names += list(random.choice(list(SAME), size=random.integers(0, 3), replace=False))
        worlds = [n for n in names if n in ("affine", "oblique affine", "world", "oblique world")]
        names = [n for n in names if n not in worlds[1:]]
        components = [n for n in names if n.endswith("components")]
        names = [n for n in names if n not in components[1:]]
        meant = bool(random.random() < 0.35)
        for name in sorted(names, key=lambda n: n in ("tensor", "lists")):
            if not (name == "big endian" and torch.is_tensor(case["sigma"])):
                SAME[name](case, random)
        if not meant:
            broken = str(random.choice(list(WRONG)))
            with contextlib.suppress(TypeError):
                WRONG[broken](case, random)
            names.append(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                outcome: object = answered(case)
            except Exception as error:
                outcome = error
        said = judge(" + ".join(names) or "untouched", meant, outcome, expected)
        if said is not None:
            wrong.append(said)
    return wrong


def nifti(folder: Path, labels: np.ndarray, affine=None, slope=None, unit="mm") -> Path:
    """A segmentation as a file, its third axis up."""
    turned = labels.transpose(1, 2, 0)
    affine = np.diag([5.0, 3.0, 4.0, 1.0]) if affine is None else affine
    image = nibabel.Nifti1Image(turned, affine)
    image.header.set_xyzt_units(unit)
    if slope is not None:
        image = nibabel.Nifti1Image((turned / slope).astype(np.int16), affine)
        image.header.set_slope_inter(slope, 0)
        image.header.set_xyzt_units(unit)
    nibabel.save(image, folder / "a.nii.gz")
    return folder / "a.nii.gz"


def _turned(degrees: float) -> np.ndarray:
    """An affine turned about the third axis: oblique, and D is still up."""
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return affine @ np.diag([5.0, 3.0, 4.0, 1.0])


AT = ["--at", "0.0141", "0.0131", "0.0102"]
#: Words of the command line, a file that they read, and the status they leave with.
TYPED = {
    "plain": (0, AT, lambda f: nifti(f, LABELS)),
    "scaled": (0, AT, lambda f: nifti(f, LABELS.astype(float), slope=0.5)),
    "oblique": (0, AT, lambda f: nifti(f, LABELS, _turned(20.0))),
    "flipped": (0, AT, lambda f: nifti(f, LABELS, np.diag([-5.0, 3.0, 4.0, 1.0]))),
    "float labels": (0, AT, lambda f: nifti(f, LABELS.astype(np.float32))),
    "big endian": (0, AT, lambda f: nifti(f, LABELS.astype(">i2"))),
    "4D of one": (0, AT, lambda f: _four(f, 1)),
    "metres": (0, AT, lambda f: nifti(f, LABELS, np.diag([5e-3, 3e-3, 4e-3, 1]), unit="meter")),
    "4D": (1, AT, lambda f: _four(f, 2)),
    "metres called mm": (1, AT, lambda f: nifti(f, LABELS, np.diag([5e-3, 3e-3, 4e-3, 1]))),
    "mm called metres": (1, AT, lambda f: nifti(f, LABELS, unit="meter")),
    "sheared": (1, AT, lambda f: nifti(f, LABELS, _sheared())),
    "unknown label": (1, AT, lambda f: nifti(f, LABELS + np.uint8(7) * (LABELS == 2))),
    "an image": (1, AT, lambda f: nifti(f, (LABELS * 1.37).astype(np.float32))),
    "nan": (1, AT, lambda f: nifti(f, np.where(LABELS, LABELS, np.nan).astype(np.float32))),
    "nan is air": (
        0,
        [*AT, "--nan-is-air"],
        lambda f: nifti(f, np.where(LABELS, LABELS, np.nan).astype(np.float32)),
    ),
    "air": (1, ["--at", "0.014", "0.0005", "0.0005"], lambda f: nifti(f, LABELS)),
    "outside": (1, ["--at", "14", "13", "10"], lambda f: nifti(f, LABELS)),
    "no file": (1, AT, lambda f: f / "none.nii.gz"),
    "cut short": (1, AT, lambda f: _cut(nifti(f, LABELS))),
    "a text": (1, AT, lambda f: _text(f)),
    "no place": (2, [], lambda f: nifti(f, LABELS)),
    "two numbers": (2, ["--at", "1", "2"], lambda f: nifti(f, LABELS)),
    "words": (2, ["--at", "a", "b", "c"], lambda f: nifti(f, LABELS)),
    "unknown option": (2, [*AT, "--tolerence", "1"], lambda f: nifti(f, LABELS)),
    "bad tolerance": (1, [*AT, "--tolerance", "7"], lambda f: nifti(f, LABELS)),
    "bad suffix": (1, [*AT, "--out", "a.doc"], lambda f: nifti(f, LABELS)),
    "a full path": (1, [*AT, "--out", "/proc/none/a.npy"], lambda f: nifti(f, LABELS)),
    "negative": (1, ["--at", "-1e-3", "-.5", "-2"], lambda f: nifti(f, LABELS)),
    "robin": (0, [*AT, "--ends", "robin", "--beta", "10"], lambda f: nifti(f, LABELS)),
    "robin alone": (1, [*AT, "--ends", "robin"], lambda f: nifti(f, LABELS)),
}


def _four(folder: Path, count: int) -> Path:
    path = nifti(folder, LABELS)
    image = nibabel.load(path)
    data = np.stack([np.asarray(image.dataobj)] * count, axis=-1)
    nibabel.save(nibabel.Nifti1Image(data, image.affine, image.header), path)
    return path


def _sheared() -> np.ndarray:
    affine = np.diag([5.0, 3.0, 4.0, 1.0])
    affine[0, 1] = 1.0
    return affine


def _cut(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _text(folder: Path) -> Path:
    (folder / "a.nii.gz").write_text("no segmentation")
    return folder / "a.nii.gz"


def typed(name: str, folder: Path) -> str | None:
    """What is wrong with how a command line ended; None: nothing."""
    from physics_hybrid.verbs.solve import main

    status, words, make = TYPED[name]
    out, err = io.StringIO(), io.StringIO()
    left = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(make(folder)), *words, "--no-progress"])
        except SystemExit as end:
            left = int(end.code or 0)
        except Exception as error:
            return f"{name}: a trace: {type(error).__name__}: {error}"
    said = [line for line in err.getvalue().splitlines() if not line.startswith("warning: ")]
    if left != status:
        return f"{name}: left with {left}, not {status}: {err.getvalue()}"
    if status and not (said and said[-1].startswith("error: ") and len(said) == 1):
        return f"{name}: says {err.getvalue()!r}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    wrong = door(given.times, given.seed)
    with TemporaryDirectory() as folder:
        wrong += [said for name in TYPED if (said := typed(name, Path(folder)))]
    for said, count in collections.Counter(wrong).most_common():
        print(f"{count} x {said}")
    print(f"{given.times} inputs at the door and {len(TYPED)} command lines: {len(wrong)} wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
