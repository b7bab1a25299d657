"""The decoder: patch expanding, skip connections, and six kinds of blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vmkla.config import DecoderBlock, ModelConfig
from vmkla.models.attention import (
    ChannelSpatialAttention,
    KANQueryKey,
    LinearAttention,
    LinearQueryKey,
    SiluGate,
    heads_of,
)
from vmkla.models.layers import DepthwiseConv, DropPath, LayerNorm, Mlp
from vmkla.models.ss2d import SS2D, VSSBlock, dt_rank_of


class MainBranch(nn.Module):
    """Main branch of a block: linear layer, 3x3 depth-wise convolution, SiLU, and a mixer of all tokens.

    Args:
        dim, width: channels of the input and of the mixer.
        mixer: linear attention or scan, (b, H, W, width) -> (b, H, W, width).
    Source: paper, fig. 1 (b), left branch.
    """

    def __init__(self, dim: int, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, width)
        self.conv = DepthwiseConv(width)
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, width)."""
        out: Tensor = self.mixer(silu(self.conv(self.in_proj(x))))
        return out


class MixerBlock(nn.Module):
    """Decoder block: product of a main and a side branch, then an MLP, both residual.

    Two depth-wise convolutions encode the position of a token from its neighbours.

    Args:
        dim: channels C.
        width: output channels of both branches.
        main, side: (b, H, W, C) -> (b, H, W, width).
        mlp_ratio: hidden width of the MLP over C.
        drop_path: rate of stochastic depth, 0 to 1.
    Source: paper, fig. 1 (b); position encodings and the norm after the main branch as in the
        published code, after Han et al., MLLA, 2024.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        main: nn.Module,
        side: nn.Module,
        *,
        mlp_ratio: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.cpe1 = DepthwiseConv(dim)
        self.norm1 = LayerNorm(dim)
        self.main = main
        self.side = side
        self.out_norm = LayerNorm(width)
        self.out_proj = nn.Linear(width, dim)
        self.cpe2 = DepthwiseConv(dim)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        x = x + self.cpe1(x)
        normed = self.norm1(x)
        x = x + self.drop_path(self.out_proj(self.out_norm(self.main(normed)) * self.side(normed)))
        x = x + self.cpe2(x)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


def _kan_attention(dim: int, config: ModelConfig, backend: str) -> nn.Module:
    query_key = KANQueryKey(dim, config.kan_hidden, config.grid_size, config.spline_order, backend=backend)
    return MainBranch(dim, dim, LinearAttention(dim, heads_of(dim, config), query_key))


def _linear_attention(dim: int, config: ModelConfig) -> nn.Module:
    return MainBranch(dim, dim, LinearAttention(dim, heads_of(dim, config), LinearQueryKey(dim)))


def _frame(
    dim: int,
    main: nn.Module,
    side: nn.Module,
    config: ModelConfig,
    drop_path: float,
    width: int | None = None,
) -> nn.Module:
    return MixerBlock(dim, width or dim, main, side, mlp_ratio=config.mlp_ratio, drop_path=drop_path)


def mkcsa(dim: int, config: ModelConfig, drop_path: float, backend: str) -> nn.Module:
    """Make the paper's block: KAN linear attention times channel-spatial attention."""
    main, side = _kan_attention(dim, config, backend), ChannelSpatialAttention(dim)
    return _frame(dim, main, side, config, drop_path)


def mkla(dim: int, config: ModelConfig, drop_path: float, backend: str) -> nn.Module:
    """Make a block of KAN linear attention times a SiLU gate."""
    return _frame(dim, _kan_attention(dim, config, backend), SiluGate(dim), config, drop_path)


def mlcsa(dim: int, config: ModelConfig, drop_path: float, backend: str) -> nn.Module:
    """Make a block of plain linear attention times channel-spatial attention."""
    return _frame(dim, _linear_attention(dim, config), ChannelSpatialAttention(dim), config, drop_path)


def mlla(dim: int, config: ModelConfig, drop_path: float, backend: str) -> nn.Module:
    """Make a block of plain linear attention times a SiLU gate."""
    return _frame(dim, _linear_attention(dim, config), SiluGate(dim), config, drop_path)


def csa(dim: int, config: ModelConfig, drop_path: float, backend: str) -> nn.Module:
    """Make a block of the 2-D selective scan times channel-spatial attention, both at the scan's width."""
    d = config.expand * dim
    main = MainBranch(dim, d, SS2D(d, config.d_state, dt_rank_of(dim), backend=backend))
    side = nn.Sequential(nn.Linear(dim, d), ChannelSpatialAttention(d))
    return _frame(dim, main, side, config, drop_path, width=d)


