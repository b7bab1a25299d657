"""Losses against plain numpy in float64, their gradients, and extreme logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vmkla.errors import ShapeError
from vmkla.training.losses import bce_dice_loss, ce_dice_loss, dice_loss, quiet_loss, segmentation_loss


def naive(logits: np.ndarray, target: np.ndarray, bce_weight: float, dice_weight: float) -> float:  # type: ignore[type-arg]
    """The sum as one writes it down, image by image."""
    probability = 1 / (1 + np.exp(-logits))
    bce = -(target * np.log(probability) + (1 - target) * np.log(1 - probability)).mean()
    dice = []
    for p, t in zip(probability, target, strict=True):
        dice.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    return float(bce_weight * bce + dice_weight * np.mean(dice))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.5)])
def test_value(weights: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        logits = rng.normal(0, 2, (3, 1, 6, 5))
        target = (rng.random((3, 1, 6, 5)) < 0.3).astype(np.float64)
        loss = bce_dice_loss(
            torch.from_numpy(logits), torch.from_numpy(target), bce_weight=weights[0], dice_weight=weights[1]
        )
        assert float(loss) == pytest.approx(naive(logits, target, *weights), rel=1e-10)


def test_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(2, 1, 4, 3) < 0.5).double()
    assert torch.autograd.gradcheck(lambda x: bce_dice_loss(x, target), logits)


def test_dice_is_per_image() -> None:
    """A missed small polyp counts as much as a missed large one."""
    target = torch.zeros(2, 1, 32, 32)
    target[0, 0, :2, :2] = 1
    target[1, 0, :20, :20] = 1
    losses = dice_loss(torch.full((2, 1, 32, 32), -30.0), target)
    assert losses[0] == pytest.approx(1 - 1 / 5, abs=1e-6)
    assert losses[1] == pytest.approx(1 - 1 / 401, abs=1e-6)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits_stay_finite(logit: float) -> None:
    logits = torch.full((1, 1, 4, 4), logit, requires_grad=True)
    for value in (0.0, 1.0):
        loss = bce_dice_loss(logits, torch.full((1, 1, 4, 4), value))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        right = (logit > 0) == (value == 1)
        assert (loss < 1e-6) if right else (loss > 200)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError):
        bce_dice_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ShapeError):
        bce_dice_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))


def naive_classes(logits: np.ndarray, target: np.ndarray, weights: tuple[float, float]) -> float:  # type: ignore[type-arg]
    """Cross-entropy and Dice of several classes, pixel by pixel and class by class."""
    images, classes, height, width = logits.shape
    total = 0.0
    for b in range(images):
        probability = np.exp(logits[b]) / np.exp(logits[b]).sum(0)
        ce = 0.0
        for y in range(height):
            for x in range(width):
                ce -= np.log(probability[target[b, y, x], y, x])
        dice = []
        for c in range(classes):
            p, t = probability[c], (target[b] == c).astype(float)
            dice.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        total += weights[0] * ce / (height * width) + weights[1] * float(np.mean(dice))
    return total / images


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.4, 0.6)])
@pytest.mark.parametrize("classes", [2, 5])
def test_value_of_several_classes(weights: tuple[float, float], classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 2, (3, classes, 6, 5))
    target = rng.integers(0, classes, (3, 6, 5))
    target[0] = 0  # an image without any foreground
    values = torch.from_numpy(logits), torch.from_numpy(target)
    loss = segmentation_loss(*values, ce_weight=weights[0], dice_weight=weights[1])
    assert float(loss) == pytest.approx(naive_classes(logits, target, weights), rel=1e-10)


def test_gradient_of_several_classes() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 3))
    assert torch.autograd.gradcheck(lambda x: ce_dice_loss(x, target), logits)


@pytest.mark.parametrize("classes", [1, 4])
def test_a_batch_is_the_mean_of_its_parts(classes: int) -> None:
    """What lets processes share a batch."""
    torch.manual_seed(0)
    logits = torch.randn(4, classes, 8, 8, dtype=torch.float64)
    target = (torch.rand(4, 1, 8, 8) < 0.3).double() if classes == 1 else torch.randint(0, classes, (4, 8, 8))
    halves = [float(segmentation_loss(logits[part], target[part])) for part in (slice(2), slice(2, 4))]
    assert float(segmentation_loss(logits, target)) == pytest.approx(sum(halves) / 2, rel=1e-12)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits_of_several_classes_stay_finite(logit: float) -> None:
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1] = logit
    logits.requires_grad_()
    for value in (0, 1):
        loss = ce_dice_loss(logits, torch.full((1, 4, 4), value))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_shapes_of_several_classes_are_checked() -> None:
    with pytest.raises(ShapeError, match="two classes or more"):
        ce_dice_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))
    with pytest.raises(ShapeError):
        ce_dice_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int64))


def speck(area: int, classes: int, side: int = 64) -> torch.Tensor:
    """Logits (1, classes, side, side) of a sure background with so many pixels of 98 % foreground."""
    logits = torch.zeros(1, classes, side, side, dtype=torch.float64)
    logits[:, max(0, classes - 2) :] = -15.0  # both foreground classes of three
    logits[0, -1].view(-1)[1000 : 1000 + area] = np.log(0.98 / 0.02)
    return logits.requires_grad_()


@pytest.mark.parametrize("classes", [1, 3])
def test_a_false_speck_keeps_its_gradient_however_small_it_is(classes: int) -> None:
    """The floor is the speck's probability; that of cross-entropy over all pixels falls with its area."""
    target = torch.zeros(1, 1, 64, 64).double() if classes == 1 else torch.zeros(1, 64, 64).long()
    for area in (400, 25, 1):
        logits = speck(area, classes)
        (floor,) = torch.autograd.grad(quiet_loss(logits, target), logits)
        (usual,) = torch.autograd.grad(segmentation_loss(logits, target, dice_weight=0.0), logits)
        assert float(floor[:, -1].sum()) == pytest.approx(0.2 * 0.98, abs=1e-6)
        assert float(usual[:, -1].sum()) == pytest.approx(0.98 * area / 64**2, rel=1e-2)


def test_images_with_a_lesion_have_no_quiet_loss() -> None:
    """Nor have pixels that a soft target calls a lesion; the mean is over all images."""
    logits = torch.cat([speck(9, 1), speck(9, 1)]).detach().requires_grad_()
    target = torch.zeros(2, 1, 64, 64).double()
    target[0, 0, 40, 40] = 0.5
    loss = quiet_loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(-0.2 * np.log(0.02) / 2, rel=1e-6)
    assert not gradient[0].any() and float(gradient[1].sum()) == pytest.approx(0.2 * 0.49, abs=1e-6)
    target[0, 0, 40, 40] = 0.49
    assert quiet_loss(logits, target).item() == pytest.approx(-0.2 * np.log(0.02), rel=1e-6)
