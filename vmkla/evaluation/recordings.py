"""Compare the findings in an annotated recording with the truth, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vmkla.errors import BadInputError
from vmkla.evaluation.identities import Identities, boxes_by_number
from vmkla.evaluation.procedures import SeenFrame
from vmkla.evaluation.truth.records import AnnotatedRecording, Mark
from vmkla.procedures.tracker import LesionTracker
from vmkla.runner import Runner
from vmkla.segment.findings import Findings, Region
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.segment.steps import segment
from vmkla.video.file.report import what_is_missing
from vmkla.video.file.view import Views
from vmkla.video.media.frames import Frame

Finder = Callable[[Frame], Findings]
"""Gives the findings of a recording's frames, which come in their order."""


@dataclass(frozen=True)
class SeenRecording:
    """What was found in an annotated recording.

    Attributes:
        frames: its frames, in order.
        identities: boxes of the lesions by their identity, and of the findings by their number.
        missing: what could not be read, in one sentence; empty when nothing is missing.
    """

    frames: tuple[SeenFrame, ...]
    identities: Identities
    missing: str


def network_finder(
    runner: Runner, recording: AnnotatedRecording, point: OperatingPoint, preprocess: PreprocessSpec
) -> Finder:
    """Return what segments the frames of a recording. Images are taken as the frames of one video.

    Args:
        runner: a model of one class.
        recording: the recording, which is searched for its field of view where that is ``"auto"``.
        point: the rule by which a region counts as a finding.
        preprocess: preprocessing and field of view.
    """
    views = Views.of_sequence(recording.source, preprocess.roi)
    return lambda frame: segment(runner, frame.rgb, preprocess, point, views.of(frame))[0]


def observe(
    find: Finder, recording: AnnotatedRecording, on_frame: Callable[[], None] = lambda: None
) -> SeenRecording:
    """Find the lesions in every frame of a recording and number them, as live mode does: from the past only.

    Args:
        find: gives the findings of each frame.
        recording: frames and truth.
        on_frame: called after each frame.
    Raises:
        BadInputError: no frame can be read, or the truth does not fit the frames.
    """
    tracker, identities = LesionTracker(), Identities()
    frames: list[SeenFrame] = []
    left, damaged = set(recording.truth), 0
    for frame in recording.source.frames():
        findings = find(frame)
        frame_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        truth = recording.truth.get(frame.index)
        if truth is None and recording.complete:
            raise BadInputError(
                f"{recording.name}: frame {frame.index} has no annotation, and the last of "
                f"{len(recording.truth)} is of frame {max(recording.truth)}",
                hint="Give the recording that was annotated, with an annotation for each frame.",
            )
        marks = () if truth is None else truth.marks(frame_hw)
        time_s = frame.pts_s if recording.times_s is None else recording.times_s[frame.index]
        assert time_s is not None
        hits, false_findings = compare(findings, marks)
        frames.append(SeenFrame(time_s, hits, false_findings))
        tracked = tracker.update(time_s, findings.regions, frame.rgb)
        identities.truth.append({mark.lesion: mark.box for mark in marks})
        identities.given.append(boxes_by_number(tracked.numbers, findings.regions))
        left.discard(frame.index)
        damaged += frame.damaged
        on_frame()
    missing = what_is_missing(recording.source, frames=len(frames), damaged=damaged)
    if left and not missing:
        raise BadInputError(
            f"{recording.name}: {len(left)} annotated frames are not there, the last is number {max(left)}; "
            f"the recording has {len(frames)}, from 0",
            hint="Give the recording that was annotated, whole.",
        )
    return SeenRecording(tuple(frames), identities, missing)


def compare(findings: Findings, marks: Sequence[Mark]) -> tuple[Mapping[str, bool], int]:
    """Compare the findings of a frame with its visible lesions.

    Args:
        findings: findings at the operating point.
        marks: the visible lesions.
    Returns:
        Whether a finding shares a pixel with each lesion; number of findings that share none with any.
    """
    truth = np.zeros(findings.mask.shape, np.bool_)
    hits: dict[str, bool] = {}
    for mark in marks:
        x, y, w, h = mark.box
        hits[mark.lesion] = bool((findings.mask[y : y + h, x : x + w].astype(np.bool_) & mark.pixels).any())
        truth[y : y + h, x : x + w] |= mark.pixels

    def is_false(region: Region) -> bool:
        x, y, w, h = region.box
        return not (truth[y : y + h, x : x + w] & findings.pixels_of(region).astype(np.bool_)).any()

    return hits, sum(is_false(region) for region in findings.regions)
