"""Small modules of both the encoder and the decoder. Tensors are channels-last, (b, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from vmkla.ops.backends import float32_under_autocast


def at_least_float32(x: Tensor) -> Tensor:
    """Convert x to float32, unless it is wider, for sums and quotients that 16 bits cannot represent."""
    return x if x.dtype == torch.float64 else x.float()


class Float32Island(nn.Module):
    """A module with tensors that stay float32 when the model is cast to 16 bits.

    Moves between devices and casts to float64 apply to them as usual.

    Attributes:
        float32_names: names of the parameters and buffers that stay float32.
    """

    float32_names: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Island:
        kept: set[int] = set()
        for name in self.float32_names:
            tensor = getattr(self, name)
            kept.update(id(t) for t in (tensor, tensor.grad) if t is not None)

        def keep(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            narrow = out.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(out.device) if narrow and id(tensor) in kept else out

        super()._apply(keep, recurse)  # type: ignore[no-untyped-call]
        return self


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32 under autocast, on the CPU as on CUDA.

    Torch's CPU kernel sums the gradients of weight and bias in the type of its input. In bfloat16 such a sum
    stops growing at some thousand pixels: of the gradient over a batch's 590 000 a hundredth was left
    (torch 2.13).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        (x,) = float32_under_autocast(x)
        return super().forward(x)


class DepthwiseConv(nn.Conv2d):
    """3x3 depth-wise convolution of a channels-last tensor, with the same size out."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DropPath(nn.Module):
    """Stochastic depth: in training, set a sample's branch to zero with probability ``rate``.

    Other branches are divided by 1 - rate, so that the expectation stays. In evaluation it does nothing.

    Source: Huang et al., Deep Networks with Stochastic Depth, 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(b, ...) -> (b, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty(x.shape[0], *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * mask.bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"rate={self.rate:.3f}"


class Mlp(nn.Module):
    """MLP on the last axis: linear layer, GELU, linear layer."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out
