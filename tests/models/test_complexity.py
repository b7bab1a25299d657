"""Parameters and operations against layers counted one by one, and formulas written out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vmkla.config import DECODER_BLOCKS, PRESETS, ModelConfig, get_preset
from vmkla.errors import ShapeError
from vmkla.models.attention import LinearAttention
from vmkla.models.complexity import basis_flops, measure, scan_flops
from vmkla.models.kan import KANLinear
from vmkla.models.ss2d import SS2D
from vmkla.models.vmkla_unet import VMKLAUNet, build_model, parameter_count
from vmkla.ops.bspline import bspline_basis_reference

CONFIG = ModelConfig(
    "counted", dim=16, encoder_depths=(1, 2, 1, 1), decoder_depths=(1, 1, 2, 1), head_dim=8, d_state=3,
    kan_hidden=12,
)  # fmt: skip


def counted_by_hand(model: VMKLAUNet, height: int, width: int) -> int:
    """Operations from the shapes that pass through every layer of a network that really runs."""
    total = 0

    def linear(layer: Any, inputs: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += 2 * out.numel() * layer.in_features

    def conv(layer: Any, inputs: Any, out: torch.Tensor) -> None:
        nonlocal total
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        total += 2 * out.numel() * layer.in_channels // layer.groups * kernel

    def scan(layer: Any, inputs: Any, out: torch.Tensor) -> None:
        nonlocal total
        L, d, n, R = out[..., 0].numel(), layer.d, layer.d_state, layer.dt_rank
        total += 4 * 9 * L * d * n + L * d + 4 * 2 * L * R * d

    def attention(layer: Any, inputs: Any, out: torch.Tensor) -> None:
        nonlocal total
        L, C, heads = out[..., 0].numel(), layer.dim, layer.heads
        # Real and imaginary part: q with the mean of k, k with v, q with the result; 2 a multiply-add.
        total += 2 * 2 * L * (C // 2) * heads + 2 * (2 * 2 * L * (C // 2) * (C // heads))

    def bases(layer: Any, inputs: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += inputs[0].numel() * 9 * (10 + 9 + 8)  # G + 2k - p bases of order p = 1, 2, 3

    hooks = {nn.Linear: linear, nn.Conv2d: conv, SS2D: scan, LinearAttention: attention, KANLinear: bases}
    for module in model.modules():
        for kind, hook in hooks.items():
            if isinstance(module, kind):
                module.register_forward_hook(hook)
    with torch.no_grad():
        model(torch.randn(1, 3, height, width))
    return total


@pytest.mark.parametrize("block", DECODER_BLOCKS)
def test_operations_equal_a_count_layer_by_layer(block: Any) -> None:
    config = dataclasses.replace(CONFIG, decoder_block=block)
    torch.manual_seed(6)
    model = build_model(config).eval()
    counted = measure(config, 32, 64)
    assert counted.flops == counted_by_hand(model, 32, 64)
    assert counted.parameters == parameter_count(model)


@pytest.mark.parametrize("name", PRESETS)
def test_the_blocks_make_the_whole(name: str) -> None:
    counted = measure(get_preset(name), 64, 64)
    assert sum(block.flops for block in counted.blocks) == counted.flops
    assert sum(block.parameters for block in counted.blocks) == counted.parameters
    names = [block.name for block in counted.blocks]
    assert len(set(names)) == len(names) and names[0] == "encoder.patch_embed" and names[-1] == "head"
    config = get_preset(name)
    kinds = [block.kind for block in counted.blocks]
    assert kinds.count("VSSBlock") == sum(config.encoder_depths)
    assert kinds.count("MixerBlock") == sum(config.decoder_depths)


def test_cost_grows_with_the_number_of_pixels() -> None:
    config = dataclasses.replace(CONFIG, decoder_block="ss2d")
    assert measure(config, 64, 128).flops == 4 * measure(config, 32, 64).flops


def test_mixers_are_compared_on_the_same_tokens() -> None:
    mixers = measure(get_preset("small"), 256, 192).mixers
    assert [(m.dim, m.height, m.width) for m in mixers] == [
        (768, 8, 6), (384, 16, 12), (192, 32, 24), (96, 64, 48)
    ]  # fmt: skip
    for mixer in mixers:
        assert mixer.scan.flops > scan_flops(
            (1, mixer.height, mixer.width, 2 * mixer.dim), (), (4, 1, 2 * mixer.dim), (4, 16, 2 * mixer.dim)
        )
        assert mixer.attention.parameters > mixer.scan.parameters


def test_formulas_written_out() -> None:
    # 1 image of 2x3 pixels, d = 5, n = 7, R = 2: 6 pixels, 4 routes.
    assert (
        scan_flops((1, 2, 3, 5), (1, 2, 3, 64), (4, 2, 5), (4, 7, 5))
        == 4 * 9 * 6 * 5 * 7 + 6 * 5 + 4 * 6 * 20
    )
    # 10 values, G = 5, k = 3: 12 knots.
    assert basis_flops((2, 5), (12,), 3) == 10 * 9 * 3 * (5 + 1.5 * 3 - 0.5)


@pytest.mark.parametrize(("grid_size", "order"), [(5, 3), (8, 2), (3, 1), (4, 5)])
def test_bases_cost_what_the_recursion_computes(grid_size: int, order: int) -> None:
    """Every difference, quotient, product and sum of the reference, each value with knots of its own."""
    counted = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal counted
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ in ("add", "sub", "mul", "div"):
                counted += out.numel()
            return out

    rng = torch.Generator().manual_seed(order)
    grid = torch.rand(7, grid_size + 2 * order + 1, generator=rng).sort().values
    with Count():
        bspline_basis_reference(torch.rand(7, generator=rng), grid, order)
    assert counted == basis_flops((7,), tuple(grid.shape), order) > 0


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="64x64"):
        measure(CONFIG, 40, 40)
