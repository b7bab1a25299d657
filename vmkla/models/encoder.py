"""The VMamba encoder: patch embedding, then four stages of VSS blocks with patch merging between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmkla.config import ModelConfig
from vmkla.models.layers import LayerNorm
from vmkla.models.ss2d import VSSBlock


class PatchEmbed(nn.Module):
    """Make one token of each patch of pixels, by a strided convolution and a norm.

    Args:
        patch: side of a patch, px.
        dim: channels of a token.
    Source: paper, fig. 1 (a), patch partition and embedding.
    """

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b, H / patch, W / patch, C)."""
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class PatchMerging(nn.Module):
    """Halve height and width: concatenate the channels of 2x2 tokens, norm, linear layer to 2C.

    The four tokens follow each other as (row, column) offsets (0, 0), (1, 0), (0, 1), (1, 1), the
    order in which Swin and VMamba concatenate them.

    Source: paper, fig. 1 (a); Liu et al., Swin Transformer, 2021, sec. 3.1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H / 2, W / 2, 2C)."""
        _, H, W, C = x.shape
        x = x.reshape(-1, H // 2, 2, W // 2, 2, C)  # (b, H/2, row, W/2, column, C)
        x = x.permute(0, 1, 3, 4, 2, 5)  # (b, H/2, W/2, column, row, C)
        out: Tensor = self.reduction(self.norm(x.reshape(-1, H // 2, W // 2, 4 * C)))
        return out


class EncoderStage(nn.Module):
    """One stage of the encoder: VSS blocks of one width.

    Args:
        dim: width C.
        config: the network's configuration.
        drop_path: rate of stochastic depth of each block; its length is the depth.
        downsample: the stage ends with patch merging, for the next one.
        backend: implementation of the scan.
    """

    def __init__(
        self, dim: int, config: ModelConfig, drop_path: list[float], *, downsample: bool, backend: str
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            VSSBlock(dim, d_state=config.d_state, expand=config.expand, drop_path=rate, backend=backend)
            for rate in drop_path
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, H, W, C) -> the same, after the blocks; and (b, H/2, W/2, 2C) for the next stage.

        The last stage has no successor and returns its output twice.
        """
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class Encoder(nn.Module):
    """Encoder of four stages, whose outputs are the decoder's skip connections.

    Source: paper, fig. 1 (a), left half.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "auto") -> None:
        super().__init__()
        depths = config.encoder_depths
        rates = torch.linspace(0, config.drop_path, sum(depths), device="cpu").tolist()
        self.patch_embed = PatchEmbed(config.patch, config.dim)
        self.stages = nn.ModuleList()
        for i, dim in enumerate(config.dims):
            first = sum(depths[:i])
            rates_here = rates[first : first + depths[i]]
            self.stages.append(EncoderStage(dim, config, rates_here, downsample=i < 3, backend=backend))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(b, 3, H, W) -> outputs of the stages, shallow to deep: (b, H / (4 2^i), W / (4 2^i), C 2^i)."""
        x = self.patch_embed(x)
        outputs = []
        for stage in self.stages:
            output, x = stage(x)
            outputs.append(output)
        return outputs
