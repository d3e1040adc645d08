"""How good a rollout is, a number a sample.

nrmse            mean over frames of |e| / |u|, from frame `initial_step` on, where the frame
                 before is given: PDEBench's nRMSE (Takamoto et al. 2022, appendix B)
nrmse_from_start the same from frame 1, where frame 0 is given
one_step         the same of single steps, each from a true frame
mean_drift       |mean of the last frame - that of the first| / root mean square of the truth
energy_increases share of steps in which the mean of u^2 rises, beyond rounding
milliseconds     a frame and sample, of the rollout that `nrmse` is of; of the processor where torch
                 has one thread
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from physics_hybrid.problem import Row
from physics_hybrid.problems.burgers.guards import energy_excess

COLUMNS = (
    ("nrmse", "nRMSE"),
    ("nrmse_from_start", "from t = 0"),
    ("one_step", "one step"),
    ("mean_drift", "drift of the mean"),
    ("energy_increases", "energy rises"),
    ("milliseconds", "ms a frame"),
)
#: Energy that rises by less is rounding.
ROUNDING = 1e-6
RESAMPLES = 2000


@dataclass(frozen=True)
class Forecast:
    """What a contender makes of trajectories.

    late : frames `initial_step` to the last, from the true frame before.
    whole : frames 1 to the last, from frame 0.
    single : frames 1 to the last, each from the true frame before.
    milliseconds : a frame and sample of `late`; None: not measured.
    """

    late: Float[Tensor, "B L N"]
    whole: Float[Tensor, "B M N"]
    single: Float[Tensor, "B M N"]
    milliseconds: float | None = None


def frame_errors(
    predicted: Float[Tensor, "B T N"], true: Float[Tensor, "B T N"]
) -> Float[Tensor, "B T"]:
    """|e| / |u| of each frame."""
    error = (predicted - true).double().square().mean(dim=-1).sqrt()
    return error / true.double().square().mean(dim=-1).sqrt()


def nrmse(predicted: Float[Tensor, "B T N"], true: Float[Tensor, "B T N"]) -> float:
    """PDEBench's nRMSE: the mean over samples and frames of |e| / |u|.

    Examples
    --------
    >>> u = torch.ones(2, 3, 8)
    >>> round(nrmse(1.1 * u, u), 6)
    0.1
    """
    return float(frame_errors(predicted, true).mean())


@dataclass(frozen=True)
class Metrics:
    """initial_step : frames that are given."""

    initial_step: int

    def __call__(self, forecast: Forecast, u: Float[Tensor, "B T N"]) -> list[Row]:
        """One dict a sample; u: the true frames, from 0."""
        size = u.double().square().mean(dim=(1, 2)).sqrt()
        drift = forecast.whole[:, -1].double().mean(dim=-1) - u[:, 0].double().mean(dim=-1)
        path = torch.cat([u[:, :1], forecast.whole], dim=1).double()
        rises = energy_excess(path[:, 1:], path[:, :-1]) > ROUNDING
        columns = {
            "nrmse": frame_errors(forecast.late, u[:, self.initial_step :]).mean(dim=1),
            "nrmse_from_start": frame_errors(forecast.whole, u[:, 1:]).mean(dim=1),
            "one_step": frame_errors(forecast.single, u[:, 1:]).mean(dim=1),
            "mean_drift": drift.abs() / size,
            "energy_increases": rises.double().mean(dim=1),
        }
        values = {name: column.tolist() for name, column in columns.items()}
        if forecast.milliseconds is not None:
            values["milliseconds"] = [forecast.milliseconds] * len(u)
        return [{name: values[name][i] for name in values} for i in range(len(u))]


def paired_ratio(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of two mean errors on the same samples, and its 95 % interval by bootstrap over them.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    Examples
    --------
    >>> errors = np.linspace(1, 2, 50)
    >>> paired_ratio(0.5 * errors, errors) == (0.5, 0.5, 0.5)
    True
    """
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(ours), (RESAMPLES, len(ours)))
    ratios = ours[drawn].mean(axis=1) / theirs[drawn].mean(axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(ours.mean() / theirs.mean()), float(low), float(high)
