"""Decide which marker may be drawn on which frame, and draw it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vmkla.procedures.motion import follow
from vmkla.procedures.scene import CHANGE_LIMIT, CUT_LIMIT, Thumbnail, change, thumbnail
from vmkla.segment.overlay import Drawing, Label, OverlayStyle, outline, paint
from vmkla.segment.preprocess import Rect, union
from vmkla.video.live.frame import LiveFrame, LiveResult

MAX_STALENESS_S = 0.12
"""Marker delay that regulators accept (FDA De Novo DEN200055)."""


@dataclass(frozen=True, eq=False)
class Marker:
    """The detection marker of one result, ready to be painted.

    Attributes:
        sequence, captured_s: number and capture time of the result's frame.
        drawing: pixels to paint; empty when nothing was found.
        box: rectangle around all findings, px; None when nothing was found.
        frame_thumbnail: thumbnail of the result's frame; None uses the one that the board remembers.
        lesions: numbers of the lesions that it marks.
        paused: why it is not to be drawn though it may fit, such as ``"blur"``; empty otherwise.
    """

    sequence: int
    captured_s: float
    drawing: Drawing
    box: Rect | None = None
    frame_thumbnail: Thumbnail | None = None
    lesions: frozenset[int] = frozenset()
    paused: str = ""

    @property
    def frame_hw(self) -> tuple[int, int]:
        """Height and width of the result's frame, px."""
        return self.drawing.frame_hw


@dataclass(frozen=True, eq=False)
class _Seen:
    """A frame that was shown."""

    sequence: int
    captured_s: float
    frame_hw: tuple[int, int]
    thumbnail: Thumbnail


class MarkerBoard:
    """Draws a marker on the frame it was computed from, and on later frames while it still fits.

    A marker fits while the frame is at most ``max_staleness_s`` later, has the same size and shows the same
    scene. After a cut, or a change beyond ``CHANGE_LIMIT`` since the marker's frame, no earlier marker is
    drawn again, even when the view changes back. On later frames the marker moves with the finding; where the
    finding is not found again, nothing is drawn. Pixels outside the marker are not changed.

    ``prepare`` may run in any thread. The display loop calls ``draw`` for every frame, with or without a
    marker, since the board remembers the frames shown.

    Args:
        style, alpha, label: overlay style, opacity and label, as for ``vmkla.segment.overlay.draw``.
        max_staleness_s: longest time between the capture of a marker's frame and that of a frame that shows
            it, seconds; 0 draws on the marker's own frame only.
        motion: whether markers move with the findings.
        pause_on_poor: whether markers of poor pictures are marked as paused.

    Attributes:
        cleared: number of frames shown without the given marker, by cause: ``stale``, ``scene``, ``size``,
            ``motion`` when the finding was not found again, ``unknown`` when the marker's frame was never
            shown.
    """

    def __init__(
        self,
        style: OverlayStyle = "contour",
        alpha: float | None = None,
        max_staleness_s: float = MAX_STALENESS_S,
        motion: bool = True,
        label: Label = "none",
        pause_on_poor: bool = False,
    ) -> None:
        self._style: OverlayStyle = style
        self._alpha = alpha
        self._label: Label = label
        self._max_staleness_s = max_staleness_s
        self._motion, self._pause_on_poor = motion, pause_on_poor
        self._seen: deque[_Seen] = deque()
        self._scene_from = 0  # markers of earlier frames belong to another scene
        self.cleared: Counter[str] = Counter()

    def prepare(self, result: LiveResult, frame_thumbnail: Thumbnail | None = None) -> Marker:
        """Prepare the marker of a result, which is the slow part of drawing.

        Args:
            result: result of the worker.
            frame_thumbnail: thumbnail of the result's frame; not needed when ``draw`` saw that frame.
        """
        numbers = result.lesions.numbers
        drawing = outline(result.findings, self._style, self._alpha, self._label, numbers)
        box = union(region.box for region in result.findings.regions)
        lesions = frozenset(number for number in numbers if number is not None)
        paused = (result.lesions.poor or "") if self._pause_on_poor else ""
        return Marker(result.sequence, result.captured_s, drawing, box, frame_thumbnail, lesions, paused)

    def draw(self, frame: LiveFrame, marker: Marker | None) -> tuple[npt.NDArray[np.uint8], Marker | None]:
        """Draw a marker on a frame if it fits.

        Args:
            frame: frame to be shown; not changed.
            marker: the newest marker, or None.
        Returns:
            (H, W, 3) uint8 to show, and the marker as drawn; None when it does not fit. A marker without
            findings that fits is returned too: the network saw this scene and found nothing.
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
        """Forget all frames after a lost signal, so that no earlier marker is drawn again."""
        if self._seen:
            self._scene_from = self._seen[-1].sequence + 1
        self._seen.clear()

    def _watch(self, now: _Seen) -> None:
        """Detect a cut, and remember the frame while markers may refer to it."""
        last = self._seen[-1] if self._seen else None
        if last and (last.frame_hw != now.frame_hw or change(last.thumbnail, now.thumbnail) > CUT_LIMIT):
            self._scene_from = now.sequence
            self._seen.clear()
        self._seen.append(now)
        while now.captured_s - self._seen[0].captured_s > self._max_staleness_s:
            self._seen.popleft()

    def _fitted(self, now: _Seen, marker: Marker) -> Marker | str:
        """Return the marker moved to this frame, or why it does not fit."""
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
        if change(before, now.thumbnail) > CHANGE_LIMIT:
            self._scene_from = now.sequence
            return "scene"
        if marker.box is None or not marker.drawing.layers or not self._motion:
            return marker
        motion = follow(before, now.thumbnail, marker.box)
        return "motion" if motion is None else replace(marker, drawing=marker.drawing.moved(motion))
