"""Comparison and gates, on runners whose output is known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vmkla.engines.verify.comparison import Gates, check, compare, gates_record
from vmkla.errors import ShapeError
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import RunnerSpec
from vmkla.segment.preprocess import PreprocessSpec

H, W = 4, 6


class Known:
    """A runner that looks its answer up by the frame's first pixel."""

    name = "known"

    def __init__(self, answers: npt.NDArray[np.float32], batch: int | None = None) -> None:
        self.answers = answers
        self.batches: list[int] = []
        metadata = ArtefactMetadata({}, ("polyp",) * answers.shape[1], 0.5, PreprocessSpec(H, W), "")
        self.spec = RunnerSpec(H, W, batch, answers.shape[1], metadata, "", "", "known", "cpu", "known")

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.batches.append(len(frames_rgb))
        return self.answers[frames_rgb[:, 0, 0, 0]]

    def close(self) -> None:
        self.answers = self.answers[:0]


def numbered_frames(count: int) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, H, W, 3)).copy()


def answers(count: int, classes: int = 1, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, classes, H, W), dtype=np.float32)


def dice_by_hand(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Mean over the classes that either frame has."""
    values = []
    for index in range(1, len(a)) if len(a) > 1 else [0]:
        masks = [x.argmax(0) == index if len(x) > 1 else x[0] >= 0.5 for x in (a, b)]
        if masks[0].any() or masks[1].any():
            values.append(2 * np.sum(masks[0] & masks[1]) / (masks[0].sum() + masks[1].sum()))
    return float(np.mean(values))


@pytest.mark.parametrize("classes", [1, 3])
def test_figures(classes: int) -> None:
    a, b = answers(5, classes), answers(5, classes, seed=1)
    comparison = compare(Known(a), Known(b), numbered_frames(5))
    error = np.abs(a.astype(np.float64) - b)
    assert comparison.max_error == pytest.approx(error.max())
    assert comparison.mean_error == pytest.approx(error.mean())
    assert comparison.worst_frame == np.unravel_index(error.argmax(), error.shape)[0]
    dices = [dice_by_hand(x, y) for x, y in zip(a, b, strict=True)]
    assert comparison.mean_dice == pytest.approx(np.mean(dices))
    assert comparison.worst_dice == pytest.approx(min(dices))
    assert 0 < comparison.worst_dice < comparison.mean_dice < 1
    assert comparison.finite


def test_relative_error_is_that_of_the_logits_however_empty_the_frames() -> None:
    """Logits shifted by 1e-3 on frames of any emptiness; and a frame of zeros alone is no division by 0."""
    rng = np.random.default_rng(2)
    for level in (0.0, -12.0):  # half the pixels marked, or next to nothing anywhere
        logits = rng.normal(level, 2.0, (2, 1, H, W))
        a, b = (1.0 / (1.0 + np.exp(-(logits + shift))) for shift in (0.0, 1e-3))
        comparison = compare(Known(a), Known(b), numbered_frames(2))  # type: ignore[arg-type]
        assert comparison.relative_error == pytest.approx(1e-3, rel=2e-2)
        assert (comparison.mean_error < 1e-6) is (level < 0)
        gates = Gates("test", max_error=None, mean_error=1e-3, relative_error=9e-4)
        (failure,) = check(comparison, gates).failures
        assert failure.startswith("probability error relative to p (1 - p) is 0.001")
    zeros = np.zeros((1, 1, H, W), np.float32)
    assert compare(Known(zeros), Known(zeros), numbered_frames(1)).relative_error == 0.0
    assert compare(Known(zeros), Known(zeros + 1), numbered_frames(1)).relative_error > 1e8


def test_percentile_is_numpys_upper_one(monkeypatch: pytest.MonkeyPatch) -> None:
    a = answers(200)
    error = np.random.default_rng(3).random(a.shape, dtype=np.float32)
    comparison = compare(Known(np.zeros_like(a)), Known(error), numbered_frames(200))
    expected = np.sort(error.ravel())[::-1][int(error.size * 1e-3)]
    assert comparison.p999_error == pytest.approx(expected)
    assert np.mean(error > comparison.p999_error) <= 1e-3


@pytest.mark.parametrize("batch", [None, 2, 4])
def test_batches_are_filled_up_and_kept_in_order(batch: int | None) -> None:
    """A fixed batch is always whole; results past the last frame are thrown away."""
    reference, candidate = Known(answers(5)), Known(answers(5), batch)
    comparison = compare(reference, candidate, numbered_frames(5), batch=3)
    assert comparison.max_error == 0
    assert reference.batches == [1] * 5
    assert candidate.batches == {None: [3, 2], 2: [2, 2, 2], 4: [4, 4]}[batch]


def test_dice_by_hand() -> None:
    def seen(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> tuple[float, int]:
        comparison = compare(Known(a[None]), Known(b[None]), numbered_frames(1))
        return comparison.mean_dice, comparison.empty_frames

    a, b = np.zeros((1, H, W), np.float32), np.zeros((1, H, W), np.float32)
    assert seen(a, b) == (1.0, 1)
    a[0, 0, :3] = 0.5
    assert seen(a, b) == (0.0, 0)
    b[0, 0, 1:4] = 0.7
    assert seen(a, b) == (pytest.approx(2 * 2 / 6), 0)
    background = np.full((1, H, W), 0.1, np.float32)
    several = [np.concatenate([background, each, np.zeros_like(each)]) for each in (a, b)]
    assert seen(several[0], several[1]) == (pytest.approx(2 * 2 / 6), 0), (
        "a class that neither has is left out"
    )


GATES = Gates("test", max_error=0.1, mean_error=0.01, min_mean_dice=0.99, min_worst_dice=0.9)


def spoil_nothing(x: npt.NDArray[np.float32]) -> None:
    pass


def spoil_one_value(x: npt.NDArray[np.float32]) -> None:
    x[1, 0, 2, 3] += 0.2


def spoil_all_a_little(x: npt.NDArray[np.float32]) -> None:
    x += 0.02


def spoil_with_nan(x: npt.NDArray[np.float32]) -> None:
    x[1, 0, 0, 0] = np.nan


def spoil_a_mask(x: npt.NDArray[np.float32]) -> None:
    x[0, 0, 0, 0] = 0.9


@pytest.mark.parametrize(
    ("spoil", "failures"),
    [
        (spoil_nothing, []),
        (spoil_one_value, ["max probability error"]),
        (spoil_all_a_little, ["mean probability error"]),
        (spoil_with_nan, ["not finite", "max probability error", "mean probability error"]),
        (spoil_a_mask, ["max", "mean", "mean mask Dice", "worst frame's mask Dice"]),
    ],
)
def test_gates(spoil: Callable[[Any], None], failures: list[str]) -> None:
    right = np.zeros((2, 1, H, W), np.float32)
    right[:, 0, 1:3, 1:3] = 0.8
    wrong = right.copy()
    spoil(wrong)
    report = check(compare(Known(right), Known(wrong), numbered_frames(2)), GATES)
    assert report.passed is (not failures)
    assert len(report.failures) == len(failures)
    for failure, part in zip(report.failures, failures, strict=True):
        assert part in failure
    json.dumps(report.to_dict(), allow_nan=False)


def test_without_masks_only_probability_counts() -> None:
    right = np.full((1, 1, H, W), 0.499995, np.float32)
    comparison = compare(Known(right), Known(right + 1e-5), numbered_frames(1))
    assert comparison.worst_dice == 0
    assert not check(comparison, GATES).passed
    assert check(comparison, GATES.without_masks()).passed


def test_an_ungated_figure_does_not_decide() -> None:
    comparison = compare(Known(answers(1)), Known(answers(1, seed=1)), numbered_frames(1))
    open_gates = dataclasses.replace(GATES.without_masks(), max_error=None, mean_error=None)
    assert check(comparison, open_gates).passed


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ShapeError, match="at least 1"):
        compare(Known(answers(1)), Known(answers(1)), numbered_frames(0))
    with pytest.raises(ShapeError, match="classes"):
        compare(Known(answers(1)), Known(answers(1, classes=2)), numbered_frames(1))


def test_a_record_passes_when_every_proof_does() -> None:
    good, bad = {"passed": True, "figure": 1}, {"passed": False}
    assert gates_record([good, good], frames=3, rendered=True) == {
        "passed": True, "frames": 3, "rendered": True, "checks": [good, good],
    }  # fmt: skip
    assert gates_record([good, bad], frames=3, rendered=True)["passed"] is False
    assert gates_record([good], frames=3, rendered=True, more={"range": bad})["passed"] is False
    assert gates_record([good], frames=3, rendered=True, more={"range": good})["range"] == good
