"""Rewrite parts of the network as fewer kernels that compute the same function of the same weights.

The network's own modules are written to be read and trained. These compute with their weights once, at
export, so that fewer and larger kernels remain. Each class states what it saves; milliseconds are those of
ONNX Runtime on two AVX-512 threads at 256x256. The exporter compares the result with the original network.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.errors import UsageError
from vmkla.export.decoder_rewrites import rewrite_decoder
from vmkla.models.decoder import SegmentationHead
from vmkla.models.encoder import PatchEmbed
from vmkla.models.layers import Float32Island, LayerNorm
from vmkla.models.ss2d import SS2D
from vmkla.models.vmkla_unet import VMKLAUNet
from vmkla.ops import selective_scan2d


class FoldedPatchEmbed(nn.Module):
    """Patch embedding of raw frames, with the normalisation folded into its weights.

    A broadcast over three interleaved channels is slow (0.5 ms each for scale and shift). Patches do not
    overlap, so the convolution is one matrix product over their pixels. Pixels of 0 to 255 are exact in
    half precision, and the folded weights lose less there than a rounding of the result.

    Args:
        embed: the module that it replaces.
        channels_first: frames are (n, 3, H, W).
    """

    def __init__(self, embed: PatchEmbed, *, channels_first: bool = False) -> None:
        super().__init__()
        self.channels_first = channels_first
        weight = embed.proj.weight.double()  # (C, 3, patch, patch)
        std = torch.tensor(IMAGENET_STD, dtype=torch.float64)
        mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
        shift = (weight * (mean / std)[:, None, None]).sum(dim=(1, 2, 3))
        bias = torch.zeros(()) if embed.proj.bias is None else embed.proj.bias.double()
        weight = weight / (255.0 * std)[:, None, None]
        self.patch = embed.proj.kernel_size[0]
        # In the order of a patch's pixels in a frame: row, column, colour, or colour first.
        weight = weight if channels_first else weight.permute(0, 2, 3, 1)
        self.weight = nn.Parameter(weight.flatten(1).float())  # (C, patch patch 3)
        self.bias = nn.Parameter((bias - shift).float())
        self.norm = embed.norm

    def forward(self, x: Tensor) -> Tensor:
        """(n, H, W, 3), or (n, 3, H, W), 0 to 255 -> (n, H / patch, W / patch, C)."""
        p = self.patch
        H, W = x.shape[2:] if self.channels_first else x.shape[1:3]
        if self.channels_first:
            x = x.reshape(-1, 3, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5)
        else:
            x = x.reshape(-1, H // p, p, W // p, p * 3).permute(0, 1, 3, 2, 4)
        x = x.reshape(-1, H // p, W // p, p * p * 3)
        out: Tensor = self.norm(linear(x, self.weight, self.bias))
        return out


class FoldedHead(nn.Module):
    """Segmentation head without its norm, which has 65536 rows of a few channels.

    ONNX Runtime's LayerNormalization takes 30 ns per row whatever its length: 2 ms. With the mean subtracted
    from the weights, the norm is a division by the root of the mean square, and both sums over the
    channels of a pixel are products with block-diagonal matrices (0.3 ms)::

        y = expand(x) - mean(expand(x))                       by centred weights
        logit = (y . (project norm.weight)) / sqrt(mean(y^2) + eps) + constant
    """

    def __init__(self, head: SegmentationHead) -> None:
        super().__init__()
        self.scale, self.num_classes = head.scale, head.num_classes
        self.eps = float(head.norm.eps)
        pixels, channels = head.scale**2, head.pixel_dim
        weight = head.expand.weight.double().reshape(pixels, channels, -1)
        centred = weight - weight.mean(dim=1, keepdim=True)
        project = head.project.weight.double()  # (classes, channels)
        folded = project * head.norm.weight.double()
        eye = torch.eye(pixels, dtype=torch.float64)
        self.expand = nn.Parameter(centred.flatten(0, 1).float())  # (pixels channels, C)
        # Class by class, so that a class's pixels are contiguous: (classes pixels, pixels channels).
        self.project = nn.Parameter(torch.cat([torch.kron(eye, row[None]) for row in folded]).float())
        self.square = nn.Parameter(
            torch.kron(eye, torch.full((1, channels), 1.0 / channels, dtype=torch.float64)).float()
        )
        constant = project @ head.norm.bias.double()
        if head.project.bias is not None:
            constant = constant + head.project.bias.double()
        self.constant = nn.Parameter(constant.float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, classes, s H, s W)."""
        _, H, W, _ = x.shape
        s, classes = self.scale, self.num_classes
        y = linear(x, self.expand)  # (b, H, W, pixels channels)
        spread = torch.sqrt(linear(y * y, self.square) + self.eps)  # (b, H, W, pixels)
        out = linear(y, self.project)  # (b, H, W, classes pixels)
        if classes > 1:
            spread = spread.unsqueeze(3)
            out = out.reshape(-1, H, W, classes, s * s)
        out = (out / spread).reshape(-1, H, W, classes, s, s)  # (b, H, W, class, row, column)
        out = out.permute(0, 3, 1, 4, 2, 5).reshape(-1, classes, s * H, s * W)
        return out + self.constant


