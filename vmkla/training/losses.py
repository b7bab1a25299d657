"""What training makes small: cross-entropy plus Dice, both from logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, softplus

from vmkla.errors import ShapeError

SMOOTH_PX = 1.0
"""Added to both sides of the Dice fraction: an empty image has a loss, and no division by zero."""
QUIET_WEIGHT = 0.2
"""Of ``quiet_loss``. With 1 a network that begins with random weights first learns to mark nothing at all."""


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice score of every image.

    Args:
        logits: (b, 1, H, W).
        target: (b, 1, H, W), 0 to 1, of the same type.
    Returns:
        (b,), 0 to 1.
    """
    return 1 - _soft_dice(torch.sigmoid(logits), target)[:, 0]


def bce_dice_loss(
    logits: Tensor, target: Tensor, *, bce_weight: float = 1.0, dice_weight: float = 1.0
) -> Tensor:
    """Mean over images of the weighted sum of both losses.

    Args:
        logits: (b, 1, H, W).
        target: (b, 1, H, W), 0 to 1, of the same type.
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


def ce_dice_loss(
    logits: Tensor, target: Tensor, *, ce_weight: float = 1.0, dice_weight: float = 1.0
) -> Tensor:
    """Mean over images of the weighted sum of cross-entropy and the mean Dice loss of the classes.

    The background is one of the classes. The Dice term is taken image by image, as with one class, so
    that the loss of a batch is the mean of its parts' losses, on however many processes.

    Args:
        logits: (b, classes, H, W), at least two classes.
        target: (b, H, W) int64, class indices.
        ce_weight, dice_weight: 1 and 1.
    Returns:
        A scalar.
    Raises:
        ShapeError: the shapes do not belong together.
    Source: paper, eq. for L_CeDice; the background among the classes, as in the published code.
    """
    if logits.ndim != 4 or logits.shape[1] < 2 or target.shape != logits[:, 0].shape:
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the target {tuple(target.shape)}, "
            "expected (b, classes, H, W) with two classes or more, and (b, H, W)"
        )
    # The log-softmax and the gather by hand: torch's own 2-d loss has no deterministic gradient on a GPU.
    truth = one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    log_probability = torch.log_softmax(logits, dim=1)
    ce = -(truth * log_probability).sum(1).mean()
    return ce_weight * ce + dice_weight * (1 - _soft_dice(log_probability.exp(), truth)).mean()


def quiet_loss(logits: Tensor, target: Tensor) -> Tensor:
    """``QUIET_WEIGHT`` times the cross-entropy of the most probable pixel, in the images without a lesion.

    The gradient of cross-entropy over all pixels fades as a false region shrinks, and that of Dice as its
    probability comes close to 1. Here the gradient on the logits of a quiet image sums to ``QUIET_WEIGHT``
    times its highest probability, over the number of images of the batch, however small the region is.

    Args:
        logits: (b, 1, H, W), or (b, classes, H, W) with the background first.
        target: as in ``segmentation_loss``.
    Returns:
        A scalar: the mean over all images, 0 for those with a lesion.
    """
    lesion = target >= 0.5 if logits.shape[1] == 1 else target > 0
    quiet = ~lesion.flatten(1).any(1)
    peak = foreground(logits).flatten(1).amax(1)  # (b,)
    return QUIET_WEIGHT * (softplus(peak) * quiet).mean()


def foreground(logits: Tensor) -> Tensor:
    """(b, classes, H, W) -> (b, H, W), the logit of being none of the background."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return torch.logsumexp(logits[:, 1:], 1) - logits[:, 0]


def segmentation_loss(
    logits: Tensor, target: Tensor, *, ce_weight: float = 1.0, dice_weight: float = 1.0
) -> Tensor:
    """``bce_dice_loss`` for one class, ``ce_dice_loss`` for several."""
    if logits.shape[1] == 1:
        return bce_dice_loss(logits, target, bce_weight=ce_weight, dice_weight=dice_weight)
    return ce_dice_loss(logits, target, ce_weight=ce_weight, dice_weight=dice_weight)


def _soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    """(b, c, H, W) twice -> (b, c), the soft Dice score of every class in every image."""
    p, t = probability.flatten(2), truth.flatten(2)
    return (2 * (p * t).sum(2) + SMOOTH_PX) / (p.sum(2) + t.sum(2) + SMOOTH_PX)
