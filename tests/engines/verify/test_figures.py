"""The figures of a comparison, against computations of their own."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.verify.scenes import GREEN, LESION, NOTHING, RED, SIDE, ChannelRunner, box, frame
from tests.evaluation.colour_runners import ClassRunner, labelled
from vmkla.engines.verify.clinical import verify_runners
from vmkla.engines.verify.figures import ErrorHistogram
from vmkla.engines.verify.frame import VerifyFrame, answer, boundary, judge_frame
from vmkla.engines.verify.page import verify_page, verify_tables
from vmkla.evaluation.evaluate import evaluate
from vmkla.metrics import Bootstrap
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec


def all_pairs(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Distance of each edge pixel of one region to the nearest of the other, both ways, one by one."""
    edges = []
    for region in (a, b):
        padded = np.pad(region, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        edges.append(np.argwhere(region & ~inner).astype(np.float64))
    apart = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
    return np.concatenate([apart.min(axis=1), apart.min(axis=0)])


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_distances_of_outlines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (box(*rng.integers(0, 20, 2), *rng.integers(1, 20, 2)) for _ in range(2))
    found = boundary(a.astype(np.uint8), b.astype(np.uint8))
    expected = all_pairs(a, b)
    assert found is not None
    assert found.mean_px == pytest.approx(expected.mean(), abs=1e-3)
    assert found.hd95_px == pytest.approx(np.percentile(expected, 95), abs=1e-3)


def test_there_is_no_distance_to_nothing() -> None:
    assert boundary(LESION.astype(np.uint8), NOTHING.astype(np.uint8)) is None
    assert boundary(LESION.astype(np.uint8), 2 * LESION.astype(np.uint8)) is None, "of one class only"


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(-30, 0))
def test_percentile_and_mean_of_errors(seed: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [(rng.random((3, 50, 7)) * 2.0**exponent).astype(np.float32) for _ in range(4)]
    histogram = ErrorHistogram()
    for part in parts:
        histogram.add(part)
    everything = np.concatenate([part.ravel() for part in parts])
    upper = np.sort(everything)[int(np.ceil(0.999 * everything.size)) - 1]
    assert histogram.percentile(0.999) == pytest.approx(upper, rel=2e-3)
    assert histogram.mean == pytest.approx(everything.mean(dtype=np.float64), rel=1e-6)


def test_dice_and_alarms_are_those_of_eval() -> None:
    """Against truth each side scores what ``vmkla eval`` gives it on the same images."""
    rng = np.random.default_rng(2)

    def region() -> npt.NDArray[np.bool_]:
        return box(*rng.integers(0, 20, 2), *rng.integers(0, 20, 2))

    frames = [frame(f"{n}", region(), region(), region()) for n in range(12)]
    report = verify_runners(ChannelRunner(RED), ChannelRunner(GREEN), frames)
    for channel, side in ((RED, "reference"), (GREEN, "candidate")):
        samples = [dataclasses.replace(labelled("", LESION, LESION), **_fields(f)) for f in frames]
        judged = evaluate(ChannelRunner(channel), samples, bootstrap=Bootstrap(resamples=10))
        assert report.figures["dice"][side] == pytest.approx(judged["per_image"]["dice"])
        assert report.figures["false_alarms"][side] == judged["without_polyp"]["false_alarms"]
    assert report.figures["false_alarms"]["frames"] == judged["without_polyp"]["images"]


def _fields(of: VerifyFrame) -> dict[str, object]:
    return {"name": of.name, "image_rgb": of.image_rgb, "mask": of.mask}


def test_lesions_by_size() -> None:
    """One frame with a lesion of 25 %, 4 % and 0.9 %; the candidate finds the largest alone."""
    truth = LESION | box(27, 0, 8, 8) | box(0, 30, 3, 5)
    report = verify_runners(
        ChannelRunner(RED), ChannelRunner(GREEN), [frame("three", truth & ~box(0, 30, 3, 5), LESION, truth)]
    )
    rows = {row["size"]: row for row in report.figures["lesions"]["by_size"]}
    counts = {
        size: (row["total"], row["found_by_reference"], row["found_by_candidate"], row["lost"])
        for size, row in rows.items()
    }
    assert counts == {
        "under 1 %": (1, 0, 0, 0),
        "1 to 5 %": (1, 1, 0, 1),
        "5 to 15 %": (0, 0, 0, 0),
        "15 % and more": (1, 1, 1, 0),
    }
    assert report.figures["lesions"]["largest_lost"] == 64 / SIDE**2


def test_lesions_and_alarms_are_findings_and_dice_is_of_the_raw_mask() -> None:
    """Red marks both frames at 200 of 255: enough for the threshold, and too little for a peak of 0.9."""
    point = OperatingPoint(0.5, peak=0.9)
    reference, candidate = ChannelRunner(RED), ChannelRunner(RED)
    metadata = dataclasses.replace(candidate.spec.metadata, operating_point=point)
    candidate.spec = dataclasses.replace(candidate.spec, metadata=metadata)
    for truth in (LESION, NOTHING):
        shown = frame("faint", LESION, NOTHING, truth)
        shown.image_rgb[..., RED] = np.where(LESION, 200, 0)
        said = [(runner.spec, answer(runner, shown)) for runner in (reference, candidate)]
        result, _, _ = judge_frame(shown, said[0], said[1])
        assert result.agreement == 1.0 and result.dice_candidate == result.dice_reference
        assert [lesion.lost for lesion in result.lesions] == [True] * bool(truth.any())
        assert result.alarm_reference is not bool(truth.any()) and not result.alarm_candidate


def test_several_classes() -> None:
    names = ("background", "a", "b")
    truth = np.where(LESION, 1, np.where(box(28, 28, 8, 8), 2, 0))
    sample = labelled("two classes", truth, truth)
    runner = ClassRunner(SIDE, SIDE, names)
    same = verify_runners(runner, runner, [sample])
    assert same.passed and same.figures["lesions"]["total"] == 2

    class Swapped(ClassRunner):
        def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return super().infer(frames_rgb)[:, [0, 2, 1]]

    swapped = verify_runners(runner, Swapped(SIDE, SIDE, names), [sample])
    assert swapped.figures["dice"] == {
        "reference": 1.0, "candidate": 0.0, "mean_drop": 1.0, "worst_drop": 1.0, "frame": "two classes",
        "frames_with_lesion": 1,
    }  # fmt: skip
    assert swapped.figures["lesions"]["lost"] == 2


class Larger(ChannelRunner):
    """The same network for another input size."""

    def __init__(self) -> None:
        super().__init__(GREEN)
        preprocess = PreprocessSpec(2 * SIDE, 2 * SIDE)
        metadata = dataclasses.replace(self.spec.metadata, preprocess=preprocess)
        self.spec = dataclasses.replace(self.spec, height=2 * SIDE, width=2 * SIDE, metadata=metadata)


def test_networks_of_two_sizes_are_compared_at_the_frames_own() -> None:
    report = verify_runners(ChannelRunner(RED), Larger(), [frame("one", LESION, LESION, LESION)])
    assert report.figures["agreement"]["mean_dice"] > 0.95
    assert report.figures["probability_error"]["max"] <= 0.5


def test_a_fixed_batch_is_filled() -> None:
    runner = ChannelRunner(RED)
    runner.spec = dataclasses.replace(runner.spec, batch=3)
    report = verify_runners(ChannelRunner(RED), runner, [frame("one", LESION, LESION)])
    assert report.figures["probability_error"]["max"] == 0


def test_images_alone_will_do() -> None:
    images = np.stack([frame("a", LESION, LESION).image_rgb, frame("b", LESION, NOTHING).image_rgb])
    report = verify_runners(ChannelRunner(RED), ChannelRunner(GREEN), images)
    assert [result.name for result in report.each] == ["frame 0", "frame 1"]
    assert [result.agreement for result in report.each] == [1.0, 0.0]


@pytest.mark.parametrize("truth", [LESION, None])
def test_the_page_shows_the_frames_that_differ_most(truth: npt.NDArray[np.bool_] | None) -> None:
    frames = [
        frame("<same>", LESION, LESION, truth),
        frame("<b>worst", LESION, NOTHING, truth),
        frame("second", LESION, box(5, 5, 10, 20), truth),
    ]
    report = verify_runners(ChannelRunner(RED), ChannelRunner(GREEN), frames, show=2)
    assert [shown.result.name for shown in report.shown] == ["<b>worst", "second"]
    parting = {"node": "n/MatMul", "op": "MatMul", "error": 0.5, "limit": 1e-3, "inputs": {}}
    document = {**report.to_dict(), "parting": parting, "warnings": ["mind <this>"]}
    page = verify_page(document, report.shown)
    assert page.count("<figure>") == 2 and page.count("data:image/jpeg;base64,") == 2
    assert page.index("&lt;b&gt;worst") < page.index("second")
    assert "FAILED" in page and "mind &lt;this&gt;" in page and "n/MatMul" in page
    assert "<b>worst" not in page and "&lt;same&gt;" not in page
    assert len(list(verify_tables(document))) == 4
    json.dumps(document, allow_nan=False)
