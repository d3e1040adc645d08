"""Where figures of merit go besides the run folder: Weights & Biases, TensorBoard, or nowhere.

Rank 0 only.

No tracker ever asks a question or stops a training: what cannot be set up is said once, and
training goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physics_hybrid.checks import one_of
from physics_hybrid.report.markdown import table
from physics_hybrid.report.plots import pyplot

#: The variable that names a study, a chain or a sweep to the runs that it starts.
GROUP = "PHYSICS_HYBRID_GROUP"


class Tracker:
    """No tracking; also the interface. `run_id` lets a resumed training continue the same run."""

    run_id: str | None = None

    def start(self, folder: Path, config: dict[str, Any], run_id: str | None = None) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None: ...

    def figure(self, name: str, path: Path, step: int) -> None: ...

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Numbers that stand for the whole run."""

    def keep(self, kind: str, paths: Sequence[Path]) -> None:
        """Files of the run that go where the figures go: weights, report, model card."""

    def table(self, name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None: ...

    def finish(self) -> None: ...


class WandbTracker(Tracker):
    """Weights & Biases. mode: online, offline or disabled. Without a key, online becomes offline
    and says so.
    """

    def __init__(
        self,
        project: str,
        mode: str = "offline",
        entity: str | None = None,
        name: str | None = None,
    ):
        one_of(("online", "offline", "disabled"), "tracker.mode", mode)
        self.mode: Any = os.environ.get("WANDB_MODE", mode)
        self.project, self.entity, self.name = project, entity, name
        self.run: Any = None

    def start(self, folder: Path, config: dict[str, Any], run_id: str | None = None) -> None:
        if self.mode == "disabled":
            return
        try:
            os.environ.setdefault("WANDB_SILENT", "true")
            import wandb

            if self.mode == "online" and not _wandb_key():
                print(
                    "tracker: no Weights & Biases key on this machine; logging offline (wandb sync"
                    " uploads it later)",
                    file=sys.stderr,
                )
                self.mode = "offline"
            self.run = wandb.init(
                project=self.project,
                entity=self.entity,
                name=self.name or Path(folder).name,
                dir=str(folder),
                config=config,
                id=run_id,
                resume="allow" if run_id else None,
                mode=self.mode,
                group=os.environ.get(GROUP),
            )
            self.run_id = self.run.id
        except Exception as error:
            print(
                f"tracker: Weights & Biases could not start ({error}); training goes on without it",
                file=sys.stderr,
            )
            self.run = None

    def log(self, values: dict[str, float], step: int) -> None:
        if self.run:
            self.run.log(values, step=step)

    def figure(self, name: str, path: Path, step: int) -> None:
        if self.run:
            import wandb

            self.run.log({name: wandb.Image(str(path))}, step=step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        if self.run:
            self.run.summary.update(dict(values))

    def keep(self, kind: str, paths: Sequence[Path]) -> None:
        if self.run:
            import wandb

            artifact = wandb.Artifact(f"{_word(kind)}-{self.run.id}", type=_word(kind))
            for path in paths:
                add = artifact.add_dir if path.is_dir() else artifact.add_file
                add(str(path))
            self.run.log_artifact(artifact)

    def table(self, name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.run:
            import wandb

            self.run.log({name: wandb.Table(columns=[*heads], data=[list(row) for row in rows])})

    def finish(self) -> None:
        if self.run:
            self.run.finish()


def _word(kind: str) -> str:
    return kind.replace(" ", "_")


def _wandb_key() -> bool:
    """Whether a key is to be found without asking: environment, or a netrc entry."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


class TensorBoardTracker(Tracker):
    """TensorBoard event files in the run folder."""

    def __init__(self) -> None:
        self.writer: Any = None

    def start(self, folder: Path, config: dict[str, Any], run_id: str | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(Path(folder) / "tensorboard"))
        except Exception as error:
            print(
                f"tracker: TensorBoard could not start ({error}); training goes on without it",
                file=sys.stderr,
            )

    def log(self, values: dict[str, float], step: int) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def figure(self, name: str, path: Path, step: int) -> None:
        if self.writer:
            picture = pyplot().imread(path)[..., :3]
            self.writer.add_image(name, picture, step, dataformats="HWC")

    def summarise(self, values: Mapping[str, Any]) -> None:
        lines = [[key, str(value)] for key, value in values.items()]
        self.table("summary", ["what", "value"], lines)

    def keep(self, kind: str, paths: Sequence[Path]) -> None:
        """Texts alone: event files hold no weights."""
        if self.writer:
            for path in [p for p in paths if p.suffix == ".md"]:
                self.writer.add_text(kind, path.read_text())

    def table(self, name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.writer:
            self.writer.add_text(name, table(heads, rows))

    def finish(self) -> None:
        if self.writer:
            self.writer.close()
