"""Volumes: HD95 against two computations of our own, and an organ that is missing on either side."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.metrics import f1_score

from tests import FIND_TESTS
from tests.evaluation.colour_runners import ClassRunner, labelled
from tests.tolerances import tol
from vmkla.errors import BadInputError
from vmkla.evaluation import evaluate
from vmkla.evaluation.volumes import VolumeScores, hd95, score_volume

Mask = npt.NDArray[np.bool_]
NAMES = ("background", "liver", "spleen")


def surface(mask: Mask) -> npt.NDArray[np.float64]:
    """Voxels with a neighbour (sharing a face) outside the mask; beyond the border all is outside."""
    points = {tuple(map(int, p)) for p in np.argwhere(mask)}
    steps = [s for s in itertools.product((-1, 0, 1), repeat=mask.ndim) if sum(map(abs, s)) == 1]
    edge = [p for p in points if any(tuple(np.add(p, s)) not in points for s in steps)]
    return np.array(sorted(edge), np.float64)


def by_all_pairs(prediction: Mask, truth: Mask) -> float:
    """HD95 from the distance of every surface voxel to every other."""
    a, b = surface(prediction), surface(truth)
    between = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return float(np.percentile(np.concatenate([between.min(1), between.min(0)]), 95))


def by_distance_maps(prediction: Mask, truth: Mask) -> float:
    """HD95 from Euclidean distance transforms, as MedPy computes it."""
    edges = [mask ^ ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    forth = ndimage.distance_transform_edt(~edges[1])[edges[0]]
    back = ndimage.distance_transform_edt(~edges[0])[edges[1]]
    return float(np.percentile(np.hstack([forth, back]), 95))


@settings(max_examples=60)
@given(
    masks=hnp.arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 5), st.integers(2, 7), st.integers(2, 7)))
)
def test_hd95_against_two_other_computations(masks: Any) -> None:
    prediction, truth = masks
    found = hd95(prediction, truth)
    if not prediction.any() or not truth.any():
        assert math.isnan(found)
        return
    allowed = tol(("monai", "all pairs"), torch.float32)
    np.testing.assert_allclose(found, by_all_pairs(prediction, truth), **allowed)
    np.testing.assert_allclose(found, by_distance_maps(prediction, truth), **allowed)
    assert hd95(truth, prediction) == found
    assert hd95(truth, truth) == 0.0


def test_hd95_of_known_shapes() -> None:
    truth = np.zeros((4, 40, 40), np.bool_)
    truth[:, 10:20, 10:20] = True
    assert hd95(np.roll(truth, 7, 2), truth) == 7.0
    speck = truth.copy()
    speck[0, 39, 39] = True  # one voxel in hundreds: the 95th percentile forgives it, the maximum would not
    assert hd95(speck, truth) == 0.0
    image = truth[0]
    assert hd95(np.roll(image, 3, 0), image) == 3.0


def test_an_organ_missing_on_either_side() -> None:
    """Neither: Dice 1. Missed or invented: Dice 0, and never a distance of 0."""
    volume = np.zeros((3, 12, 12), np.uint8)
    volume[:, 2:6, 2:6] = 1
    nothing = np.zeros_like(volume)
    there, absent = score_volume(volume, volume, 2)
    assert (there.dice, there.hd95) == (1.0, 0.0) and absent.dice == 1.0 and math.isnan(absent.hd95)
    for prediction, truth in ((nothing, volume), (volume, nothing)):
        score = score_volume(prediction, truth, 1)[0]
        assert score.dice == 0.0 and math.isnan(score.hd95)
        assert (score.in_prediction, score.in_truth) == (bool(prediction.any()), bool(truth.any()))


def slices(case: str, prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> list[Any]:
    """A volume's slices as samples."""
    return [
        labelled(f"{case}/{n}", p, t, case) for n, (p, t) in enumerate(zip(prediction, truth, strict=True))
    ]


def two_volumes() -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """The first has both organs, moved by two voxels; the second has a spleen that is missed."""
    first = np.zeros((5, 24, 30), np.uint8)
    first[1:4, 4:12, 4:12] = 1
    first[:, 15:20, 15:25] = 2
    second = np.zeros((3, 24, 30), np.uint8)
    second[:, 5:15, 5:15] = 1
    second[1:, 18:20, 18:28] = 2
    return {"case1": (np.roll(first, 2, 1), first), "case2": (np.where(second == 2, 0, second), second)}


