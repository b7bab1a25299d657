"""Linear attention against its quadratic, complex-number form; CBAM against its equations."""

from __future__ import annotations

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tolerances import tol
from vmkla.errors import UsageError
from vmkla.models.attention import (
    ChannelAttention,
    ChannelSpatialAttention,
    KANQueryKey,
    LinearAttention,
    LinearQueryKey,
    SpatialAttention,
    rotary_tables,
)


def turn(row: int, column: int, pairs: int) -> Tensor:
    """(pairs,) complex rotation of the token at (row, column)."""
    half = pairs // 2
    angles = [row * 10000 ** (-j / half) for j in range(half)]
    angles += [column * 10000 ** (-j / half) for j in range(half)]
    return torch.tensor([cmath.exp(1j * angle) for angle in angles], dtype=torch.complex128)


def quadratic_attention(attention: LinearAttention, x: Tensor) -> Tensor:
    """Every token against every token, head by head: (b, H, W, C) -> (b, H, W, C) without LePE."""
    b, H, W, C = x.shape
    L, heads = H * W, attention.heads
    pairs, width = C // 2 // heads, C // heads
    parts = attention.query_key(x.reshape(b, L, C)).split(C // 2, dim=-1)
    q_re, q_im, k_re, k_im = (torch.where(t > 0, t + 1, torch.exp(t)) for t in parts)
    q, k = torch.complex(q_re, q_im), torch.complex(k_re, k_im)  # (b, L, C/2)
    rotation = torch.stack([turn(i // W, i % W, pairs) for i in range(L)])  # (L, pairs)
    out = torch.empty(b, L, C, dtype=x.dtype)
    for h in range(heads):
        own = slice(h * pairs, (h + 1) * pairs)
        q_turned, k_turned = q[..., own] * rotation, k[..., own] * rotation
        scores = (q_turned @ k_turned.conj().transpose(1, 2)).real / L  # (b, L, L)
        plain = (q[..., own] @ k[..., own].conj().transpose(1, 2)).real  # (b, L, L)
        normaliser = plain.mean(dim=2, keepdim=True) + 1e-6
        values = x.reshape(b, L, C)[..., h * width : (h + 1) * width]
        out[..., h * width : (h + 1) * width] = scores @ values / normaliser
    return out.reshape(b, H, W, C)


def make(dim: int, heads: int, kind: str) -> LinearAttention:
    query_key: nn.Module
    if kind == "kan":
        query_key = KANQueryKey(dim, 6, 5, 3, backend="reference")
    else:
        query_key = LinearQueryKey(dim)
    return LinearAttention(dim, heads, query_key).double()


@pytest.mark.parametrize("kind", ["linear", "kan"])
@pytest.mark.parametrize(("H", "W", "dim", "heads"), [(3, 5, 16, 2), (4, 2, 24, 3), (1, 7, 8, 1)])
def test_attention_is_its_quadratic_form(kind: str, H: int, W: int, dim: int, heads: int) -> None:
    torch.manual_seed(7)
    attention = make(dim, heads, kind)
    x = torch.randn(2, H, W, dim, dtype=torch.float64)
    expected = quadratic_attention(attention, x) + attention.lepe(x)
    torch.testing.assert_close(attention(x), expected, **tol(("attention", "quadratic"), torch.float64))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.sampled_from([2, 4, 6]))
def test_rotary_tables_are_complex_rotations(H: int, W: int, heads: int, pairs: int) -> None:
    cos, sin = rotary_tables(H, W, heads, pairs, torch.device("cpu"))
    assert cos.shape == sin.shape == (H * W, heads * pairs)
    for token in range(H * W):
        expected = turn(token // W, token % W, pairs).repeat(heads).to(torch.complex64)
        actual = torch.complex(cos[token], sin[token])
        torch.testing.assert_close(actual, expected, **tol(("rope", "complex"), torch.float32))


def test_tables_made_in_inference_mode_serve_training() -> None:
    attention = LinearAttention(8, 1, LinearQueryKey(8))
    with torch.inference_mode():
        attention(torch.randn(1, 9, 13, 8))
    x = torch.randn(1, 9, 13, 8, requires_grad=True)
    attention(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_half_precision_survives_many_tokens() -> None:
    """Without the factor 1/L on k, K^T V passes 65504 here; without it all is inf or nan."""
    torch.manual_seed(8)
    attention = LinearAttention(8, 1, LinearQueryKey(8))
    nn.init.constant_(attention.query_key.qk.bias[8:], 8.0)  # the keys' half
    x = 4.0 + torch.randn(1, 64, 64, 8)
    with torch.no_grad():
        wide = attention(x)
        narrow = attention.half()(x.half())
    assert torch.isfinite(narrow).all()
    torch.testing.assert_close(narrow.float(), wide, **tol(("float32", "half"), torch.float16))


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4 channels a head, got 20 in 2 heads"):
        LinearAttention(20, 2, LinearQueryKey(20))


def test_channel_attention_uses_mean_and_maximum() -> None:
    torch.manual_seed(9)
    module = ChannelAttention(8).double()
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    logits = torch.zeros(2, 8, dtype=torch.float64)
    for pooled in (x.flatten(1, 2).sum(1) / 15, x.flatten(1, 2).sort(dim=1).values[:, -1]):
        logits += torch.clamp(pooled @ module.fc1.weight.T, min=0) @ module.fc2.weight.T
    expected = 1 / (1 + torch.exp(-logits))
    actual = module(x)
    assert actual.shape == (2, 1, 1, 8)
    torch.testing.assert_close(actual[:, 0, 0], expected, **tol(("module", "definition"), torch.float64))


def test_spatial_attention_is_a_7x7_convolution_of_mean_and_maximum() -> None:
    torch.manual_seed(10)
    module = SpatialAttention().double()
    x = torch.randn(1, 4, 6, 5, dtype=torch.float64)
    maps = torch.stack([x.sum(-1)[0] / 5, x.sort(dim=-1).values[0, ..., -1]])  # (2, 4, 6)
    padded = nn.functional.pad(maps, (3, 3, 3, 3))
    kernel = module.conv.weight[0]  # (2, 7, 7)
    for i in range(4):
        for j in range(6):
            logit = (padded[:, i : i + 7, j : j + 7] * kernel).sum()
            expected = 1 / (1 + torch.exp(-logit))
            torch.testing.assert_close(
                module(x)[0, i, j, 0], expected, **tol(("module", "definition"), torch.float64)
            )


def test_cbam_applies_channel_then_spatial_attention() -> None:
    torch.manual_seed(11)
    module = ChannelSpatialAttention(8)
    x = torch.randn(2, 3, 4, 8)
    after_channel = module.channel(x) * x
    expected = module.spatial(after_channel) * after_channel
    torch.testing.assert_close(module(x), expected, rtol=0, atol=0)
    assert not torch.allclose(expected, module.spatial(x) * module.channel(x) * x)
