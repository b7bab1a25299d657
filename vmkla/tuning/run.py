"""Fit a model's operating point to labelled images and quiet recordings, for ``vmkla tune``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmkla import __version__
from vmkla.errors import BadInputError
from vmkla.evaluation.judge import LabelledImage, checked_truth
from vmkla.evaluation.lesions import match
from vmkla.evaluation.tables import Table
from vmkla.files import file_sha256
from vmkla.names import joint_digest
from vmkla.runner import Runner
from vmkla.segment.operating_point import OperatingPoint
from vmkla.tuning.collect import Measured, Recording, measure_lesions, measure_recording
from vmkla.tuning.evidence import Cost, Evidence, Floats, QuietFrames, fractions_for
from vmkla.tuning.fit import TuneRequest, check_lesions, check_minutes, fit

OPTIMISTIC = (
    "the figures are of the data that the point was fitted to, so they are optimistic: judge it on other "
    "images and recordings of the same scopes"
)
_SURELY_SHORT = 0.5
"""A header's number of frames may be wrong, so only a length below this share of the needed one is refused
before the frames are counted."""

OnProgress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class LabelledData:
    """Labelled images.

    Attributes:
        read: begins to read them from the first one.
        images: how many there are.
        files: all files that hold images or truths.
    """

    read: Callable[[], Iterable[LabelledImage]]
    images: int
    files: Sequence[Path]


@dataclass(frozen=True)
class TuneResult:
    """A fitted operating point and what it costs.

    Attributes:
        request: what it had to reach.
        holdout: half of the data was left out of the fit, and the cost is that on this half.
        old, new: the model's point and the fitted one.
        before, after: their cost, on the data of the fit or on the half that was left out.
        model_sha256: hex digest of the model's file.
        labelled: number and hash of the labelled images.
        quiet: length and hash of each recording.
        missing: what of the recordings could not be read.
    """

    request: TuneRequest
    holdout: bool
    old: OperatingPoint
    new: OperatingPoint
    before: Cost
    after: Cost
    model_sha256: str
    labelled: dict[str, Any]
    quiet: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the figures should know."""
        return () if self.holdout else (OPTIMISTIC,)

    def record(self) -> dict[str, Any]:
        """Return what the tuned file keeps: plain values without any name of a file."""
        return {
            "vmkla_version": __version__,
            "model_sha256": self.model_sha256,
            "request": self.request.to_dict(),
            "holdout": self.holdout,
            "old": self.old.to_dict(),
            "new": self.new.to_dict(),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "labelled": self.labelled,
            "quiet": list(self.quiet),
        }


def tune(
    runner: Runner,
    labelled: LabelledData,
    recordings: Sequence[Recording],
    request: TuneRequest,
    progress: OnProgress = lambda part, done, total: None,
    *,
    holdout: bool = False,
) -> TuneResult:
    """Measure labelled images and recordings once, and fit the operating point at the model's threshold.

    What is too little is refused before the network sees a frame, as far as headers and masks show it.

    Args:
        runner: the network.
        labelled: images with lesions.
        recordings: recordings without a lesion.
        request: what the point must reach.
        progress: called with the part of the work, what is done of it, and the whole of it.
        holdout: fit to every other sequence of the images and the first half of each recording, and measure
            the cost on the rest.
    Raises:
        BadInputError: there is too little of either, or something cannot be read.
        GateError: no operating point reaches the request.
    """
    spec, old = runner.spec, runner.spec.operating_point
    check_minutes_ahead(recordings, request, holdout=holdout)
    check_lesions(lesions_up_to(request.lesions, labelled.read(), spec.num_classes, holdout=holdout), request)
    fractions, at_threshold = fractions_for(old), OperatingPoint(old.threshold)
    measured: list[Measured] = []
    for number, recording in enumerate(recordings, start=1):
        part = f"quiet recording {number} of {len(recordings)}"
        total = recording.source.total

        def on_frame(done: int, part: str = part, total: int | None = total) -> None:
            progress(part, done, total)

        measured.append(measure_recording(runner, recording, at_threshold, fractions, on_frame))
    quiet = [one.frames for one in measured]
    check_minutes(sum(one.recorded_s for one in _fitted(quiet, holdout)) / 60, request)
    lesions, sequences = measure_lesions(
        runner,
        labelled.read(),
        at_threshold,
        fractions,
        lambda done: progress("labelled images", done, labelled.images),
    )
    known = judged = Evidence(fractions, lesions, quiet)
    if holdout:
        known, judged = _split(known, sequences)
    new = fit(known, old, request)
    return TuneResult(
        request=request,
        holdout=holdout,
        old=old,
        new=new,
        before=judged.measure(old),
        after=judged.measure(new),
        model_sha256=spec.sha256,
        labelled=_labelled_facts(labelled, lesions),
        quiet=tuple(_quiet_facts(one) for one in measured),
        missing=tuple(one.missing for one in measured if one.missing),
    )


