"""An average of the weights over the steps, which is steadier than any one step's."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of a model's parameters, in a model of its own.

    The decay grows with the steps, (1 + t) / (10 + t) up to ``decay``, so that the random
    beginning is soon forgotten. Buffers are the model's own: constants in VMKLA-UNet, the running
    statistics of a batch norm elsewhere, which are averages already.

    Args:
        model: the model in training.
        decay: share of the old average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
