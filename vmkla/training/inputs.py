"""Batches as the network and the loss take them."""

from __future__ import annotations

import torch
from torch import Tensor

from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.data.arrays import LabelledArrays
from vmkla.training.transfers import to_device


class Inputs:
    """Copies batches to a device and normalises them there.

    Args:
        device: where the network runs.
        num_classes: 1 for a mask of 0 and 1, more for class indices.
    """

    def __init__(self, device: torch.device, num_classes: int) -> None:
        self.device, self.num_classes = device, num_classes
        mean = 255.0 * torch.tensor(IMAGENET_MEAN, device=device)
        deviation = 255.0 * torch.tensor(IMAGENET_STD, device=device)
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]  # (3, 1, 1)

    def __call__(self, batch: LabelledArrays) -> tuple[Tensor, Tensor]:
        """Normalised images and targets.

        Returns:
            (b, 3, h, w) float32, channels last in memory; and (b, 1, h, w) float32 from 0 to 1, or with
            several classes (b, h, w) int64.
        """
        pixels = to_device(batch.images_rgb, self.device).permute(0, 3, 1, 2).float()
        classes = to_device(batch.masks, self.device)
        target = classes[:, None].float() if self.num_classes == 1 else classes.long()
        if batch.soft:
            target = target.div_(255)
        return pixels.sub_(self.mean).div_(self.deviation), target
