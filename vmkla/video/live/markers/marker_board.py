"""Which marker may be drawn on which frame, and where."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vmkla.segment.overlay import Drawing, OverlayStyle, outline, paint
from vmkla.segment.preprocess import Rect, union
from vmkla.video.live.frame import LiveFrame, LiveResult
from vmkla.video.live.markers.motion import follow
from vmkla.video.live.markers.scene import CHANGE_LIMIT, CUT_LIMIT, Thumbnail, change, thumbnail

MAX_STALENESS_S = 0.12
"""What regulators accept as marker delay (FDA De Novo DEN200055)."""


@dataclass(frozen=True, eq=False)
class Marker:
    """A result, ready to be painted.

    Attributes:
        sequence, captured_s: of the frame that it was computed from.
        drawing: what is painted; empty when nothing was found. Its ``covered`` tells the pixels.
        box: around all findings, px; None when nothing was found.
        frame_thumbnail: of the frame that it was computed from; None leaves the board to remember it.
    """

    sequence: int
    captured_s: float
    drawing: Drawing
    box: Rect | None = None
    frame_thumbnail: Thumbnail | None = None

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Height and width of that frame, px."""
        return self.drawing.frame_hw


@dataclass(frozen=True, eq=False)
class _Seen:
    """A frame that went by."""

    sequence: int
    captured_s: float
    frame_hw: tuple[int, int]
    thumbnail: Thumbnail


class MarkerBoard:
    """Draws a marker on the frame it was computed from, or on later ones while it still fits.

    It fits while the frame is at most ``max_staleness_s`` younger, has the same size and shows the same
    scene. After a cut, or a change beyond ``scene_limit`` since the marker's frame, no marker of before is
    drawn again, even when the frame changes back. On later frames the marker moves along with what it
    marks; where that cannot be found again, nothing is drawn. Pixels outside the marker stay as they are.

    ``prepare`` may run in any thread. ``draw`` is the display loop's: it is called for every frame that is
    shown, with or without a marker, since it remembers what went by.

    Args:
        style, alpha: as for ``vmkla.segment.overlay.draw``.
        max_staleness_s: 0 draws on the marker's own frame only.
        motion: move markers along with the frame.
        scene_limit: for the change since the marker's frame; see ``vmkla.video.live.markers.scene.change``.

    Attributes:
        cleared: how many frames went without the marker that was offered, by cause: ``stale``, ``scene``,
            ``size``, ``motion`` when what it marks was not found again, ``unknown`` when the marker's frame
            never went by.
    """

    def __init__(
        self,
        style: OverlayStyle = "contour",
        alpha: float | None = None,
        max_staleness_s: float = MAX_STALENESS_S,
        motion: bool = True,
        scene_limit: float = CHANGE_LIMIT,
    ) -> None:
        self._style: OverlayStyle = style
        self._alpha = alpha
        self._max_staleness_s = max_staleness_s
        self._motion = motion
        self._scene_limit = scene_limit
        self._seen: deque[_Seen] = deque()
        self._scene_from = 0  # markers of earlier frames belong to another scene
        self.cleared: Counter[str] = Counter()

    def prepare(self, result: LiveResult, frame_thumbnail: Thumbnail | None = None) -> Marker:
        """The heavy part of drawing, done once for each result.

        Args:
            result: the worker's.
            frame_thumbnail: of the frame that it was computed from; not needed when ``draw`` saw it.
        """
        drawing = outline(result.findings, self._style, self._alpha)
        box = union(region.box for region in result.findings.regions)
        return Marker(result.sequence, result.captured_s, drawing, box, frame_thumbnail)

    def draw(self, frame: LiveFrame, marker: Marker | None) -> tuple[npt.NDArray[np.uint8], Marker | None]:
        """Draw the marker if it may be drawn.

        Args:
            frame: about to be shown; not changed.
            marker: the newest, or None.
        Returns:
            (H, W, 3) uint8 to show, and the marker as it was drawn; None when it was refused. A marker
            without findings that fits is returned too: the network saw this scene and found nothing.
        """
        frame_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        now = _Seen(frame.sequence, frame.captured_s, frame_hw, thumbnail(frame.rgb))
        self._watch(now)
        if marker is None:
            return frame.rgb, None
        drawn = self._fitted(now, marker)
        if isinstance(drawn, str):
            self.cleared[drawn] += 1
            return frame.rgb, None
        return paint(frame.rgb, drawn.drawing), drawn

    def clear(self) -> None:
        """Forget all that went by, since the source is gone: no marker of before is drawn again."""
        if self._seen:
            self._scene_from = self._seen[-1].sequence + 1
        self._seen.clear()

    def _watch(self, now: _Seen) -> None:
        """Look for a cut, and keep what markers may still refer to."""
        last = self._seen[-1] if self._seen else None
        if last and (last.frame_hw != now.frame_hw or change(last.thumbnail, now.thumbnail) > CUT_LIMIT):
            self._scene_from = now.sequence
            self._seen.clear()
        self._seen.append(now)
        while now.captured_s - self._seen[0].captured_s > self._max_staleness_s:
            self._seen.popleft()

    def _fitted(self, now: _Seen, marker: Marker) -> Marker | str:
        """The marker for this frame, or why there is none."""
        if marker.frame_hw != now.frame_hw:
            return "size"
        if marker.sequence == now.sequence:
            return marker
        if not 0 <= now.captured_s - marker.captured_s <= self._max_staleness_s:
            return "stale"
        if marker.sequence < self._scene_from:
            return "scene"
        before = marker.frame_thumbnail
        if before is None:
            before = next((seen.thumbnail for seen in self._seen if seen.sequence == marker.sequence), None)
        if before is None:
            return "unknown"
        if change(before, now.thumbnail) > self._scene_limit:
            self._scene_from = now.sequence
            return "scene"
        if marker.box is None or not marker.drawing.layers or not self._motion:
            return marker
        motion = follow(before, now.thumbnail, marker.box)
        return "motion" if motion is None else replace(marker, drawing=marker.drawing.moved(motion))
