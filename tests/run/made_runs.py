"""Run folders as trainings, kills and people leave them, without any training.

    python tests/run/made_runs.py FOLDER

writes 40 of them, and says which state each is to be found in.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from physics_hybrid.run import ledger

#: Days ago, of what is stale.
LONG_AGO = 40


def resolved(*words: str) -> dict[str, Any]:
    from physics_hybrid.evidence.bench import configuration

    return configuration([*words])


def make(
    folder: Path,
    config: Mapping[str, Any],
    trained: float = 1.0,
    error: float | None = None,
    owner: Any = None,
    seed: int = 0,
) -> Path:
    """A run folder; what it goes on from is empty.

    trained : share of its epochs. error : mean of the main metric, where it was tested. owner :
        whose claim lies there.
    """
    folder.mkdir(parents=True)
    config = {**config, "run": folder.name, "runs_folder": str(folder.parent), "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    epochs = int(trained * config["training"]["epochs"])
    lines = []
    for epoch in range(1, epochs + 1):
        record = {"epoch": epoch, "step": 10 * epoch, "seconds": 2.5 * epoch}
        lines.append({**record, "train/loss": 1 / epoch, "validation/error": 0.5 / epoch})
    if lines:
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / ledger.RESUMED[0]).touch()
    (folder / "origin.json").write_text(json.dumps({"commit": "a" * 40, "parameters": 1000}))
    if error is not None:
        evaluated(folder / "evaluation", error, 10 * epochs, seed)
    if owner is not None:
        (folder / "owner.1.json").write_text(json.dumps(asdict(owner)))
    return folder


def evaluated(folder: Path, error: float, step: int, seed: int, samples: int = 20) -> None:
    """metrics.json and samples.csv: errors of samples that are as hard in every run of a seed."""
    folder.mkdir()
    hard = np.random.default_rng(seed).uniform(0.5, 1.5, samples)
    rows = [{"error": error * h, "baseline_error": 0.5 * h} for h in hard]
    table = {k: {"mean": float(np.mean([r[k] for r in rows]))} for k in rows[0]}
    about = {"commit": "a" * 40, "parameters": 1000, "monitor": "error", "step": step}
    (folder / "metrics.json").write_text(json.dumps({**about, "seed": seed, "all": table}))
    with open(folder / "samples.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["family", "sample", *rows[0]])
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow({"family": "all", "sample": f"s{number}", **row})


def aged(folder: Path, days: float) -> Path:
    """Nothing in it was touched for so long."""
    then = time.time() - 86400 * days
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))
    return folder


def forty(place: Path) -> dict[str, str]:
    """40 folders; the state of each by its name."""
    from physics_hybrid.run.owner import Owner

    flavour, potential = resolved("experiment=flavour"), resolved()
    this = Owner.this()
    dead = Owner(this.host, this.place, this.process, this.started - 1000)
    elsewhere = Owner("another-host", "there", 17, this.started)
    states: dict[str, str] = {}
    for i in range(20):
        config, problem = ((flavour, "flavour"), (potential, "potential"))[i % 2]
        name = f"{problem}-{i:02d}"
        make(place / name, config, error=0.1 + 0.01 * i)
        states[name] = "finished"
    for i in range(4):
        name = f"grid/width-{i}_all_seed0"
        make(place / name, flavour, error=0.05 + 0.01 * i, seed=i)
        states[name] = "finished"
    for i in range(4):
        make(place / f"killed-{i}", flavour, trained=0.2 * i, owner=dead)
        states[f"killed-{i}"] = "interrupted"
    for i in range(3):
        make(place / f"untested-{i}", potential)
        states[f"untested-{i}"] = "unevaluated"
    longer = make(place / "longer", flavour, error=0.1)
    evaluation = longer / "evaluation" / "metrics.json"
    content = {**json.loads(evaluation.read_text()), "step": 10}
    evaluation.write_text(json.dumps(content))  # tested, and trained on since
    states["longer"] = "unevaluated"
    make(place / "here", flavour, trained=0.5, owner=this)
    make(place / "elsewhere", flavour, trained=0.5, owner=elsewhere)
    states |= {"here": "running", "elsewhere": "running"}
    aged(make(place / "forgotten", flavour, trained=0.5), LONG_AGO)
    aged(make(place / "silent", flavour, trained=0.5, owner=elsewhere), LONG_AGO)
    states |= {"forgotten": "stale", "silent": "stale"}
    (make(place / "cut", flavour, error=0.2) / "evaluation" / "metrics.json").write_text('{"a": ')
    states["cut"] = "damaged"
    (place / "begun").mkdir()  # killed before it had a configuration
    (place / "begun" / "owner.1.json").write_text(json.dumps(asdict(dead)))
    states["begun"] = "interrupted"
    for name in ("photos", "photos of 2025"):
        (place / name / "inside").mkdir(parents=True)
        (place / name / "a.txt").write_text("no run")
        states[name] = "foreign"
    return states


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    for run, state in forty(Path(sys.argv[1])).items():
        print(f"{run}: {state}")
