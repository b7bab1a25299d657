"""Judging a runner: the figures against a count by hand, and the way of the pixels against ``infer``'s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sklearn_metrics

from tests.evaluation.colour_runners import ClassRunner, Labelled, RedRunner, labelled
from vmkla.errors import BadInputError, UsageError
from vmkla.evaluation import evaluate
from vmkla.segment.operating_point import OperatingPoint, PointOverrides
from vmkla.segment.preprocess import PreprocessSpec, Rect


def four_images() -> list[Labelled]:
    """A half-found polyp, a missed one, a false alarm and a clean frame, of different sizes."""
    left = np.zeros((40, 60), np.bool_)
    left[:, :30] = True
    top = np.zeros((40, 60), np.bool_)
    top[:20] = True
    nothing = np.zeros((20, 20), np.bool_)
    spot = nothing.copy()
    spot[5:10, 5:15] = True
    return [
        labelled("half", left, top),
        labelled("missed", nothing, spot),
        labelled("alarm", spot, nothing),
        labelled("clean", nothing, nothing),
    ]


def test_figures_against_a_count_by_hand() -> None:
    report: dict[str, Any] = {}
    images = four_images()
    for image in images:
        runner = RedRunner(*image.mask.shape)  # the network's size is the image's: no interpolation
        report[image.name] = evaluate(runner, [image])["each"][0]
    assert [report[image.name]["dice"] for image in images] == [0.5, 0.0, 0.0, 1.0]
    assert report["half"]["iou"] == pytest.approx(1 / 3)
    assert [report[image.name]["max_probability"] for image in images] == [1.0, 0.0, 1.0, 0.0]


def test_totals() -> None:
    images = four_images()[1:]  # three of one size
    result = evaluate(RedRunner(20, 20), images)
    assert result["images"] == 3 and result["resolution"] == "native" and result["threshold"] == 0.5
    assert result["per_image"]["dice"] == pytest.approx(1 / 3)
    assert result["per_image"]["dice_std"] == pytest.approx(np.std([0, 0, 1]))
    low, high = result["per_image"]["dice_ci95"]
    assert 0 <= low < 1 / 3 < high <= 1
    # One matrix over 1200 pixels: 50 missed, 50 false, 1100 right.
    assert result["global"]["dsc"] == 0.0 and result["global"]["miou"] == 0.0
    assert result["global"]["accuracy"] == pytest.approx(1100 / 1200)
    assert result["without_polyp"] == {
        "images": 2, "false_alarms": 1, "any_mark": 1, "region_fraction": 0.005,
    }  # fmt: skip
    assert result["with_polyp"] == {"images": 1, "missed": 1}
    names = {"dsc", "miou", "accuracy", "sensitivity", "specificity"}
    assert set(result["global"]) == names | {f"{name}_ci95" for name in names}


def test_the_way_of_the_pixels_written_out() -> None:
    """Shrink by area, threshold after linear enlargement: against OpenCV called here."""
    rng = np.random.default_rng(1)
    coarse = rng.random((6, 8)) < 0.4
    red = np.kron(coarse, np.ones((13, 11))).astype(np.bool_)
    truth = np.roll(red, 4, 1)
    image = labelled("x", red, truth)
    result = evaluate(RedRunner(32, 32), [image])["each"][0]
    small = cv2.resize(image.image_rgb, (32, 32), interpolation=cv2.INTER_AREA)[..., 0] / np.float32(255)
    found = cv2.resize(small.astype(np.float32), red.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
    assert result["dice"] == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    at_model = evaluate(RedRunner(32, 32), [image], at_native=False)
    share = cv2.resize(truth.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA) >= 0.5
    expected = 2 * ((small >= 0.5) & share).sum() / ((small >= 0.5).sum() + share.sum())
    assert at_model["each"][0]["dice"] == pytest.approx(expected) and at_model["resolution"] == "32x32"


def test_threshold_batch_and_field_of_view() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:20, 10:20] = True
    bright = (mask[..., None] * np.array([120, 200, 200])).astype(np.uint8) + np.uint8(60)
    image = Labelled("x", bright, mask.astype(np.uint8))
    assert evaluate(RedRunner(40, 40), [image])["per_image"]["dice"] == 1.0  # 180/255 against 0.5
    strict = evaluate(RedRunner(40, 40, batch=3), [image], point=PointOverrides(0.8))
    assert strict["per_image"]["dice"] == 0.0 and strict["threshold"] == 0.8
    framed = np.zeros((80, 100, 3), np.uint8)
    framed[20:60, 30:70] = image.image_rgb
    truth = np.zeros((80, 100), np.uint8)
    truth[20:60, 30:70] = mask
    report = evaluate(RedRunner(40, 40, roi="auto"), [Labelled("y", framed, truth)])
    assert report["per_image"]["dice"] > 0.9


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadInputError, match="no labelled image"):
        evaluate(RedRunner(32, 32), [])
    with pytest.raises(UsageError, match="threshold is 7"):
        evaluate(RedRunner(32, 32), four_images(), point=PointOverrides(7))


def disc(height: int, width: int, y: int, x: int, radius: int) -> npt.NDArray[np.bool_]:
    """A filled circle."""
    down, across = np.mgrid[:height, :width]
    return (down - y) ** 2 + (across - x) ** 2 <= radius**2


@pytest.mark.parametrize(
    ("wrong", "dice", "sensitivity", "specificity"),
    [
        ("inverted", 0.0, 0.0, 0.0),
        ("everything", 2 * 0.25 / 1.25, 1.0, 0.0),
        ("nothing", 0.0, 0.0, 1.0),
        ("shifted by half its width", 0.5, 0.5, 1 - 0.125 / 0.75),
        ("mirrored", 0.0, 0.0, 1 - 0.25 / 0.75),
    ],
)
def test_a_wrong_prediction_gets_the_score_that_it_deserves(
    wrong: str, dice: float, sensitivity: float, specificity: float
) -> None:
    """The truth is the left quarter of an image; the figures follow from areas alone."""
    truth = np.zeros((32, 64), np.bool_)
    truth[:, :16] = True
    prediction = {
        "inverted": ~truth,
        "everything": np.ones_like(truth),
        "nothing": np.zeros_like(truth),
        "shifted by half its width": np.roll(truth, 8, 1),
        "mirrored": truth[:, ::-1],
    }[wrong]
    result = evaluate(RedRunner(32, 64), [labelled("x", prediction, truth)])
    for view in (result, *result["resolutions"].values()):
        for values in (view["per_image"], {**view["global"], "dice": view["global"]["dsc"]}):
            assert values["dice"] == pytest.approx(dice)
            assert values["sensitivity"] == pytest.approx(sensitivity)
            assert values["specificity"] == pytest.approx(specificity)
    assert result["with_polyp"]["missed"] == (sensitivity == 0)


def test_both_families_at_both_resolutions_against_scikit_learn() -> None:
    """Images of different sizes, so that every one of the four figures is another number."""
    rng = np.random.default_rng(3)
    images = []
    for number, (height, width) in enumerate([(40, 60), (96, 64), (50, 50), (128, 40), (33, 77)]):
        truth = disc(height, width, height // 2, width // 2, 6 + 2 * number)
        noise = cv2.resize(rng.random((6, 6)).astype(np.float32), (width, height)) > 0.55
        images.append(labelled(f"{number}", truth ^ noise, truth))
    runner = RedRunner(32, 32)
    pixels: dict[str, list[tuple[Any, Any]]] = {"native": [], "model": []}
    for image in images:
        size_wh = image.mask.shape[::-1]
        small = cv2.resize(image.image_rgb[..., 0], (32, 32), interpolation=cv2.INTER_AREA) / np.float32(255)
        large = cv2.resize(small, size_wh, interpolation=cv2.INTER_LINEAR)
        share = cv2.resize(image.mask.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
        pixels["native"].append((image.mask > 0, large >= 0.5))
        pixels["model"].append((share >= 0.5, small >= 0.5))
    result = evaluate(runner, images)
    scores = {
        "dice": sklearn_metrics.f1_score,
        "iou": sklearn_metrics.jaccard_score,
        "accuracy": sklearn_metrics.accuracy_score,
        "sensitivity": sklearn_metrics.recall_score,
        "specificity": lambda truth, found: sklearn_metrics.recall_score(truth, found, pos_label=0),
    }
    assert result["resolutions"]["native"]["resolution"] == "native"
    assert result["resolutions"]["model"]["resolution"] == "32x32"
    seen = set()
    for where, pairs in pixels.items():
        view = result["resolutions"][where]
        whole = [np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1)]
        for name, score in scores.items():
            each = [score(truth.ravel(), found.ravel()) for truth, found in pairs]
            assert view["per_image"][name] == pytest.approx(np.mean(each))
            assert view["per_image"][f"{name}_std"] == pytest.approx(np.std(each))
            short = {"dice": "dsc", "iou": "miou"}.get(name, name)
            assert view["global"][short] == pytest.approx(score(*whole))
            low, high = view["global"][f"{short}_ci95"]
            assert low <= view["global"][short] <= high and low < high
        seen |= {round(view["per_image"]["dice"], 6), round(view["global"]["dsc"], 6)}
    assert len(seen) == 4, "the four figures must differ, or a mix-up would pass"
    for key in ("per_image", "global", "with_polyp", "resolution"):
        assert result[key] == result["resolutions"]["native"][key]
        swapped = evaluate(runner, images, at_native=False)
        assert swapped[key] == result["resolutions"]["model"][key]


def test_false_alarms_by_region_and_by_pixel() -> None:
    """Of 40 x 50 pixels a region of 10 is 0.5 %: only what is larger is an alarm."""

    def frame(*boxes: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
        mask = np.zeros((40, 50), np.bool_)
        for y, x, h, w in boxes:
            mask[y : y + h, x : x + w] = True
        return mask

    empty = frame()
    frames = {
        "a pixel less than 0.5 %": frame((5, 5, 3, 3)),
        "just 0.5 %": frame((5, 5, 2, 5)),
        "joined at a corner": frame((5, 5, 3, 3), (8, 8, 1, 1)),
        "many specks": frame(*[(y, x, 2, 2) for y in range(2, 38, 6) for x in range(2, 48, 6)]),
        "clean": empty,
    }
    alarms = {}
    for name, found in frames.items():
        alarms[name] = evaluate(RedRunner(40, 50), [labelled(name, found, empty)])["without_polyp"]
    assert [alarm["false_alarms"] for alarm in alarms.values()] == [0, 1, 1, 0, 0]
    assert [alarm["any_mark"] for alarm in alarms.values()] == [1, 1, 1, 1, 0]
    assert all(alarm["region_fraction"] == 0.005 and alarm["images"] == 1 for alarm in alarms.values())


def test_findings_at_the_point_in_force() -> None:
    """The raw mask stays; lesions, alarms and their counts follow the model's point or the given one."""
    truth = np.zeros((40, 50), np.uint8)
    truth[5:15, 5:15] = 1
    image = np.zeros((40, 50, 3), np.uint8)
    image[5:15, 5:15, 0], image[5:15, 30:40, 0], image[30:33, 30:32, 0] = 255, 180, 255
    images = [Labelled("lesion", image, truth), Labelled("none", image, truth * np.uint8(0))]
    plain, own = RedRunner(40, 50), RedRunner(40, 50)
    stated = OperatingPoint(0.5, 0.9, 0.002)
    own.spec = replace(own.spec, metadata=replace(own.spec.metadata, operating_point=stated))

    def figures(runner: RedRunner, **given: float) -> tuple[Any, ...]:
        report = evaluate(runner, images, point=PointOverrides(**given))
        lesions = report["lesions"]
        assert report["per_image"] == evaluate(plain, images)["per_image"], "of the raw mask"
        assert report["without_polyp"]["false_alarms"] == lesions["alarms"]
        assert report["without_polyp"]["region_fraction"] == report["operating_point"]["min_fraction"]
        counts = tuple(lesions[name] for name in ("found", "false_regions", "alarms"))
        return (*counts, report["operating_point"], report["operating_point_from"])

    default = "eval's default, since the model states none"
    assert figures(plain) == (1, 3, 1, OperatingPoint(0.5, 0.5, 0.005).to_dict(), default)
    assert figures(own) == (1, 3, 1, stated.to_dict(), "the model's own")
    found = figures(own, peak=1.0, min_fraction=0.01)
    given = "peak and min_fraction as given, the rest the model's own"
    assert found == (1, 1, 1, OperatingPoint(0.5, 1.0, 0.01).to_dict(), given)
    assert figures(plain, min_fraction=0.0)[:3] == (1, 5, 1)
    assert figures(plain, min_fraction=0.06)[:3] == (0, 0, 0)


