"""Other networks through the same loop, and what their weights' files say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors
import torch
from torch import nn

from tests.training.small_networks import Convolutions, Settings
from tests.training.tiny_runs import assert_same_state, interrupt_at, state_of
from vmkla.errors import ArtefactMismatchError, StoppedError, UsageError
from vmkla.models.checkpoints import load_weights
from vmkla.training import TrainConfig, train
from vmkla.training.run_folder import BEST, LAST


def test_it_learns_and_its_file_says_what_it_is(config: TrainConfig) -> None:
    config = dataclasses.replace(config, epochs=12, lr=3e-2, warmup_epochs=0.0)
    result = train(config, network=lambda _: Convolutions(Settings()))
    assert result.best_dice > 0.8
    with safetensors.safe_open(config.out_dir / BEST, framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert json.loads(header["vmkla.model_config"]) == {
        "library": "somewhere-else",
        "width": 6,
        "num_classes": 1,
    }
    assert json.loads(header["vmkla.training"])["val_dice"] == result.best_dice
    loaded = Convolutions(Settings())
    loaded.load_state_dict(tensors)
    assert not torch.equal(loaded.norm.running_mean, torch.zeros(6))  # type: ignore[arg-type]
    with pytest.raises(ArtefactMismatchError, match="a network of somewhere-else"):
        load_weights(config.out_dir / BEST)


def test_a_cut_run_goes_on_bit_for_bit(config: TrainConfig, tmp_path: Path) -> None:
    """The running statistics of the network and of its average belong to the state."""
    train(config, network=lambda _: Convolutions(Settings()))
    parts = dataclasses.replace(config, out_dir=tmp_path / "parts")
    with pytest.raises(StoppedError):
        train(parts, network=lambda _: Convolutions(Settings()), on_step=interrupt_at(2, 1))
    train(dataclasses.replace(parts, resume=True), network=lambda _: Convolutions(Settings()))
    assert_same_state(config.out_dir, parts.out_dir)
    assert int(state_of(parts.out_dir)["model"]["norm.num_batches_tracked"]) == 6


def test_the_network_is_told_the_configuration(config: TrainConfig) -> None:
    seen = []

    def network(told: TrainConfig) -> nn.Module:
        seen.append(told)
        return Convolutions(Settings())

    train(dataclasses.replace(config, epochs=1), network=network)
    assert seen == [dataclasses.replace(config, epochs=1)]


def test_what_cannot_be_saved_is_refused_before_the_first_epoch(config: TrainConfig) -> None:
    with pytest.raises(UsageError, match="a Conv2d cannot be saved: it has no `config`"):
        train(config, network=lambda _: nn.Conv2d(3, 1, 1))
    assert not (config.out_dir / LAST).exists()
    with pytest.raises(UsageError, match="init and init_encoder are for vmkla's own"):
        train(
            dataclasses.replace(config, init=Path("weights.safetensors")),
            network=lambda _: Convolutions(Settings()),
        )
