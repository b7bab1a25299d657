"""The average of weights is that of each value, and is made of equal networks only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.average import main
from tests.export.exported_models import network
from vmkla.config import get_preset
from vmkla.files import file_sha256
from vmkla.models.checkpoints import load_weights, save_weights
from vmkla.models.vmkla_unet import VMKLAUNet


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for number, path in enumerate(paths):
        model = network()
        with torch.no_grad():
            for value in model.parameters():
                value.add_(number * torch.rand_like(value))
        save_weights(model, path, training={"epoch": number, "val_dice": 0.5})
    return paths


def test_each_value_is_the_mean(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    assert main([*map(str, two), "--out", str(out)]) == 0
    mean, one, other = (load_weights(path) for path in (out, *two))
    states = one.model.state_dict(), other.model.state_dict()
    for name, value in mean.model.state_dict().items():
        assert torch.allclose(value, (states[0][name] + states[1][name]) / 2, atol=1e-6), name
    assert not all(torch.equal(value, states[0][name]) for name, value in mean.model.state_dict().items())
    assert mean.training == {"epoch": 1, "averaged_sha256": [file_sha256(path) for path in two]}


def test_other_networks_are_refused(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = tmp_path / "third.safetensors"
    save_weights(VMKLAUNet(get_preset("nano")), third, training={})
    assert main([str(two[0]), str(third), "--out", str(tmp_path / "mean.safetensors")]) == 2
    assert "one.safetensors holds another network" in capsys.readouterr().err
    assert not (tmp_path / "mean.safetensors").exists()
