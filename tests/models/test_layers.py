"""Small shared modules against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tolerances import tol
from vmkla.models.layers import DepthwiseConv, DropPath, Float32Island, LayerNorm, Mlp


def test_depthwise_conv_is_nine_shifted_products() -> None:
    torch.manual_seed(0)
    conv = DepthwiseConv(5).double()
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    padded = nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    expected = conv.bias + sum(
        padded[:, i : i + 4, j : j + 7] * conv.weight[:, 0, i, j] for i in range(3) for j in range(3)
    )
    torch.testing.assert_close(conv(x), expected, **tol(("module", "definition"), torch.float64))


def test_mlp_is_two_products_around_gelu() -> None:
    torch.manual_seed(1)
    mlp = Mlp(6, 11).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = gelu @ mlp.fc2.weight.T + mlp.fc2.bias
    torch.testing.assert_close(mlp(x), expected, **tol(("module", "definition"), torch.float64))


def test_layer_norm_under_autocast_loses_no_gradient_over_many_rows() -> None:
    """Torch's own one, given bfloat16, keeps 0.9 % of the bias's gradient here."""
    torch.manual_seed(4)
    norm = LayerNorm(8)
    x = torch.randn(40_000, 8).bfloat16()
    upstream = 1.0 + torch.rand(40_000, 8)  # of one sign: the sum grows
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    (y * upstream).sum().backward()
    normed = nn.functional.layer_norm(x.double(), (8,))
    expected = {"weight": (normed * upstream).sum(0), "bias": upstream.double().sum(0)}
    for name, parameter in norm.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), expected[name], **tol(("layer norm gradient", "sum"), torch.float32)
        )


def test_drop_path_zeroes_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(2)
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    y = drop(x)
    per_sample = y.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1)), "a sample was dropped in part"
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0.0, 1 / 0.75])
    # Deviation of the mean: sqrt(0.25 / 0.75 / 4000) = 0.009; a missing 1/(1-p) would be off by 0.25.
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)


def test_drop_path_does_nothing_in_evaluation_or_at_rate_zero() -> None:
    x = torch.randn(8, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x


class Island(Float32Island):
    float32_names = ("kept", "table")

    def __init__(self) -> None:
        super().__init__()
        self.kept = nn.Parameter(torch.randn(3))
        self.other = nn.Parameter(torch.randn(3))
        self.register_buffer("table", torch.randn(3))
        self.child = nn.Linear(2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_island_keeps_its_names_wide_and_exact(dtype: torch.dtype) -> None:
    island = Island()
    before = island.kept.detach().clone()
    outer = nn.Sequential(island).to(dtype)
    assert outer[0] is island
    assert island.kept.dtype == island.table.dtype == torch.float32
    assert torch.equal(island.kept, before), "the values went through 16 bits"
    assert island.other.dtype == island.child.weight.dtype == dtype


def test_island_follows_casts_to_double_and_moves() -> None:
    island = Island().double()
    assert island.kept.dtype == island.table.dtype == torch.float64
    assert island.half().kept.dtype == torch.float64
    assert Island().to("meta").kept.device.type == "meta"


def test_island_keeps_the_gradient_of_what_it_keeps() -> None:
    island = Island()
    (island.kept.sum() + island.other.sum()).backward()
    island.half()
    assert island.kept.grad is not None and island.kept.grad.dtype == torch.float32
    assert island.other.grad is not None and island.other.grad.dtype == torch.float16
