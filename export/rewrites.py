"""Parts of the network in a form that costs a runtime less: the same function of the same weights.

The network's own modules are written to be read and trained. What stands here is arithmetic on their
weights, done once at export, so that fewer and larger kernels remain. Each class says what it saves;
milliseconds are of ONNX Runtime on two AVX-512 threads at 256x256. The exporter compares the result with
the untouched network, so a slip here does not leave the house.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.models.decoder import SegmentationHead
from vmkla.models.encoder import PatchEmbed
from vmkla.models.vmkla_unet import VMKLAUNet


class FoldedPatchEmbed(nn.Module):
    """Patch embedding of raw frames: normalisation is folded into its weights.

    A broadcast over three interleaved channels is slow (0.5 ms each for scale and shift). Patches do not
    overlap, so the convolution is one matrix product over their pixels.
    """

    def __init__(self, embed: PatchEmbed) -> None:
        super().__init__()
        weight = embed.proj.weight.double()  # (C, 3, patch, patch)
        std = torch.tensor(IMAGENET_STD, dtype=torch.float64)
        mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
        shift = (weight * (mean / std)[:, None, None]).sum(dim=(1, 2, 3))
        bias = torch.zeros(()) if embed.proj.bias is None else embed.proj.bias.double()
        weight = weight / (255.0 * std)[:, None, None]
        self.patch = embed.proj.kernel_size[0]
        # Rows as the pixels of a patch lie in a frame: row, column, colour.
        self.weight = nn.Parameter(weight.permute(0, 2, 3, 1).flatten(1).float())  # (C, patch patch 3)
        self.bias = nn.Parameter((bias - shift).float())
        self.norm = embed.norm

    def forward(self, x: Tensor) -> Tensor:
        """(n, H, W, 3), 0 to 255 -> (n, H / patch, W / patch, C)."""
        _, H, W, _ = x.shape
        p = self.patch
        x = x.reshape(-1, H // p, p, W // p, p * 3).permute(
            0, 1, 3, 2, 4
        )  # (n, H/p, W/p, row, column colour)
        x = x.reshape(-1, H // p, W // p, p * p * 3)
        out: Tensor = self.norm(linear(x, self.weight, self.bias))
        return out


class FoldedHead(nn.Module):
    """The segmentation head without its norm over a handful of channels, 65536 rows of them.

    ONNX Runtime's LayerNormalization costs 30 ns a row whatever its length: 2 ms. With the mean taken out
    of the weights, the norm is a division by the root of the mean square, and both sums over the
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
        # Class by class, so that a class's pixels lie together: (classes pixels, pixels channels).
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


def rewrite(model: VMKLAUNet) -> VMKLAUNet:
    """A copy of the network with the classes above in place; its input is (n, H, W, 3), 0 to 255.

    Its own ``forward`` does not serve any more: see ``wrapper``.
    """
    with torch.no_grad():
        model = copy.deepcopy(model).eval()
        model.encoder.patch_embed = FoldedPatchEmbed(model.encoder.patch_embed)  # type: ignore[assignment]
        model.head = FoldedHead(model.head)  # type: ignore[assignment]
    return model
