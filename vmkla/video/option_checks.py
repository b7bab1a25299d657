"""Checks of the options that file mode and live mode share."""

from __future__ import annotations

from vmkla.errors import UsageError
from vmkla.segment.overlay import check_style
from vmkla.segment.preprocess import PreprocessSpec, Rect


def check_detection(threshold: float | None, roi: str | Rect | None) -> None:
    """Refuse a threshold or a field of view that is out of range; None is always accepted.

    Raises:
        UsageError: one of them is.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(
            f"threshold is {threshold:g}, expected a probability above 0 and at most 1",
            hint="For instance: --threshold 0.5",
        )
    if roi is not None:
        PreprocessSpec(1, 1, roi)  # raises UsageError


def check_drawing(overlay: str, alpha: float | None, label: str) -> None:
    """Refuse an overlay style, an opacity or a label that is out of range; an ``alpha`` of None is accepted.

    Raises:
        UsageError: one of them is.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha:g}, expected an opacity from 0 to 1")
    check_style(overlay, label)