def test_strata_by_size() -> None:
    """Lesions of 4, 5, 10, 15 and 16 % of 10 x 10 pixels; only those of 4 and 15 % are found."""
    images = []
    for share in (4, 5, 10, 15, 16):
        truth = np.arange(100).reshape(10, 10) < share
        images.append(labelled(f"{share}", truth & (share in (4, 15)), truth))
    images.append(labelled("none", np.zeros((10, 10), np.bool_), np.zeros((10, 10), np.bool_)))
    by_size = evaluate(RedRunner(10, 10), images)["by_size"]
    assert by_size["limits"] == [0.05, 0.15]
    assert [by_size[size]["images"] for size in ("small", "medium", "large")] == [1, 2, 2]
    assert [by_size[size]["dice"] for size in ("small", "medium", "large")] == [1.0, 0.0, 0.5]
    assert [by_size[size]["missed"] for size in ("small", "medium", "large")] == [0, 2, 1]
    alone = evaluate(RedRunner(10, 10), images[:1])["by_size"]
    assert alone["large"] == {"images": 0} and alone["small"]["dice_ci95"] == [1.0, 1.0]


def test_sequences_and_sets() -> None:
    good = disc(20, 20, 10, 10, 5)
    bad = ~good
    rows = [("a", good), ("a", bad), ("b", good), ("b", good), ("b", good), ("c", bad), ("", bad)]
    images = [labelled(f"{n}", found, good, group) for n, (group, found) in enumerate(rows)]
    result = evaluate(RedRunner(20, 20), images)
    found = result["by_sequence"]
    assert found["sequences"] == 2 and set(found["each"]) == {"a", "b"}  # one frame is no sequence
    assert found["each"]["a"] == {"images": 2, "dice": 0.5, "dice_std": 0.5, "dice_min": 0.0, "missed": 1}
    assert found["mean_of_sequences"]["dice"] == 0.75
    low, high = found["image_mean_dice_ci95"]
    plain = result["per_image"]["dice_ci95"]
    assert low <= result["per_image"]["dice"] <= high and high - low != plain[1] - plain[0]
    assert evaluate(RedRunner(20, 20), images[5:])["by_sequence"] is None
    sets = evaluate(RedRunner(20, 20), {"one": images[:2], "two": images[2:], "empty": []})
    assert list(sets["by_set"]) == ["one", "two"]
    assert sets["by_set"]["one"]["per_image"]["dice"] == 0.5
    assert sets["per_image"] == result["per_image"]
    assert set(sets["by_sequence"]["each"]) == {"one/a", "two/b"}
    assert "by_set" not in result and "by_class" not in result and "volumes" not in result


