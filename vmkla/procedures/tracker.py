"""Give findings an identity over time: a lesion keeps its number from frame to frame and through short gaps.

The tracker sees times, findings and frames, and only those of the past. Each lesion is moved with the
scene (``follow_all``), findings are scored against lesions by place, size and colour, and the assignment
with the largest sum of scores is chosen. A lesion without a finding is waited for up to ``bridge_s``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.procedures.appearance import describe
from vmkla.procedures.assignment import Assignment
from vmkla.procedures.events import Event
from vmkla.procedures.scene import Thumbnail, thumbnail
from vmkla.procedures.tracker_state import TrackerOptions, TrackerState
from vmkla.procedures.tracker_step import Finding, TrackerStep
from vmkla.segment.findings import Region

__all__ = ["LesionTracker", "Tracked", "TrackerOptions", "TrackerState"]

MAX_REGIONS = 32
"""Number of findings of one frame that get a number, largest first; more are noise."""


@dataclass(frozen=True)
class Tracked:
    """Lesions of one frame.

    Attributes:
        numbers: number of each finding's lesion, in the findings' order; None beyond ``MAX_REGIONS``. Pieces
            of one lesion have the same number.
        events: what happened in this frame.
    """

    numbers: tuple[int | None, ...] = ()
    events: tuple[Event, ...] = ()


class LesionTracker:
    """Numbers the lesions of one stream of frames.

    Args:
        options: limits in time.
        state: where an earlier tracker ended; the new one continues as if nothing had interrupted it.
    Raises:
        MissingDependencyError: the package ``lap`` is not installed.

    Attributes:
        state: what is known after the newest frame.
    """

    def __init__(self, options: TrackerOptions | None = None, state: TrackerState | None = None) -> None:
        self._options = options or TrackerOptions()
        self._assignment = Assignment()
        self.state = state or TrackerState()

    def update(
        self,
        time_s: float,
        regions: Sequence[Region] | None,
        frame_rgb: npt.NDArray[np.uint8] | None = None,
        scene: Thumbnail | None = None,
    ) -> Tracked:
        """Number the findings of the next frame.

        Args:
            time_s: time of the frame, seconds, on a clock of any origin.
            regions: findings; None where the frame was not searched: lesions are only moved.
            frame_rgb: (H, W, 3) uint8, the frame, for colours and motion; None tracks by place only.
            scene: thumbnail of the frame, where there is one already.
        Raises:
            UsageError: the time is not finite.
        """
        if not math.isfinite(time_s):
            raise UsageError(f"the time of a frame is {time_s}, expected seconds")
        if scene is None and frame_rgb is not None:
            scene = thumbnail(frame_rgb)
        step = TrackerStep(self._options, self._assignment, self.state, time_s)
        step.watch_time()
        step.watch_scene(scene)
        numbers: tuple[int | None, ...] = ()
        if regions is not None:
            findings = [
                Finding(
                    (float(region.box.x), float(region.box.y), float(region.box.w), float(region.box.h)),
                    region.class_index,
                    None if frame_rgb is None else describe(frame_rgb, region.box),
                )
                for region in regions[:MAX_REGIONS]
            ]
            numbers = step.number(findings) + (None,) * (len(regions) - len(findings))
        step.expire()
        self.state = step.new_state(scene, looked=regions is not None)
        return Tracked(numbers, tuple(step.events))
