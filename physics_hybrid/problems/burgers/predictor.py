"""What a user holds: cell means in, cell means at later times out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from physics_hybrid.checks import positive
from physics_hybrid.problems.burgers.step import beyond, refuse_beyond, steps_to

#: The step inside this package.
SHIPPED = Path(__file__).parent / "pretrained" / "burgers.mdlus"


class Predictor:
    """A simulator: `simulate(u0, times, nu)`.

    model : a `step.HybridStep` or a `latent.step.LatentStep`.
    """

    def __init__(self, model: nn.Module):
        self.model: Any = model.eval()

    @classmethod
    def load(cls, checkpoint: str | Path | None = None) -> Predictor:
        """From a .mdlus file or a folder of checkpoints; None: the one inside this package.

        Raises
        ------
        physics_hybrid.models.model_files.CheckpointError
            Nothing there, not readable, or no step of Burgers.
        """
        from physics_hybrid.models.model_files import CheckpointError, load_model

        model = load_model(SHIPPED if checkpoint is None else Path(checkpoint))
        if not hasattr(model, "path") or not hasattr(model, "statistics"):
            raise CheckpointError(
                f"{checkpoint} holds a {type(model).__name__}, which makes no steps of Burgers:"
                " give a run of experiment=burgers"
            )
        return cls(model)

    def __call__(self, u0: Any, times: Sequence[float], nu: float) -> Any:
        """Cell means at `times`, in the kind and precision of u0.

        u0 : (N,) or (B, N), array or tensor; N as trained.
        times : multiples of the model's step, increasing; 0 is u0.
        nu : PDEBench's viscosity, eps = nu / pi.

        Returns (T, N) or (B, T, N).

        Raises
        ------
        ValueError
            Another shape, or a number of cells, a time or a viscosity that the model was not
            trained on.
        """
        states = u0 if isinstance(u0, Tensor) else _tensor(u0)
        if states.ndim not in (1, 2) or not states.is_floating_point() or not states.numel():
            raise ValueError(
                "u0 must be cell means, numbers with a point of shape (N,) or (B, N); got"
                f" {tuple(states.shape)} of {states.dtype}"
            )
        bad = torch.nonzero(~torch.isfinite(states))
        if len(bad):
            place = bad[0].tolist()
            raise ValueError(f"u0 must be finite; got {float(states[tuple(place)])} at {place}")
        try:
            nu = float(nu)
        except (TypeError, ValueError) as error:
            raise ValueError(f"nu must be one number for all states; got {nu!r}") from error
        positive("nu", nu)
        trained = self.model.statistics
        refuse_beyond(trained, trained["dt"], states.shape[-1], [nu])
        if min(abs(nu - known) for known in trained["nu"]) > 1e-6 * nu:
            warnings.warn(
                f"nu = {nu:g} lies between those that this model was trained with"
                f" ({', '.join(f'{v:g}' for v in trained['nu'])})",
                stacklevel=2,
            )
        if beyond(trained, states.reshape(-1, states.shape[-1])):
            warnings.warn(
                f"u0 reaches {float(states.abs().max()):.3g}, and the states that this model was"
                f" trained on {trained['largest']:.3g}: larger ones are not tested",
                stacklevel=2,
            )
        counts = steps_to(times, trained["dt"])
        weight = next(self.model.parameters())
        u = states.reshape(-1, states.shape[-1]).to(weight.device, torch.float32)
        with torch.no_grad():
            path = self.model.path(u, u.new_full((len(u),), float(nu)), counts[-1])
        out = path[:, counts].to(states)
        if not bool(torch.isfinite(out).all()):
            raise ValueError(
                "the rollout has diverged; u0 must be of order 1, as the states are that the model"
                f" was trained on: its largest is {float(states.abs().max()):g}"
            )
        out = out if states.ndim == 2 else out[0]
        return out if isinstance(u0, Tensor) else out.numpy()


def _tensor(u0: Any) -> Tensor:
    """Of anything that NumPy takes for numbers: views that run backwards, files that are read-only.

    Raises ValueError for what is none.
    """
    try:
        return torch.as_tensor(np.array(u0, order="C"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"u0 must be an array or a tensor of cell means: {error}") from error
