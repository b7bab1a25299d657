"""Expanding and head against the usual order of steps; each of the six blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tolerances import tol
from vmkla.config import DECODER_BLOCKS, ModelConfig
from vmkla.models.attention import ChannelSpatialAttention, KANQueryKey, LinearQueryKey, SiluGate
from vmkla.models.decoder import BLOCKS, Decoder, MixerBlock, PatchExpand, SegmentationHead
from vmkla.models.ss2d import SS2D, VSSBlock

CONFIG = ModelConfig(dim=8, head_dim=8, d_state=2, kan_hidden=6)


def spread(x: Tensor, side: int) -> Tensor:
    """(b, H, W, side side c) -> (b, side H, side W, c), token by token."""
    b, H, W, channels = x.shape
    c = channels // side**2
    out = torch.empty(b, side * H, side * W, c, dtype=x.dtype)
    for row in range(side):
        for column in range(side):
            first = (row * side + column) * c
            out[:, row::side, column::side] = x[..., first : first + c]
    return out


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def test_patch_expand_equals_spreading_before_the_norm() -> None:
    torch.manual_seed(14)
    expand = PatchExpand(8).double()
    randomise(expand)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    expected = expand.norm(spread(expand.expand(x), 2))
    actual = expand(x)
    assert actual.shape == (2, 6, 10, 4)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_head_equals_spreading_before_norm_and_projection(num_classes: int) -> None:
    torch.manual_seed(15)
    head = SegmentationHead(16, num_classes, 4).double()
    randomise(head)
    x = torch.randn(2, 3, 2, 16, dtype=torch.float64)
    expected = head.project(head.norm(spread(head.expand(x), 4))).permute(0, 3, 1, 2)
    actual = head(x)
    assert actual.shape == (2, num_classes, 12, 8)
    torch.testing.assert_close(actual, expected, **tol(("module", "definition"), torch.float64))


def test_every_block_of_the_configuration_has_its_maker() -> None:
    assert set(BLOCKS) == set(DECODER_BLOCKS)


@pytest.mark.parametrize("name", DECODER_BLOCKS)
def test_block_keeps_the_shape_and_learns_everywhere(name: Any) -> None:
    torch.manual_seed(16)
    block = BLOCKS[name](8, CONFIG, 0.0, "auto")
    x = torch.randn(2, 3, 5, 8, requires_grad=True)
    y = block(x)
    assert y.shape == x.shape
    (y * torch.randn_like(y)).sum().backward()
    assert x.grad is not None and x.grad.abs().min() > 0
    idle = [
        key
        for key, parameter in block.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle, f"no gradient reaches {idle}"


@pytest.mark.parametrize(
    ("name", "mixer", "side"),
    [
        ("mkcsa", KANQueryKey, ChannelSpatialAttention),
        ("mkla", KANQueryKey, SiluGate),
        ("mlcsa", LinearQueryKey, ChannelSpatialAttention),
        ("mlla", LinearQueryKey, SiluGate),
        ("csa", SS2D, ChannelSpatialAttention),
    ],
)
def test_block_is_made_of_what_the_ablation_says(
    name: Any, mixer: type[nn.Module], side: type[nn.Module]
) -> None:
    block = BLOCKS[name](8, CONFIG, 0.0, "auto")
    assert isinstance(block, MixerBlock)
    kinds = {type(module) for module in block.main.modules()}
    assert kinds & {KANQueryKey, LinearQueryKey, SS2D} == {mixer}
    kinds = {type(module) for module in block.side.modules()}
    assert kinds & {ChannelSpatialAttention, SiluGate} == {side}


def test_baseline_block_is_the_encoders() -> None:
    assert isinstance(BLOCKS["ss2d"](8, CONFIG, 0.0, "auto"), VSSBlock)


def test_mixer_block_is_the_sum_of_its_steps() -> None:
    """The frame written out: two position encodings, product of branches, MLP, all residual."""
    torch.manual_seed(17)
    block = BLOCKS["mkcsa"](8, CONFIG, 0.0, "auto")
    randomise(block)
    assert isinstance(block, MixerBlock)
    x = torch.randn(1, 4, 3, 8)
    a = x + block.cpe1(x)
    n = nn.functional.layer_norm(a, (8,), block.norm1.weight, block.norm1.bias)
    main = block.main.mixer(nn.functional.silu(block.main.conv(block.main.in_proj(n))))
    main = nn.functional.layer_norm(main, (8,), block.out_norm.weight, block.out_norm.bias)
    a = a + block.out_proj(main * block.side(n))
    a = a + block.cpe2(a)
    expected = a + block.mlp(nn.functional.layer_norm(a, (8,), block.norm2.weight, block.norm2.bias))
    torch.testing.assert_close(block(x), expected, **tol(("module", "definition"), torch.float32))


def test_skips_are_summed_in_from_the_deepest() -> None:
    """A decoder whose blocks do nothing is patch expanding and sums, stage by stage."""
    torch.manual_seed(18)
    decoder = Decoder(CONFIG)
    for stage in decoder.stages:
        stage.blocks = nn.ModuleList()
    outputs = [torch.randn(1, 8 >> i, 16 >> i, 8 << i) for i in range(4)]
    x = outputs[3]
    for stage, skip in zip(list(decoder.stages)[1:], (outputs[2], outputs[1], outputs[0]), strict=True):
        x = stage.upsample(x) + skip
    torch.testing.assert_close(decoder(outputs), x, rtol=0, atol=0)
    assert x.shape == (1, 8, 16, 8)


def test_stochastic_depth_falls_over_the_blocks() -> None:
    config = ModelConfig(dim=8, head_dim=8, d_state=2, decoder_depths=(2, 1, 1, 1), drop_path=0.4)
    decoder = Decoder(config)
    rates = [block.drop_path.rate for stage in decoder.stages for block in stage.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]))
