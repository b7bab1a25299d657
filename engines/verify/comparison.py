"""The comparison that every step ends in: two runners, the same frames, and gates on the difference."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.verify.clinical import VerifyReport, verify_runners
from vmkla.engines.verify.gates import FP32_EXPORT, ClinicalGates, GateReport, Gates
from vmkla.errors import ShapeError
from vmkla.runner import Runner
from vmkla.segment.steps import infer

__all__ = [
    "FP32_EXPORT",
    "ClinicalGates",
    "Comparison",
    "GateReport",
    "Gates",
    "VerifyReport",
    "check",
    "compare",
    "gates_record",
    "verify_runners",
]

TAIL = 1e-3
"""Share of the largest differences beyond the 99.9th percentile."""
LEAST_UNDECIDED = 1e-9
"""What a pixel adds to the sum of p (1 - p) at least, so that it is never 0."""


@dataclass(frozen=True)
class Comparison:
    """How far a candidate's probability and masks are from a reference's.

    Attributes:
        reference, candidate: what was compared, ``name/kernels``.
        frames: how many were.
        max_error, mean_error, p999_error: of the absolute difference of all probabilities; NaN when
            one side gave a value that is not finite.
        relative_error: see ``Gates``; NaN like these.
        mean_dice, worst_dice: of the frames' Dice (see ``mask_dice``).
        judged_mean_dice, judged_worst_dice: the same, where a frame scores 1 when its masks differ in no
            more pixels than the gates spare (``Gates.spare_share``): of a mask of forty pixels two are 5 %.
        worst_frame: index of the frame with the largest difference.
        empty_frames: frames in which neither side marks a pixel; they score Dice 1.
        finite: every value of both sides is finite.
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
        """Plain values, for JSON: NaN as null."""
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
    """Run both on the same frames.

    Args:
        reference: what is right.
        candidate: what is to be checked.
        frames: (n, H, W, 3) uint8 RGB, preprocessed; n at least 1.
        batch: frames that the candidate takes at once, where its batch is not fixed. The reference
            takes one at a time, so a candidate that mixes up its batch is seen.
        spare_share: of the gates that the comparison is for, see ``Gates``.
    Returns:
        The differences. The threshold is the reference's.
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
    threshold = reference.spec.metadata.threshold
    total = len(frames) * reference.spec.num_classes * frames.shape[1] * frames.shape[2]
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
        masks = foreground(expected, threshold), foreground(actual, threshold)
        dice, is_empty = mask_dice(*masks)
        dices.append(dice)
        spared = (masks[0] ^ masks[1]).sum() <= spare_share * frames.shape[1] * frames.shape[2]
        judged.append(1.0 if spared else dice)
        empty += is_empty
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


def foreground(probability: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """Masks of the classes that are not background.

    Args:
        probability: (classes, H, W). One class: a pixel belongs at ``threshold`` and above. More: it
            belongs to the most probable class, and class 0 is the background.
    Returns:
        (foreground classes, H, W).
    """
    if len(probability) == 1:
        return np.asarray(probability >= threshold)
    winner = probability.argmax(axis=0)
    return np.asarray(winner == np.arange(1, len(probability))[:, None, None])


def mask_dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> tuple[float, bool]:
    """Dice of two sets of masks, the mean over the classes that either has; 1 when neither has any.

    Args:
        a, b: (classes, H, W).
    Returns:
        The Dice, and whether both are empty.
    """
    sizes = a.sum(axis=(1, 2)) + b.sum(axis=(1, 2))  # (classes,)
    present = sizes > 0
    if not present.any():
        return 1.0, True
    common = (a & b).sum(axis=(1, 2))
    return float((2.0 * common[present] / sizes[present]).mean()), False


def check(comparison: Comparison, gates: Gates) -> GateReport:
    """Hold a comparison against its gates.

    Returns:
        The report; a value that is not finite always fails.
    """
    failures = []
    if not comparison.finite:
        failures.append(f"frame {comparison.worst_frame} has values that are not finite")
    for limit, measured, name in (
        (gates.max_error, comparison.max_error, "max probability error"),
        (gates.mean_error, comparison.mean_error, "mean probability error"),
        (gates.relative_error, comparison.relative_error, "probability error relative to p (1 - p)"),
    ):
        if limit is not None and not measured <= limit:
            failures.append(f"{name} is {measured:.3g}, allowed is {limit:.3g}")
    for limit, measured, name in (
        (gates.min_mean_dice, comparison.judged_mean_dice, "mean mask Dice"),
        (gates.min_worst_dice, comparison.judged_worst_dice, "worst frame's mask Dice"),
    ):
        if limit is not None and not measured >= limit:
            failures.append(f"{name} is {measured:.5f}, needed is {limit:.5f}")
    return GateReport(not failures, tuple(failures), gates, comparison.to_dict())


def gates_record(
    checks: Sequence[Mapping[str, Any]], *, frames: int, rendered: bool, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a file's metadata and an engine's manifest keep of the check that their maker ended in.

    Args:
        checks: ``to_dict`` of each ``GateReport`` or ``VerifyReport``.
        frames: over which they were made.
        rendered: these were rendered, not given.
        more: other proofs; their ``passed`` counts as well.
    Returns:
        ``passed``, ``frames``, ``rendered`` and ``checks``, and what is in ``more``.
    """
    proofs = dict(more or {})
    held = all(check["passed"] for check in checks) and all(proof["passed"] for proof in proofs.values())
    return {"passed": held, "frames": frames, "rendered": rendered, "checks": list(checks), **proofs}


def _run(runner: Runner, frames: npt.NDArray[np.uint8], batch: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the (classes, H, W) output of each frame."""
    size = runner.spec.batch or batch
    for start in range(0, len(frames), size):
        yield from infer(runner, frames[start : start + size])


class _LargestValues:
    """The largest values of a stream, so that a high percentile needs no copy of all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: npt.NDArray[np.float64] = np.empty(0)

    def add(self, values: npt.NDArray[np.float64]) -> None:
        joined = np.concatenate([self._kept, values.ravel()])
        if len(joined) > self._count:
            joined = np.partition(joined, len(joined) - self._count)[-self._count :]
        self._kept = joined

    def smallest(self, rank: int) -> float:
        """Value that ``rank`` others exceed."""
        return float(np.sort(self._kept)[::-1][min(rank, len(self._kept) - 1)])
