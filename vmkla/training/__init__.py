"""Training: the loop, its losses and schedules, and weights on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmkla.training.config import EpochReport, StepReport, TrainConfig, TrainResult
from vmkla.training.ranks import Ranks

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EpochReport", "Ranks", "StepReport", "TrainConfig", "TrainResult", "train"]


def train(
    config: TrainConfig,
    *,
    network: Callable[[TrainConfig], nn.Module] | None = None,
    ranks: Ranks | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a network; see ``vmkla.training.loop.train``, which is imported here, with torch."""
    from vmkla.imports import require

    require("torch", extra="train", purpose="vmkla train")
    from vmkla.training.loop import train as run

    return run(
        config, network=network, ranks=ranks, on_epoch=on_epoch, on_step=on_step, on_message=on_message
    )
