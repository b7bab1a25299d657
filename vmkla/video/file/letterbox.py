"""Fit frames of another size into the size of the first one, without distortion."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt


def letterbox(
    frame_rgb: npt.NDArray[np.uint8],
    size_hw: tuple[int, int],
    pixel_ratio: Fraction | None = None,
    into_ratio: Fraction | None = None,
) -> npt.NDArray[np.uint8]:
    """Scale a frame to fit a size, centred, with black borders.

    Args:
        frame_rgb: (H, W, 3) uint8.
        size_hw: height and width of the result, px.
        pixel_ratio: width over height of one pixel of the frame; None is square.
        into_ratio: width over height of one pixel of the result; None is square.
    Returns:
        (size_hw[0], size_hw[1], 3) uint8.
    """
    height, width = frame_rgb.shape[:2]
    stretch = Fraction(pixel_ratio or 1) / Fraction(into_ratio or 1)
    wide = width * stretch  # in pixels of the result
    scale = min(Fraction(size_hw[0], height), size_hw[1] / wide)
    new_h = min(size_hw[0], max(1, round(height * scale)))
    new_w = min(size_hw[1], max(1, round(wide * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(frame_rgb, (new_w, new_h), interpolation=how)
    boxed = np.zeros((*size_hw, 3), np.uint8)
    top, left = (size_hw[0] - new_h) // 2, (size_hw[1] - new_w) // 2
    boxed[top : top + new_h, left : left + new_w] = scaled
    return boxed
