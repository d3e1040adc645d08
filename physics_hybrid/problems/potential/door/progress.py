"""How far a solve has come: a bar with the time that is left, once it takes more than 2 s."""

from __future__ import annotations

import math
from types import TracebackType

from torch import Tensor

#: Seconds of silence.
DELAY = 2.0


class Progress:
    """A bar over `total` sources. Inside a group of them, what is done is how far the logarithm of
    the residual has fallen: conjugate gradients lose about the same share an iteration.

    tolerance : relative residual that is the end.
    """

    def __init__(self, total: int, tolerance: float, what: str, shown: bool = True) -> None:
        from tqdm import tqdm

        self.tolerance, self.done = tolerance, 0.0
        self.bar = tqdm(
            total=float(total),
            desc=what,
            delay=DELAY,
            disable=not shown,
            leave=False,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def within(self, residual: Tensor, count: int) -> None:
        """A group of `count` sources has come to relative residuals."""
        worst = float(residual.max())
        if not 0 < worst < 1:
            return
        share = min(1.0, math.log(worst) / math.log(self.tolerance))
        self._to(self.done + share * count)

    def finished(self, count: int) -> None:
        """A group of `count` sources is solved."""
        self.done += count
        self._to(self.done)

    def _to(self, where: float) -> None:
        self.bar.update(max(0.0, where - self.bar.n))
