"""The yardstick fits into vmkla's training, file format and runner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.unet import UNet, UNetConfig, load_unet
from vmkla.errors import ArtefactMismatchError
from vmkla.models.checkpoints import load_weights, save_weights

SMALL = UNetConfig(decoder_channels=(16, 16, 8, 8, 8))


def test_logits_have_the_size_of_the_image_and_reach_every_weight() -> None:
    torch.manual_seed(2)
    model = UNet(SMALL)
    logits = model(torch.randn(2, 3, 32, 64))
    assert logits.shape == (2, 1, 32, 64)
    (logits * torch.randn_like(logits)).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_weights_begin_random() -> None:
    torch.manual_seed(3)
    one = UNet(SMALL).state_dict()
    torch.manual_seed(4)
    two = UNet(SMALL).state_dict()
    assert any(not torch.equal(one[name], two[name]) for name in one if name.startswith("net.encoder"))


def test_a_saved_unet_comes_back_with_its_statistics(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = UNet(SMALL)
    for _ in range(2):
        model(torch.randn(4, 3, 32, 32))  # moves the running statistics of the batch norms
    path = tmp_path / "unet.safetensors"
    save_weights(model, path, training={"image_size_hw": [32, 32]})
    loaded = load_unet(path)
    assert loaded.config == SMALL and not loaded.training
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model.eval()(x), rtol=0, atol=0)
    with pytest.raises(ArtefactMismatchError, match="segmentation-models-pytorch"):
        load_weights(path)


def test_another_network_is_refused(tiny_weights: Path) -> None:
    with pytest.raises(ArtefactMismatchError, match="no U-Net"):
        load_unet(tiny_weights)