def test_volumes_through_evaluate() -> None:
    cases = two_volumes()
    samples = [sample for case, pair in cases.items() for sample in slices(case, *pair)]
    result = evaluate(ClassRunner(24, 30, NAMES), samples, volumes=True)["volumes"]
    assert result["count"] == 2 and list(result["by_organ"]) == ["liver", "spleen"]
    for case, (prediction, truth) in cases.items():
        for index, name in enumerate(NAMES[1:], 1):
            found = result["each"][case][name]
            assert found["dice"] == pytest.approx(
                f1_score((truth == index).ravel(), (prediction == index).ravel())
            )
            if (prediction == index).any():
                assert found["hd95_voxels"] == pytest.approx(
                    by_all_pairs(prediction == index, truth == index)
                )
    liver, spleen = result["by_organ"].values()
    assert liver["dice"] == pytest.approx(np.mean([result["each"][case]["liver"]["dice"] for case in cases]))
    assert (liver["missed"], liver["invented"], liver["absent"], liver["volumes"]) == (0, 0, 0, 2)
    assert spleen["missed"] == 1 and result["each"]["case2"]["spleen"] == {"dice": 0.0, "hd95_voxels": None}
    assert spleen["hd95_voxels"] == result["each"]["case1"]["spleen"]["hd95_voxels"] == 2.0
    assert result["dice"] == pytest.approx((liver["dice"] + spleen["dice"]) / 2)
    means = [np.mean([organ["dice"] for organ in result["each"][case].values()]) for case in cases]
    assert result["dice_std"] == pytest.approx(np.std(means))
    assert result["dice_ci95"] == pytest.approx(sorted(means))  # of two volumes one may be drawn twice
    assert result["hd95_voxels"] == pytest.approx((liver["hd95_voxels"] + spleen["hd95_voxels"]) / 2)


def test_dice_of_a_volume_is_not_the_mean_over_its_slices() -> None:
    truth = np.zeros((2, 8, 8), np.uint8)
    truth[0, :6, :6] = truth[1, :1, :1] = 1
    prediction = truth.copy()
    prediction[1] = 0  # the small slice is missed
    samples = slices("case", prediction, truth)
    result = evaluate(ClassRunner(8, 8, NAMES[:2]), samples, volumes=True)
    assert result["volumes"]["dice"] == pytest.approx(72 / 73)
    assert result["per_image"]["dice"] == pytest.approx(0.5)


def test_an_organ_that_no_volume_has() -> None:
    truth = np.zeros((2, 8, 8), np.uint8)
    truth[:, 2:5, 2:5] = 1
    result = evaluate(ClassRunner(8, 8, NAMES), slices("case", truth, truth), volumes=True)["volumes"]
    spleen = result["by_organ"]["spleen"]
    assert spleen["absent"] == 1 and spleen["dice"] == 1.0 and spleen["hd95_voxels"] is None
    assert result["hd95_voxels"] == 0.0  # of the liver alone


def test_slices_that_are_no_volume_are_refused() -> None:
    empty = np.zeros((8, 8), np.uint8)
    scores = VolumeScores(("liver",))
    with pytest.raises(BadInputError, match="belongs to no volume"):
        scores.add(labelled("x", empty, empty), empty)
    for case in ("a", "b"):
        scores.add(labelled("x", empty, empty, case), empty)
    with pytest.raises(BadInputError, match="do not come one after the other"):
        scores.add(labelled("x", empty, empty, "a"), empty)
    larger = np.zeros((9, 8), np.uint8)
    scores = VolumeScores(("liver",))
    scores.add(labelled("x", empty, empty, "a"), empty)
    with pytest.raises(BadInputError, match=r"\(9, 8\)"):
        scores.add(labelled("y", larger, larger, "a"), larger)


def test_images_alone_need_neither_torch_nor_monai() -> None:
    code = """
import numpy as np
from tests.evaluation.colour_runners import RedRunner, labelled
from vmkla.evaluation import evaluate
mask = np.eye(32, dtype=bool)
assert evaluate(RedRunner(32, 32), [labelled("x", mask, mask)])["per_image"]["dice"] == 1
sys.exit(f"loaded: {sorted({'torch', 'monai', 'matplotlib'} & set(sys.modules))}"
         if {"torch", "monai", "matplotlib"} & set(sys.modules) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", FIND_TESTS + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
