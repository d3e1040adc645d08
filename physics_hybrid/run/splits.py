"""Which samples a run is trained on: written beside its configuration, and held to ever after.

    runs/<run>/splits.json    {"train": [["s0.npz", "9f1c..."], ...], "validation": ..., ...}

A sample is known by the fingerprint of its content, which its problem gives: it may move and be
named otherwise. The run does not know what a sample is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.problem import Splits
from physics_hybrid.writing import write_text

FILE = "splits.json"
#: What weights are fitted to, and what chooses the best of them: nothing there is unseen.
USED = ("train", "validation")
#: How many samples a message names.
NAMED = 6


def remember(folder: Path, splits: Splits) -> None:
    """Write the splits of a run: {} where the configuration alone makes its samples."""
    write_text(folder / FILE, json.dumps(splits, indent=0))


def recall(folder: Path) -> Splits | None:
    """The splits that a run was begun with; None where none are written down.

    Raises
    ------
    CheckpointError
        The file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text())
        return {str(name): [(str(s), str(f)) for s, f in part] for name, part in held.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): it says which samples the run was trained on. Choose"
            " another run=NAME to start afresh"
        ) from error


def hold(before: Splits, now: Splits, folder: Path) -> str | None:
    """A note where the same samples come in another order; None where all is as it was.

    Raises
    ------
    CheckpointError
        A split has other samples than the run in `folder` was begun with; the message names them.
    """
    differences = _differences(before, now)
    if differences:
        raise CheckpointError(
            f"{folder} was begun with other samples: {'; '.join(differences)}. To go on, bring back"
            f" what the run had (it is listed in {folder / FILE}); another run=NAME starts afresh,"
            f" and training.init_from={folder} starts from its weights"
        )
    if all(_prints(before, name) == _prints(now, name) for name in before):
        return None
    return (
        "NOTE: files have other names than when this run was begun, so that its samples come in"
        " another order: the training goes on with the same samples, not to the same bits"
    )


def _differences(before: Splits, now: Splits) -> list[str]:
    """Which samples are gone, new, or in another split, in words."""
    gone, new = _missing(before, now), _missing(now, before)
    parts_of = {mark: name for name, part in before.items() for _, mark in part}
    moved = [
        sample
        for name, part in now.items()
        for sample, mark in part
        if parts_of.get(mark, name) != name
    ]
    kinds = {"gone": gone, "new": new, "in another split": moved}
    return [f"{kind}: {named(samples)}" for kind, samples in kinds.items() if samples]


def _missing(of: Splits, there: Splits) -> list[str]:
    """The samples of some splits that others do not hold, or not as often."""
    counts = [Counter(mark for part in s.values() for _, mark in part) for s in (of, there)]
    lacking = counts[0] - counts[1]
    return [sample for part in of.values() for sample, mark in part if mark in lacking]


def _prints(splits: Splits, name: str) -> list[str]:
    return [mark for _, mark in splits.get(name, ())]


def used(known: Splits, now: Splits) -> dict[str, str]:
    """Of the samples that are there now, by name, those that a run has used: for train or
    validation.
    """
    marks: dict[str, str] = {}
    for part in reversed(USED):
        marks |= dict.fromkeys(_prints(known, part), part)
    return {sample: marks[mark] for part in now.values() for sample, mark in part if mark in marks}


def remarks(used: Mapping[str, str], tested: int) -> list[str]:
    """What a report says of samples that the run has used, a line for each split.

    used : `used` of those that were tested. tested : all that were.
    """
    said = []
    for part in USED:
        names = [sample for sample, split in used.items() if split == part]
        if names:
            said.append(
                f"{len(names)} of {tested} samples belong to the {part} split of this run, and say"
                f" nothing about unseen ones: they have rows of their own, ..._{part}"
                f" ({named(names)})."
            )
    return said


def remarks_of_sources(used: Mapping[str, str]) -> list[str]:
    """What a report says where samples are made of what the run has used: of a body, say.

    used : `used` of what they are made of.
    """
    said = []
    for part in USED:
        names = [name for name, split in used.items() if split == part]
        if names:
            said.append(
                f"Samples are drawn from what the {part} split of this run is drawn from, too"
                f" ({named(names)}): their errors say nothing about others."
            )
    return said


def named(samples: list[str]) -> str:
    """Names of samples, the first of many, without their folders."""
    names = [Path(sample).name for sample in samples]
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
