"""The learning rate as a plain function of progress, so that there is no state to save."""

from __future__ import annotations

import math


def learning_rate(progress: float, *, lr: float, min_lr: float, t_max: float, warmup: float = 0.0) -> float:
    """Linear warm-up, then the cosine of ``CosineAnnealingLR``, which swings back up after ``t_max``.

    Args:
        progress: epochs done, with fractions: at step s of n in epoch e (from 0) it is e + s / n.
        lr: rate at the end of the warm-up and at the cosine's tops.
        min_lr: rate at the cosine's bottoms.
        t_max: epochs from a top to a bottom.
        warmup: epochs of warm-up; the cosine begins after them.
    Returns:
        The rate for the next step.
    """
    if progress < warmup:
        return lr * max(progress / warmup, 1e-3)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * (progress - warmup) / t_max)) / 2
