"""Pins: what a change that keeps behaviour must keep to the bit.

    python tests/pins.py write pins.json            pins of this checkout
    python tests/pins.py compare pins.json          the same again; exit status 1 and the names
                                                    where one differs
    python tests/pins.py against COMMIT             both in one go, COMMIT in a worktree of its own

Pinned are the final weights and the evaluation of four tiny trainings (limbs with all losses; a
user's files, U-Net; label volumes, finite elements; two ranks, stored limbs), the contents and
names of generated files, and everything in metrics.json but times and places. They belong to one
machine and one torch, so that none are stored with the code. Only programs are called: whatever
moves inside the package, this script stays as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]

TINY = [
    "training.epochs=2",
    "training.threads=1",
    "training.device=cpu",
    "data.workers=0",
    "evaluation.samples=2",
    "model.statistics_samples=2",
    "tracker=none",
    "training.figures_every=99",
]
LIMBS = [
    "data.grid=[16,12,12]",
    "data.samples_per_epoch=6",
    "data.validation_samples=2",
    "evaluation.resolutions=[[16,12,12],[32,24,24]]",
]
FNO = ["model.backbone.modes=[3,3,3]", "model.backbone.width=8", "model.backbone.depth=2"]

#: Name -> overrides; OUT stands for the folder of the pins.
TRAININGS = {
    "limbs": [
        *LIMBS,
        *FNO,
        "loss.pde.weight=0.1",
        "loss.charge.weight=0.1",
        "training.ema=0.5",
        "training.accumulate=2",
        "data.folder=OUT/limbs",
    ],
    "files": [
        "data=files",
        "data.path=OUT/files",
        "model=unet",
        "model.backbone.width=4",
        "model.backbone.levels=2",
        "training.clipping.mode=agc",
        "data.batch_size=1",
    ],
    "labels": [
        "data=labels",
        "data.path=OUT/body.npy",
        "data.spacing=[0.004,0.004,0.004]",
        "data.grid=[14,12,12]",
        "data.solver=finite_element",
        "data.samples_per_epoch=4",
        "data.validation_samples=2",
        "evaluation.resolutions=[[14,12,12]]",
        "problem.ends=pair",
        *FNO,
        "loss.pde.weight=0.1",
        "data.folder=OUT/labels",
    ],
    "ranks": [
        *LIMBS,
        *FNO,
        "data=generated",
        "data.train_samples=8",
        "problem.ends=robin",
        "model.baseline.kind=coarse_solve",
        "data.folder=OUT/ranks",
    ],
}
#: In metrics.json, what belongs to a moment and a place.
INCIDENTAL = ("checkpoint", "commit", "date", "hardware", "torch", "seconds", "peak_memory_MB")


def body() -> np.ndarray:
    """A segmentation: concentric skin, fat, muscle, and a bone off the axis."""
    d, h, w = np.indices((20, 16, 16)) + 0.5
    radius = np.hypot(h - 8, w - 8)
    labels = np.select([radius < 5.2, radius < 6.3, radius < 7.4], [3, 2, 1], 0)
    labels[np.hypot(h - 7, w - 9) < 1.6] = 4
    return labels.astype(np.uint8)


def digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:16]


def weights(run: Path) -> str:
    """Of the final weights, by name."""
    state = torch.load(run / "latest_checkpoint.pt", map_location="cpu", weights_only=True)["model"]
    return digest(
        *(
            part
            for name in sorted(state)
            for part in (name.encode(), state[name].contiguous().numpy().tobytes())
        )
    )


def contents(path: Path) -> str:
    """Of the values and words of an .h5 file, however they are stored."""
    parts = []
    with h5py.File(path, "r") as file:
        for name, value in sorted(file.attrs.items()):
            word = value.decode() if isinstance(value, bytes) else value
            parts.append(f"{name}={word}".encode())
        for key, data in file.items():
            parts += [key.encode(), data[:].tobytes()]
    return digest(*parts)


def metrics(run: Path) -> dict[str, str]:
    """Of each part of metrics.json."""
    content = json.loads((run / "evaluation" / "metrics.json").read_text())

    def kept(node):
        return (
            {k: kept(v) for k, v in node.items() if k not in INCIDENTAL}
            if isinstance(node, dict)
            else node
        )

    return {
        name: digest(json.dumps(value, sort_keys=True).encode())
        for name, value in kept(content).items()
    }


def train(root: Path, out: Path, name: str) -> None:
    words = [
        o.replace("OUT", str(out))
        for o in (*TINY, *TRAININGS[name], f"run={name}", f"runs_folder={out}/runs")
    ]
    # the name that old commits have
    launcher = (
        ["-m", "physics_hybrid.torchrun", "--standalone", "--nproc-per-node", "2"]
        if name == "ranks"
        else []
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    done = subprocess.run(
        [sys.executable, *launcher, str(root / "train.py"), *words],
        cwd=out,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"the training {name!r} of {root} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )


def pins(root: Path) -> dict[str, str]:
    """Name -> digest, for the checkout at `root`."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        np.save(out / "body.npy", body())
        for name in TRAININGS:
            if name == "files":  # what the limbs' training has solved, as somebody's own
                (out / "files").mkdir()
                for file in sorted((out / "limbs").glob("limbs_*_16x12x12_*.h5")):
                    (out / "files" / file.name).write_bytes(file.read_bytes())
            train(root, out, name)
            run = out / "runs" / name
            found[f"{name}/weights"] = weights(run)
            found |= {f"{name}/metrics/{part}": value for part, value in metrics(run).items()}
            for file in sorted(out.glob(f"{name}/*.h5")) if name != "files" else ():
                found[f"{name}/{file.name}"] = contents(file)
            print(f"{name}: {found[f'{name}/weights']}", file=sys.stderr, flush=True)
    return found


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """A line for each pin that is missing, new or another."""
    return [
        f"{name}: {before.get(name, 'missing')} -> {now.get(name, 'missing')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def pins_of_commit(commit: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "commit"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--detach", "--quiet", str(there), commit],
            check=True,
        )
        try:
            return pins(there)
        finally:
            subprocess.run(
                ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(there)], check=True
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("write", "compare", "against"))
    parser.add_argument("what", help="a JSON file; for `against`, a commit")
    arguments = parser.parse_args()
    if arguments.verb == "write":
        Path(arguments.what).write_text(json.dumps(pins(ROOT), indent=1) + "\n")
        return 0
    before = (
        pins_of_commit(arguments.what)
        if arguments.verb == "against"
        else json.loads(Path(arguments.what).read_text())
    )
    wrong = differences(before, pins(ROOT))
    print("\n".join(wrong) or f"all {len(before)} pins agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
