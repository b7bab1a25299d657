"""Figures of lesions and the FROC curve, against a slow count in plain Python."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.evaluation.colour_runners import Labelled, RedRunner, UnsureRunner
from tests.evaluation.slow_count import SlowImage, slow_count, slow_image
from vmkla.evaluation import evaluate, judge
from vmkla.evaluation.froc import froc, lesion_report
from vmkla.evaluation.judge import ImageResult
from vmkla.evaluation.lesions import SIZES
from vmkla.evaluation.tables import tables
from vmkla.metrics import Bootstrap
from vmkla.runner import Runner
from vmkla.segment.operating_point import OperatingPoint, PointOverrides

NAMES = ("background", "adenoma", "serrated")
HEIGHT, WIDTH = 13, 17
BOOTSTRAP = Bootstrap(resamples=50)


def blobs(rng: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    """A few rectangles, some of which touch, if only at a corner."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    for _ in range(count):
        y, x, h, w = rng.integers((0, 0, 1, 1), (HEIGHT, WIDTH, 8, 9))
        mask[y : y + h, x : x + w] = True
    return mask


def random_image(rng: np.random.Generator, number: int, classes: int) -> Labelled:
    """An image with noise and blobs for a network to mark; each fifth has no lesion."""
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    truth = blobs(rng, rng.integers(1, 5)).astype(np.uint8)
    marked = blobs(rng, rng.integers(0, 6)) | (rng.random(truth.shape) < 0.04)
    if classes == 1:
        image[..., 0] = np.where(marked, image[..., 0] // 2 + 128, image[..., 0] // 2)
    else:
        truth *= np.repeat(rng.integers(1, classes, 2), (HEIGHT // 2, HEIGHT - HEIGHT // 2))[:, None].astype(
            np.uint8
        )
        image[..., 0] = marked * rng.integers(1, classes, (1, WIDTH)) * 30
    return Labelled(f"{number:02d}", image, truth * np.uint8(number % 5 > 0))


def runner_and_images(seed: int, classes: int) -> tuple[Runner, list[Labelled]]:
    """A network of the images' own size, so that nothing is interpolated, and thirty images."""
    rng = np.random.default_rng(seed)
    runner = RedRunner(HEIGHT, WIDTH) if classes == 1 else UnsureRunner(HEIGHT, WIDTH, NAMES)
    return runner, [random_image(rng, number, classes) for number in range(30)]


def slow_images(runner: Runner, images: list[Labelled], threshold: float) -> list[SlowImage]:
    return [slow_image(image.mask, runner.infer(image.image_rgb[None])[0], threshold) for image in images]


def judged(runner: Runner, images: list[Labelled], point: OperatingPoint) -> list[ImageResult]:
    return [judge(runner, image, point)[0] for image in images]


def report_of(results: list[ImageResult], point: OperatingPoint, classes: int) -> dict[str, Any]:
    return lesion_report(
        results,
        class_names=NAMES[1:] if classes > 1 else ("polyp",),
        threshold=point.threshold,
        resolution="native",
        bootstrap=BOOTSTRAP,
    )


POINTS = (
    OperatingPoint(0.5),
    OperatingPoint(0.5, 0.9),
    OperatingPoint(0.5, 0.95, 0.02),
    OperatingPoint(0.7, 0.7, 0.05),
    OperatingPoint(0.8, 1.0),
)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_figures_against_the_slow_count(point: OperatingPoint, classes: int) -> None:
    runner, images = runner_and_images(classes, classes)
    slow = slow_images(runner, images, point.threshold)
    results = judged(runner, images, point)
    report = report_of(results, point, classes)
    whole = slow_count(slow, point)
    assert {name: report[name] for name in asdict(whole)} == asdict(whole)
    assert whole.images_without == 6 and whole.lesions > 30 and report["images"] == 30
    for size in SIZES:
        expected = asdict(slow_count(slow, point, size))
        assert {name: report["by_size"][size][name] for name in expected} == expected, size
    for index, name in enumerate(NAMES[1:], start=1):
        if classes > 1:
            expected = asdict(slow_count(slow, point, of_class=index))
            assert {key: report["by_class"][name][key] for key in expected} == expected, name
    assert ("by_class" in report) == (classes > 1)
    for number, result in enumerate(results):  # what per_image.csv has
        alone = slow_count(slow[number : number + 1], point)
        seen = (len(result.lesions.lesions), result.lesions.found, len(result.lesions.false_findings))
        assert seen == (alone.lesions, alone.found, alone.false_regions)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", ["", *SIZES])
@pytest.mark.parametrize("point", POINTS[::2], ids=str)
def test_every_step_of_the_curve_against_the_slow_count(
    point: OperatingPoint, size: str, classes: int
) -> None:
    """At each step, just above it and between steps; the curve at any point's peak is the same one."""
    runner, images = runner_and_images(7 + classes, classes)
    slow = slow_images(runner, images, point.threshold)
    results = judged(runner, images, point)
    curve = froc(results, point.threshold, size)
    steps = list(zip(*curve.values(), strict=True))
    peaks = [peak for peak, _, _ in steps]
    assert len(steps) > 5 and peaks == sorted(set(peaks), reverse=True)
    assert all(a[1:] != b[1:] for a, b in itertools.pairwise(steps)), "every step changes a count"
    between = [(a + b) / 2 for a, b in itertools.pairwise(peaks)]
    for peak in {*peaks, *between, point.threshold, 1.0}:
        at = replace(point, peak=peak)
        of_size, everything = slow_count(slow, at, size), slow_count(slow, at)
        expected = (of_size.found / of_size.lesions, everything.false_regions / len(slow))
        reached = [step[1:] for step in steps if step[0] >= np.float32(peak) or step[0] >= peak]
        assert (reached[-1] if reached else (0.0, 0.0)) == expected, peak


def test_the_operating_point_lies_on_the_curve() -> None:
    runner, images = runner_and_images(4, 1)
    for point in POINTS:
        report = report_of(judged(runner, images, point), point, 1)
        steps = list(zip(*report["froc"].values(), strict=True))
        own = (report["sensitivity"], report["false_regions_per_image"])
        assert own == (0.0, 0.0) or own in [step[1:] for step in steps]


def test_rates_and_intervals() -> None:
    runner, images = runner_and_images(5, 1)
    report = report_of(judged(runner, images, POINTS[1]), POINTS[1], 1)
    for rate, count, total in (
        ("sensitivity", "found", "lesions"),
        ("image_sensitivity", "images_found", "images_with"),
        ("alarm_rate", "alarms", "images_without"),
        ("false_regions_per_image", "false_regions", "images"),
    ):
        assert report[rate] == report[count] / report[total]
        low, high = report[f"{rate}_ci95"]
        assert 0 <= low <= report[rate] <= high and high - low > 0.01
    strict = OperatingPoint(0.5, 0.5, 0.9)  # nothing is as large
    none = report_of(judged(runner, images, strict), strict, 1)
    assert none["sensitivity"] == none["false_regions_per_image"] == 0.0 and none["froc"]["peak"] == []
    # exact Poisson bound of no event in thirty images
    assert none["false_regions_per_image_ci95"] == pytest.approx([0.0, math.log(40) / 30])


def test_tables_name_their_mask_and_every_printed_peak_gives_its_row() -> None:
    """The tables of real figures: a user who sets a printed peak gets the printed row."""
    runner, images = runner_and_images(8, 1)
    document = evaluate(
        runner, images, point=PointOverrides(peak=0.9, min_fraction=0.01), bootstrap=BOOTSTRAP
    )
    made = list(tables(document))
    mixed = [table for table in made if table.title == "Images missed and false alarms"]
    assert [table.columns[1:] for table in mixed] == [
        ("missed by the raw mask", "no lesion, but a finding", "no lesion, but a pixel of the raw mask")
    ]
    for table in made:
        assert table in mixed or table.title.endswith((", raw mask", ", findings")), table.title
    lesions = document["lesions"]
    table = next(table for table in made if table.title.startswith("Lesions"))
    assert "a peak of at least 0.9" in table.note and "at least 1 %" in table.note
    share = f"{lesions['sensitivity']:.3f}, {lesions['found']} of {lesions['lesions']}\n["
    assert table.rows[0][1].startswith(share) and [row[0].split(",")[0] for row in table.rows[1:]] == list(
        SIZES
    )
    curve = next(table for table in made if table.title.startswith("FROC"))
    own = [row for row in curve.rows if "in force" in row[2]]
    assert own == [
        (f"{lesions['false_regions_per_image']:.3g}", f"{lesions['sensitivity']:.3f}", "0.9, in force")
    ]
    others = [row for row in curve.rows if row not in own and row[2] != "-"]
    assert len(others) >= 3
    for rate, sensitivity, peak in others:
        point = PointOverrides(peak=float(peak), min_fraction=0.01)
        again = evaluate(runner, images, point=point, bootstrap=BOOTSTRAP)["lesions"]
        assert f"{again['sensitivity']:.3f}" == sensitivity
        assert again["false_regions_per_image"] <= float(rate)


def test_only_images_without_a_lesion_and_only_images_with_one() -> None:
    runner, images = runner_and_images(6, 1)
    results = judged(runner, images, POINTS[0])
    without = report_of(results[::5], POINTS[0], 1)
    assert (without["lesions"], without["sensitivity"], without["sensitivity_ci95"]) == (0, None, None)
    assert without["image_sensitivity"] is None and without["images_without"] == 6
    assert without["froc"]["peak"] and set(without["froc"]["sensitivity"]) == {None}
    full = report_of(results[1:5], POINTS[0], 1)
    assert (full["images_without"], full["alarms"], full["alarm_rate"]) == (0, 0, None)
    assert full["alarm_rate_ci95"] is None
