"""Attention of the decoder: linear attention with plain or KAN queries and keys, and CBAM."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, relu, silu

from vmkla.config import ModelConfig
from vmkla.errors import UsageError
from vmkla.models.kan import KANLinear
from vmkla.models.layers import DepthwiseConv, Float32Island, at_least_float32

ROPE_BASE = 10000.0
NORMALISER_EPS = 1e-6
CBAM_REDUCTION = 16
CBAM_MIN_HIDDEN = 4


class ChannelAttention(nn.Module):
    """Weight every channel by 0 to 1, from its mean and maximum over the image.

    The mean sums thousands of pixels, so it is computed in float32 when the weights are half.

    Source: paper, eq. of channel attention; Woo et al., CBAM, 2018, eq. 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(dim // CBAM_REDUCTION, CBAM_MIN_HIDDEN)
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, 1, 1, C)."""
        mean = at_least_float32(x).mean(dim=(1, 2), keepdim=True).to(x.dtype)
        largest = x.amax(dim=(1, 2), keepdim=True)
        return torch.sigmoid(self.fc2(relu(self.fc1(mean))) + self.fc2(relu(self.fc1(largest))))


class SpatialAttention(nn.Module):
    """Weight every pixel by 0 to 1, from the mean and maximum over its channels.

    Source: paper, eq. of spatial attention; Woo et al., CBAM, 2018, eq. 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, 1)."""
        _, H, W, _ = x.shape
        mean = at_least_float32(x).mean(dim=-1).to(x.dtype).unsqueeze(1)  # (b, 1, H, W)
        largest = x.amax(dim=-1).unsqueeze(1)
        weight = torch.sigmoid(self.conv(torch.cat((mean, largest), dim=1)))  # (b, 1, H, W)
        return weight.reshape(-1, H, W, 1)


class ChannelSpatialAttention(nn.Module):
    """Channel attention followed by spatial attention of the result.

    Source: paper, fig. 1 (b), right branch; Woo et al., CBAM, 2018, eq. 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(dim)
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        x = x * self.channel(x)
        out: Tensor = x * self.spatial(x)
        return out


class SiluGate(nn.Module):
    """Linear layer and SiLU: the side branch of blocks without channel-spatial attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        return silu(self.proj(x))


class LinearQueryKey(nn.Module):
    """Queries and keys from a linear layer; see ``LinearAttention`` for the order of its output."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qk = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, L, C) -> (b, L, 2C)."""
        out: Tensor = self.qk(x)
        return out


