"""Frames, results and states that the parts of live mode exchange."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from vmkla.procedures.events import Event
from vmkla.segment.findings import Findings

MAX_FRAME_BYTES = 3 * 3840 * 2160
"""Size of the largest frame, 4K UHD in RGB."""


class AiState(str, Enum):
    """Whether markers may be trusted: ``ON`` means that a recent enough result covers the frame shown.

    ``PAUSED`` means the same, but that its frame was a poor picture, and no markers are drawn as was asked.
    """

    STARTING = "starting"
    ON = "on"
    OFF = "off"
    PAUSED = "paused"


class SignalState(str, Enum):
    """State of the source's signal."""

    GOOD = "good"
    BLACK = "black"
    FROZEN = "frozen"
    LOST = "lost"


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """One frame as captured.

    Attributes:
        sequence: number of the frame in the run, from 1.
        captured_s: time at which the frame was complete in memory, seconds of ``time.monotonic()``.
        rgb: (H, W, 3) uint8, not to be changed.
        damaged: whether the decoder had to conceal missing data.
        first_hw: height and width of the first frame of the run, px; None before it was published.
    """

    sequence: int
    captured_s: float
    rgb: npt.NDArray[np.uint8]
    damaged: bool = False
    first_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class FrameLesions:
    """Lesions and picture of one frame.

    Attributes:
        numbers: number of each finding's lesion, in the findings' order; None without one.
        events: what happened to lesions in this frame.
        poor: why the picture is poor, or None.
        failure: why findings have no numbers, or new ones; empty where nothing failed.
    """

    numbers: tuple[int | None, ...] = ()
    events: tuple[Event, ...] = ()
    poor: str | None = None
    failure: str = ""


@dataclass(frozen=True, eq=False)
class LiveResult:
    """The findings of the network in one frame.

    Attributes:
        sequence, captured_s: number and capture time of the frame.
        finished_s: time at which the worker had the result, seconds of ``time.monotonic()``.
        frame_hw: height and width of the frame, px.
        findings: mask of ``frame_hw``, boxes and the largest probability.
        latency_ms: latency by stage: ``preprocess``, ``inference``, ``postprocess``, ``track``.
        deinterlaced: whether the network saw one field of the frame.
        lesions: lesions of the findings.
    """

    sequence: int
    captured_s: float
    finished_s: float
    frame_hw: tuple[int, int]
    findings: Findings
    latency_ms: dict[str, float]
    deinterlaced: bool = False
    lesions: FrameLesions = FrameLesions()


@dataclass(frozen=True)
class LiveStatus:
    """The status that is shown below the frame.

    Attributes:
        ai: state of the AI.
        ai_reason: why the AI is not on, in a few words; empty when it is.
        signal: state of the source's signal.
        recording: whether frames are being written; None when nothing is to be recorded.
    """

    ai: AiState
    ai_reason: str = ""
    signal: SignalState = SignalState.GOOD
    recording: bool | None = None
