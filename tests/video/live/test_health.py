"""vmkla.video.live.sources.health: lost, black and frozen signals, and none of it in good ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vmkla.video.live.frame import SignalState
from vmkla.video.live.sources.health import HealthLimits, SignalHealth
from vmkla.video.media.clip import render_clip

STEP_S = 0.04


def noise(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_before_the_first_frame_it_is_lost() -> None:
    assert SignalHealth(HealthLimits()).state(0.0) is SignalState.LOST


def test_a_stall_is_lost_at_once_when_its_time_is_over_and_back_with_a_frame() -> None:
    health = SignalHealth(HealthLimits(stall_s=0.5))
    health.see(noise(0), 10.0)
    assert health.state(10.5) is SignalState.GOOD
    assert health.state(10.51) is SignalState.LOST
    health.see(noise(1), 12.0)
    assert health.state(12.1) is SignalState.GOOD


def test_a_lost_source_is_lost_before_it_has_stalled() -> None:
    health = SignalHealth(HealthLimits())
    health.see(noise(0), 10.0)
    health.lose()
    assert health.state(10.01) is SignalState.LOST


def test_rendered_frames_are_good() -> None:
    health = SignalHealth(HealthLimits())
    for index, (rgb, _) in enumerate(render_clip(3, 96, 128, 30)):
        health.see(rgb, index * STEP_S)
        assert health.state(index * STEP_S) is SignalState.GOOD


@pytest.mark.parametrize("level", [0, 20])
def test_dark_noise_is_black_after_its_time_and_one_dark_frame_is_not(level: int) -> None:
    health = SignalHealth(HealthLimits(black_s=0.2))
    states = []
    for index in range(10):
        dark = noise(index) // 64 + np.uint8(level)
        health.see(dark, index * STEP_S)
        states.append(health.state(index * STEP_S))
    assert states == [SignalState.GOOD] * 5 + [SignalState.BLACK] * 5
    health.see(noise(0), 10 * STEP_S)
    assert health.state(10 * STEP_S) is SignalState.GOOD


def test_a_small_light_on_black_is_no_black_frame() -> None:
    health = SignalHealth(HealthLimits(black_s=0.2))
    for index in range(20):
        rgb = noise(index) // 64
        rgb[16:32, 16:32] = 200
        health.see(rgb, index * STEP_S)
    assert health.state(19 * STEP_S) is SignalState.GOOD


def test_the_same_bits_for_longer_are_frozen() -> None:
    health = SignalHealth(HealthLimits(frozen_s=1.0))
    still = noise(0)
    for index in range(30):
        health.see(still.copy(), index * STEP_S)
        frozen = index * STEP_S > 1.0
        assert health.state(index * STEP_S) is (SignalState.FROZEN if frozen else SignalState.GOOD)
    changed = still.copy()
    health.see(changed, 30 * STEP_S)
    assert health.state(30 * STEP_S) is SignalState.FROZEN


@pytest.mark.parametrize("row", [0, 5, 47])
def test_one_changed_value_anywhere_is_not_frozen(row: int) -> None:
    health = SignalHealth(HealthLimits(frozen_s=1.0))
    still = noise(0)
    for index in range(60):
        rgb = still.copy()
        rgb[row, 33, 1] ^= np.uint8(index % 2)
        health.see(rgb, index * STEP_S)
    assert health.state(59 * STEP_S) is SignalState.GOOD


def test_another_size_is_another_frame() -> None:
    health = SignalHealth(HealthLimits(frozen_s=1.0))
    for index in range(60):
        side = 32 + 16 * (index % 2)
        health.see(np.full((side, side, 3), 90, np.uint8), index * STEP_S)
    assert health.state(59 * STEP_S) is SignalState.GOOD
