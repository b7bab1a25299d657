"""A network that is not vmkla's, for the tests of training."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network's configuration."""

    width: int = 6
    num_classes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the weights file."""
        return {"library": "somewhere-else", **dataclasses.asdict(self)}


class Convolutions(nn.Module):
    """Two convolutions and a batch norm, whose running statistics are no parameters."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(3, config.width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(config.width)
        self.last = nn.Conv2d(config.width, config.num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, classes, H, W) logits."""
        logits: Tensor = self.last(torch.relu(self.norm(self.first(x))))
        return logits
