"""What a user holds: four-fluxes in, four-fluxes out, fast enough to stand inside a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: The closure inside this package.
SHIPPED = Path(__file__).parent / "pretrained" / "flavour.mdlus"


class Predictor:
    """A closure: `closure(F, u)`.

    model : a `networks.Closure`.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval()

    @classmethod
    def load(cls, checkpoint: str | Path | None = None) -> Predictor:
        """From a .mdlus file or a folder of checkpoints; None: the one inside this package.

        Raises
        ------
        physics_hybrid.models.model_files.CheckpointError
            Nothing there, or not readable.
        """
        from physics_hybrid.models.model_files import load_model

        return cls(load_model(SHIPPED if checkpoint is None else Path(checkpoint)))

    @torch.inference_mode()
    def __call__(self, F: Any, u: Any = None) -> Any:
        """Four-fluxes after the instability, in the unit, kind and precision of F.

        F : (..., 6, 4), array or tensor: nu_e, nu_mu, nu_tau, nubar_e, nubar_mu, nubar_tau, each
            (x, y, z, t), number flux / c and number density.
        u : four-velocity of the fluid over c, (..., 4); None: at rest.

        Raises
        ------
        ValueError
            Another shape.
        """
        states = _tensor(F)
        if states.ndim < 2 or states.shape[-2:] != (6, 4):
            raise ValueError(
                "F must have shape (..., 6, 4): six species, each (x, y, z, t); got"
                f" {tuple(states.shape)}"
            )
        batch = states.shape[:-2]
        velocity = None
        if u is not None:
            try:
                velocity = _tensor(u).to(states).expand(*batch, 4).reshape(-1, 4)
            except RuntimeError as error:
                raise ValueError(
                    f"u must have shape (..., 4), as many as F has states {tuple(batch)}; got"
                    f" {tuple(np.shape(u))}"
                ) from error
        model = self.model.to(dtype=states.dtype)
        after: Tensor = model(states.reshape(-1, 6, 4), velocity).reshape(states.shape)
        return after.numpy() if isinstance(F, np.ndarray) else after


def _tensor(values: Any) -> Tensor:
    """float32 stays; everything else is float64."""
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    return tensor if tensor.dtype == torch.float32 else tensor.double()