class _EveryOther:
    """Chooses every other sequence, in the order in which they first come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, sequence: str) -> bool:
        return self._numbers.setdefault(sequence, len(self._numbers)) % 2 == 0


def _split(evidence: Evidence, sequences: Sequence[str]) -> tuple[Evidence, Evidence]:
    """Split evidence into the half that the point is fitted to and the half that it is judged on.

    Raises:
        BadInputError: the second half holds no lesion.
    """
    chosen = _EveryOther()
    first = np.array([chosen(sequence) for sequence in sequences], np.bool_)
    if first.all():
        raise BadInputError(
            "the labelled images are of a single sequence, so no lesion is left to judge the point on",
            hint="Leave --holdout out, or label images of other sequences.",
        )
    halves = [recording.halves() for recording in evidence.quiet]
    known, judged = (
        Evidence(evidence.fractions, evidence.lesions[part], [pair[number] for pair in halves])
        for number, part in enumerate((first, ~first))
    )
    return known, judged


def _fitted(quiet: Sequence[QuietFrames], holdout: bool) -> Sequence[QuietFrames]:
    """Return the part of the recordings that the point is fitted to."""
    return [recording.halves()[0] for recording in quiet] if holdout else quiet


def check_minutes_ahead(
    recordings: Sequence[Recording], request: TuneRequest, *, holdout: bool = False
) -> None:
    """Reject recordings that are far too short by their headers.

    Raises:
        BadInputError: see ``check_minutes``.
    """
    lengths_s = [recording.expected_s for recording in recordings]
    known_s = [length_s for length_s in lengths_s if length_s is not None]
    exact = all(recording.fps is not None for recording in recordings)
    minutes = sum(known_s) / 60 / (2 if holdout else 1)
    if len(known_s) == len(lengths_s) and (exact or minutes < _SURELY_SHORT * request.minutes):
        check_minutes(minutes, request, about=not exact)


def lesions_up_to(
    enough: int, samples: Iterable[LabelledImage], num_classes: int, *, holdout: bool = False
) -> int:
    """Count the lesions that a point is fitted to, without the network, until there are enough.

    Raises:
        BadInputError: a truth does not fit its image or the model's classes.
    """
    lesions, chosen = 0, _EveryOther()
    for sample in samples:
        truth = checked_truth(sample.name, sample.image_rgb, sample.mask, num_classes)
        of_image = len(match(truth, np.zeros_like(truth), (), OperatingPoint(), truth.size).lesions)
        # Sequences without a lesion are not counted, as they are not in ``_split``.
        if of_image and (not holdout or chosen(sample.group or sample.name)):
            lesions += of_image
        if lesions >= enough:
            break
    return lesions


def cost_table(result: TuneResult) -> Table:
    """Make the table of the old and the new point and of what both cost."""
    points = (result.old, result.new)
    costs = (result.before, result.after)
    rows = [
        ("threshold", *(f"{point.threshold:g}" for point in points)),
        ("peak", *(f"{point.peak:g}" for point in points)),
        ("smallest area, % of the field of view", *(f"{100 * point.min_fraction:g}" for point in points)),
        ("lesions found", *(f"{cost.found} of {cost.lesions}" for cost in costs)),
    ]
    documents = [cost.to_dict() for cost in costs]
    rows.append(("sensitivity per lesion", *(_interval(d, "sensitivity", 3) for d in documents)))
    rows.append(("quiet time in an alarm, %", *(f"{100 * cost.alarms.share:.1f}" for cost in costs)))
    for key in [key for key, value in documents[0]["alarms"].items() if isinstance(value, dict)]:
        label = "any" if key == "any" else f"of at least {key.removesuffix('_s')} s"
        rows.append(
            (f"alarms a minute, {label}", *(_interval(d["alarms"][key], "per_minute", 2) for d in documents))
        )
    quiet_s = result.after.alarms.recorded_s
    return Table(
        f"Operating point, on {result.after.lesions} lesions and {quiet_s / 60:.2f} min of quiet recording"
        + ", held out of the fit" * result.holdout,
        ("", "before", "after"),
        tuple(rows),
        "95 % intervals: Wilson's; of alarms Byar's, too narrow where alarms come in clusters. An alarm is a "
        "run of frames with a finding, so a point that is always in one has few. The fit counts the most "
        "alarms at a point's peak and above.",
    )


def _interval(document: dict[str, Any], name: str, digits: int) -> str:
    low, high = document[f"{name}_ci95"]
    return f"{document[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _labelled_facts(labelled: LabelledData, lesions: Floats) -> dict[str, Any]:
    sha256 = joint_digest(file_sha256(path) for path in sorted(set(labelled.files)))
    return {"images": labelled.images, "lesions": len(lesions), "sha256": sha256}


def _quiet_facts(one: Measured) -> dict[str, Any]:
    frames = one.frames
    return {
        "frames": len(frames.times_s),
        "recorded_s": round(frames.recorded_s, 3),
        "sha256": one.sha256,
    }