def test_frames_of_one_sequence_widen_the_interval() -> None:
    """Ten sequences of ten equal frames carry what ten frames do, not what a hundred do."""
    good = disc(8, 8, 4, 4, 2)
    images = [
        labelled(f"{n}", good if n // 10 % 2 else ~good, good, f"sequence {n // 10}") for n in range(100)
    ]
    result = evaluate(RedRunner(8, 8), images)
    low, high = result["per_image"]["dice_ci95"]
    wide_low, wide_high = result["by_sequence"]["image_mean_dice_ci95"]
    assert 2.5 < (wide_high - wide_low) / (high - low) < 4  # sqrt(10) for frames that are copies


def test_several_classes_against_scikit_learn() -> None:
    rng = np.random.default_rng(8)
    names = ("background", "aorta", "liver", "spleen")
    truths, founds, images = [], [], []
    for number in range(4):
        truth = np.kron(rng.integers(0, 4, (4, 5)), np.ones((6, 6), int))
        found = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 4, truth.shape))
        if number == 0:
            truth[truth == 3] = found[found == 3] = 0  # the first image has no spleen at all
        truths.append(truth)
        founds.append(found)
        images.append(labelled(f"{number}", found.astype(np.uint8), truth))
    result = evaluate(ClassRunner(24, 30, names), images)
    assert result["class_names"] == list(names[1:]) and result["threshold"] is None
    whole = np.concatenate([t.ravel() for t in truths]), np.concatenate([f.ravel() for f in founds])
    labels = [1, 2, 3]
    dice = sklearn_metrics.f1_score(*whole, labels=labels, average=None)
    iou = sklearn_metrics.jaccard_score(*whole, labels=labels, average=None)
    assert [result["by_class"][name]["global"]["dsc"] for name in names[1:]] == pytest.approx(list(dice))
    assert [result["by_class"][name]["global"]["miou"] for name in names[1:]] == pytest.approx(list(iou))
    assert result["global"]["dsc"] == pytest.approx(dice.mean())
    each = np.array(
        [
            sklearn_metrics.f1_score(t.ravel(), f.ravel(), labels=labels, average=None, zero_division=1.0)
            for t, f in zip(truths, founds, strict=True)
        ]
    )
    assert result["per_image"]["dice"] == pytest.approx(each.mean())
    assert [row["dice"] for row in result["each"]] == pytest.approx(list(each.mean(1)))
    spleen = result["by_class"]["spleen"]
    assert spleen["images_with"] == 3 and spleen["dice_where_present"] == pytest.approx(each[1:, 2].mean())
    with pytest.raises(UsageError, match="4 classes"):
        evaluate(ClassRunner(24, 30, names), images, point=PointOverrides(0.5))
    with pytest.raises(BadInputError, match="class 3"):
        evaluate(ClassRunner(24, 30, names[:3]), images)
    with pytest.raises(BadInputError, match="class 2|class 3"):
        evaluate(RedRunner(24, 30), images)


