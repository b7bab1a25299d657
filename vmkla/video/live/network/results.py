"""Encode and decode a result for shared memory. The reader checks everything."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.plain_values import from_plain
from vmkla.procedures.events import Event
from vmkla.segment.findings import Findings, Region
from vmkla.segment.preprocess import Rect, union
from vmkla.video.live.frame import MAX_FRAME_BYTES, FrameLesions, LiveResult

RESULT_BYTES = MAX_FRAME_BYTES // 3 + (1 << 22)
"""Size of the largest result: a mask of the largest frame, and its description."""
_LENGTH = struct.Struct("<I")
_MAX_NUMBER = 1 << 40


def encode_result(result: LiveResult) -> tuple[bytes, bytes, npt.NDArray[np.uint8]]:
    """Return the pieces to publish: the facts, and the mask within the boxes, outside of which it is 0."""
    findings = result.findings
    window = union(region.box for region in findings.regions) or Rect(0, 0, 0, 0)
    facts = {
        "sequence": result.sequence,
        "captured_s": result.captured_s,
        "finished_s": result.finished_s,
        "frame_hw": list(result.frame_hw),
        "latency_ms": result.latency_ms,
        "deinterlaced": result.deinterlaced,
        "window": list(window),
        "regions": [dataclasses.asdict(region) for region in findings.regions],
        "lesions": dataclasses.asdict(result.lesions),
        "max_probability": min(1.0, max(0.0, findings.max_probability)),  # a runner may exceed 1 by a hair
    }
    text = json.dumps(facts).encode()
    mask = findings.mask[window.y : window.y + window.h, window.x : window.x + window.w]
    return _LENGTH.pack(len(text)), text, np.ascontiguousarray(mask).reshape(-1)


def decode_result(message: bytes) -> LiveResult:
    """Decode what ``encode_result`` returned.

    Raises:
        BadInputError: the message is not a result, or its values are impossible.
    """
    try:
        (length,) = _LENGTH.unpack_from(message)
        facts = json.loads(message[_LENGTH.size : _LENGTH.size + length])
        return _to_result(facts, memoryview(message)[_LENGTH.size + length :])
    except (struct.error, KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInputError(f"the worker sent something that is not a result: {error}") from error


def _to_result(facts: dict[str, Any], pixels: memoryview) -> LiveResult:
    height, width = (int(side) for side in facts["frame_hw"])
    if height < 1 or width < 1 or height * width * 3 > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {width}x{height}")
    frame = Rect(0, 0, width, height)
    window = _inside(facts["window"], frame)
    regions = tuple(_to_region(values, window) for values in facts["regions"])
    largest = float(facts["max_probability"])
    times = [float(facts["captured_s"]), float(facts["finished_s"])]
    latency_ms = {str(stage): float(value) for stage, value in dict(facts["latency_ms"]).items()}
    if not all(map(math.isfinite, (*times, *latency_ms.values()))) or times[1] < times[0]:
        raise ValueError(f"times of {times} s and {latency_ms} ms")
    if not 0 <= largest <= 1:
        raise ValueError(f"a largest probability of {largest}")
    lesions = _to_lesions(facts["lesions"], len(regions))
    part = np.frombuffer(pixels, np.uint8).reshape(window.h, window.w)
    area_px = sum(region.area_px for region in regions)
    if np.count_nonzero(part) != area_px:
        raise ValueError(f"a mask that is not of {area_px} pixels")
    mask = np.zeros((height, width), np.uint8)
    mask[window.y : window.y + window.h, window.x : window.x + window.w] = part
    findings = Findings(mask, regions, largest)
    sequence, deinterlaced = int(facts["sequence"]), bool(facts["deinterlaced"])
    return LiveResult(
        sequence, times[0], times[1], (height, width), findings, latency_ms, deinterlaced, lesions
    )


def _to_lesions(values: dict[str, Any], regions: int) -> FrameLesions:
    events = tuple(_to_event(event) for event in values["events"])
    lesions: FrameLesions = from_plain(FrameLesions, {**values, "events": ()}, "lesions")
    lesions = dataclasses.replace(lesions, events=events)
    if len(lesions.numbers) != regions:
        raise ValueError(f"{len(lesions.numbers)} numbers of {regions} regions")
    named = list(lesions.numbers)
    for event in events:
        named += [event.lesion, event.other, *(number for number, _ in event.candidates)]
    if any(number is not None and not 1 <= number <= _MAX_NUMBER for number in named):
        raise ValueError("a lesion without a sensible number")
    if not all(0 <= score <= 1 for event in events for _, score in event.candidates):
        raise ValueError("a candidate without a score")
    return lesions


def _to_event(values: dict[str, Any]) -> Event:
    candidates = tuple((int(number), float(score)) for number, score in values["candidates"])
    event: Event = from_plain(Event, {**values, "candidates": ()}, "event")
    return dataclasses.replace(event, candidates=candidates)


def _to_region(values: dict[str, Any], window: Rect) -> Region:
    area_px, class_index = int(values["area_px"]), int(values["class_index"])
    probability, peak = float(values["probability"]), float(values["peak"])
    if area_px < 1 or class_index < 1 or not (0 <= probability <= 1 and 0 <= peak <= 1):
        raise ValueError(
            f"a region of {area_px} pixels, class {class_index}, probability {probability}, peak {peak}"
        )
    return Region(_inside(values["box"], window), area_px, class_index, probability, peak)


def _inside(values: list[int], outer: Rect) -> Rect:
    rect = Rect(*(int(value) for value in values))
    begins = rect.x >= outer.x and rect.y >= outer.y and min(rect.w, rect.h) >= 0
    if not begins or rect.x + rect.w > outer.x + outer.w or rect.y + rect.h > outer.y + outer.h:
        raise ValueError(f"a rectangle {tuple(rect)} outside {tuple(outer)}")
    return rect
