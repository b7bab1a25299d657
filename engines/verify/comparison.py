"""Compare two runners on the same frames, and check the differences against gates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.verify.gates import GateReport, Gates, check_limit
from vmkla.errors import ShapeError
from vmkla.metrics import confusions, mean_measures
from vmkla.runner import Runner
from vmkla.segment.findings import class_mask
from vmkla.segment.steps import infer

TAIL = 1e-3
"""Share of the differences above the 99.9th percentile."""
LEAST_UNDECIDED = 1e-9
"""Smallest addition of a pixel to the sum of p (1 - p), so that the sum is never 0."""


@dataclass(frozen=True)
class Comparison:
    """Differences between a candidate's probability and masks and a reference's.

    Attributes:
        reference, candidate: the runners, ``name/kernels``.
        frames: number of frames.
        max_error, mean_error, p999_error: largest, mean and 99.9th percentile of the absolute difference of
            all probabilities; NaN where a side gave a value that is not finite.
        relative_error: see ``Gates``; NaN in the same case.
        mean_dice, worst_dice: mean and smallest Dice of the frames' two masks; of several classes the mean
            over the classes that either mask has.
        judged_mean_dice, judged_worst_dice: the same, where a frame scores 1 if its masks differ in at most
            the pixels that the gates spare (``Gates.spare_share``): of a mask of 40 pixels two are 5 %.
        worst_frame: index of the frame with the largest difference.
        empty_frames: number of frames in which neither side marks a pixel; they score Dice 1.
        finite: whether every value of both sides is finite.
    """

    reference: str
    candidate: str
    frames: int
    max_error: float
    mean_error: float
    p999_error: float
    relative_error: float
    mean_dice: float
    worst_dice: float
    judged_mean_dice: float
    judged_worst_dice: float
    worst_frame: int
    empty_frames: int
    finite: bool

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON: NaN becomes null."""
        values = dataclasses.asdict(self)
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in values.items()
        }


def compare(
    reference: Runner,
    candidate: Runner,
    frames: npt.NDArray[np.uint8],
    *,
    batch: int = 1,
    spare_share: float = 0.0,
) -> Comparison:
    """Run two runners on the same frames and compare their results.

    Args:
        reference: the runner that is right.
        candidate: the runner to check.
        frames: (n, H, W, 3) uint8 RGB, preprocessed; n at least 1.
        batch: frames that the candidate gets at once, where its batch is not fixed. The reference gets one at
            a time, so that a candidate which mixes up a batch is detected.
        spare_share: the gates' ``spare_share``, see ``Gates``.
    Returns:
        The differences. Masks are made with the reference's threshold.
    Raises:
        ShapeError: there is no frame, or the runners do not fit the frames or each other.
    """
    if frames.ndim != 4 or len(frames) == 0:
        raise ShapeError(f"frames must be (n, H, W, 3) with n at least 1, got {frames.shape}")
    if reference.spec.num_classes != candidate.spec.num_classes:
        raise ShapeError(
            f"{reference.name} has {reference.spec.num_classes} classes, {candidate.name} has "
            f"{candidate.spec.num_classes}"
        )
    threshold, classes = reference.spec.metadata.threshold, reference.spec.num_classes
    pixels = frames.shape[1] * frames.shape[2]
    total = len(frames) * classes * pixels
    tail = _LargestValues(math.ceil(total * TAIL) + 1)
    error_sum, undecided, max_error, worst_frame, empty, finite = 0.0, 0.0, -1.0, 0, 0, True
    dices: list[float] = []
    judged: list[float] = []
    pairs = zip(_run(reference, frames, 1), _run(candidate, frames, batch), strict=True)
    for index, (expected, actual) in enumerate(pairs):
        if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
            worst_frame, finite = (index if finite else worst_frame), False
        error = np.abs(expected.astype(np.float64) - actual)
        error_sum += float(error.sum())
        undecided += float((expected * (1.0 - expected.astype(np.float64))).sum())
        if finite and float(error.max()) > max_error:
            max_error, worst_frame = float(error.max()), index
        tail.add(error)
        counts = confusions(class_mask(actual, threshold), class_mask(expected, threshold), classes)
        present = [count for count in counts if count.tn < pixels]
        dices.append(mean_measures(present)["dice"] if present else 1.0)
        spared = sum(count.fp + count.fn for count in counts) <= spare_share * pixels
        judged.append(1.0 if spared else dices[-1])
        empty += not present
    return Comparison(
        reference=f"{reference.name}/{reference.spec.kernels}",
        candidate=f"{candidate.name}/{candidate.spec.kernels}",
        frames=len(frames),
        max_error=max_error if finite else math.nan,
        mean_error=error_sum / total if finite else math.nan,
        p999_error=tail.smallest(math.floor(total * TAIL)) if finite else math.nan,
        relative_error=error_sum / (undecided + LEAST_UNDECIDED * total) if finite else math.nan,
        mean_dice=float(np.mean(dices)),
        worst_dice=min(dices),
        judged_mean_dice=float(np.mean(judged)),
        judged_worst_dice=min(judged),
        worst_frame=worst_frame,
        empty_frames=empty,
        finite=finite,
    )


def check(comparison: Comparison, gates: Gates) -> GateReport:
    """Check a comparison against its gates; a value that is not finite always fails."""
    measured = {
        "max_error": comparison.max_error,
        "mean_error": comparison.mean_error,
        "relative_error": comparison.relative_error,
        "min_mean_dice": comparison.judged_mean_dice,
        "min_worst_dice": comparison.judged_worst_dice,
    }
    limits = {name: getattr(gates, name) for name in measured}
    checks = [check_limit(name, limit, measured[name]) for name, limit in limits.items() if limit is not None]
    failures = [each.text for each in checks if not each.passed]
    if not comparison.finite:
        failures.insert(0, f"frame {comparison.worst_frame} has values that are not finite")
    return GateReport(not failures, tuple(failures), gates, comparison.to_dict())


def gates_record(
    checks: Sequence[Mapping[str, Any]], *, frames: int, rendered: bool, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make the record of a check for a file's metadata or an engine's manifest.

    Args:
        checks: ``to_dict`` of each ``GateReport`` or ``VerifyReport``.
        frames: number of frames that were compared.
        rendered: whether these were rendered.
        more: other proofs by name, each with ``passed``, which counts as well.
    Returns:
        ``passed``, ``frames``, ``rendered`` and ``checks``, and the entries of ``more``.
    """
    proofs = dict(more or {})
    passed = all(check["passed"] for check in checks) and all(proof["passed"] for proof in proofs.values())
    return {"passed": passed, "frames": frames, "rendered": rendered, "checks": list(checks), **proofs}


def _run(runner: Runner, frames: npt.NDArray[np.uint8], batch: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the (classes, H, W) output of each frame."""
    size = runner.spec.batch or batch
    for start in range(0, len(frames), size):
        yield from infer(runner, frames[start : start + size])


class _LargestValues:
    """Keep the largest of many values, so that a high percentile needs no copy of all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: npt.NDArray[np.float64] = np.empty(0)

    def add(self, values: npt.NDArray[np.float64]) -> None:
        joined = np.concatenate([self._kept, values.ravel()])
        if len(joined) > self._count:
            joined = np.partition(joined, len(joined) - self._count)[-self._count :]
        self._kept = joined

    def smallest(self, rank: int) -> float:
        """Return the value that ``rank`` others exceed."""
        return float(np.sort(self._kept)[::-1][min(rank, len(self._kept) - 1)])
