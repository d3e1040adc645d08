r"""Statistical intervals for a network, from bodies it was not trained on. NOT a guarantee.

Split conformal prediction: of n errors e_1..e_n of calibration bodies, drawn as the body that is
asked about, the error of that body is at most the k-th smallest,

    k = ceil((n + 1) coverage)

with probability `coverage` or more, over calibration and body together. (Vovk, Gammerman and
Shafer, Algorithmic Learning in a Random World, 2005, ch. 4; Lei et al., J. Am. Stat. Assoc. 113
(2018) 1094, thm. 2.2.) Whether a body is drawn alike nobody can prove; `Likeness` warns where it is
plainly not: where its features, by the distance of Mahalanobis, lie farther out than all but a
small share of the training bodies (the same theorem makes that share exact).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """Errors of a network on n calibration bodies, in any unit, sorted.

    Examples
    --------
    >>> import torch
    >>> calibration = Calibration.of(torch.linspace(0.01, 0.10, 19))
    >>> round(calibration.bound(0.9), 3)
    0.095
    """

    errors: Float[Tensor, " n"]

    @classmethod
    def of(cls, errors: Float[Tensor, " n"]) -> "Calibration":
        """
        Raises
        ------
        ValueError
            Without errors, or with one that is no number.
        """
        if errors.ndim != 1 or not len(errors) or not bool(torch.isfinite(errors).all()):
            raise ValueError(
                f"a calibration needs a list of finite errors; got shape {tuple(errors.shape)}"
            )
        return cls(errors.double().sort().values)

    def bound(self, coverage: float = 0.9) -> float:
        """What the error of another body of the same kind is at most, with probability `coverage`;
        infinity where n is too small to say.

        Raises
        ------
        ValueError
            For a coverage that is not between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage is a probability between 0 and 1; got {coverage}")
        k = math.ceil((len(self.errors) + 1) * coverage - 1e-12)
        return float(self.errors[k - 1]) if k <= len(self.errors) else math.inf


@dataclass(frozen=True)
class Likeness:
    """How far the features of a body lie from those of training bodies.

    mean : (F,). whiten : (F, F), so that |whiten^T (x - mean)| is the distance of Mahalanobis.
    distances : of bodies kept back, sorted, (n,).

    Examples
    --------
    >>> import torch
    >>> features = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    >>> likeness = Likeness.of(features[:200], features[200:])
    >>> likeness.unlike(torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])).tolist()
    [False, True]
    """

    mean: Float[Tensor, " F"]
    whiten: Float[Tensor, "F F"]
    distances: Float[Tensor, " n"]

    @classmethod
    def of(cls, training: Float[Tensor, "m F"], kept_back: Float[Tensor, "n F"]) -> "Likeness":
        """training : features of the bodies trained on. kept_back : of others of the same kind.

        Raises
        ------
        ValueError
            For fewer training bodies than features + 2, or other features in `kept_back`.
        """
        m, count = training.shape
        if m < count + 2 or kept_back.ndim != 2 or kept_back.shape[1] != count:
            raise ValueError(
                f"likeness needs at least {count + 2} training bodies and the same {count} features"
                f" of others; got {tuple(training.shape)} and {tuple(kept_back.shape)}"
            )
        training = training.double()
        mean = training.mean(dim=0)
        covariance = (training - mean).T @ (training - mean) / (m - 1)
        floor = 1e-9 * covariance.diagonal().mean().clamp_min(1e-300)
        values, vectors = torch.linalg.eigh(covariance)
        whiten = vectors * values.clamp_min(floor).rsqrt()
        nothing = torch.zeros(0, dtype=torch.float64)
        likeness = cls(mean, whiten, nothing)
        return cls(mean, whiten, likeness.distance(kept_back).sort().values)

    def distance(self, features: Float[Tensor, "K F"]) -> Float[Tensor, " K"]:
        """Of Mahalanobis, from the mean of the training bodies."""
        away = (features.double() - self.mean) @ self.whiten
        distance: Tensor = torch.linalg.vector_norm(away, dim=1)
        return distance

    def share_beyond(self, features: Float[Tensor, "K F"]) -> Float[Tensor, " K"]:
        """p-value: the share of bodies of the training kind that lie as far out or farther."""
        beyond = self.distances[None] >= self.distance(features)[:, None]
        return (beyond.sum(dim=1) + 1) / (len(self.distances) + 1)

    def unlike(self, features: Float[Tensor, "K F"], share: float = 0.01) -> Bool[Tensor, " K"]:
        """Which bodies to warn of: of those of the training kind it would be `share` or fewer."""
        return self.share_beyond(features) <= share
