"""Checks of the options that file mode and live mode share."""

from __future__ import annotations

from vmkla.errors import UsageError
from vmkla.segment.overlay import check_style
from vmkla.segment.preprocess import PreprocessSpec, Rect


def check_roi(roi: str | Rect | None) -> None:
    """Refuse a field of view that makes no sense; None is accepted.

    Raises:
        UsageError: it is neither a word that is known nor a rectangle.
    """
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
