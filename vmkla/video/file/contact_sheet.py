"""The contact sheet: a few frames with findings, spread over a video, in one image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.video.file.letterbox import letterbox

SHOWN, _COLUMNS = 6, 3
_TILE_WIDTH_PX = 480
_KEPT = 2 * SHOWN
_TEXT_PX, _GAP_PX = 28, 4

Image = npt.NDArray[np.uint8]


class ContactSheet:
    """Collects frames, of which it shows six that lie evenly among all.

    Every n-th frame is kept, as a small copy. Where there are 12, every second one is dropped and n doubles.
    """

    def __init__(self) -> None:
        self._offered = 0
        self._every = 1
        self._kept: list[tuple[Image, str]] = []  # (h, w, 3) and what is written under it

    def offer(self, frame_rgb: Image, caption: str) -> None:
        """Add a frame.

        Args:
            frame_rgb: (H, W, 3) uint8, with its overlay; not kept.
            caption: text under the frame, ASCII.
        """
        number = self._offered
        self._offered += 1
        if number % self._every:
            return
        if len(self._kept) == _KEPT:
            self._kept = self._kept[::2]
            self._every *= 2
            if number % self._every:
                return
        height_px, width_px = frame_rgb.shape[:2]
        tile_hw = (max(1, round(_TILE_WIDTH_PX * height_px / width_px)), _TILE_WIDTH_PX)
        self._kept.append((letterbox(frame_rgb, tile_hw), caption))

    def image(self) -> Image | None:
        """Compose the sheet.

        Returns:
            (H, W, 3) uint8, six frames in two rows, fewer where fewer were offered; None without any.
        """
        if not self._kept:
            return None
        count = min(SHOWN, len(self._kept))
        chosen = [self._kept[(2 * number + 1) * len(self._kept) // (2 * count)] for number in range(count)]
        size_hw = chosen[0][0].shape[:2]
        tiles = [_captioned(letterbox(image, (size_hw[0], size_hw[1])), caption) for image, caption in chosen]
        columns = min(_COLUMNS, count)
        tiles += [np.zeros_like(tiles[0])] * (-count % columns)
        rows = [np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)]
        return np.ascontiguousarray(np.vstack(rows))


def _captioned(image: Image, caption: str) -> Image:
    """Write a line of text under an image, with a gap around both."""
    strip = np.zeros((_TEXT_PX, image.shape[1], 3), np.uint8)
    cv2.putText(
        strip, caption, (8, _TEXT_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (224, 224, 224), 1, cv2.LINE_AA
    )
    edges = ((0, _GAP_PX), (_GAP_PX // 2, _GAP_PX // 2), (0, 0))
    return np.pad(np.vstack([image, strip]), edges)