def test_packed_images_are_called_so() -> None:
    truth = disc(20, 20, 10, 10, 5)
    image = labelled("x", truth, truth)
    packed = Labelled("x", image.image_rgb, image.mask, prepared=PreprocessSpec(20, 20, "auto"))
    result = evaluate(RedRunner(20, 20, roi="auto"), [packed])
    assert result["resolution"] == "as packed" and result["per_image"]["dice"] == 1.0
    with pytest.raises(BadInputError, match="field of view auto.*none"):
        evaluate(RedRunner(20, 20), [packed])


def test_truth_of_another_size_is_refused() -> None:
    image = labelled("x", np.zeros((20, 20), np.bool_), np.zeros((20, 21), np.bool_))
    with pytest.raises(BadInputError, match="must be equal"):
        evaluate(RedRunner(20, 20), [image])


def test_a_field_of_view_in_place_of_the_models_own() -> None:
    """Outside the rectangle nothing is looked at: a lesion there is missed."""
    truth = np.zeros((40, 40), np.bool_)
    truth[:, :10] = True
    image = labelled("x", truth, truth)
    assert evaluate(RedRunner(40, 40), [image])["per_image"]["dice"] == 1.0
    assert evaluate(RedRunner(40, 40), [image], roi=Rect(20, 0, 20, 40))["per_image"]["dice"] == 0.0


