"""Stages in order, each started by what the one before made: a study of one.

A chain is a file: its name in conf/chain, or a path. Every stage is a run of train.py in
OUTPUT/<stage>; `{NAME}` in its overrides is the folder of an earlier stage. Stages that are done
are skipped, one that was killed goes on to the same bits, and one that fails ends the chain: those
after it need it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from physics_hybrid.evidence.study import check_overrides_of, content_of, file_of, slug
from physics_hybrid.run.ledger import read

#: A place for the folder of a stage: letters alone between braces, unlike {train: 0.7}.
PLACE = re.compile(r"\{([\w -]+)\}")


@dataclass(frozen=True)
class Stage:
    """One training: overrides are what follows `python train.py run=NAME`."""

    name: str
    overrides: tuple[str, ...]

    def done(self, output: Path) -> bool:
        """Whether it is trained to its last epoch, and tested where it is to be."""
        run = read(output / self.name)
        if run.epochs is None or run.epoch < run.epochs:
            return False
        untested = (run.config.get("evaluation") or {}).get("after_training") is False
        return run.state == "finished" or untested


@dataclass(frozen=True)
class Chain:
    """What conf/chain/*.yaml says."""

    name: str
    common: list[str]
    stages: dict[str, list[str]]

    @classmethod
    def read(cls, what: str) -> Chain:
        """Raises ValueError where there is no such chain, or the file says something else than a
        chain should.
        """
        path = file_of(what, "chain")
        content = content_of(path)
        if not isinstance(content, dict) or set(content) != {"common", "stages"}:
            raise ValueError(f"{path}: a chain has the keys common, stages")
        check_overrides_of(path, "stages", content["stages"] or {})
        chain = cls(path.stem, content["common"] or [], content["stages"] or {})
        if not chain.stages or len(set(map(slug, chain.stages))) < len(chain.stages):
            raise ValueError(f"{path}: stages must be there, and differ in letters or digits")
        chain.cells(Path("."))  # places are looked up
        return chain

    def cells(self, output: Path, extra: Iterable[str] = ()) -> list[Stage]:
        """The stages, with the folders of those before in their overrides.

        Raises
        ------
        ValueError
            A place names a stage that does not come before.
        """
        more, cells = tuple(extra), list[Stage]()
        before: dict[str, Path] = {}
        for name, own in self.stages.items():
            words = [self._filled(word, before, name) for word in (*self.common, *own, *more)]
            words.append(f"runs_folder={_quoted(str(output))}")
            cells.append(Stage(slug(name), tuple(words)))
            before[name] = output / slug(name)
        return cells

    def _filled(self, word: str, before: dict[str, Path], stage: str) -> str:
        key, equals, value = word.partition("=")
        names = PLACE.findall(value)
        for name in names:
            if name not in before:
                earlier = ", ".join(before) or "none"
                raise ValueError(
                    f"chain {self.name}, stage {stage}: {word} names {name!r}, and the stages"
                    f" before are {earlier}"
                )
            value = value.replace(f"{{{name}}}", str(before[name]))
        return f"{key}{equals}{_quoted(value.strip(chr(39)))}" if names else word


def _quoted(path: str) -> str:
    """A path as one word of an override."""
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
