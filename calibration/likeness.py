"""Find frames that show the same view, with other noise, brightness or contrast."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

_SIDE, _CELLS = 32, 4
"""A frame is compared by 32x32 cell means, and by their means over blocks of 4x4 cells."""
_ALIKE = 0.7
"""Largest difference of blocks that show the same view, of 255 levels. A still image stored as a video
differs by 0.1, neighbouring frames of a moving camera by at least 2."""
_NOISE = 1.2
"""Largest difference of blocks that show the same view, relative to the difference that noise causes. On 60
copies of one dark frame (noise of 1 to 25 levels, of single pixels or of 2x2, coloured or grey, stored as PNG
or JPEG) the largest part was 0.68 where the difference exceeded ``_ALIKE``; between every tenth frame of a
withdrawal the median is 2.4."""
_GAIN = 2.0
"""Largest factor between the contrasts of frames that show the same view."""


class DistinctViews:
    """The different views among the frames so far."""

    def __init__(self) -> None:
        self._cells: list[npt.NDArray[np.float64]] = []
        self._blocks: list[npt.NDArray[np.float64]] = []

    def __len__(self) -> int:
        """Return the number of different views."""
        return len(self._cells)

    def add(self, frame: npt.NDArray[np.uint8]) -> bool:
        """Add a frame, unless it shows a known view; return whether it was added.

        Independent noise differs between the cells of a block, and its mean over the block has a sixteenth of
        their variance. A larger difference is another view. Means and contrasts are aligned before.

        Args:
            frame: (h, w, 3) uint8.
        """
        cells, blocks = _thumbnail(frame)
        if self._cells and bool(self._alike(cells, blocks).any()):
            return False
        self._cells.append(cells)
        self._blocks.append(blocks)
        return True

    def _alike(
        self, cells: npt.NDArray[np.float64], blocks: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """Return which of the known views a frame shows, (n,)."""
        known, known_blocks = np.stack(self._cells), np.stack(self._blocks)  # (n, 3072), (n, 192)
        norms = np.einsum("ij,ij->i", known_blocks, known_blocks)
        gain = np.clip(known_blocks @ blocks / np.maximum(norms, 1e-6), 1 / _GAIN, _GAIN)
        of_cells = _squares(cells, known, gain)
        of_blocks = _squares(blocks, known_blocks, gain)
        per_block = _CELLS * _CELLS
        noise = (of_cells - per_block * of_blocks) / (blocks.size * (per_block - 1)) / per_block
        view = of_blocks / blocks.size - noise
        found: npt.NDArray[np.bool_] = view < np.maximum(_ALIKE**2, _NOISE**2 * noise)
        return found


def _thumbnail(
    frame: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute the means of 32x32 cells and of their blocks, less the channels' means, (3072,) and (192,)."""
    import cv2

    small = cast(
        "npt.NDArray[np.float64]",
        cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64),
    )
    small -= small.mean(axis=(0, 1))
    count = _SIDE // _CELLS
    blocks = small.reshape(count, _CELLS, count, _CELLS, 3).mean(axis=(1, 3))
    return small.ravel(), blocks.ravel()


def _squares(
    one: npt.NDArray[np.float64], known: npt.NDArray[np.float64], gain: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Compute the sum of squares of ``one - gain * known`` for each known row, (n,)."""
    own = np.einsum("ij,ij->i", known, known)
    squares: npt.NDArray[np.float64] = one @ one - 2 * gain * (known @ one) + gain**2 * own
    return squares
