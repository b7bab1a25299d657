"""Grad-CAM against its definition, with gradients taken by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from tests.export.exported_models import TINY, network
from tests.tolerances import tol
from vmkla.errors import UsageError
from vmkla.models.gradcam import DecoderGradCam
from vmkla.models.vmkla_unet import VMKLAUNet, build_model

SIZE = (64, 96)


def copy_of(model: VMKLAUNet) -> VMKLAUNet:
    twin = build_model(model.config).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def by_definition(model: VMKLAUNet, x: torch.Tensor, stage: int, channel: int) -> torch.Tensor:
    """relu(sum_c mean(dS / da_c) a_c) of one image, stretched to its size."""
    kept: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, out: torch.Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    handle = model.decoder.stages[stage].blocks[0].register_forward_hook(keep)  # type: ignore[union-attr, index]
    logits = model(x)
    handle.remove()
    marked = logits[0, 0] >= 0 if logits.shape[1] == 1 else logits[0].argmax(0) == channel
    plane = logits[0, channel]
    (plane[marked].mean() if marked.any() else plane.max()).backward()
    a, grad = kept[0][0], kept[0].grad[0]  # (h, w, C) each
    heat = (a * grad.mean(dim=(0, 1))).sum(-1).clamp(min=0)
    return interpolate(heat[None, None], SIZE, mode="bilinear")[0, 0].detach()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_heat_is_the_definitions(stage: int) -> None:
    model = copy_of(network())
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(stage))
    expected = by_definition(model, x, stage, 0)
    found = DecoderGradCam(copy_of(network()), stage, 0)(x)
    assert expected.max() > 0, "a map of zeros would compare nothing"
    scale = expected.max()
    torch.testing.assert_close(
        found.heat[0] / scale, expected / scale, **tol(("grad-cam", "definition"), torch.float32)
    )


def test_without_a_mark_the_largest_logit_is_explained() -> None:
    model = copy_of(network())
    with torch.no_grad():
        model.head.project.bias.fill_(-100.0)
    twin = copy_of(model)
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(9))
    expected = by_definition(model, x, 3, 0)
    found = DecoderGradCam(twin, 3, 0)(x)
    assert not (found.logits >= 0).any() and expected.max() > 0
    scale = expected.max()
    torch.testing.assert_close(
        found.heat[0] / scale, expected / scale, **tol(("grad-cam", "definition"), torch.float32)
    )


def test_of_several_classes_the_one_marked_most_is_explained() -> None:
    config = dataclasses.replace(TINY, num_classes=4)
    model = copy_of(network(config))
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(10))
    with torch.no_grad():
        counts = torch.bincount(model(x)[0].argmax(0).flatten(), minlength=4)
    chosen = 1 + int(counts[1:].argmax())
    assert counts[chosen] > 0
    expected = by_definition(copy_of(model), x, 3, chosen)
    found = DecoderGradCam(model, 3, 0)(x)
    torch.testing.assert_close(
        found.heat[0] / expected.max(),
        expected / expected.max(),
        **tol(("grad-cam", "definition"), torch.float32),
    )


def test_the_network_says_the_same_as_before_and_images_do_not_mix() -> None:
    model = copy_of(network())
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        expected = model(x)
    cam = DecoderGradCam(model, 3, 0)
    both = cam(x)
    torch.testing.assert_close(both.logits, expected, **tol(("batch", "single"), torch.float32))
    for number in (0, 1):
        alone = cam(x[number : number + 1]).heat[0]
        assert alone.max() > 0
        torch.testing.assert_close(
            both.heat[number] / alone.max(),
            alone / alone.max(),
            **tol(("grad-cam", "definition"), torch.float32),
        )


@pytest.mark.parametrize(("stage", "block"), [(4, 0), (-1, 0), (0, 1)])
def test_a_block_that_is_not_there(stage: int, block: int) -> None:
    with pytest.raises(UsageError, match=rf"{stage}\.{block}"):
        DecoderGradCam(copy_of(network()), stage, block)
