"""What a user chooses of a training."""

from __future__ import annotations

from dataclasses import dataclass

from physics_hybrid.checks import at_least, not_negative, one_of, positive, within
from physics_hybrid.training.clipping import check_clipping

#: Settings that count something: 1 or more.
COUNTS = (
    "epochs",
    "accumulate",
    "checkpoint_every",
    "validate_every",
    "log_every",
    "max_bad_steps",
)


@dataclass(frozen=True)
class TrainingSettings:
    """conf/training, one field a key; see the comments there.

    Raises
    ------
    ValueError
        A value that cannot be meant; the message names the key.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    final_learning_rate: float
    accumulate: int
    precision: str
    clipping_mode: str
    clipping_threshold: float
    clipping_eps: float
    ema: float
    checkpoint_every: int
    validate_every: int
    figures_every: int
    log_every: int
    max_bad_steps: int
    requeue_exit_code: int
    #: Runs of before this key are not watched.
    monitor_every: int = 0
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        for name in COUNTS:
            at_least(1, f"training.{name}", getattr(self, name))
        positive("training.learning_rate", self.learning_rate)
        for name in (
            "weight_decay",
            "warmup_steps",
            "final_learning_rate",
            "figures_every",
            "monitor_every",
        ):
            not_negative(f"training.{name}", getattr(self, name))
        for beta in self.betas:
            within(0, 1, "each of training.betas", beta, ends="[)")
        check_clipping(self.clipping_mode, self.clipping_threshold)
        one_of(("float32", "bf16", "fp16"), "training.precision", self.precision)
        if not 0 <= self.ema < 1:
            raise ValueError(f"training.ema must lie in [0, 1) (0: off); got {self.ema}")
        one_of(("ddp", "fsdp"), "training.parallel", self.parallel)
        if self.parallel == "fsdp":
            self._refuse_undivided()

    def _refuse_undivided(self) -> None:
        """Raise ValueError for what is not built for weights that are divided."""
        against = {
            f"training.ema={self.ema}": self.ema > 0,
            "training.clipping.mode=agc": self.clipping_mode == "agc",
            "training.precision=fp16": self.precision == "fp16",
        }
        for setting, there in against.items():
            if there:
                raise ValueError(
                    f"training.parallel=fsdp is not built for {setting}: leave one of them out"
                )
