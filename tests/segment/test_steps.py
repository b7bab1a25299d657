"""The steps of a frame's path, and that every command takes the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults.commanded import CommandedRunner
from vmkla.errors import ShapeError, VmklaError
from vmkla.segment.preprocess import PreprocessSpec, Rect, field_of_view, prepare
from vmkla.segment.steps import batch, check, infer, view


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, (count, 32, 48, 3), np.uint8)


def test_view_is_the_field_of_view_at_the_networks_size() -> None:
    rgb = np.zeros((90, 120, 3), np.uint8)
    rgb[10:80, 20:110] = np.random.default_rng(1).integers(100, 200, (70, 90, 3))
    spec = PreprocessSpec(32, 48, "auto")
    seen = view(rgb, spec)
    assert seen.rect == field_of_view(rgb, "auto") == Rect(20, 10, 90, 70)
    np.testing.assert_array_equal(seen.pixels_rgb, prepare(rgb, spec, seen.rect))
    known = view(rgb, spec, Rect(0, 0, 60, 60))
    np.testing.assert_array_equal(known.pixels_rgb, prepare(rgb, spec, Rect(0, 0, 60, 60)))


def test_a_fixed_batch_is_filled_with_the_last_frame() -> None:
    three = frames(3)
    np.testing.assert_array_equal(batch(list(three)), three)
    filled = batch(list(three), 5)
    np.testing.assert_array_equal(filled, three[[0, 1, 2, 2, 2]])
    for count, size in ((0, None), (0, 2), (3, 2)):
        with pytest.raises(ShapeError, match=f"batch of {count} frames"):
            batch(list(three[:count]), size)


@pytest.mark.parametrize("size", [None, 1, 2, 3, 4, 9])
def test_any_number_of_frames_through_any_batch(size: int | None) -> None:
    runner = CommandedRunner(batch=size)
    seven = frames(7)
    probability = infer(runner, seven)
    check(probability, runner.spec, 7)
    np.testing.assert_allclose(probability[:, 0], seven[..., 0] / np.float32(255), atol=1e-6)
    np.testing.assert_array_equal(infer(runner, list(seven)), probability)


def test_an_output_that_is_not_a_probability_is_rejected() -> None:
    spec = CommandedRunner().spec
    check(np.full((1, 1, 32, 48), 0.5, np.float32), spec)
    for wrong in (None, np.zeros((2, 1, 32, 48), np.float32), np.zeros((1, 1, 32, 48))):
        with pytest.raises(ShapeError):
            check(wrong, spec)  # type: ignore[arg-type]
    spoilt = np.zeros((1, 1, 32, 48), np.float32)
    for value in (np.nan, np.inf, -np.inf):
        spoilt[0, 0, 31, 47] = value
        with pytest.raises(VmklaError, match="NaN or infinity"):
            check(spoilt, spec)
    for value in (-0.01, 1.01):
        spoilt[0, 0, 31, 47] = value
        with pytest.raises(VmklaError, match="reaches from"):
            check(spoilt, spec)