class Float32Scan(Float32Island):
    """Scan in float32 in a half-precision network, for results beyond half's range.

    Only the arithmetic of the node changes; u and p are rounded to half before.

    Args:
        scan: the module that it replaces.
    """

    float32_names = (*SS2D.float32_names, "dt_weight")

    def __init__(self, scan: SS2D) -> None:
        super().__init__()
        self.p_proj, self.backend = scan.p_proj, scan.backend
        self.dt_weight, self.A_log, self.D, self.delta_bias = (
            scan.dt_weight,
            scan.A_log,
            scan.D,
            scan.delta_bias,
        )

    def forward(self, u: Tensor) -> Tensor:
        """(b, H, W, d) half -> (b, H, W, d) float32."""
        return selective_scan2d(
            u.float(),
            self.p_proj(u).float(),
            self.dt_weight,
            -torch.exp(self.A_log),
            self.D,
            self.delta_bias,
            backend=self.backend,
        )


class Float32Norm(Float32Island, LayerNorm):
    """Norm behind a ``Float32Scan``, from float32 to half.

    Args:
        norm: the module that it replaces.
    """

    float32_names = ("weight", "bias")

    def __init__(self, norm: LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.result = torch.float16

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) float32 -> (..., C) half."""
        return super().forward(x).to(self.result)


def rewrite(
    model: VMKLAUNet, *, half: bool = False, channels_first: bool = False, wide_scans: Sequence[str] = ()
) -> VMKLAUNet:
    """Copy the network with the classes above; the input of the copy is raw frames, 0 to 255.

    The copy's own ``forward`` does not work: see ``wrapper``.

    Args:
        model: the network, float32.
        half: cast the copy to half precision, except for tensors of ``Float32Island``s. The head then keeps
            its norm, since the squares of ``FoldedHead`` exceed half's range from 256 on.
        channels_first: frames are (n, 3, H, W), else (n, H, W, 3).
        wide_scans: names of scans that stay float32 with their norms in a half-precision copy.
    """
    with torch.no_grad():
        model = copy.deepcopy(model).eval()
        embed = FoldedPatchEmbed(model.encoder.patch_embed, channels_first=channels_first)
        model.encoder.patch_embed = embed  # type: ignore[assignment]
        if not half:
            model.head = FoldedHead(model.head)  # type: ignore[assignment]
            rewrite_decoder(model)
            return model
        for name in wide_scans:
            _keep_float32(model, name)
        return model.half()


def _keep_float32(model: VMKLAUNet, name: str) -> None:
    """Convert a scan and the norm behind it to float32, in place."""
    holder, _, attribute = name.rpartition(".")
    # A block has its scan at `scan`, or at `main.mixer`, and its norm at `out_norm`.
    block = model.get_submodule(holder.removesuffix(".main"))
    scan, norm = model.get_submodule(name), block.get_submodule("out_norm")
    if not (isinstance(scan, SS2D) and isinstance(norm, LayerNorm)):
        raise UsageError(f"{name} is a {type(scan).__name__}, expected a scan with a norm behind it")
    model.get_submodule(holder).register_module(attribute, Float32Scan(scan))
    block.register_module("out_norm", Float32Norm(norm))
