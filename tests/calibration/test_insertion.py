"""Where the pairs go, and their scales and integers against numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from tests.calibration.extreme_products import integer_products
from tests.calibration.small_graphs import SIDE, small_graph, small_weights
from tests.export.exported_models import exported, frames
from vmkla.calibration.insertion import insert
from vmkla.calibration.layers import Layer, Target, find_layers, group_of, groups_of
from vmkla.errors import GateError


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def activations(model: onnx.ModelProto, names: list[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Values of the small graph over four frames, by numpy alone: (frames, rows, channels)."""
    weights = {n: v for n, v in constants(model).items() if n.endswith((".w", ".gain"))}
    scaled = (frames(4, SIDE, SIDE).astype(np.float64) - 127.5) / 127.5
    patches = scaled.reshape(4, SIDE // 2, 2, SIDE // 2, 6).transpose(0, 1, 3, 2, 4)
    x = patches.reshape(4, -1, 12) @ weights["first.w"]
    seen = {}
    for name in ("one", "two", "three"):
        seen[f"{name}.scaled"] = np.tanh(x) * weights[f"{name}.gain"]
        x = x + seen[f"{name}.scaled"] @ weights[f"{name}.w"]
    return {name: seen[name].astype(np.float32) for name in names}


@pytest.mark.parametrize(("target", "levels"), [("cpu", 64), ("cpu-vnni", 127), ("tensorrt", 127)])
def test_scales_and_integers_are_what_numpy_computes(target: Target, levels: int) -> None:
    """The whole chain once more from the definition: range -> scale -> integers -> products."""
    model = small_graph(small_weights())
    layers = [layer for layer in find_layers(model, target) if layer.key in ("one.w", "two.w", "three.w")]
    values = activations(model, [layer.activation for layer in layers])
    ranges = {
        layer.key: (float(values[layer.activation].min()), float(values[layer.activation].max()))
        for layer in layers
    }
    made = insert(model, layers, ranges)
    stored = constants(made)
    for layer in layers:
        weight = small_weights()[layer.weight]
        low, high = ranges[layer.key]
        np.testing.assert_allclose(
            stored[f"{layer.key}/activation.scale"], max(-low, high) / 127, rtol=1e-6, err_msg=layer.key
        )
        scales = np.abs(weight).max(axis=0) / levels  # one for each column: each result
        np.testing.assert_allclose(stored[f"{layer.weight}.int8.scale"], scales, rtol=1e-6)
        integers = stored[f"{layer.weight}.int8"]
        assert integers.dtype == np.int8 and integers.min() >= -levels
        np.testing.assert_array_equal(integers, np.rint(weight / stored[f"{layer.weight}.int8.scale"]))
        assert (np.abs(integers).max(axis=0) == levels).all()
        for name in (f"{layer.key}/activation.zero_point", f"{layer.weight}.int8.zero_point"):
            assert not stored[name].any() and stored[name].dtype == np.int8


def test_the_product_of_the_integers_is_what_onnxruntime_computes() -> None:
    """One product in int32, by numpy, against the graph's value."""
    model = small_graph(small_weights())
    layer = find_layers(model, "cpu")[0]
    made = insert(model, [layer], {layer.key: (-1.0, 0.5)})
    output = made.graph.output.add()
    output.CopyFrom(onnx.helper.make_tensor_value_info("one.product", TensorProto.FLOAT, ["n", None, 64]))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (seen,) = session.run(["one.product"], {"frames": frames(4, SIDE, SIDE)})
    stored = constants(made)
    steps = np.float32(1 / 127)
    x = activations(model, ["one.scaled"])["one.scaled"]
    integers = np.clip(np.rint(x / steps), -128, 127).astype(np.int32)
    product = integers @ stored["one.w.int8"].astype(np.int32)
    expected = product * steps * stored["one.w.int8.scale"]
    # A value near the middle of two integers may fall on either side: a step of one summand.
    assert np.abs(seen - expected).max() <= 1.01 * float(steps) * np.abs(small_weights()["one.w"]).max()
    assert np.abs(seen - expected).mean() < 1e-6


def test_only_the_chosen_products_change() -> None:
    model = small_graph(small_weights())
    layers = find_layers(model, "cpu")
    assert [layer.key for layer in layers] == [
        "one.w",
        "two.w",
        "three.w",
    ]  # not the narrow one, not the head
    before = model.SerializeToString()
    made = insert(model, layers[1:2], {"two.w": (-1.0, 1.0)})
    assert model.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)
    kinds = [node.op_type for node in made.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (1, 2)
    assert "two.w" not in constants(made) and "one.w" in constants(made)
    (product,) = [node for node in made.graph.node if node.name == "two/MatMul"]
    (addition,) = [node for node in made.graph.node if node.name == "two/Add"]
    assert list(addition.input) == ["one.sum", product.output[0]]  # nothing between a product and its sum


def test_a_weight_stored_in_half_is_read_through_its_cast() -> None:
    weights = small_weights()
    rounded = {**weights, "two.w": weights["two.w"].astype(np.float16).astype(np.float32)}
    layers = find_layers(small_graph(weights, half_stored="two.w"), "cpu")
    ranges = {layer.key: (-1.0, 1.0) for layer in layers}
    stored, plain = (
        insert(graph, layers_of, ranges)
        for graph, layers_of in (
            (small_graph(weights, half_stored="two.w"), layers),
            (small_graph(rounded), find_layers(small_graph(rounded), "cpu")),
        )
    )
    np.testing.assert_array_equal(constants(stored)["two.w.int8"], constants(plain)["two.w.int8"])
    assert "two.w.half" not in constants(stored)  # nobody uses it any more, nor its Cast
    assert sum(node.op_type == "Cast" for node in stored.graph.node) == 1


@pytest.mark.parametrize("limits", [(-1.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_that_is_not_finite_is_refused(limits: tuple[float, float]) -> None:
    model = small_graph(small_weights())
    with pytest.raises(GateError, match=r"two\.w.*finite"):
        insert(model, find_layers(model, "cpu")[1:2], {"two.w": limits})


def test_values_that_are_all_zero_get_a_scale() -> None:
    weights = small_weights()
    weights["two.w"][:, 3] = 0.0
    model = small_graph(weights)
    made = insert(model, find_layers(model, "cpu")[1:2], {"two.w": (0.0, 0.0)})
    stored = constants(made)
    assert stored["two.w/activation.scale"] > 0 and (stored["two.w.int8.scale"] > 0).all()
    assert not stored["two.w.int8"][:, 3].any()


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return onnx.load_model_from_string(exported())


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_in_the_network_scans_norms_and_the_head_stay_as_they_are(
    network: onnx.ModelProto, target: Target
) -> None:
    """No custom node, norm, sum or product of two activations reads what was quantized; bodies survive."""
    layers = find_layers(network, target)
    made = insert(network, layers, {layer.key: (-3.0, 3.0) for layer in layers})
    onnx.checker.check_model(made)
    dequantized = {n.output[0] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    readers = [node for node in made.graph.node if dequantized & set(node.input)]
    assert len(readers) == len(layers) > 5
    assert {node.op_type for node in readers} <= {"MatMul", "Conv"}
    assert all({node.input[0], node.input[1]} <= dequantized for node in readers)  # both sides, or neither
    assert all(not dequantized & set(node.input[2:]) for node in readers)  # no bias
    assert not any(node.name.startswith("head") for node in readers)
    assert [f.SerializeToString() for f in made.functions] == [
        f.SerializeToString() for f in network.functions
    ]
    assert len(made.functions) == 2
    assert [p.SerializeToString() for p in made.metadata_props] == [
        p.SerializeToString() for p in network.metadata_props
    ]


def test_each_product_has_a_pair_of_its_own(network: onnx.ModelProto) -> None:
    """Products that share a pair stay float32 in ONNX Runtime: here every one must be an integer's."""
    layers = find_layers(network, "tensorrt")
    kinds = [layer for layer in layers if layer.kind == "MatMul"]
    assert len({layer.activation for layer in kinds}) < len(kinds)  # some do share
    made = insert(network, kinds, {layer.key: (-3.0, 3.0) for layer in kinds})
    assert integer_products(made) == len(kinds)


def test_a_bias_does_not_keep_a_product_from_its_integers() -> None:
    """At a fixed batch ONNX Runtime would make a Gemm of the two, and dequantize it at every frame."""
    fixed = onnx.load_model_from_string(exported(batch=1))
    layers = find_layers(fixed, "cpu")
    before = constants(fixed)
    products = {fixed.graph.node[layer.node].output[0] for layer in layers}
    biased = {
        node.name: bias
        for node in fixed.graph.node
        for bias in node.input
        if node.op_type == "Add" and products & set(node.input) and bias in before
    }
    assert biased
    made = insert(fixed, layers, {layer.key: (-3.0, 3.0) for layer in layers})
    assert integer_products(made) == len(layers)
    after = constants(made)
    for node in made.graph.node:
        if node.name in biased:
            (values,) = (after[name] for name in node.input if name in after)
            np.testing.assert_array_equal(values.ravel(), before[biased[node.name]])
    assert not set(biased.values()) & set(after)


def test_kan_layers_are_two_products_with_scales_of_their_own(network: onnx.ModelProto) -> None:
    layers = [layer for layer in find_layers(network, "tensorrt") if "query_key" in layer.group]
    assert {layer.key.split(".")[-2] for layer in layers} == {"base", "spline"}
    assert len({layer.activation for layer in layers}) == len(layers)


def test_groups() -> None:
    assert group_of("encoder.stages.0.blocks.1.scan.p_proj") == "encoder.stages.0.blocks.1"
    assert group_of("decoder.stages.1.upsample.expand") == "decoder.stages.1.upsample"
    kan = "decoder.stages.0.blocks.0.main.mixer.query_key"
    assert group_of(f"{kan}.hidden.base") == kan
    assert group_of("encoder.patch_embed") == "encoder.patch_embed"
    layers = [Layer(name, 0, "MatMul", "x", name, 1, name[0], 64) for name in ("b1", "a1", "b2")]
    assert groups_of(layers) == ("b", "a")
