"""Runs of a tiny network for the tests of training, and what they leave."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch

from vmkla.config import ModelConfig
from vmkla.training import StepReport
from vmkla.training.run_folder import STATE

TINY = ModelConfig(
    "tiny-test",
    dim=16,
    encoder_depths=(1, 1, 1, 1),
    decoder_depths=(1, 1, 1, 1),
    d_state=2,
    head_dim=16,
    kan_hidden=8,
    drop_path=0.2,  # so that torch's random numbers matter
)


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
    return state


def assert_same_state(first: Path, second: Path) -> None:
    """Assert that every weight, moment, average, random number and figure is equal to the last bit."""
    one, two = state_of(first), state_of(second)
    for name in ("model", "average"):
        assert one[name].keys() == two[name].keys()
        for key, value in one[name].items():
            assert torch.equal(value, two[name][key]), (name, key)
    for key, moments in one["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, two["optimizer"]["state"][key][name]), (key, name)
    for a, b in zip(one["random"], two["random"], strict=True):
        assert torch.equal(a["cpu"], b["cpu"])
    assert one["draws"] == two["draws"]
    assert one["scaler"] == two["scaler"] and one["average_steps"] == two["average_steps"]
    for name in ("epoch", "step", "loss_sum"):
        assert one["progress"][name] == two["progress"][name], name
    timings = ("seconds", "images_per_s")
    for a, b in zip(one["progress"]["history"], two["progress"]["history"], strict=True):
        assert {k: v for k, v in a.items() if k not in timings} == {
            k: v for k, v in b.items() if k not in timings
        }


def interrupt_at(epoch: int, step: int, number: int = signal.SIGTERM) -> Any:
    """Return a callback that sends this process a signal at a step."""

    def on_step(report: StepReport) -> None:
        if (report.epoch, report.step) == (epoch, step):
            os.kill(os.getpid(), number)

    return on_step
