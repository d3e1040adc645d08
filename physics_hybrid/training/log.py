"""log.jsonl: a record an epoch, which figures and people read while a training goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def records(folder: Path, name: str = LOG) -> list[dict[str, Any]]:
    """All records of a run, first epoch first; or those of another file of its kind."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def add_record(folder: Path, record: dict[str, Any], name: str = LOG, order: str = "epoch") -> None:
    """Put a record behind those of earlier epochs; the file is replaced as a whole.

    A resumed training repeats what came after its checkpoint: one record an epoch is kept.

    name, order : of another file, and the key that counts there.
    """
    path = folder / name
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _is_before(line, record[order], order)]
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("\n".join([*kept, json.dumps(record)]) + "\n")
    os.replace(temporary, path)


def _is_before(line: str, number: int, order: str) -> bool:
    try:
        earlier: bool = json.loads(line)[order] < number
    except json.JSONDecodeError:  # a line cut by a kill
        return False
    return earlier
