"""Figures of whole recordings: lesions, time to first detection, alarms, frames and persistence.

A finding and a lesion meet when they share a pixel, as in ``vmkla.evaluation.lesions``. A finding that meets
no visible lesion is false. Each figure counts what a marker on the screen would show, frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.evaluation.alarms import DURATIONS_S, Alarms, count_alarms, frame_durations, joined_frames
from vmkla.metrics import Bootstrap, reached

LATE_SHARE = 0.95
"""Share of the lesions of the second figure of the time to first detection."""
_LIMITS_S = (0.0, *DURATIONS_S)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeenFrame:
    """What a network found in one frame of an annotated recording.

    Attributes:
        time_s: time of the frame, seconds.
        lesions: each visible lesion, and whether a finding meets it.
        false_findings: number of findings that meet no visible lesion.
    """

    time_s: float
    lesions: Mapping[str, bool] = field(default_factory=dict)
    false_findings: int = 0


@dataclass(frozen=True)
class LesionResult:
    """One lesion of a recording, or of a procedure.

    Attributes:
        lesion: its identity in the procedure.
        first_s: time of the first frame in which it is visible, seconds.
        frames: number of frames in which it is visible.
        hit_frames: number of these in which a finding meets it.
        delay_s: recorded time from its first visible frame to the first that is met, seconds; infinite
            where there is none.
        frames_since: number of its frames from the first one that is met.
        visible_s: recorded time from its first visible frame to the end of its last, seconds.
    """

    lesion: str
    first_s: float
    frames: int
    hit_frames: int
    delay_s: float
    frames_since: int
    visible_s: float

    @property
    def found(self) -> bool:
        """Whether a finding meets it in at least one frame."""
        return self.hit_frames > 0

    @property
    def persistence(self) -> float:
        """Share of its frames that are met from the first one on, 0 to 1; NaN where it was missed."""
        return self.hit_frames / self.frames_since if self.found else math.nan


@dataclass(frozen=True)
class RecordingResult:
    """Counts of one recording.

    Attributes:
        name, procedure: see ``AnnotatedRecording``.
        lesions: its lesions, in the order in which they appear.
        alarms: runs of frames with a false finding.
        gaps: number of gaps in time between its frames.
        with_lesion, with_hit: number of frames with a visible lesion, and of these with one that is met.
        without_lesion, quiet: number of frames without a visible lesion, and of these without a finding.
    """

    name: str
    procedure: str
    lesions: tuple[LesionResult, ...]
    alarms: Alarms
    gaps: int
    with_lesion: int
    with_hit: int
    without_lesion: int
    quiet: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.with_lesion + self.without_lesion


def count_recording(
    name: str, procedure: str, frames: Sequence[SeenFrame], frame_s: float | None = None
) -> RecordingResult:
    """Count one recording.

    The time to first detection is recorded time: a gap between frames counts as one usual frame, so that a
    pause of the recorder delays nothing.

    Args:
        name, procedure: see ``AnnotatedRecording``.
        frames: all its frames, in order.
        frame_s: usual duration of a frame, see ``count_alarms``.
    Raises:
        BadInputError: there is no frame, or the times do not rise.
    """
    if not frames:
        raise BadInputError(f"the recording {name} has no frames")
    times_s = np.array([frame.time_s for frame in frames], np.float64)
    try:
        alarms = count_alarms(times_s, [frame.false_findings > 0 for frame in frames], frame_s=frame_s)
    except BadInputError as error:
        raise BadInputError(f"{name}: {error.message}", hint=error.hint) from error
    ends_s = np.cumsum(frame_durations(times_s, frame_s))
    recorded_s = np.concatenate([[0.0], ends_s[:-1]])  # begin of each frame on a clock without gaps
    seen: dict[str, list[tuple[int, bool]]] = {}
    for place, frame in enumerate(frames):
        for lesion, hit in frame.lesions.items():
            seen.setdefault(lesion, []).append((place, hit))
    with_lesion = [frame for frame in frames if frame.lesions]
    without_lesion = [frame for frame in frames if not frame.lesions]
    return RecordingResult(
        name=name,
        procedure=procedure,
        lesions=tuple(_lesion(lesion, of, frames, recorded_s, ends_s) for lesion, of in seen.items()),
        alarms=alarms,
        gaps=int(np.count_nonzero(~joined_frames(times_s, frame_s))),
        with_lesion=len(with_lesion),
        with_hit=sum(any(frame.lesions.values()) for frame in with_lesion),
        without_lesion=len(without_lesion),
        quiet=sum(not frame.false_findings for frame in without_lesion),
    )


def _lesion(
    lesion: str,
    seen: Sequence[tuple[int, bool]],
    frames: Sequence[SeenFrame],
    recorded_s: Floats,
    ends_s: Floats,
) -> LesionResult:
    hits = [at for at, (_, hit) in enumerate(seen) if hit]
    first = seen[0][0]
    delay_s = float(recorded_s[seen[hits[0]][0]] - recorded_s[first]) if hits else math.inf
    since = len(seen) - hits[0] if hits else 0
    visible_s = float(ends_s[seen[-1][0]] - recorded_s[first])
    return LesionResult(lesion, frames[first].time_s, len(seen), len(hits), delay_s, since, visible_s)


def _of_procedures(results: Sequence[RecordingResult]) -> list[LesionResult]:
    """Join what the clips of a procedure show of each lesion: a clip that misses it delays its detection."""
    joined: dict[tuple[str, str], LesionResult] = {}
    for result in results:
        for clip in result.lesions:
            key = result.procedure, clip.lesion
            before = joined.get(key)
            joined[key] = clip if before is None else _followed_by(before, clip)
    return list(joined.values())


def _followed_by(before: LesionResult, clip: LesionResult) -> LesionResult:
    return LesionResult(
        clip.lesion,
        before.first_s,
        before.frames + clip.frames,
        before.hit_frames + clip.hit_frames,
        before.delay_s if before.found else before.visible_s + clip.delay_s,
        before.frames_since + (clip.frames if before.found else clip.frames_since),
        before.visible_s + clip.visible_s,
    )


def summarise_procedures(results: Sequence[RecordingResult], bootstrap: Bootstrap) -> dict[str, Any]:
    """Compute the figures of all recordings.

    Args:
        results: counts of the recordings, at least one.
        bootstrap: draws of the intervals, which draw whole procedures; with one procedure there are none
            (NaN).
    Returns:
        Plain values; ``docs/guide.md`` lists the keys.
    """
    groups: dict[str, list[RecordingResult]] = {}
    for result in results:
        groups.setdefault(result.procedure, []).append(result)
    procedures = [_Sums(of) for of in groups.values()]
    values = _figures(procedures)
    intervals = bootstrap.of_statistics(
        len(procedures), lambda drawn: list(_figures([procedures[at] for at in drawn]).values())
    )
    figures = dict(zip(values, zip(values.values(), intervals, strict=True), strict=True))

    def both(name: str, key: str) -> dict[str, Any]:
        value, interval = figures[name]
        return {key: value, f"{key}_ci95": list(interval)}

    total = _Sums(results)
    alarms = sum((result.alarms for result in results), Alarms())
    return {
        "procedures": len(procedures),
        "recordings": len(results),
        "frames": sum(result.frames for result in results),
        "recorded_s": round(total.recorded_s, 3),
        "lesions": {
            "lesions": total.lesions,
            "found": total.found,
            **both("sensitivity", "sensitivity"),
        },
        "first_detection": {
            "missed": total.lesions - total.found,
            **both("median_s", "median_s"),
            **both("late_s", "p95_s"),
        },
        "persistence": both("persistence", "mean"),
        "alarms": {
            "share_of_time": alarms.share,
            **{
                _limit_name(limit_s): {
                    "alarms": alarms.count(limit_s),
                    **both(f"per_procedure {limit_s}", "per_procedure"),
                    **both(f"per_minute {limit_s}", "per_minute"),
                }
                for limit_s in _LIMITS_S
            },
        },
        "per_frame": {
            "with_lesion": int(total.counts[2]),
            **both("frame_sensitivity", "sensitivity"),
            "without_lesion": int(total.counts[4]),
            **both("frame_specificity", "specificity"),
        },
        "each": [_row(result) for result in results],
    }


class _Sums:
    """Sums of some recordings, ready to be drawn many times.

    Attributes:
        counts: lesions, found, frames with a lesion, of these met, frames without, of these quiet, and alarms
            by duration.
    """

    def __init__(self, results: Sequence[RecordingResult]) -> None:
        lesions = _of_procedures(results)
        self.lesions, self.found = len(lesions), sum(lesion.found for lesion in lesions)
        self.delays_s = np.array([lesion.delay_s for lesion in lesions], np.float64)
        self.persistences = np.array([lesion.persistence for lesion in lesions if lesion.found], np.float64)
        self.recorded_s = sum(result.alarms.recorded_s for result in results)
        frames = (
            [result.with_lesion, result.with_hit, result.without_lesion, result.quiet] for result in results
        )
        self.counts = np.array(
            [
                self.lesions,
                self.found,
                *(sum(column) for column in zip(*frames, strict=True)),
                *(sum(result.alarms.count(limit_s) for result in results) for limit_s in _LIMITS_S),
            ],
            np.int64,
        )


def _figures(procedures: Sequence[_Sums]) -> dict[str, float]:
    """Compute every figure that has an interval, by name; NaN where it is not defined."""
    counts = np.sum([procedure.counts for procedure in procedures], axis=0).tolist()
    lesions, found, with_lesion, with_hit, without_lesion, quiet, *alarms = counts
    delays_s = np.concatenate([procedure.delays_s for procedure in procedures])
    persistences = np.concatenate([procedure.persistences for procedure in procedures])
    minutes = sum(procedure.recorded_s for procedure in procedures) / 60
    figures = {
        "sensitivity": _share(found, lesions),
        "median_s": reached(delays_s, 0.5),
        "late_s": reached(delays_s, LATE_SHARE),
        "persistence": float(persistences.mean()) if len(persistences) else math.nan,
        "frame_sensitivity": _share(with_hit, with_lesion),
        "frame_specificity": _share(quiet, without_lesion),
    }
    for limit_s, count in zip(_LIMITS_S, alarms, strict=True):
        figures[f"per_procedure {limit_s}"] = count / len(procedures)
        figures[f"per_minute {limit_s}"] = count / minutes if minutes else math.nan
    return figures


def _row(result: RecordingResult) -> dict[str, Any]:
    """Make the entry of ``each`` for one recording."""
    return {
        "name": result.name,
        "procedure": result.procedure,
        "frames": result.frames,
        "recorded_s": round(result.alarms.recorded_s, 3),
        "gaps": result.gaps,
        "lesions": [
            {
                "lesion": lesion.lesion,
                "first_s": lesion.first_s,
                "frames": lesion.frames,
                "hit_frames": lesion.hit_frames,
                "first_detection_s": lesion.delay_s,
                "persistence": lesion.persistence,
            }
            for lesion in result.lesions
        ],
        "alarms": {_limit_name(limit_s): result.alarms.count(limit_s) for limit_s in _LIMITS_S},
        "frame_sensitivity": _share(result.with_hit, result.with_lesion),
        "frame_specificity": _share(result.quiet, result.without_lesion),
    }


def _limit_name(limit_s: float) -> str:
    return f"{limit_s:g}_s" if limit_s else "any"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
