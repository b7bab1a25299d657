"""Run the three threads of file mode, then close, report and raise what is due."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vmkla.errors import DegradedError, ErrorReport, StoppedError
from vmkla.procedures.files import LESIONS, OVERLAY_VIDEO, PAGE, REPORT, ROWS, STILLS
from vmkla.procedures.report.page import write_page
from vmkla.runner import Runner, describe_model, describe_runtime
from vmkla.segment.preprocess import Rect
from vmkla.segment.steps import check, infer, view
from vmkla.video.cancellation import Cancellation
from vmkla.video.channel import Channel, ChannelClosedError
from vmkla.video.file.annotations import EXPORT
from vmkla.video.file.answers import Answers
from vmkla.video.file.lesions import FrameLesions
from vmkla.video.file.options import Progress, SegmentOptions
from vmkla.video.file.outputs import (
    CONTACT_SHEET,
    MASK_FOLDER,
    OVERLAY_FOLDER,
    PROBABILITY_FOLDER,
    OutputFolder,
)
from vmkla.video.file.plan import Plan
from vmkla.video.file.report import FileHash, SegmentReport, what_is_missing
from vmkla.video.file.writer import FrameWriter, Inferred, Kept
from vmkla.video.latency import Stopwatch
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.frames import Frame, Problem
from vmkla.video.media.sources import ImageItem, ImageSource

_QUEUE_FRAMES = 3
_DECODER_JOIN_S, _DECODER_JOIN_CANCELLED_S = 10.0, 0.2
"""Time for the decoder to close its file, seconds; a stop does not wait for a large image."""


class Run:
    """One run, from the first frame to the report."""

    def __init__(
        self,
        runner: Runner,
        plan: Plan,
        outputs: OutputFolder,
        lesions: FrameLesions | None,
        answers: Answers | None = None,
    ) -> None:
        self._runner = runner
        self._plan = plan
        self._source = plan.named.source
        self._options = plan.options
        self._outputs = outputs
        self._decoded: Channel[_Decoded | Kept] = Channel(_QUEUE_FRAMES)
        self._inferred: Channel[Inferred | Kept] = Channel(_QUEUE_FRAMES)
        self._lesions = lesions
        self._answers = answers
        self._writer = FrameWriter(self._inferred, outputs, plan, lesions)
        self._found: dict[str, int] = {}
        self._wall_s = 0.0

    def go(self, progress: Callable[[Progress], None] | None, cancel: threading.Event) -> SegmentReport:
        """Run until the end, close everything, write the report, and raise the first error."""
        known = self._plan.named.sha256
        file_hash = FileHash(self._source.path) if self._source.path.is_file() and not known else None
        if file_hash is not None:
            file_hash.start()
        self._writer.cancelled = cancel.is_set
        began = time.perf_counter()
        error = _first(None, lambda: self._work(progress, cancel))
        self._outputs.reserve.release()  # on a full disk, closing needs this space
        error = _first(error, self._writer.close)
        self._wall_s = time.perf_counter() - began

        unfinished = error is not None or cancel.is_set()
        sha256 = file_hash.result(wait=not unfinished) if file_hash is not None else known
        if error is not None and not self._writer.wrote_anything:
            self._outputs.discard()
            raise error
        counts = self._writer.counts
        gone = set() if unfinished else set(self._outputs.kept) - self._writer.seen
        error = _first(error, lambda: self._outputs.close_rows(dropped=gone))
        error = _first(error, self._finish_lesions)
        if (annotations := self._outputs.annotations) is not None:
            joined = {} if self._lesions is None else self._lesions.joined
            length = counts.frames + unfinished  # a run that was stopped has left at least one frame
            error = _first(error, lambda: annotations.write(length=length, dropped=gone, joined=joined))
        if progress is not None and not unfinished:
            error = _first(
                error, lambda: progress(Progress(counts.frames, counts.frames, counts.with_finding))
            )
        report = self._report(error, cancel, sha256)
        if self._lesions is not None and counts.frames:  # a page of no frame would be an error
            document = report.to_dict()
            error = _first(error, lambda: self._write_page(document))
            report = self._report(error, cancel, sha256)  # it names the page
        error = _first(error, lambda: self._outputs.write_report(report.to_dict()))
        if error is not None:
            raise error
        if self._answers is not None and not unfinished:
            self._answers.drop()
        if report.outcome == "degraded":
            raise DegradedError(report.message, hint=f"All that could be read is in {self._options.out_dir}")
        if report.outcome == "interrupted" and isinstance(cancel, Cancellation) and cancel.signum is not None:
            raise StoppedError(cancel.signum, report.message)
        return report

    def _finish_lesions(self) -> None:
        if self._lesions is not None:
            self._found = {"lesions": self._lesions.finish()}

    def _write_page(self, document: dict[str, Any]) -> None:
        write_page(self._options.out_dir, document)

    def _work(self, progress: Callable[[Progress], None] | None, cancel: threading.Event) -> None:
        """Move every frame through the stages, and raise the first error of any of them."""
        decoder = threading.Thread(target=self._decode, name="vmkla-decode", daemon=True)
        decoder.start()
        self._writer.start()
        counts = self._writer.counts
        try:
            for item in self._decoded.items(cancel.is_set):
                self._inferred.put(self._infer(item) if isinstance(item, _Decoded) else item)
                if progress is not None:
                    progress(Progress(counts.frames, self._source.total, counts.with_finding))
        except ChannelClosedError:
            pass  # the writer failed; its error is raised below
        finally:
            self._decoded.close()
            self._inferred.finish()
            self._writer.join()
            decoder.join(_DECODER_JOIN_CANCELLED_S if cancel.is_set() else _DECODER_JOIN_S)
        if self._writer.error is not None:
            raise self._writer.error

    def _decode(self) -> None:
        error: BaseException | None = None
        try:
            watch = Stopwatch()
            with contextlib.closing(self._frames()) as frames:
                for frame in frames:
                    self._decoded.put(_Decoded(frame, watch.lap_ms()))
                    watch = Stopwatch()
        except ChannelClosedError:
            return
        except BaseException as caught:
            error = caught
        self._decoded.finish(error)

    def _frames(self) -> Generator[Frame, None, None]:
        if not isinstance(self._source, ImageSource):
            return self._source.frames()
        kept = self._outputs.kept

        def skip(index: int, item: ImageItem, sha256: str) -> bool:
            row = kept.get(item.name)
            if row is not None and row["sha256"] == sha256:
                self._decoded.put(Kept(row))
                return True
            return False

        return self._source.frames(skip)

    def _infer(self, item: _Decoded) -> Inferred:
        frame = item.frame
        latency_ms = {"decode": item.decode_ms}
        if frame.index % self._options.stride:
            whole = Rect(0, 0, frame.rgb.shape[1], frame.rgb.shape[0])
            return Inferred(frame, whole, None, latency_ms)
        watch = Stopwatch()
        seen = view(frame.rgb, self._plan.spec, self._plan.views.of(frame))
        latency_ms["preprocess"] = watch.lap_ms()
        probability = None if self._answers is None else self._answers.get(seen)  # (classes, h, w)
        known = probability is not None
        if probability is None:
            probability = infer(self._runner, [seen.pixels_rgb])[0]
        check(probability[np.newaxis], self._runner.spec)
        if self._answers is not None and not known:
            self._answers.add(seen, probability)
        latency_ms["inference"] = watch.lap_ms()
        return Inferred(frame, seen.rect, probability, latency_ms)

    def _report(
        self, error: BaseException | None, cancel: threading.Event, sha256: str | None
    ) -> SegmentReport:
        source, writer, out_dir = self._source, self._writer, self._options.out_dir
        counts = writer.counts
        warnings = list(self._plan.warnings)
        problems = source.problems
        described: dict[str, Any] = {"kind": source.kind, "name": self._plan.named.label, "sha256": sha256}
        if isinstance(source, VideoSource):
            counts.lost_packets = source.lost_packets
            counts.repaired_timestamps = source.repaired_timestamps
            counts.timestamp_jumps = source.timestamp_jumps
            counts.size_changes = source.size_changes
            described |= source.describe()
            warnings += source.notes()
            warnings += source.copy_notes()
        else:
            counts.unreadable = len(problems)
            described["images"] = source.total
        if counts.paused:
            warnings.append(
                f"markers were paused in {counts.paused} of {counts.segmented} segmented frames: poor picture"
            )
        if self._answers is not None and self._answers.used:
            warnings.append(
                f"the network ran earlier for {self._answers.used} of {counts.segmented} frames; their "
                "latency of inference is that of reading its answers"
            )
        if writer.video is not None:
            described["frame_hw"] = list(writer.video.frame_hw)
            if writer.video.size_hw != writer.video.frame_hw:
                height_px, width_px = writer.video.size_hw
                warnings.append(
                    f"{OVERLAY_VIDEO} is {width_px}x{height_px}: H.264 needs an even width and height"
                )
            views = self._plan.views.to_list()
            if views:
                described["field_of_view"] = views[0]["field_of_view"]
            if len(views) > 1:
                described["sizes"] = views

        # Reports are passed on, so neither the source's folder nor its own is named.
        names = self._plan.named.names.also({str(out_dir): "the output folder"})
        stopped = f"stopped after {counts.frames} frames; all outputs up to there are in {out_dir}"
        end = ErrorReport.of_run(
            error,
            signum=getattr(cancel, "signum", None),
            stopped=stopped if cancel.is_set() else "",
            missing=what_is_missing(source, frames=counts.frames, damaged=counts.damaged, copy=OVERLAY_VIDEO),
        )
        return SegmentReport(
            outcome=end.outcome,
            exit_status=end.exit_status,
            message=names.hide(end.message),
            out_dir=out_dir,
            outputs=_existing_outputs(out_dir, source.kind, self._options),
            counts=counts,
            findings=writer.summary.to_dict() | self._found,
            wall_s=self._wall_s,
            latency_ms=writer.latencies.to_dict(),
            model=describe_model(self._runner),
            runtime=describe_runtime(self._runner),
            input=described,
            settings=self._plan.settings,
            warnings=tuple(warnings),
            problems=tuple(Problem(names.hide(each.where), names.hide(each.what)) for each in problems),
        )


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A frame and the time of its decoding, ms."""

    frame: Frame
    decode_ms: float


def _first(error: BaseException | None, step: Callable[[], None]) -> BaseException | None:
    """Run a step of closing despite an earlier error, and return the first error."""
    try:
        step()
    except BaseException as caught:
        return error or caught
    return error


def _existing_outputs(
    out_dir: Path, kind: Literal["video", "images"], options: SegmentOptions
) -> dict[str, str]:
    names = {"overlay": OVERLAY_VIDEO if kind == "video" else OVERLAY_FOLDER, "frames": ROWS}
    if kind == "video":
        names |= {"lesions": LESIONS, "stills": STILLS, "procedure": PAGE}
    names["contact_sheet"] = CONTACT_SHEET
    if options.save_masks:
        names["masks"] = MASK_FOLDER
    if options.save_probability:
        names["probability"] = PROBABILITY_FOLDER
    if options.export:
        names["export"] = EXPORT
    present = {key: name for key, name in names.items() if (out_dir / name).exists()}
    return {**present, "report": REPORT}
