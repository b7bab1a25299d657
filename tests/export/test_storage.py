"""Half-stored weights: half the bytes, the same numbers."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.engines.runners.custom_op_models import open_session
from tests.export.exported_models import network
from vmkla.export.storage import SMALLEST, round_to_half, store_half


def product(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_what_half_holds_exactly_is_stored_half() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 32)).astype(np.float16).astype(np.float32)
    model = product(weight)
    full = model.SerializeToString()
    assert store_half(model) == 1
    onnx.checker.check_model(model)
    half = model.SerializeToString()
    assert len(half) < 0.6 * len(full)
    x = rng.standard_normal((3, 64)).astype(np.float32)
    results = [open_session(data, kernels=False).run(None, {"x": x})[0] for data in (full, half)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("spoil", [1e5, 1 + 2**-12, 1e-9])
def test_what_half_would_change_stays(spoil: float) -> None:
    """Too large, too fine, too small: one such value keeps the tensor in float32."""
    weight = np.ones((64, 32), np.float32)
    weight[5, 7] = spoil
    model = product(weight)
    assert store_half(model) == 0
    assert numpy_helper.to_array(model.graph.initializer[0]).dtype == np.float32


def test_small_tensors_stay() -> None:
    assert store_half(product(np.ones((SMALLEST - 1, 1), np.float32))) == 0


def test_rounding_leaves_the_recurrence_alone() -> None:
    model = copy.deepcopy(network())
    before = {name: value.clone() for name, value in model.named_parameters()}
    round_to_half(model)
    kept = 0
    for name, value in model.named_parameters():
        assert value.dtype == torch.float32
        if name.rsplit(".", 1)[-1] in ("A_log", "D", "delta_bias"):
            assert torch.equal(value, before[name])
            kept += 1
        else:
            assert torch.equal(value, before[name].half().float())
    assert kept == 3 * 4