def ss2d(dim: int, config: ModelConfig, drop_path: float, backend: str) -> nn.Module:
    """Make a VSS block as in the encoder, which is VM-UNet's decoder."""
    return VSSBlock(dim, d_state=config.d_state, expand=config.expand, drop_path=drop_path, backend=backend)


BLOCKS: dict[DecoderBlock, Callable[[int, ModelConfig, float, str], nn.Module]] = {
    "mkcsa": mkcsa,
    "mkla": mkla,
    "csa": csa,
    "mlla": mlla,
    "mlcsa": mlcsa,
    "ss2d": ss2d,
}
"""Makers of decoder blocks by name: (dim, configuration, drop_path, backend) -> block."""


class PatchExpand(nn.Module):
    """Double height and width: a linear layer gives 2C channels, whose quarters become 2x2 tokens of C / 2.

    The norm runs before the tokens are moved; it sees the same C / 2 channels either way.

    Source: paper, fig. 1 (a); Cao et al., Swin-Unet, 2021, sec. 3.4.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = LayerNorm(dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, 2H, 2W, C / 2)."""
        _, H, W, C = x.shape
        x = self.norm(self.expand(x).reshape(-1, H, W, 2, 2, C // 2))  # (b, H, W, row, column, C/2)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 2 * H, 2 * W, C // 2)


class SegmentationHead(nn.Module):
    """Expand the tokens to pixels and project them to classes.

    Each token becomes a square of pixels with C / scale channels, which are normed and projected. Norm and
    projection work on single pixels, so they run before the pixels are moved to their places, and only
    ``num_classes`` values per pixel move: the result is the same, with less copying. (The exporter also folds
    the norm into the products.)

    Args:
        dim: channels C of a token.
        num_classes: channels of the output.
        scale: side s of the square, px; equal to the side of the encoder's patches.
    Source: paper, fig. 1 (a), final expanding and linear projection; widths as in the published code.
    """

    def __init__(self, dim: int, num_classes: int, scale: int) -> None:
        super().__init__()
        self.num_classes, self.scale = num_classes, scale
        self.pixel_dim = max(1, dim // scale)
        self.expand = nn.Linear(dim, scale**2 * self.pixel_dim, bias=False)
        self.norm = LayerNorm(self.pixel_dim)
        self.project = nn.Linear(self.pixel_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, num_classes, s H, s W)."""
        _, H, W, _ = x.shape
        s, classes = self.scale, self.num_classes
        pixels = self.norm(self.expand(x).reshape(-1, H, W, s * s, self.pixel_dim))
        logits: Tensor = self.project(pixels)  # (b, H, W, s s, classes)
        logits = logits.reshape(-1, H, W, s, s, classes)  # (b, H, W, row, column, classes)
        return logits.permute(0, 5, 1, 3, 2, 4).reshape(-1, classes, s * H, s * W)


class DecoderStage(nn.Module):
    """One stage of the decoder: patch expanding and sum with the skip (not in the deepest stage), blocks."""

    def __init__(
        self, dim: int, config: ModelConfig, drop_path: list[float], *, upsample: bool, backend: str
    ) -> None:
        super().__init__()
        self.upsample = PatchExpand(2 * dim) if upsample else None
        make = BLOCKS[config.decoder_block]
        self.blocks = nn.ModuleList(make(dim, config, rate, backend) for rate in drop_path)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(b, H, W, 2C) and its skip (b, 2H, 2W, C) -> (b, 2H, 2W, C); deepest: (b, H, W, C) as it is."""
        if self.upsample is not None:
            x = self.upsample(x)
        if skip is not None:
            x = x + skip
        for block in self.blocks:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Decoder of four stages, deep to shallow; all but the first add the encoder's output of their size.

    Source: paper, fig. 1 (a), right half.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "auto") -> None:
        super().__init__()
        depths = config.decoder_depths
        rates = torch.linspace(config.drop_path, 0, sum(depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for i, dim in enumerate(reversed(config.dims)):
            first = sum(depths[:i])
            self.stages.append(
                DecoderStage(dim, config, rates[first : first + depths[i]], upsample=i > 0, backend=backend)
            )

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """Outputs of the encoder's stages, shallow to deep -> (b, H / 4, W / 4, C)."""
        *skips, x = outputs
        for stage, skip in zip(self.stages, (None, *reversed(skips)), strict=True):
            x = stage(x, skip)
        return x
