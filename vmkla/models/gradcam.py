"""Compute Grad-CAM maps of a segmentation network's decoder blocks with captum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vmkla.errors import UsageError
from vmkla.imports import require
from vmkla.models.decoder import DecoderStage
from vmkla.models.vmkla_unet import VMKLAUNet


@dataclass(frozen=True)
class Heat:
    """Grad-CAM maps of one block for a batch.

    Attributes:
        heat: (b, H, W) float32, at least 0, not scaled; interpolated to the input's size.
        logits: (b, classes, H, W), from the same pass.
    """

    heat: Tensor
    logits: Tensor


class DecoderGradCam:
    """Grad-CAM at one decoder block.

    The map is the sum of the block's channels, weighted by the mean gradient of one score; negative values
    become 0. The score is the mean logit of the pixels in the mask, so that the map explains the mask, or the
    largest logit when the mask is empty.

    Args:
        model: the network; it is put into evaluation mode, and the block is wrapped.
        stage: stage of the decoder, 0 (the deepest) to 3.
        block: index of the block in its stage, from 0.
    Raises:
        UsageError: there is no such block.
        MissingDependencyError: captum is missing.
    Source: Selvaraju et al., Grad-CAM, 2017; Vinogradova et al., Seg-Grad-CAM, 2020 (the score).
    """

    def __init__(self, model: VMKLAUNet, stage: int, block: int) -> None:
        captum = require("captum.attr", extra="train", purpose="vmkla explain")
        depths = model.config.decoder_depths
        if not (0 <= stage < len(depths) and 0 <= block < depths[stage]):
            raise UsageError(
                f"there is no decoder block {stage}.{block}",
                hint=f"Stages are 0 (deepest) to 3, with {', '.join(map(str, depths))} blocks, from 0.",
            )
        self.model = model.eval().requires_grad_(False)
        blocks = _stage(model, stage).blocks
        inner = blocks[block]
        readable = inner if isinstance(inner, _ReadableBlock) else _ReadableBlock(inner)
        blocks[block] = readable
        self._cam = captum.LayerGradCam(self._score, readable.tap)
        self._interpolate = captum.LayerAttribution.interpolate
        self._logits: Tensor | None = None

    def __call__(self, x: Tensor) -> Heat:
        """Explain a batch.

        Args:
            x: (b, 3, H, W) normalised image.
        """
        coarse = self._cam.attribute(x.detach().requires_grad_(), relu_attributions=True)  # (b, 1, h, w)
        heat: Tensor = self._interpolate(coarse, tuple(x.shape[2:]), interpolate_mode="bilinear")
        assert self._logits is not None
        return Heat(heat.detach()[:, 0].float(), self._logits)

    def _score(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) -> (b,)."""
        logits: Tensor = self.model(x)
        self._logits = logits.detach()
        return torch.stack([_finding_score(image) for image in logits])


class _ReadableBlock(nn.Module):
    """A decoder block whose output captum can read, with the channels on the second axis."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.tap = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        y: Tensor = self.tap(self.inner(x).permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1)


def _finding_score(logits: Tensor) -> Tensor:
    """Compute the mean logit of the mask's pixels; of several classes, the one with the largest mask counts.

    Args:
        logits: (classes, H, W), of one image.
    """
    if len(logits) == 1:
        finding, mask = logits[0], logits[0] >= 0
    else:
        winner = logits.argmax(0)
        counts = torch.bincount(winner.flatten(), minlength=len(logits))[1:]
        chosen = 1 + int(counts.argmax()) if counts.any() else 1 + int(logits[1:].amax((1, 2)).argmax())
        finding, mask = logits[chosen], winner == chosen
    return finding[mask].mean() if mask.any() else finding.max()


def _stage(model: VMKLAUNet, number: int) -> DecoderStage:
    stage = model.decoder.stages[number]
    assert isinstance(stage, DecoderStage)
    return stage
