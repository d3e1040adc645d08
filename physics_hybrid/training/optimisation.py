"""How the weights move: AdamW, its learning rate, clipping, fp16's scale, and a moving average."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from physics_hybrid.models.spectral import optimizer_state
from physics_hybrid.training import sharding
from physics_hybrid.training.clipping import clipper
from physics_hybrid.training.settings import TrainingSettings

#: Of what autocast computes in; float32: no autocast.
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Optimisation:
    """Everything between a loss and new weights, for a model on `device`.

    A step is `begin`, `backward` once or more, `gradient_norm`, then `apply` or not, and `advance`.

    Raises
    ------
    ValueError
        Clipping that is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        total_steps: int,
        device: torch.device,
    ):
        self.model, self.settings, self.total_steps = model, settings, total_steps
        self.device = device
        first, second = settings.betas
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(first, second),
            fused=device.type in ("cpu", "cuda"),  # one pass over the weights
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate_factor)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.averaged: AveragedModel | None = None
        if settings.ema:
            average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.clip = clipper(
            model,
            mode=settings.clipping_mode,
            threshold=settings.clipping_threshold,
            eps=settings.clipping_eps,
        )

    def rate_factor(self, step: int) -> float:
        """Of the learning rate: a linear warm-up, then a cosine to final_learning_rate.

        Loshchilov and Hutter, SGDR, ICLR 2017.
        """
        s = self.settings
        if step < s.warmup_steps:
            return (step + 1) / s.warmup_steps
        share = min(1.0, (step - s.warmup_steps) / max(1, self.total_steps - s.warmup_steps))
        floor = s.final_learning_rate / s.learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))

    # --- a step

    def begin(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Where the loss is computed: in training.precision."""
        precision = self.settings.precision
        return torch.autocast(
            self.device.type,
            dtype=PRECISIONS.get(precision, torch.float32),
            enabled=precision != "float32",
        )

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def gradient_norm(self) -> Tensor:
        """Clip the gradients; the global norm before."""
        self.scaler.unscale_(self.optimizer)
        return self.clip()

    @property
    def searches_scale(self) -> bool:
        """Whether gradients that are not finite belong to the search for fp16's scale.

        A scaler skips them itself and halves its scale, at first often; below 1 it is no longer a
        search.
        """
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def apply(self) -> None:
        """Move the weights, and their average after them."""
        self.scaler.step(self.optimizer)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def advance(self) -> None:
        """On to the next step, whether or not this one was applied."""
        self.scaler.update()
        self.scheduler.step()

    @property
    def learning_rate(self) -> float:
        """Of the present step."""
        return float(self.scheduler.get_last_lr()[0])

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated and kept: the moving average where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    # --- state

    def state(self) -> dict[str, Any]:
        """Everything to go on from, without the model's own weights."""
        return {
            "ema": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        if self.averaged is not None and state["ema"] is not None:
            self.averaged.load_state_dict(state["ema"])
        known = optimizer_state(self.model, state["optimizer"])
        self.optimizer.load_state_dict(sharding.moments(self.model, known))
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])

    def go_to(self, step: int) -> None:
        """Set the learning rate to that of a step, where steps are counted anew or the schedule is
        another than that of the state.
        """
        peak, groups = self.settings.learning_rate, self.optimizer.param_groups
        for group in groups:
            group["initial_lr"] = peak
            group["lr"] = peak * self.rate_factor(step)
        self.scheduler.last_epoch = step
        self.scheduler.base_lrs = [peak for _ in groups]
        self.scheduler._last_lr = [group["lr"] for group in groups]
