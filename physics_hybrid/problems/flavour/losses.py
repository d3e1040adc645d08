"""What a prediction is held to. Everything is divided by N_tot; the speed of light is 1.

    density      ((N - N*) / max(|N*|, floor))^2
    magnitude    ((|F| - |F*|) / max(|F*|, floor))^2
    direction    1 - cos(F, F*), weighted by |F*| where it is below the floor
    unphysical   max(|F| / N - 1, 0)^2
    residual     |D - D*|, over the components of the increment beyond Box3D
    change       max over components |F - F*| / max |F* - F_before|: the metric itself

Each is a mean over samples and species.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TERMS = ("density", "magnitude", "direction", "unphysical", "residual", "change")


@dataclass(frozen=True)
class FlavourLoss:
    """weights : of each term; floor : as a share of N_tot, of |N*| and |F*|."""

    weights: dict[str, float]
    floor: float = 0.1

    def __call__(
        self,
        F: Float[Tensor, "B 6 4"],
        truth: Float[Tensor, "B 6 4"],
        before: Float[Tensor, "B 6 4"],
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss, and its terms, detached; states divided by N_tot."""
        terms = self.terms(F, truth, before)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return loss, {name: term.detach() for name, term in terms.items()}

    def terms(
        self,
        F: Float[Tensor, "B 6 4"],
        truth: Float[Tensor, "B 6 4"],
        before: Float[Tensor, "B 6 4"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Each by its name; states divided by N_tot."""
        N, N_true = F[..., 3], truth[..., 3]
        size, size_true = _size(F), _size(truth)
        cosine = (F[..., :3] * truth[..., :3]).sum(-1) / (size * size_true)
        visible = (size_true / self.floor).clamp_max(1.0)
        beyond = (size / N.clamp_min(1e-3 * self.floor) - 1).clamp_min(0)
        largest = (truth - before).abs().amax(dim=(1, 2)).clamp_min(0.1 * self.floor)
        error = (F - truth).abs()
        return {
            "density": ((N - N_true) / N_true.abs().clamp_min(self.floor)).square().mean(),
            "magnitude": ((size - size_true) / size_true.clamp_min(self.floor)).square().mean(),
            "direction": (visible * (1 - cosine)).mean(),
            "unphysical": beyond.square().mean(),
            "residual": error.mean(),
            "change": (error.square().sum(dim=(1, 2)).sqrt() / largest).mean(),
        }


def _size(F: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B"]:
    """|F|, with a gradient where it is 0."""
    return (F[..., :3].square().sum(-1) + 1e-12).sqrt()
