"""Heat maps on an image's own pixels, and the picture that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.export.exported_models import HEIGHT, WIDTH, frames, network
from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.explain import BlockName, Panel, PanelHeat, side_by_side
from vmkla.models.checkpoints import save_weights
from vmkla.segment.findings import Findings


@pytest.mark.parametrize(
    ("text", "expected"), [("3", (3, None)), ("2.0", (2, 0)), (" 1.12 ", (1, 12)), ("0.3", (0, 3))]
)
def test_names_of_blocks(text: str, expected: tuple[int, int | None]) -> None:
    name = BlockName.parse(text)
    assert (name.stage, name.block) == expected


@pytest.mark.parametrize("text", ["", "-1", "a.b", "1.", "1.2.3", ".1"])
def test_what_names_no_block(text: str) -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        BlockName.parse(text)


def test_a_panel_sees_what_the_runner_sees(tiny_weights: Path) -> None:
    from vmkla.engines.runners.torch_runner import TorchRunner

    panel = Panel(tiny_weights, BlockName(3))
    assert panel.title == "mkcsa 3.0"
    image = frames(1, 2 * HEIGHT, 2 * WIDTH, seed=4)[0]
    view = panel(image)
    assert view.heat.shape == image.shape[:2] and view.heat.dtype == np.float32
    assert view.heat.min() >= 0 and view.heat.max() == pytest.approx(1.0)
    runner = TorchRunner.from_file(tiny_weights)
    from vmkla.segment.findings import find
    from vmkla.segment.preprocess import field_of_view, prepare

    spec = runner.spec.metadata.preprocess
    rect = field_of_view(image, spec.roi)
    probability = runner.infer(prepare(image, spec, rect)[None])[0]
    expected = find(probability, rect, image.shape[:2], panel.point)
    assert expected.any and not (expected.mask > 0).all()
    # A pixel on the edge may fall either way: the two passes add up in another order.
    assert np.mean(view.findings.mask != expected.mask) < 1e-3
    inside = view.heat_in_mark
    assert inside == pytest.approx(view.heat[view.findings.mask > 0].sum() / view.heat.sum(), rel=1e-5)


def test_two_blocks_see_different_things(tiny_weights: Path) -> None:
    image = frames(1, seed=5)[0]
    deep, shallow = (Panel(tiny_weights, BlockName(stage))(image).heat for stage in (0, 3))
    assert np.abs(deep - shallow).max() > 0.1


def test_outside_the_field_of_view_there_is_no_heat(tmp_path: Path) -> None:
    path = tmp_path / "auto.safetensors"
    save_weights(network(), path, training={"image_size_hw": [HEIGHT, WIDTH], "roi": "auto"})
    image = np.zeros((120, 200, 3), np.uint8)
    image[20:100, 40:160] = 60 + frames(1, 80, 120, seed=6)[0] // 2
    view = Panel(path, BlockName(3))(image)
    assert view.heat.max() == pytest.approx(1.0)
    assert not view.heat[:16].any() and not view.heat[:, :36].any()


def test_the_picture_shows_each_panel_beside_the_image() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    heat = np.zeros((60, 80), np.float32)
    heat[20:40, 30:50] = 1.0
    nothing = Findings(np.zeros((60, 80), np.uint8))
    cold = PanelHeat("cold", np.zeros((60, 80), np.float32), nothing)
    picture = side_by_side(image, [PanelHeat("hot", heat, nothing), cold])
    title_px = picture.shape[0] - 60
    assert picture.shape == (60 + title_px, 3 * 80 + 2 * 6, 3)
    first, hot, cool = picture[title_px:, :80], picture[title_px:, 86:166], picture[title_px:, 172:]
    assert np.array_equal(first, image)
    red, green, blue = hot[30, 40].astype(int)
    assert red > blue and red > green  # hot is red, cold is blue
    assert hot[5, 5, 2] > hot[5, 5, 0] and np.array_equal(hot[5, 5], cool[30, 40])
    assert cold.heat_in_mark is None
    for left in (0, 86, 172):
        assert (picture[:title_px, left : left + 80] < 128).any(), "a title is missing"


def test_weights_that_name_no_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sizeless.safetensors"
    save_weights(network(), path, training=json.loads("{}"))
    with pytest.raises(ArtefactMismatchError, match="does not state the size of its training"):
        Panel(path, BlockName(3))
