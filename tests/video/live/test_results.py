"""A result between two processes: the same afterwards, and nothing that makes no sense gets through."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vmkla.errors import BadInputError
from vmkla.procedures.events import Event
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.live.frame import FrameLesions, LiveResult
from vmkla.video.live.network.results import decode_result, encode_result


def result_of(probability: np.ndarray, frame_hw: tuple[int, int] = (40, 60)) -> LiveResult:
    rect = Rect(3, 2, frame_hw[1] - 5, frame_hw[0] - 4)
    findings = find(probability.astype(np.float32), rect, frame_hw, OperatingPoint(0.5))
    numbers = (*range(1, 1 + len(findings.regions[:2])), *(None for _ in findings.regions[2:]))
    events = (Event("started", 9, candidates=((2, 0.25), (3, 1.0))), Event("merged", 1, 2), Event("cut"))
    lesions = FrameLesions(numbers, events, "blur", "")
    times = {"preprocess": 0.5, "inference": 20.125}
    return LiveResult(7, 12.25, 12.5, frame_hw, findings, times, lesions=lesions)


def message_of(result: LiveResult) -> bytes:
    return b"".join(bytes(piece) for piece in encode_result(result))


@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 3), st.just(8), st.just(9)), elements=st.floats(0, 1, width=32)
    )
)
def test_round_trip(probability: np.ndarray) -> None:
    result = result_of(probability)
    back = decode_result(message_of(result))
    np.testing.assert_array_equal(back.findings.mask, result.findings.mask)
    for name in ("area_px", "area_fraction", "regions", "max_probability"):
        assert getattr(back.findings, name) == getattr(result.findings, name), name
    for name in ("sequence", "captured_s", "finished_s", "frame_hw", "latency_ms", "lesions"):
        assert getattr(back, name) == getattr(result, name), name


def test_only_the_window_travels() -> None:
    probability = np.zeros((1, 8, 9), np.float32)
    small = len(message_of(result_of(probability, (1080, 1920))))
    probability[0, 4, 4] = 1
    assert small < 1000 < len(message_of(result_of(probability, (1080, 1920)))) < 200_000


def changed(**changes: Any) -> bytes:
    probability = np.zeros((1, 8, 9), np.float32)
    probability[0, 3:5, 3:6] = 1
    length, text, mask = encode_result(result_of(probability))
    text = json.dumps({**json.loads(text), **changes}).encode()
    return struct.pack("<I", len(text)) + text + bytes(mask)


def region(**changes: Any) -> dict[str, Any]:
    """The region of the example, but for some values."""
    _, text, _ = encode_result(result_of(np.pad(np.ones((1, 2, 3)), ((0, 0), (3, 3), (3, 3)))))
    (only,) = json.loads(text)["regions"]
    return {**only, **changes}


def lesions(**changes: Any) -> dict[str, Any]:
    """The lesions of the example, but for some values."""
    return {"numbers": [1], "events": [], "poor": None, "failure": "", **changes}


def test_the_example_is_sound() -> None:
    assert decode_result(changed()).findings.area_px > 0
    assert decode_result(changed(lesions=lesions())).lesions == FrameLesions((1,))


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_hw": [0, 60]},
        {"frame_hw": [40000, 60000]},
        {"frame_hw": [10, 10]},
        {"window": [0, 0, 1, 1]},
        {"window": [-3, 2, 30, 20]},
        {"regions": [region(box=[0, 0, 60, 40])]},
        {"regions": [region(box=[1, 2, 3])]},
        {"regions": [region(class_index=0)]},
        {"regions": [region(probability=1.5)]},
        {"regions": [region(peak=float("nan"))]},
        {"regions": [region(area_px=0)]},
        {"regions": [region(area_px=1)]},
        {"regions": []},
        {"regions": [{"box": [1, 2, 3, 4]}]},
        {"max_probability": 1.5},
        {"max_probability": float("nan")},
        {"captured_s": float("inf")},
        {"finished_s": 1.0},
        {"latency_ms": {"inference": float("nan")}},
        {"latency_ms": [1]},
        {"sequence": None},
        {"lesions": None},
        {"lesions": lesions(numbers=[])},
        {"lesions": lesions(numbers=[0])},
        {"lesions": lesions(numbers=[True])},
        {"lesions": lesions(numbers=[1 << 60])},
        {"lesions": lesions(poor=1)},
        {"lesions": lesions(events=[{"kind": "left", "lesion": 1, "other": None, "candidates": []}])},
        {"lesions": lesions(events=[{"kind": "started", "lesion": -1, "other": None, "candidates": []}])},
        {"lesions": lesions(events=[{"kind": "started", "lesion": 1, "candidates": [[1, float("nan")]]}])},
        {"lesions": lesions(events=[{"kind": "started", "lesion": 1, "candidates": [[1]]}])},
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="not a result"):
        decode_result(changed(**changes))


@given(st.binary(max_size=200))
def test_noise_is_refused(message: bytes) -> None:
    with pytest.raises(BadInputError, match="not a result"):
        decode_result(message)


@given(st.data())
def test_a_message_that_is_cut_off_is_refused(data: st.DataObject) -> None:
    message = changed()
    with pytest.raises(BadInputError, match="not a result"):
        decode_result(message[: data.draw(st.integers(0, len(message) - 1))])
