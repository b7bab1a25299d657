"""What passes between the parts of live mode: frames, results, and what the screen says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from vmkla.segment.findings import Findings

MAX_FRAME_BYTES = 3 * 3840 * 2160
"""The largest frame that is taken: 4K UHD in RGB."""


class AiState(str, Enum):
    """Whether markers may be believed.

    ``ON`` alone means that the frame shown is covered by a result that is young enough.
    """

    STARTING = "starting"
    ON = "on"
    OFF = "off"


class SignalState(str, Enum):
    """What the source gives."""

    GOOD = "good"
    BLACK = "black"
    FROZEN = "frozen"
    LOST = "lost"


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """One frame of the source, as it came.

    Attributes:
        sequence: rises by one with every frame that the source gave, from 1; never reused in a run.
        captured_s: when it was whole in memory, seconds of ``time.monotonic()``.
        rgb: (H, W, 3) uint8; nobody changes it.
        damaged: the decoder had to conceal missing data.
    """

    sequence: int
    captured_s: float
    rgb: npt.NDArray[np.uint8]
    damaged: bool = False


@dataclass(frozen=True, eq=False)
class LiveResult:
    """What the worker found in one frame.

    Attributes:
        sequence, captured_s: of the frame that it was computed from.
        finished_s: when the worker had it, seconds of ``time.monotonic()``.
        frame_hw: height and width of that frame, px.
        findings: mask of ``frame_hw``, boxes and the largest probability.
        latency_ms: by stage: ``preprocess``, ``inference``, ``postprocess``.
        deinterlaced: the network saw one field of the frame.
    """

    sequence: int
    captured_s: float
    finished_s: float
    frame_hw: tuple[int, int]
    findings: Findings
    latency_ms: dict[str, float]
    deinterlaced: bool = False


@dataclass(frozen=True)
class LiveStatus:
    """What the screen says beside the frame.

    Attributes:
        ai: see ``AiState``.
        ai_reason: why it is not on, in a few words; empty when it is.
        signal: see ``SignalState``.
        recording: frames are being written; None when nobody asked for it.
    """

    ai: AiState
    ai_reason: str = ""
    signal: SignalState = SignalState.GOOD
    recording: bool | None = None
