"""The segmenter: a loaded network that turns frames into findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmkla.errors import DegradedError, VmklaError
from vmkla.runner import ClosedOnExit, Runner, RunnerSpec
from vmkla.segment.findings import Findings
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, Rect
from vmkla.segment.steps import View, check, find, infer, view

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SegmentedFrame:
    """One frame of a video or one image, with its findings.

    Attributes:
        index: position in the source, from 0.
        name: of an image, its path relative to the source; of a video's frame, its index as six digits.
        rgb: (H, W, 3) uint8.
        pts_s: presentation time, seconds; None for images.
        damaged: whether the decoder had to conceal missing data.
        findings: what the network found in it.
    """

    index: int
    name: str
    rgb: Image
    pts_s: float | None
    damaged: bool
    findings: Findings


class Segmenter(ClosedOnExit):
    """Turn frames into findings with one loaded network.

    ``vmkla.open`` makes one. It is a context manager, and belongs to one thread.

    Args:
        runner: the loaded network; the segmenter closes it.
        point: the rule by which a region counts as a finding; None takes the model's own.
        roi: field of view: ``"auto"``, ``"none"`` or a ``Rect`` in pixels of the frame; None takes the
            model's own.
    Raises:
        UsageError: a field of view is none of these.
    Example:
        >>> import vmkla
        >>> from vmkla.video.media.clip import render_clip
        >>> frame_rgb, _ = next(iter(render_clip(seed=8, height=240, width=320, frames=1)))
        >>> with vmkla.open("nano") as segmenter:
        ...     findings = segmenter(frame_rgb)
        >>> findings.mask.shape
        (240, 320)
    """

    def __init__(
        self, runner: Runner, *, point: OperatingPoint | None = None, roi: str | Rect | None = None
    ) -> None:
        spec = runner.spec
        preprocess = spec.metadata.preprocess
        self._runner = runner
        self._open = True
        self.point = spec.operating_point if point is None else point
        self._preprocess = PreprocessSpec(spec.height, spec.width, preprocess.roi if roi is None else roi)

    @property
    def spec(self) -> RunnerSpec:
        """Sizes, classes, metadata and identity of the loaded network."""
        return self._runner.spec

    def __call__(self, frame_rgb: Image) -> Findings:
        """Find the regions of one frame.

        Args:
            frame_rgb: (H, W, 3) uint8, RGB, of any size.
        Raises:
            ShapeError: the frame has another type or layout.
            BadInputError: a fixed field of view leaves the frame.
            VmklaError: the network's output is not a probability, or the segmenter is closed.
        """
        return self.batch([frame_rgb])[0]

    def batch(self, frames_rgb: Sequence[Image]) -> list[Findings]:
        """Find the regions of several frames, which may differ in size.

        A network with a fixed batch takes them in parts; the last part is filled up.

        Args:
            frames_rgb: (H, W, 3) uint8 each, RGB.
        Returns:
            The findings of each frame, in order.
        Raises:
            ShapeError, BadInputError, VmklaError: see ``__call__``.
        """
        views = [view(frame_rgb, self._preprocess) for frame_rgb in frames_rgb]
        sizes_hw = [(frame_rgb.shape[0], frame_rgb.shape[1]) for frame_rgb in frames_rgb]
        return self._find(views, sizes_hw)

    def video(self, source: str | Path) -> Iterator[SegmentedFrame]:
        """Segment every frame of a file, in order, as ``vmkla infer`` does.

        Args:
            source: a video, an image, a folder of images or a pattern.
        Raises:
            BadInputError: it is missing or cannot be read.
            DegradedError: after the last frame that can be read, when some of the source could not be, or a
                frame is damaged: the cases in which ``vmkla infer`` ends with status 7.
        """
        from vmkla.video.file.report import what_is_missing
        from vmkla.video.file.view import Views
        from vmkla.video.media.sources import open_source

        opened = open_source(source)
        views = Views.of_source(opened, self._preprocess.roi)
        frames = damaged = 0
        for frame in opened.frames():
            frames, damaged = frames + 1, damaged + frame.damaged
            seen = view(frame.rgb, self._preprocess, views.of(frame))
            (findings,) = self._find([seen], [(frame.rgb.shape[0], frame.rgb.shape[1])])
            yield SegmentedFrame(frame.index, frame.name, frame.rgb, frame.pts_s, frame.damaged, findings)
        if missing := what_is_missing(opened, frames=frames, damaged=damaged):
            raise DegradedError(missing, hint="Every frame that could be read was segmented.")

    def close(self) -> None:
        """Release the network; a second call does nothing."""
        if self._open:
            self._open = False
            self._runner.close()

    def _find(self, views: Sequence[View], sizes_hw: Sequence[tuple[int, int]]) -> list[Findings]:
        if not self._open:
            raise VmklaError("the segmenter is closed", hint='Open another one: vmkla.open("nano")')
        if not views:
            return []
        probability = infer(self._runner, [seen.pixels_rgb for seen in views])
        check(probability, self.spec, len(views))
        return [
            find(one, seen.rect, size_hw, self.point)
            for one, seen, size_hw in zip(probability, views, sizes_hw, strict=True)
        ]
