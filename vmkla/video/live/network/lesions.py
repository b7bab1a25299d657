"""Number the lesions of a live stream in the worker, and keep what its successor needs outside of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from vmkla.errors import BadInputError
from vmkla.procedures.events import Event
from vmkla.procedures.look_ahead import CANDIDATE_S
from vmkla.procedures.quality import PictureWatch, small_view
from vmkla.procedures.scene import Thumbnail
from vmkla.procedures.tracker import LesionTracker, TrackerOptions, TrackerState
from vmkla.segment.findings import Findings
from vmkla.segment.preprocess import Rect
from vmkla.video.live.frame import FrameLesions, LiveFrame
from vmkla.video.live.network.options import StillOptions
from vmkla.video.live.network.still_keeper import StillKeeper
from vmkla.video.live.shared_memory.board import Board

TRACKER_BYTES = 1 << 20
"""Size of the largest state of the tracker; that of a 16:9 stream has at most 0.1 MB."""
_OPTIONS = TrackerOptions(candidate_s=CANDIDATE_S)
_OUTAGE_S = 10.0
"""Longest time between two workers after which the second one continues the lesions of the first."""
_COUNTED_S = _OPTIONS.bridge_s / 2
"""What of that time counts as time without a finding, so that there is some left to find a lesion again."""


@dataclass(frozen=True)
class KeptTracker:
    """What the display process keeps of a worker's tracker for the next worker.

    Attributes:
        state: JSON of the tracker's state; empty where there is none.
        next_number: least number of a new lesion, whatever the state says.
    """

    state: bytes = b""
    next_number: int = 1

    def restore(self) -> TrackerState:
        """Return the state from which the next tracker continues.

        Raises:
            BadInputError: the state is damaged.
        """
        try:
            state = TrackerState.from_dict(json.loads(self.state)) if self.state else TrackerState()
        except ValueError as error:
            raise BadInputError(f"the tracker's state is not JSON: {error}") from error
        return replace(state, next_number=max(state.next_number, self.next_number))


class WorkerLesions:
    """The lesions of one worker, which uses the past only.

    Args:
        kept: what its predecessor left.
        board: board for the tracker's state, which is published after every frame.
        stills: options of stills; None keeps none.
    Raises:
        MissingDependencyError: the package ``lap`` is not installed.
    """

    def __init__(self, kept: KeptTracker, board: Board, stills: StillOptions | None = None) -> None:
        self._board = board
        self._stills = None if stills is None else StillKeeper(stills)
        self._picture = PictureWatch()
        self._failure = ""
        try:
            state = kept.restore()
        except BadInputError as error:
            state, self._failure = TrackerState(next_number=kept.next_number), error.message
        self._inherited = state.time_s is not None
        self._tracker = LesionTracker(_OPTIONS, state)

    def track(self, frame: LiveFrame, findings: Findings, rect: Rect, scene: Thumbnail) -> FrameLesions:
        """Number the findings of the next frame, and rate its picture.

        Markers matter more than their numbers: a failure is reported, the findings of the frame have no
        number, and the lesions after it have new ones.

        Args:
            frame: the frame.
            findings: its findings.
            rect: its field of view, px.
            scene: its thumbnail.
        """
        failure, self._failure = self._failure, ""
        try:
            if self._inherited:
                self._inherited = False
                self._bridge_outage(frame.captured_s)
            tracked = self._tracker.update(frame.captured_s, findings.regions, frame.rgb, scene)
            view = small_view(frame.rgb, rect)
            poor = self._picture.poor(view, frame.captured_s)
            self._publish()
            if self._stills is not None:
                self._stills.offer(frame, view, findings, tracked.numbers)
                failure = failure or self._stills.take_failure()
        except MemoryError:
            raise
        except Exception as error:
            self._tracker = LesionTracker(_OPTIONS, TrackerState(next_number=self._tracker.state.next_number))
            numbers = (None,) * len(findings.regions)
            return FrameLesions(numbers, (Event("jump"),), failure=f"{type(error).__name__}: {error}")
        return FrameLesions(tracked.numbers, tracked.events, poor, failure)

    def close(self, timeout_s: float) -> None:
        """Write the stills that are in memory, within that time."""
        if self._stills is not None:
            self._stills.close(timeout_s)

    def _bridge_outage(self, now_s: float) -> None:
        """Let only a part of the time between two workers count."""
        state = self._tracker.state
        assert state.time_s is not None
        outage_s = now_s - state.time_s
        if _COUNTED_S < outage_s <= _OUTAGE_S:
            self._tracker.state = state.delayed(outage_s - _COUNTED_S)

    def _publish(self) -> None:
        state = self._tracker.state
        data = json.dumps(state.to_dict()).encode()
        if len(data) > TRACKER_BYTES:  # a frame of extreme proportions; places remain
            data = json.dumps(replace(state, scene=None, away_scene=None).to_dict()).encode()
        self._board.publish(data)
