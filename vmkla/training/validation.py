"""How good the weights are on the validation images, at the network's resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vmkla.data.arrays import LabelledArrays, in_batches
from vmkla.metrics import confusion
from vmkla.training.inputs import Inputs
from vmkla.training.processes import Processes


@dataclass(frozen=True)
class Scores:
    """Means over the validation images.

    Attributes:
        loss: as in training.
        dice, iou: of the foreground; with several classes the mean over those that an image or its
            prediction holds. An image with neither scores 1.
    """

    loss: float
    dice: float
    iou: float


class Validation:
    """Judges weights on a fixed set. Each process takes its part of the batches.

    Args:
        arrays: the validation images.
        inputs: makes tensors of them.
        loss: (logits, target) -> scalar.
        batch_size: images at a time.
        threshold: probability at and above which a pixel counts as polyp; for one class.
    """

    def __init__(
        self,
        arrays: LabelledArrays,
        inputs: Inputs,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        batch_size: int,
        threshold: float,
    ) -> None:
        self.arrays, self.inputs, self.loss = arrays, inputs, loss
        self.batch_size = batch_size
        self.limit = math.log(threshold / (1 - threshold))

    def judge(self, model: nn.Module, processes: Processes) -> Scores:
        """Means over the whole set; the model is left in evaluation mode."""
        processes.share_buffers(model)
        parts = processes.gather(processes.together(lambda: self._part(model, processes)))
        rows = np.concatenate(parts)  # (n, 3): loss, dice, iou
        loss, dice, iou = rows.mean(axis=0)
        return Scores(float(loss), float(dice), float(iou))

    @torch.no_grad()
    def _part(self, model: nn.Module, processes: Processes) -> npt.NDArray[np.float64]:
        """(images, 3) loss, Dice and IoU of the images of this process."""
        model.eval()
        rows: list[tuple[float, float, float]] = []
        ranks = processes.ranks
        for batch in islice(in_batches(self.arrays, self.batch_size), ranks.rank, None, ranks.world):
            pixels, target = self.inputs(batch)
            logits = model(pixels)
            loss = float(self.loss(logits, target))
            found = (logits[:, 0] >= self.limit) if logits.shape[1] == 1 else logits.argmax(1)
            for prediction, truth in zip(found.to(torch.uint8).cpu().numpy(), batch.masks, strict=True):
                rows.append((loss, *overlap(prediction, truth)))
        return np.array(rows, np.float64).reshape(-1, 3)


def overlap(prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Dice and IoU of two maps of class indices, means over the foreground classes that are in either.

    Returns:
        1 twice when both maps are background alone.
    """
    classes = sorted((set(np.unique(prediction)) | set(np.unique(truth))) - {0})
    if not classes:
        return 1.0, 1.0
    found = [confusion(prediction == c, truth == c) for c in classes]
    return sum(f.dice for f in found) / len(found), sum(f.iou for f in found) / len(found)
