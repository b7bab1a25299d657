"""Measure the peaks of a model's regions on labelled images and on recordings without a lesion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vmkla.errors import UsageError
from vmkla.evaluation.judge import LabelledImage, checked_truth, remaining_preprocess
from vmkla.evaluation.lesions import match
from vmkla.files import file_sha256
from vmkla.names import joint_digest
from vmkla.runner import Runner
from vmkla.segment.findings import Findings
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.steps import segment
from vmkla.tuning.evidence import Floats, QuietFrames
from vmkla.video.file.report import what_is_missing
from vmkla.video.file.view import Views
from vmkla.video.media.frames import Source
from vmkla.video.media.options import ReadOptions
from vmkla.video.media.sources import open_source

_FPS_MAX = 1000.0


@dataclass(frozen=True)
class Recording:
    """A recording without a lesion that can be read.

    Attributes:
        source: a video or images.
        fps: frames a second of images; None for a video, whose frames have times.
        expected_s: about how long it is, seconds; None when unknown.
    """

    source: Source
    fps: float | None
    expected_s: float | None


@dataclass(frozen=True, eq=False)
class Measured:
    """A recording whose frames the network saw.

    Attributes:
        frames: the measurement.
        sha256: hex digest of the file; of images, of the digests of all that were read.
        missing: what could not be read, in one sentence; empty when nothing is missing.
    """

    frames: QuietFrames
    sha256: str
    missing: str


def open_recordings(
    specs: Sequence[str], fps: float | None, reading: ReadOptions | None = None
) -> tuple[Recording, ...]:
    """Open recordings without a lesion, and decode the first frame of each.

    Args:
        specs: videos, or folders or patterns of images, see ``open_source``.
        fps: frames a second of the images.
        reading: options of reading; None takes the defaults.
    Raises:
        UsageError: there is none, or images come without ``fps``, or ``fps`` is out of range or superfluous.
        BadInputError: one is missing, or not one frame of it can be read.
    """
    if not specs:
        raise UsageError(
            "no recording without a lesion was given, so alarms cannot be counted",
            hint="Add: --quiet CLIP",
        )
    if fps is not None and not 0 < fps <= _FPS_MAX:
        raise UsageError(f"--fps is {fps:g}, expected frames a second above 0 and at most {_FPS_MAX:g}")
    opened = [(spec, open_source(spec, reading)) for spec in specs]
    images = [spec for spec, source in opened if source.kind == "images"]
    if images and fps is None:
        raise UsageError(
            f"{images[0]} is images, and how many of them make a second is unknown", hint="Add: --fps N"
        )
    if fps is not None and not images:
        raise UsageError(
            "--fps is for recordings that are images, and only videos were given", hint="Leave --fps out."
        )
    return tuple(_recording(source, fps if source.kind == "images" else None) for _, source in opened)


def _recording(source: Source, fps: float | None) -> Recording:
    frames = source.frames()
    first = next(frames)  # BadInputError where there is none
    frames.close()
    rate = fps if fps is not None else float(first.traits.frame_rate) if first.traits else 0.0
    return Recording(source, fps, source.total / rate if source.total and rate > 0 else None)


def measure_recording(
    runner: Runner,
    recording: Recording,
    at_threshold: OperatingPoint,
    fractions: Sequence[float],
    on_frame: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Segment every frame of a recording as ``infer`` does, and keep the largest peaks.

    Args:
        runner: the network.
        recording: a video or images.
        at_threshold: a point that keeps every region over the model's threshold.
        fractions: smallest areas, see ``Evidence``.
        on_frame: called with the number of frames done.
    Raises:
        BadInputError: no frame can be read.
    """
    source, preprocess = recording.source, runner.spec.metadata.preprocess
    views = Views.of_source(source, preprocess.roi)
    times_s: list[float] = []
    peaks: list[list[float]] = []
    digests: list[str] = []
    damaged = 0
    for frame in source.frames():
        findings, rect = segment(runner, frame.rgb, preprocess, at_threshold, views.of(frame))
        peaks.append(_largest_peaks(findings, at_threshold, fractions, rect.w * rect.h))
        times_s.append(frame.index / (recording.fps or 1.0) if frame.pts_s is None else frame.pts_s)
        digests += [frame.sha256] if frame.sha256 else []
        damaged += frame.damaged
        on_frame(len(times_s))
    measured = QuietFrames(
        np.asarray(times_s), np.asarray(peaks), None if recording.fps is None else 1 / recording.fps
    )
    missing = what_is_missing(source, frames=len(times_s), damaged=damaged)
    sha256 = joint_digest(digests) if digests else file_sha256(source.path)
    return Measured(measured, sha256, missing)


def measure_lesions(
    runner: Runner,
    samples: Iterable[LabelledImage],
    at_threshold: OperatingPoint,
    fractions: Sequence[float],
    on_image: Callable[[int], None] = lambda done: None,
) -> tuple[Floats, list[str]]:
    """Segment labelled images as ``infer`` does, and keep the largest peak over each lesion.

    Args:
        runner: the network.
        samples: images and truths.
        at_threshold: a point that keeps every region over the model's threshold.
        fractions: smallest areas, see ``Evidence``.
        on_image: called with the number of images done.
    Returns:
        (lesions, fractions), see ``Evidence``; and for each lesion the sequence of its image, or the image's
        name where it stands alone.
    Raises:
        BadInputError: a truth does not fit its image or the model, or an image was packed with another field
            of view.
    """
    spec = runner.spec
    rows: list[list[float]] = []
    sequences: list[str] = []
    for done, sample in enumerate(samples, start=1):
        preprocess = remaining_preprocess(sample.name, sample.prepared, spec.metadata.preprocess)
        truth = checked_truth(sample.name, sample.image_rgb, sample.mask, spec.num_classes)
        findings, rect = segment(runner, sample.image_rgb, preprocess, at_threshold)
        by_fraction = (
            match(
                truth,
                findings.mask,
                findings.regions,
                OperatingPoint(at_threshold.threshold, min_fraction=fraction),
                rect.w * rect.h,
            ).lesions
            for fraction in fractions
        )
        rows += [
            [-math.inf if lesion.peak is None else lesion.peak for lesion in of_lesion]
            for of_lesion in zip(*by_fraction, strict=True)
        ]
        sequences += [sample.group or sample.name] * (len(rows) - len(sequences))
        on_image(done)
    return np.asarray(rows, np.float64).reshape(-1, len(fractions)), sequences


def _largest_peaks(
    findings: Findings, at_threshold: OperatingPoint, fractions: Sequence[float], field_px: int
) -> list[float]:
    """Return the largest peak among the regions of at least each area; -inf without one."""
    points = (OperatingPoint(at_threshold.threshold, min_fraction=fraction) for fraction in fractions)
    return [
        max(
            (r.peak for r in findings.regions if point.accepts(r.area_px, r.peak, field_px)),
            default=-math.inf,
        )
        for point in points
    ]
