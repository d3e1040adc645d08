"""The control: a plain residual MLP, trained on the same samples for the same table.

A row of its own beside the closure's, so that what structure is worth can be read off. It is
trained in seconds, without the trainer, and follows from the seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from physics_hybrid.problems.flavour.data.states import States
from physics_hybrid.problems.flavour.losses import FlavourLoss
from physics_hybrid.problems.flavour.networks import FlavourMLP
from physics_hybrid.training.order import Stored

#: Norm of the gradient, at most: as training.clipping has it.
CLIPPED = 0.5


@dataclass(frozen=True)
class ControlSettings:
    """epochs : 0 leaves the row out. learning_rate : at the start of a cosine."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


def train_control(
    network: FlavourMLP, train: States, loss: FlavourLoss, settings: ControlSettings
) -> FlavourMLP:
    """AdamW on a cosine; the network, trained, on the device of the states."""
    network = network.to(train.before.device).train()
    order = Stored(len(train), settings.batch_size)
    steps = settings.epochs * len(order.batches((settings.seed, 0)))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    with torch.enable_grad():
        for epoch in range(settings.epochs):
            for rows in order.batches((settings.seed, epoch)):
                batch = train.rows(rows)
                value, _ = loss(network(batch.before, batch.u), batch.after, batch.before)
                optimiser.zero_grad()
                torch.autograd.backward(value)
                nn.utils.clip_grad_norm_(network.parameters(), CLIPPED)
                optimiser.step()
                schedule.step()
    network.eval()
    return network
