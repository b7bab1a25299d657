"""The last stage of file mode, on its own thread: read findings, draw the overlay, write files."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.files import write_whole
from vmkla.procedures.files import OVERLAY_VIDEO
from vmkla.procedures.quality import measure, small_view
from vmkla.procedures.rows import findings_row
from vmkla.segment.findings import Findings, find
from vmkla.segment.overlay import draw
from vmkla.segment.preprocess import Rect
from vmkla.video.channel import Channel, ChannelClosedError
from vmkla.video.file.contact_sheet import ContactSheet
from vmkla.video.file.lesions import FrameLesions
from vmkla.video.file.letterbox import letterbox
from vmkla.video.file.outputs import (
    CONTACT_SHEET,
    MASK_FOLDER,
    OVERLAY_FOLDER,
    PROBABILITY_FOLDER,
    OutputFolder,
)
from vmkla.video.file.plan import Plan
from vmkla.video.file.report import Counts, Latencies
from vmkla.video.file.summary import FindingsSummary
from vmkla.video.latency import Stopwatch
from vmkla.video.media.frames import Frame, VideoTraits
from vmkla.video.media.images import LARGE_PX, write_jpeg, write_png
from vmkla.video.media.sinks import VideoSink


@dataclass(frozen=True, eq=False)
class Inferred:
    """A frame on its way to the writer.

    Attributes:
        frame: the frame.
        rect: field of view that the network saw, px of the frame.
        probability: (classes, h, w) float32; None when the stride skips the frame.
        latency_ms: latency by stage so far.
    """

    frame: Frame
    rect: Rect
    probability: npt.NDArray[np.float32] | None
    latency_ms: Mapping[str, float]


@dataclass(frozen=True)
class Kept:
    """An image that an interrupted run finished.

    Attributes:
        row: row of ``frames.jsonl`` that it wrote.
    """

    row: Mapping[str, Any]


class FrameWriter:
    """Writes the outputs of frames from a channel until it ends.

    Args:
        channel: channel of the frames; closed when writing fails.
        outputs: open outputs of the run.
        plan: plan of the run.
        lesions: numbers the lesions of a video; None for images.
    """

    def __init__(
        self,
        channel: Channel[Inferred | Kept],
        outputs: OutputFolder,
        plan: Plan,
        lesions: FrameLesions | None,
    ) -> None:
        self._channel = channel
        self._outputs = outputs
        self._options = plan.options
        self._point = plan.point
        self._multi_class = plan.multi_class
        self._hidden = plan.hidden
        self._lesions = lesions
        self._thread = threading.Thread(target=self._run, name="vmkla-write", daemon=True)
        self.counts = Counts()
        self.latencies = Latencies()
        self.summary = FindingsSummary(plan.options.stride)
        self.sheet = ContactSheet()
        self.seen: set[str] = set()  # images with a row, of this run or confirmed
        self.video: VideoSink | None = None
        self.error: BaseException | None = None
        self.cancelled: Callable[[], bool] = lambda: False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait until all frames are written, or writing has failed."""
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def wrote_anything(self) -> bool:
        """Whether a row or a video frame was written."""
        return self.counts.frames > 0 or (self.video is not None and self.video.written > 0)

    def close(self) -> None:
        """Finish the video and write the contact sheet.

        Frames that still wait, after a second Ctrl-C during ``join``, are dropped.

        Raises:
            BadInputError: the video cannot be finished.
        """
        self._channel.close()
        self.join()
        if self.video is not None:
            self.video.close()
        self.summary.finish()
        sheet = self.sheet.image()
        if sheet is not None:
            write_jpeg(self._outputs.path / CONTACT_SHEET, sheet)

    def _run(self) -> None:
        try:
            for item in self._channel.items():
                if isinstance(item, Kept):
                    self._count_kept(item)
                else:
                    self._write(item)
        except ChannelClosedError:
            return
        except BaseException as error:
            self.error = error
            self._channel.close()

    def _count_kept(self, kept: Kept) -> None:
        self.seen.add(kept.row["name"])
        self.counts.frames += 1
        self.counts.kept += 1
        self.counts.segmented += kept.row["segmented"]
        self.counts.paused += self._pauses(kept.row)
        self.summary.add(kept.row)
        self.counts.with_finding = self.summary.frames

    def _given_up(self, frame: Frame) -> bool:
        """Check whether to leave a large image, which takes seconds in each step, after a stop."""
        return (
            frame.traits is None and frame.rgb.shape[0] * frame.rgb.shape[1] > LARGE_PX and self.cancelled()
        )

    def _write(self, item: Inferred) -> None:
        frame, watch = item.frame, Stopwatch()
        if self._given_up(frame):
            return
        latency_ms = dict(item.latency_ms)
        findings = None
        if item.probability is not None:
            findings = find(item.probability, item.rect, frame.rgb.shape[:2], self._point)
            latency_ms["postprocess"] = watch.lap_ms()
            if self._given_up(frame):
                return
        visible = replace(frame, rgb=self._hidden.of(frame.rgb))
        shown = visible.rgb
        lesions: dict[str, Any] = {}
        if self._lesions is not None:
            lesions = self._lesions.track(frame, findings, item.rect, visible.rgb)
            latency_ms["track"] = watch.lap_ms()
        elif findings is not None and self._options.pause_on_poor:
            lesions = _rated(frame, item.rect)
        paused = self._pauses(lesions)
        if findings is not None and not paused:
            options, numbers = self._options, lesions.get("box_lesions") or ()
            shown = draw(visible.rgb, findings, options.overlay, options.alpha, options.label, numbers)
            latency_ms["overlay"] = watch.lap_ms()
            if self._given_up(frame):
                return
        paths = self._write_images(frame, shown, findings)
        if findings is not None and self._outputs.annotations is not None:
            self._outputs.annotations.add(visible, findings, lesions.get("box_lesions"))
        latency_ms["write"] = watch.lap_ms()
        latency_ms["total"] = sum(latency_ms.values())
        row = self._row(frame, findings, lesions, paths, latency_ms)
        self._outputs.rows.write(row)
        self.summary.add(row)
        if self._lesions is not None:
            self._lesions.add(row)
        drawn = findings is not None and findings.any and self._options.overlay != "none" and not paused
        if drawn and findings is not None and frame.traits is not None:
            self.sheet.offer(shown, f"{frame.pts_s:.2f} s   {int(100 * findings.max_probability)}%")
        self.counts.frames += 1
        self.counts.damaged += frame.damaged
        if frame.traits is None:
            self.seen.add(frame.name)
        if findings is not None:
            self.counts.segmented += 1
            self.counts.paused += paused
            self.counts.with_finding = self.summary.frames
            self.latencies.add(latency_ms)

    def _pauses(self, row: Mapping[str, Any]) -> bool:
        """Whether markers are paused in a frame with this row, or this part of it."""
        return self._options.pause_on_poor and "poor" in row

    def _write_images(
        self, frame: Frame, shown: npt.NDArray[np.uint8], findings: Findings | None
    ) -> dict[str, str]:
        """Write overlay, mask and probability, and return the paths of files relative to the folder."""
        paths: dict[str, str] = {}
        folder = self._outputs.path
        name = PurePosixPath(f"{frame.name}.png" if frame.traits else frame.name)
        if findings is not None and findings.probability is not None and self._options.save_probability:
            paths["probability"] = f"{PROBABILITY_FOLDER}/{name.with_suffix('.npy')}"
            content = io.BytesIO()
            np.save(content, findings.probability)
            write_whole(folder / paths["probability"], content.getvalue(), durable=False)
        if findings is not None and self._options.save_masks:
            paths["mask"] = f"{MASK_FOLDER}/{name.with_suffix('.png')}"
            mask = findings.mask if self._multi_class else findings.mask * np.uint8(255)
            write_png(folder / paths["mask"], mask)
        if frame.traits is not None and frame.pts is not None:
            if self.video is None:
                self.video = VideoSink(
                    folder / OVERLAY_VIDEO,
                    frame.traits,
                    (frame.rgb.shape[0], frame.rgb.shape[1]),
                    self._outputs.reserve,
                )
            self.video.write(self._fitted(shown, frame.traits), frame.pts)
        elif findings is not None:
            suffix, write = (
                (".jpg", write_jpeg) if self._options.image_format == "jpg" else (".png", write_png)
            )
            paths["overlay"] = f"{OVERLAY_FOLDER}/{name.with_suffix(suffix)}"
            write(folder / paths["overlay"], shown)
        return paths

    def _fitted(self, shown: npt.NDArray[np.uint8], traits: VideoTraits) -> npt.NDArray[np.uint8]:
        """Fit a frame to the size and pixel shape of the video's first frame."""
        assert self.video is not None
        own, into = traits.sample_aspect_ratio, self.video.traits.sample_aspect_ratio
        if shown.shape[:2] == self.video.frame_hw and (own or 1) == (into or 1):
            return shown
        return letterbox(shown, self.video.frame_hw, own, into)

    def _row(
        self,
        frame: Frame,
        findings: Findings | None,
        lesions: dict[str, Any],
        paths: dict[str, str],
        latency_ms: dict[str, float],
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"index": frame.index}
        if frame.traits is not None:
            row["pts_s"] = frame.pts_s
        else:
            row |= {"name": frame.name, "sha256": frame.sha256}
        row["frame_hw"] = [frame.rgb.shape[0], frame.rgb.shape[1]]
        row |= findings_row(findings, classes=self._multi_class)
        row |= lesions
        row["max_probability"] = findings.max_probability if findings else None
        if frame.damaged:
            row["damaged"] = True
        row |= paths
        row["latency_ms"] = {stage: round(value_ms, 3) for stage, value_ms in latency_ms.items()}
        return row


def _rated(image: Frame, rect: Rect) -> dict[str, Any]:
    """Return the part of an image's row that states why its picture is poor; empty where it is not."""
    poor = measure(small_view(image.rgb, rect)).poor
    return {} if poor is None else {"poor": poor}
