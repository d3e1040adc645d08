"""log.jsonl: a record an epoch, which figures and people read while a training goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def records(folder: Path) -> list[dict[str, Any]]:
    """All records of a run, first epoch first."""
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def add_record(folder: Path, record: dict[str, Any]) -> None:
    """Put a record behind those of earlier epochs; the file is replaced as a whole.

    A resumed training repeats what came after its checkpoint: one record an epoch is kept.
    """
    path = folder / LOG
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _is_before(line, record["epoch"])]
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("\n".join([*kept, json.dumps(record)]) + "\n")
    os.replace(temporary, path)


def _is_before(line: str, epoch: int) -> bool:
    try:
        earlier: bool = json.loads(line)["epoch"] < epoch
    except json.JSONDecodeError:  # a line cut by a kill
        return False
    return earlier
