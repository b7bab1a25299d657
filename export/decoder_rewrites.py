"""Rewrite the decoder's blocks as fewer kernels for ONNX Runtime in float32: see ``rewrites``.

At the sizes of a decoder, starting a kernel takes most of its few microseconds, so their number counts.
Together the classes save 0.7 ms of 15.4 ms for ``nano`` and 1.7 ms of 78 ms for ``small``. Products with
weights keep their names and shapes, by which ``vmkla calibrate`` finds them, in half too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, relu

from vmkla.models.attention import (
    NORMALISER_EPS,
    ChannelAttention,
    KANQueryKey,
    LinearAttention,
    LinearQueryKey,
    SpatialAttention,
    rotary_tables,
)
from vmkla.models.decoder import MixerBlock


class HeadwiseAttention(nn.Module):
    """Linear attention that splits its heads once, before the rotation, and whose constants cancel.

    The last layer of the queries and keys has its outputs in another order: head by head, in each the first
    and then the second channels of its pairs, q = [re | im]. With c and s the cosine and sine of every
    channel's angle, t = [[0, -1], [1, 0]] a quarter turn of the pairs, and sums over tokens::

        P = (c k)^T v    R = (s k)^T v
        out = ((c q) (P + t R) + (s q) (R - t P)) / (q . sum(k) + L eps) + LePE(v)

    Float32 holds the sums without a division by L or by channels. It saves 0.4 ms in ``nano``.

    Args:
        attention: the module that it replaces.
    """

    turn: Tensor

    def __init__(self, attention: LinearAttention) -> None:
        super().__init__()
        self.heads, self.width = attention.heads, attention.dim // attention.heads
        self.query_key, self.lepe = attention.query_key, attention.lepe
        _reorder(self.query_key, self.heads)
        pairs = torch.eye(self.width // 2)
        nothing = torch.zeros_like(pairs)
        turn = torch.cat((torch.cat((nothing, -pairs), dim=1), torch.cat((pairs, nothing), dim=1)))
        self.register_buffer("turn", turn, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        _, H, W, C = x.shape
        L = H * W
        # With one head its axis exists from the start, and nothing has to be moved or reshaped later.
        v = x.reshape(-1, 1, L, C) if self.heads == 1 else x
        q, k = self._queries_and_keys(elu(self.query_key(v)) + 1.0)  # (b, heads, L, width)
        cos, sin = rotary_tables(H, W, 1, self.width // 2, x.device)
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)  # (L, width)

        values = self._heads(v, self.heads)
        plain = (k * cos).transpose(2, 3) @ values  # (b, heads, width, width)
        turned = (k * sin).transpose(2, 3) @ values
        out = (q * cos) @ (plain + self.turn @ turned) + (q * sin) @ (turned - self.turn @ plain)

        # A product with ones is a sum, in a quarter of ReduceSum's time. Tokens stay on the last axis until
        # the constant is added: with an axis of length 1 behind them the addition takes 28 us, not 4.
        total = torch.ones(1, L) @ k  # (b, heads, 1, width)
        weight = (total @ q.transpose(2, 3) + L * NORMALISER_EPS).reshape(-1, self.heads, L, 1)
        out = out / weight
        if self.heads > 1:
            out = out.transpose(1, 2)
        local: Tensor = self.lepe(x)
        return out.reshape(-1, H, W, C) + local

    def _queries_and_keys(self, qk: Tensor) -> tuple[Tensor, ...]:
        """(b, H, W, 2C), or (b, 1, L, 2C) -> two (b, heads, L, width)."""
        if self.heads == 1:
            return qk.chunk(2, dim=-1)
        return self._heads(qk, 2 * self.heads).chunk(2, dim=1)

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """(b, H, W, heads width) -> (b, heads, L, width); (b, 1, L, width) as it is."""
        return x if heads == 1 else x.reshape(-1, x.shape[1] * x.shape[2], heads, self.width).transpose(1, 2)


def _reorder(query_key: nn.Module, heads: int) -> None:
    """Reorder the outputs [q re | q im | k re | k im] to [q | k], each head by head [re | im], in place."""
    layers: list[nn.Linear] = []
    if isinstance(query_key, LinearQueryKey):
        layers = [query_key.qk]
    elif isinstance(query_key, KANQueryKey):
        layers = [query_key.qk.base, query_key.qk.spline]
    for layer in layers:
        count = layer.out_features
        order = torch.arange(count).reshape(2, 2, heads, -1).transpose(1, 2).flatten()
        layer.weight = nn.Parameter(layer.weight[order])
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias[order])


class SummedChannelAttention(nn.Module):
    """Channel attention that applies its linear second layer once, to the sum of both paths.

    The mean is a matrix product.

    Args:
        attention: the module that it replaces.
    """

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        self.fc1, self.fc2 = attention.fc1, attention.fc2

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, 1, 1, C)."""
        _, H, W, C = x.shape
        mean = torch.full((1, H * W), 1.0 / (H * W)) @ x.reshape(-1, 1, H * W, C)
        largest = x.amax(dim=(1, 2), keepdim=True)
        return torch.sigmoid(self.fc2(relu(self.fc1(mean)) + relu(self.fc1(largest))))


class StackedSpatialAttention(nn.Module):
    """Spatial attention that concatenates its two maps before one reshape.

    Args:
        attention: the module that it replaces.
    """

    def __init__(self, attention: SpatialAttention) -> None:
        super().__init__()
        self.conv = attention.conv

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, 1)."""
        _, H, W, _ = x.shape
        maps = torch.cat((x.mean(dim=-1), x.amax(dim=-1)), dim=1).reshape(-1, 2, H, W)
        return torch.sigmoid(self.conv(maps)).reshape(-1, H, W, 1)


class FoldedMixerBlock(nn.Module):
    """Decoder block whose position encodings include their residual sum.

    ``x + conv(x)`` is a convolution with 1 added to the middle tap of every channel. It saves 0.08 ms in
    ``nano``.

    Args:
        block: the module that it replaces.
    """

    def __init__(self, block: MixerBlock) -> None:
        super().__init__()
        self.cpe1, self.norm1, self.main, self.side = block.cpe1, block.norm1, block.main, block.side
        self.out_norm, self.out_proj = block.out_norm, block.out_proj
        self.cpe2, self.norm2, self.mlp = block.cpe2, block.norm2, block.mlp
        for conv in (self.cpe1, self.cpe2):
            height, width = conv.weight.shape[2:]
            conv.weight[:, :, height // 2, width // 2] += 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        x = self.cpe1(x)
        normed = self.norm1(x)
        x = self.cpe2(x + self.out_proj(self.out_norm(self.main(normed)) * self.side(normed)))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


_REPLACEMENTS: tuple[tuple[type[nn.Module], Callable[[Any], nn.Module]], ...] = (
    (LinearAttention, HeadwiseAttention),
    (ChannelAttention, SummedChannelAttention),
    (SpatialAttention, StackedSpatialAttention),
    (MixerBlock, FoldedMixerBlock),
)


def rewrite_decoder(model: nn.Module) -> None:
    """Replace modules of the decoder by the classes above, in place, under the same names.

    Args:
        model: a copy of the network, float32; its weights are changed.
    """
    for kind, replacement in _REPLACEMENTS:
        for name, module in list(model.named_modules()):
            if isinstance(module, kind):
                model.set_submodule(name, replacement(module))