class KANQueryKey(nn.Module):
    """Queries and keys from a two-layer KAN, C -> hidden -> 2C.

    Source: paper, eq. of KAN linear attention; the hidden width is the published code's.
    """

    def __init__(self, dim: int, hidden: int, grid_size: int, spline_order: int, *, backend: str) -> None:
        super().__init__()
        spline = {"grid_size": grid_size, "spline_order": spline_order}
        self.hidden = KANLinear(dim, hidden, **spline, backend=backend)
        self.qk = KANLinear(hidden, 2 * dim, **spline, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        """(b, L, C) -> (b, L, 2C)."""
        out: Tensor = self.qk(self.hidden(x))
        return out


def rotary_tables(
    height: int, width: int, heads: int, pairs: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute the cosines and sines by which 2-D rotary embedding rotates the channel pairs of every token.

    The first half of a head's pairs rotates with the row, the second half with the column; pair j of a half
    rotates by ``position 10000^(-j / half)`` radians.

    Args:
        height, width: tokens per column and row.
        heads: number of heads, which all get the same angles.
        pairs: channel pairs of a head, an even number.
        device: device of the tables.
    Returns:
        Two (height width, heads pairs) float32 tensors.
    Source: Su et al., RoFormer, 2021, sec. 3.2; its 2-D form as in Han et al., MLLA, 2024.
    """
    half = pairs // 2
    rate = ROPE_BASE ** -(torch.arange(half, dtype=torch.float32, device=device) / half)
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * rate  # (H, half)
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * rate  # (W, half)
    angles = torch.cat(
        (rows[:, None, :].expand(-1, width, -1), columns[None, :, :].expand(height, -1, -1)), dim=-1
    )  # (H, W, pairs)
    angles = angles.reshape(height * width, pairs).repeat(1, heads)
    return torch.cos(angles), torch.sin(angles)


@functools.lru_cache(maxsize=32)
def _cached_rotary_tables(
    height: int, width: int, heads: int, pairs: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():  # so that training can reuse them
        return rotary_tables(height, width, heads, pairs, device)


class LinearAttention(Float32Island):
    """Linear attention, ``phi(Q) (phi(K)^T V)``, with rotary and local position encoding, in O(L).

    Queries and keys consist of two halves each, the first (``re``) and second (``im``) channel of every
    rotated pair, so that the rotation needs no complex numbers. V is the input.
    With ``phi = ELU + 1``, L tokens and R_i the rotation of token i::

        out_i = (R_i q_i) . sum_j (R_j k_j) v_j^T / L  /  (q_i . mean_j k_j + 1e-6)  +  LePE(v)_i

    Numerator and denominator are both divided by the channels of a head, so that half tensors stay small: the
    numerator is about a mean over tokens and channels, not a sum. Keys are divided by the lowest power of two
    that is at least L, which half represents without rounding; the denominator holds the rest of L.

    Args:
        dim: channels C.
        heads: number of heads; C / heads is a multiple of 4.
        query_key: (b, L, C) -> (b, L, 2C), in the order [q re | q im | k re | k im].
    Raises:
        UsageError: C / heads is not a multiple of 4.
    Source: paper, eq. of KAN linear attention; Han et al., MLLA, 2024, eq. 4 (normaliser);
        Katharopoulos et al., 2020, eq. 5; Dong et al., CSWin, 2021 (LePE).
    """

    float32_names = ("head_of_pair",)
    head_of_pair: Tensor
    table_type: torch.dtype | None = None
    """Type to which the rotation's tables are rounded; None takes the type of the input."""

    def __init__(self, dim: int, heads: int, query_key: nn.Module) -> None:
        super().__init__()
        if dim % (4 * heads):
            raise UsageError(
                f"linear attention needs a multiple of 4 channels a head, got {dim} in {heads} heads",
                hint="Choose dim as a multiple of head_dim, and head_dim as a multiple of 4.",
            )
        self.dim, self.heads = dim, heads
        self.query_key = query_key
        self.lepe = DepthwiseConv(dim)
        # 1 where a channel pair belongs to a head: sums over each head's pairs by a product.
        belongs = torch.arange(dim // 2)[:, None] // (dim // 2 // heads) == torch.arange(heads)
        self.register_buffer("head_of_pair", belongs.float(), persistent=False)  # (C/2, heads)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        _, H, W, C = x.shape
        L = H * W
        v = x.reshape(-1, L, C)
        # One product and one ELU compute all four, since they have the same input.
        q_re, q_im, k_re, k_im = (elu(self.query_key(v)) + 1.0).chunk(4, dim=-1)  # (b, L, C/2) each
        cos, sin = self._rotations(H, W, x)  # (L, C/2)

        # The normaliser, in float32 when the weights are half: q . mean(k) of every token and head.
        mean_re = at_least_float32(k_re).mean(dim=1).unsqueeze(-1) * self.head_of_pair  # (b, C/2, heads)
        mean_im = at_least_float32(k_im).mean(dim=1).unsqueeze(-1) * self.head_of_pair
        weight = at_least_float32(q_re) @ mean_re + at_least_float32(q_im) @ mean_im  # (b, L, heads)
        share = self.heads / self.dim  # a power of two in every preset: no rounding
        down = 2.0 ** -(L - 1).bit_length()  # 1 / L is rounded in half, and with it every result
        scale = 1.0 / ((weight + NORMALISER_EPS) * (share * L * down))

        k_re, k_im = k_re * down, k_im * down  # before the product: safe in half
        values = self._split_heads(v)  # (b, heads, L, C/heads)
        kv_re = self._split_heads(k_re * cos - k_im * sin).transpose(2, 3) @ values * share
        kv_im = self._split_heads(k_re * sin + k_im * cos).transpose(2, 3) @ values * share
        out = (
            self._split_heads(q_re * cos - q_im * sin) @ kv_re
            + self._split_heads(q_re * sin + q_im * cos) @ kv_im
        )
        out = at_least_float32(self._merge_heads(out)) * scale.unsqueeze(-1)  # (b, L, heads, C/heads)
        local: Tensor = self.lepe(x)
        return out.to(x.dtype).reshape(-1, H, W, C) + local

    def _split_heads(self, x: Tensor) -> Tensor:
        """(b, L, width) -> (b, heads, L, width / heads)."""
        _, L, width = x.shape
        if self.heads == 1:
            return x.unsqueeze(1)  # no transpose in the exported graph
        return x.reshape(-1, L, self.heads, width // self.heads).transpose(1, 2)

    def _merge_heads(self, x: Tensor) -> Tensor:
        """(b, heads, L, width) -> (b, L, heads, width)."""
        return x.reshape(-1, x.shape[2], 1, x.shape[3]) if self.heads == 1 else x.transpose(1, 2)

    def _rotations(self, height: int, width: int, x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = self.dim // 2 // self.heads
        # A tracer must see how the tables are computed; it would put its own tensors into the cache.
        make = rotary_tables if torch.compiler.is_compiling() else _cached_rotary_tables
        cos, sin = make(height, width, self.heads, pairs, x.device)
        kept = self.table_type or x.dtype
        return cos.to(kept).to(x.dtype), sin.to(kept).to(x.dtype)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"dim={self.dim}, heads={self.heads}"


def heads_of(dim: int, config: ModelConfig) -> int:
    """Return the number of heads of linear attention over ``dim`` channels, at least 1."""
    return max(1, dim // config.head_dim)