def test_a_real_runner_on_a_real_folder(tiny_onnx: Path, tmp_path: Path) -> None:
    from tests.data.labelled_folders import write_folder
    from vmkla.data.folder import iter_samples
    from vmkla.data.sources import DataSource
    from vmkla.engines import load_runner

    runner = load_runner(tiny_onnx, threads=1)
    try:
        samples = list(iter_samples([DataSource(write_folder(tmp_path / "set", 5))]))
        result = evaluate(runner, samples)
        assert result == evaluate(runner, samples)
        assert result["images"] == 5 and result["without_polyp"]["images"] == 1
        assert 0 < max(each["max_probability"] for each in result["each"]) < 1
    finally:
        runner.close()


@pytest.mark.needs_data
def test_validation_in_training_agrees_with_the_runner_on_real_images(
    shared_data: Path, tmp_path: Path
) -> None:
    """What the loop logs at the network's resolution is what ``evaluate`` says of the saved weights."""
    from vmkla.config import ModelConfig
    from vmkla.data.folder import iter_samples
    from vmkla.data.sources import DataSource
    from vmkla.engines import load_runner
    from vmkla.training import TrainConfig, train

    stems = (shared_data / "data/splits/val_PolypGen.txt").read_text(encoding="utf-8").split()
    sources = []
    for name, chosen in (("train", stems[:8]), ("val", stems[40:60])):
        (tmp_path / name).write_text("\n".join(chosen), encoding="utf-8")
        sources.append(DataSource(shared_data / "data/polypgen", tmp_path / name))
    tiny = ModelConfig("t", dim=16, encoder_depths=(1, 1, 1, 1), decoder_depths=(1, 1, 1, 1), d_state=2)
    config = TrainConfig(
        out_dir=tmp_path / "run", data=sources[:1], val=sources[1:], model=tiny, image_size_hw=(64, 96),
        roi="auto", epochs=2, batch_size=4, lr=2e-3, curves=False, threads=1,
    )  # fmt: skip
    done = train(config)
    runner = load_runner(done.last_weights or "", runtime="torch")
    result = evaluate(runner, iter_samples(config.val), at_native=False)
    runner.close()
    assert result["per_image"]["dice"] == pytest.approx(done.history[-1].val_dice, abs=1e-3)
    assert result["per_image"]["iou"] == pytest.approx(done.history[-1].val_iou, abs=1e-3)
