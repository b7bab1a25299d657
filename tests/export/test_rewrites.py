"""Each rewritten part against the module that it stands for."""

from __future__ import annotations

import pytest
import torch
from tolerances import tol

from vmkla.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmkla.export.rewrites import FoldedHead, FoldedPatchEmbed, rewrite
from vmkla.models.decoder import SegmentationHead
from vmkla.models.encoder import PatchEmbed
from vmkla.models.vmkla_unet import build_model


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))


@pytest.mark.parametrize("patch", [2, 4])
def test_patch_embedding(patch: int) -> None:
    torch.manual_seed(patch)
    embed = PatchEmbed(patch, 6)
    randomise(embed)
    frames = torch.randint(0, 256, (2, 8, 12, 3)).float()
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    expected = embed(((frames / 255 - mean) / std).permute(0, 3, 1, 2))
    torch.testing.assert_close(
        FoldedPatchEmbed(embed)(frames), expected, **tol(("rewrite", "module"), torch.float32)
    )


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("dim", "scale"), [(16, 4), (6, 2)])
def test_head(dim: int, scale: int, classes: int) -> None:
    torch.manual_seed(dim + classes)
    head = SegmentationHead(dim, classes, scale)
    randomise(head)
    x = torch.randn(2, 3, 5, dim)
    expected = head(x)
    assert expected.shape == (2, classes, 3 * scale, 5 * scale)
    torch.testing.assert_close(FoldedHead(head)(x), expected, **tol(("rewrite", "module"), torch.float32))


def test_the_network_itself_is_left_alone() -> None:
    model = build_model(
        ModelConfig(dim=8, encoder_depths=(1, 1, 1, 1), decoder_depths=(1, 1, 1, 1), head_dim=8)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rewritten = rewrite(model)
    with torch.no_grad():
        for parameter in rewritten.parameters():
            parameter.zero_()
    assert model.training
    assert isinstance(model.head, SegmentationHead)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
