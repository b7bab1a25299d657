"""What training makes small: binary cross-entropy plus Dice, both from logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vmkla.errors import ShapeError

SMOOTH_PX = 1.0
"""Added to both sides of the Dice fraction: an empty image has a loss, and no division by zero."""


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice score of every image.

    Args:
        logits: (b, 1, H, W).
        target: (b, 1, H, W), 0 or 1, of the same type.
    Returns:
        (b,), 0 to 1.
    """
    probability = torch.sigmoid(logits).flatten(1)
    truth = target.flatten(1)
    overlap = (probability * truth).sum(1)
    return 1 - (2 * overlap + SMOOTH_PX) / (probability.sum(1) + truth.sum(1) + SMOOTH_PX)


def bce_dice_loss(
    logits: Tensor, target: Tensor, *, bce_weight: float = 1.0, dice_weight: float = 1.0
) -> Tensor:
    """Mean over images of the weighted sum of both losses.

    Args:
        logits: (b, 1, H, W).
        target: (b, 1, H, W), 0 or 1, of the same type.
        bce_weight, dice_weight: 1 and 1 in the paper.
    Returns:
        A scalar.
    Raises:
        ShapeError: the shapes differ, or there is more than one class.
    Source: paper, eq. for L_BceDice; the Dice term per image, as in the published code.
    """
    if logits.shape != target.shape or logits.ndim != 4 or logits.shape[1] != 1:
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the target {tuple(target.shape)}, "
            "expected (b, 1, H, W) twice"
        )
    bce = binary_cross_entropy_with_logits(logits, target)
    return bce_weight * bce + dice_weight * dice_loss(logits, target).mean()
