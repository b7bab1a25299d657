"""Results that repeat: torch's switches, and every network's steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.tiny_runs import TINY
from vmkla.config import DECODER_BLOCKS
from vmkla.models import VMKLAUNet
from vmkla.training import Ranks, TrainConfig
from vmkla.training.determinism import deterministic, random_state, restore_random_state, seed_process
from vmkla.training.processes import Processes
from vmkla.training.steps import Stepper

CPU = torch.device("cpu")


def test_the_switches_are_set_and_put_back() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(True, CPU), pytest.raises(RuntimeError, match="put_"):
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))  # has no deterministic algorithm
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(False, CPU):
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.benchmark
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("block", DECODER_BLOCKS)
def test_a_step_of_every_network_has_deterministic_algorithms(block: str, classes: int) -> None:
    torch.manual_seed(0)
    model_config = dataclasses.replace(TINY, decoder_block=block, num_classes=classes)  # type: ignore[arg-type]
    config = TrainConfig(out_dir=Path("run"), model=model_config)
    pixels = torch.randn(2, 3, 32, 32)
    target = torch.randint(0, 3, (2, 32, 32))
    with deterministic(True, CPU):
        stepper = Stepper(VMKLAUNet(model_config), config, Processes(Ranks(), "cpu"))
        stepper.take(pixels, target if classes > 1 else target[:, None].gt(0).float(), lr=1e-3)


def test_every_process_has_random_numbers_of_its_own() -> None:
    drawn = []
    for rank in range(3):
        seed_process(7, 0, Ranks(rank, rank, 3))
        state = random_state(CPU)
        drawn.append(torch.rand(4))
        restore_random_state(state, CPU)
        assert torch.equal(torch.rand(4), drawn[-1])
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    seed_process(7, 0, Ranks(1, 1, 3))
    assert torch.equal(torch.rand(4), drawn[1])
