"""Magnitudes of a half-precision graph made by hand, where each is known."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vmkla.errors import VmklaError
from vmkla.export.half import RANGE_LIMIT
from vmkla.export.half_range import HalfRangeReport, measure_half_range, widened

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def graph(weight: float, *, batch: int | str = "n") -> onnx.ModelProto:
    """uint8 -> half, times a weight, a float32 square, and back to half as a quotient of 1."""
    value = helper.make_tensor_value_info
    shape = [batch, 2, 2, 3]
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=HALF),
        helper.make_node("Mul", ["x", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["wide"], to=SINGLE),
        helper.make_node("Mul", ["wide", "wide"], ["square"]),
        helper.make_node("Div", ["square", "square"], ["one"]),
        helper.make_node("Cast", ["one"], ["narrow"], to=HALF),
        helper.make_node("Cast", ["narrow"], ["probability"], to=SINGLE),
    ]
    with np.errstate(over="ignore"):
        w = numpy_helper.from_array(np.full(1, weight).astype(np.float16), "w")
    halves = [value(name, HALF, shape) for name in ("x", "product", "narrow")]
    singles = [value(name, SINGLE, shape) for name in ("wide", "square", "one")]
    made = helper.make_graph(
        nodes,
        "g",
        [value("frames", TensorProto.UINT8, shape)],
        [value("probability", SINGLE, shape)],
        [w],
        value_info=[*halves, *singles],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def frames(*largest: int) -> np.ndarray:
    """A frame for each number, of random pixels up to it; no pixel is 0."""
    rng = np.random.default_rng(0)
    made = np.stack([rng.integers(1, top, (2, 2, 3)) for top in largest]).astype(np.uint8)
    for frame, top in zip(made, largest, strict=True):
        frame[1, 0, 2] = top
    return made


def magnitudes(report: HalfRangeReport) -> dict[str, float]:
    return dict(report.largest)


@pytest.mark.parametrize("batch", ["n", 2])
def test_every_half_tensor_and_no_other(batch: int | str) -> None:
    """The largest of all frames counts, float32 values are not limited, and signs do not matter."""
    report = measure_half_range(
        graph(-100.0, batch=batch),
        frames(50, 120, 70),
        input_type="uint8",
        batch=None if batch == "n" else int(batch),
    )
    assert magnitudes(report) == {"product": 12_000.0, "x": 120.0, "w": 100.0, "narrow": 1.0}
    assert [name for name, _ in report.largest] == ["product", "x", "w", "narrow"]
    assert (report.tensors, report.frames, report.passed, report.failures()) == (4, 3, True, ())


def test_beyond_half_is_measured_and_refused() -> None:
    """The product would be infinite in half; its true size is told."""
    report = measure_half_range(graph(1000.0), frames(200), input_type="uint8", batch=None)
    assert not report.passed and report.beyond == 1
    assert report.failures() == ("product reaches 2e+05, allowed is 1.638e+04",)


def test_a_weight_beyond_half_is_named() -> None:
    report = measure_half_range(graph(1e6), frames(200), input_type="uint8", batch=None)
    assert report.largest[0] == ("w", math.inf) and "w reaches inf" in report.failures()[0]
    facts = report.to_dict()
    assert facts["passed"] is False and facts["largest"]["w"] is None
    json.dumps(facts, allow_nan=False)


def test_the_limit_itself_is_allowed() -> None:
    report = HalfRangeReport(RANGE_LIMIT, 1, 1, (("x", RANGE_LIMIT),), beyond=0)
    assert report.passed and report.failures() == ()
    many = HalfRangeReport(RANGE_LIMIT, 5, 1, (("x", 2e4),), beyond=3)
    assert many.failures() == ("x reaches 2e+04, allowed is 1.638e+04", "and 2 tensors more")


def test_a_value_of_unknown_type_may_not_escape() -> None:
    proto = graph(2.0)
    del proto.graph.value_info[:1]
    with pytest.raises(VmklaError, match="does not state the type"):
        widened(proto)


def test_the_graph_itself_is_not_changed() -> None:
    proto = graph(2.0)
    before = proto.SerializeToString()
    wide, names = widened(proto)
    assert proto.SerializeToString() == before
    assert sorted(names) == ["narrow", "product", "w", "x"]
    onnx.checker.check_model(wide, full_check=True)
    assert HALF not in {v.type.tensor_type.elem_type for v in wide.graph.value_info}
