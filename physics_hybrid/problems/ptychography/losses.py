"""Unsupervised losses: the misfit of the far field that a predicted patch would give.

    mae       mean |A' - A| / mean A of the training frames
    poisson   sum [n log(n / m) - n + m] / sum n,   n = (s A)^2,  m = (s A')^2

A' = |F[P o]| of the patch o that the network makes of A. Both are 0 at the truth without noise.
poisson is the deviance: the negative log-likelihood of counts n where m are expected, less that
where n are (Thibault and Guizar-Sicairos, New J. Phys. 14 (2012) 063004, eq. 3).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

TERMS = ("mae", "poisson")
#: Photons that a pixel counts as having at least: the logarithm stays finite.
LEAST = 1e-3


class FarFieldLoss:
    """sum of weight x term.

    Parameters
    ----------
    weights : mapping
        By name of `TERMS`; 0 switches a term off.
    mean_amplitude : float
        Of the training frames.
    """

    def __init__(self, weights: Mapping[str, float], mean_amplitude: float):
        self.weights, self.mean_amplitude = dict(weights), mean_amplitude

    def __call__(
        self,
        predicted: Float[Tensor, "B N N"],
        measured: Float[Tensor, "B N N"],
        photon_scale: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms without gradient."""
        terms = {}
        if self.weights["mae"] > 0:
            terms["mae"] = (predicted - measured).abs().mean() / self.mean_amplitude
        if self.weights["poisson"] > 0:
            terms["poisson"] = poisson_deviance(predicted, measured, photon_scale)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return loss, {name: term.detach() for name, term in terms.items()}


def poisson_deviance(
    predicted: Float[Tensor, "B N N"], measured: Float[Tensor, "B N N"], photon_scale: float
) -> Tensor:
    """Deviance for each photon that was measured."""
    n = (photon_scale * measured).square()
    m = (photon_scale * predicted).square()
    ratio = torch.log((n + LEAST) / (m + LEAST))
    return ((n + LEAST) * ratio - n + m).sum() / n.sum()


def misfit(predicted: Float[Tensor, "*B N N"], measured: Float[Tensor, "*B N N"]) -> float:
    """sum |A' - A| / sum A, the R factor of crystallography."""
    return float((predicted - measured).abs().sum() / measured.sum())
