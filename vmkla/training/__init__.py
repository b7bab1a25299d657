"""Training: the loop, its losses and schedules, and weights on disk."""

from __future__ import annotations

from collections.abc import Callable

from vmkla.training.config import EpochReport, StepReport, TrainConfig, TrainResult

__all__ = ["EpochReport", "StepReport", "TrainConfig", "TrainResult", "train"]


def train(
    config: TrainConfig,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a network; see ``vmkla.training.loop.train``, which is imported here, with torch."""
    from vmkla.imports import require

    require("torch", extra="train", purpose="vmkla train")
    from vmkla.training.loop import train as run

    return run(config, on_epoch=on_epoch, on_step=on_step, on_message=on_message)
