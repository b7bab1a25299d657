"""vmkla.procedures.appearance: colours of tissue, whatever the light."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.procedures.scripted import PALE, RED
from vmkla.procedures.appearance import blend, describe, similarity
from vmkla.segment.preprocess import Rect

BOX = Rect(8, 4, 40, 30)


def patch(colour: tuple[int, int, int], light: float = 1.0, seed: int = 0) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 4, (48, 64, 3))
    return np.clip(light * np.array(colour) + noise, 0, 255).astype(np.uint8)


def test_one_colour_in_another_light_is_alike_and_another_colour_is_not() -> None:
    red = describe(patch(RED), BOX)
    dim, pale = describe(patch(RED, 0.6, seed=1), BOX), describe(patch(PALE), BOX)
    assert red is not None and dim is not None and pale is not None
    assert similarity(red, red) == pytest.approx(1)
    assert similarity(red, dim) > 0.85
    assert similarity(red, pale) < 0.2
    assert similarity(red, pale) == similarity(pale, red)


def test_shares_of_red_and_green_by_hand() -> None:
    rgb = np.full((20, 20, 3), (120, 60, 20), np.uint8)
    assert describe(rgb, Rect(0, 0, 20, 20)) == pytest.approx((0.6, 0.0, 0.3, 0.0), abs=1e-6)


@pytest.mark.parametrize("colour", [(0, 0, 0), (5, 5, 5), (255, 250, 245)])
def test_darkness_and_glare_have_no_colour(colour: tuple[int, int, int]) -> None:
    assert describe(np.full((48, 64, 3), colour, np.uint8), BOX) is None


@pytest.mark.parametrize("box", [Rect(-60, 0, 40, 30), Rect(100, 100, 5, 5), Rect(0, -90, 40, 30)])
def test_outside_the_frame(box: Rect) -> None:
    assert describe(patch(RED), box) is None


def test_a_box_of_one_pixel() -> None:
    assert describe(patch(RED), Rect(3, 3, 1, 1)) is not None


def test_blend() -> None:
    assert blend(None, (1.0, 0.0, 0.0, 0.0), 0.2) == (1.0, 0.0, 0.0, 0.0)
    assert blend((1.0, 0.0, 0.0, 0.0), None, 0.2) == (1.0, 0.0, 0.0, 0.0)
    assert blend((1.0, 0.0, 0.0, 0.0), (0.5, 0.1, 0.0, 0.0), 0.2) == pytest.approx((0.9, 0.02, 0, 0))
