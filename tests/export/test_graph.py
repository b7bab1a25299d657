"""Tidying of a traced graph, on a small one made by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.engines.runners.custom_op_models import open_session
from vmkla.export.graph import expand_elu, name_after_modules


def scoped(node: onnx.NodeProto, *modules: str) -> onnx.NodeProto:
    entry = node.metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", repr([*modules, "fx_node"])
    note = node.metadata_props.add()
    note.key, note.value = "pkg.torch.onnx.stack_trace", "File /home/someone/model.py"
    return node


def test_names_follow_the_modules() -> None:
    nodes = [
        scoped(
            helper.make_node("MatMul", ["frames", "val_1"], ["linear"]), "", "model", "model.a", "model.a.fc"
        ),
        scoped(helper.make_node("Add", ["linear", "model.a.fc.bias"], ["add"]), "", "model", "model.a"),
        scoped(helper.make_node("Add", ["add", "linear"], ["add_1"]), "", "model", "model.a"),
        scoped(helper.make_node("Sigmoid", ["add_1"], ["probability"]), ""),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("frames", TensorProto.FLOAT, [2, 2])],
        [value("probability", TensorProto.FLOAT, [2, 2])],
        [
            helper.make_tensor("val_1", TensorProto.FLOAT, [2, 2], [1, 2, 3, 4]),
            helper.make_tensor("model.a.fc.bias", TensorProto.FLOAT, [2], [1, 2]),
        ],
        value_info=[value("linear", TensorProto.FLOAT, [2, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    name_after_modules(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.name for node in model.graph.node] == ["a.fc/MatMul", "a/Add", "a/Add_2", "Sigmoid"]
    assert [list(node.input) for node in model.graph.node] == [
        ["frames", "a.fc.weight_transposed"],
        ["a.fc/MatMul", "a.fc.bias"],
        ["a/Add", "a.fc/MatMul"],
        ["a/Add_2"],
    ]
    assert [value.name for value in model.graph.value_info] == ["a.fc/MatMul"]
    assert [value.name for value in model.graph.output] == ["probability"]
    assert b"someone" not in model.SerializeToString()


def elu_plus(constant: float) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Elu", ["x"], ["e"]), helper.make_node("Add", ["e", "c"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [None])],
        [value("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [constant])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("constant", "changed"), [(1.0, 1), (2.0, 0)])
def test_elu_plus_one_is_opened_and_nothing_else(constant: float, changed: int) -> None:
    """Values near 0, far below (exp underflows) and far above agree."""
    model = elu_plus(constant)
    before = model.SerializeToString()
    assert expand_elu(model) == changed
    onnx.checker.check_model(model, full_check=True)
    assert ("Elu" in {node.op_type for node in model.graph.node}) is (changed == 0)
    x = np.concatenate([np.random.default_rng(0).normal(0, 3, 500), [0, -0.0, -200, 200, 1e-6, -1e-6]])
    a, b = (
        open_session(data, kernels=False).run(None, {"x": x.astype(np.float32)})[0]
        for data in (before, model.SerializeToString())
    )
    np.testing.assert_allclose(b, a, rtol=2e-7, atol=2e-7)
