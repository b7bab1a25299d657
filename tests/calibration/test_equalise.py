"""Channels made alike: the divisors against numpy, and graphs whose results stay what they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.calibration.small_graphs import SIDE, small_graph, small_weights, write_small
from tests.export.exported_models import HEIGHT, WIDTH, exported, frames
from vmkla.calibration.artefact import open_artefact
from vmkla.calibration.cache import CalibrationCache
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import equalise, find_divisors
from vmkla.calibration.layers import Layer, find_layers, weight_rows
from vmkla.calibration.ranges import measure_ranges
from vmkla.engines.runners import custom_ops
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner

Values = npt.NDArray[np.float32]
ROWS, CHANNELS, RESULTS = 20, 64, 32


def run(model: onnx.ModelProto, feeds: dict[str, npt.NDArray[np.generic]]) -> Values:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    custom_ops.register(options)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def gated(*, half: bool = False, gate: bool = True, read_twice: bool = False) -> onnx.ModelProto:
    """A product of a norm, times a gate where wanted, with a norm's weights behind Casts."""
    rng = np.random.default_rng(3)
    dtype = np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    constants = {
        "gain.half": rng.uniform(0.1, 30.0, CHANNELS).astype(np.float16),
        "shift": rng.normal(0, 1, CHANNELS).astype(dtype),
        "part.w": rng.normal(0, 0.1, (CHANNELS, RESULTS)).astype(dtype),
        "head.w": rng.normal(0, 0.1, (RESULTS, 4)).astype(dtype),
    }
    nodes = [
        helper.make_node("Cast", ["gain.half"], ["gain"], name="part/Cast", to=kind),
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["norm"], name="part/Norm"),
        helper.make_node("Mul", ["gate", "norm"], ["gated"], name="part/Mul"),
        helper.make_node("MatMul", ["gated" if gate else "norm", "part.w"], ["product"], name="part/MatMul"),
        helper.make_node("MatMul", ["product", "head.w"], ["y"], name="head/MatMul"),
    ]
    if not gate:
        del nodes[2]
    outputs = [helper.make_tensor_value_info("y", kind, [ROWS, 4])]
    if read_twice:
        outputs.append(helper.make_tensor_value_info("norm", kind, [ROWS, CHANNELS]))
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info(name, kind, [ROWS, CHANNELS]) for name in ("x", "gate")],
        outputs,
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def layer_of(model: onnx.ModelProto) -> Layer:
    (layer,) = find_layers(model, "cpu")
    return layer


def test_channels_are_what_numpy_finds(small: Path) -> None:
    shown = frames(5, SIDE, SIDE)
    artefact = open_artefact(small, "cpu", "fp32")
    steps: list[int] = []
    found = measure_channels(
        artefact.model,
        artefact.layers,
        shown,
        input_type="uint8",
        batch=None,
        progress=lambda done, total, note="": steps.append(done),
    )
    scaled = (shown.astype(np.float64) - 127.5) / 127.5
    patches = scaled.reshape(5, SIDE // 2, 2, SIDE // 2, 6).transpose(0, 1, 3, 2, 4).reshape(-1, 12)
    values = np.tanh(patches @ small_weights()["first.w"])
    np.testing.assert_allclose(found["one.scaled"], np.abs(values).max(axis=0), rtol=1e-5)
    assert set(found) == {layer.activation for layer in artefact.layers} and steps == [1, 2, 3, 4, 5]


def test_divisors_follow_from_their_definition() -> None:
    """max|x|^0.75 / max|w|^0.25 with a geometric mean of 1, where channels differ; elsewhere none."""
    model = small_graph(small_weights())
    layers = find_layers(model, "cpu-vnni")
    rng = np.random.default_rng(0)
    uneven = rng.uniform(0.1, 50.0, 64).astype(np.float32)
    channels = {layer.activation: np.ones(64, np.float32) for layer in layers} | {"two.scaled": uneven}
    found = find_divisors(model, layers, channels)
    assert set(found) == {"two.w"}
    weight = np.abs(small_weights()["two.w"].astype(np.float64)).max(axis=1)
    expected = uneven.astype(np.float64) ** 0.75 / weight**0.25
    expected /= np.prod(expected ** (1 / 64))
    np.testing.assert_allclose(found["two.w"], expected, rtol=1e-5)
    # What the weight takes costs it twice as much where it has 7 bits: here it is not worth it.
    assert not find_divisors(model, find_layers(model, "cpu"), channels)


def test_an_idle_channel_gets_no_huge_divisor() -> None:
    model = small_graph(small_weights())
    layers = find_layers(model, "cpu-vnni")
    uneven = np.random.default_rng(0).uniform(0.1, 50.0, 64).astype(np.float32)
    uneven[9] = 0.0
    found = find_divisors(model, layers[1:2], {"two.scaled": uneven})["two.w"]
    assert np.isfinite(found).all() and found.max() / found.min() < 1e3**0.75 * 10


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_a_norm_takes_the_divisors_for_nothing(half: bool, gate: bool) -> None:
    """No node more; the same result; the old weights are gone, with the Cast of one."""
    model = gated(half=half, gate=gate)
    layer = layer_of(model)
    divisors = np.random.default_rng(1).uniform(0.2, 5.0, CHANNELS).astype(np.float32)
    before = model.SerializeToString()
    made, (changed,) = equalise(model, [layer], {layer.key: divisors})
    assert model.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("Mul") == int(gate) and "Cast" not in kinds
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    assert set(stored) == {"head.w", "part.w.norm1", "part.w.norm2", "part.w.equalised"}
    old = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    near = {"rtol": 2e-3 if half else 1e-6}
    np.testing.assert_allclose(stored["part.w.norm1"], old["gain.half"].astype(float) / divisors, **near)
    np.testing.assert_allclose(stored["part.w.norm2"], old["shift"].astype(float) / divisors, **near)
    np.testing.assert_allclose(stored["part.w.equalised"], old["part.w"] * divisors[:, None], **near)
    assert stored["part.w.equalised"].dtype == (np.float16 if half else np.float32)
    assert made.graph.node[changed.node].name == "part/MatMul" and changed.key == layer.key
    assert (changed.activation, changed.weight) == ("gated" if gate else "norm", "part.w.equalised")
    rng = np.random.default_rng(2)
    dtype = np.float16 if half else np.float32
    feeds = {name: rng.normal(0, 1, (ROWS, CHANNELS)).astype(dtype) for name in ("x", "gate")}
    expected = run(model, feeds).astype(np.float32)
    # Half: sums of 64 products, each rounded to 11 bits three times more.
    limit = (3e-3 if half else 1e-6) * np.abs(expected).max()
    assert np.abs(run(made, feeds).astype(np.float32) - expected).max() < limit


def test_what_others_read_as_well_is_divided_apart() -> None:
    model = gated(gate=False, read_twice=True)
    layer = layer_of(model)
    divisors = np.random.default_rng(1).uniform(0.2, 5.0, CHANNELS).astype(np.float32)
    made, (changed,) = equalise(model, [layer], {layer.key: divisors})
    assert [n.op_type for n in made.graph.node].count("Mul") == 1 and changed.activation == "part.w/divided"
    rng = np.random.default_rng(2)
    feeds = {name: rng.normal(0, 1, (ROWS, CHANNELS)).astype(np.float32) for name in ("x", "gate")}
    np.testing.assert_allclose(run(made, feeds), run(model, feeds), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_the_network_computes_what_it_did(precision: str) -> None:
    model = onnx.load_model_from_string(exported(precision))  # type: ignore[arg-type]
    layers = find_layers(model, "tensorrt")
    rng = np.random.default_rng(0)
    products = [layer for layer in layers if layer.kind == "MatMul"]
    divisors = {
        layer.key: rng.uniform(0.3, 3.0, len(weight_rows(model, layer))).astype(np.float32)
        for layer in products
    }
    made, changed = equalise(model, layers, divisors)
    onnx.checker.check_model(made)
    muls = sum(node.name.endswith("/divided/Mul") for node in made.graph.node)
    assert 0 < muls < len(products)  # some norms take theirs
    assert [made.graph.node[layer.node].op_type for layer in changed] == [layer.kind for layer in layers]
    assert [layer.key for layer in changed] == [layer.key for layer in layers]
    feeds = {"frames": frames(2, HEIGHT, WIDTH)}
    error = np.abs(run(made, feeds) - run(model, feeds))
    assert error.max() < (1e-5 if precision == "fp32" else 2e-2), error.max()


def test_a_large_channel_costs_nothing_any_more(tmp_path: Path) -> None:
    """Quantized with one scale for all it leaves nothing of the others; with divisors it does."""
    path = write_small(tmp_path / "m.onnx", small_weights(large_channel="two"))
    artefact = open_artefact(path, "cpu", "fp32")
    shown = frames(12, SIDE, SIDE)
    layers = [layer for layer in artefact.layers if layer.group == "two"]
    channels = measure_channels(onnx.load(path), layers, shown, input_type="uint8", batch=None)
    divisors = find_divisors(artefact.model, layers, channels)
    assert divisors["two.w"].argmax() == 7
    errors = []
    before = OnnxRuntimeRunner(path, threads=1, warn_unverified=False).infer(shown)
    for chosen in ({}, divisors):
        model, changed = equalise(artefact.model, layers, chosen)
        (tmp_path / "e.onnx").write_bytes(model.SerializeToString())
        ranges = measure_ranges(
            tmp_path / "e.onnx", changed, shown, "min-max", input_type="uint8", batch=None
        )
        artefact.write_quantized(layers, ranges, tmp_path / "q.onnx", divisors=chosen)
        after = OnnxRuntimeRunner(tmp_path / "q.onnx", threads=1, warn_unverified=False).infer(shown)
        errors.append(float(np.abs(after - before).mean()))
    assert errors[1] < errors[0] / 10, errors


def test_divisors_are_kept(tmp_path: Path) -> None:
    cache = CalibrationCache(tmp_path, {"model": "a", "data": "b"})
    assert cache.load_divisors() is None
    divisors = {"a.b/c": np.float32([1.5, 0.25]), "d#2": np.float32([2.0])}
    cache.save_divisors(divisors)
    kept = cache.load_divisors()
    assert kept is not None and set(kept) == set(divisors)
    assert all((kept[name] == values).all() for name, values in divisors.items())
    assert dataclasses.replace(cache, facts={"model": "c", "data": "b"}).load_divisors() is None
    for damage in (b"", b"no arrays", cache.divisors.read_bytes()[:100]):
        cache.divisors.write_bytes(damage)
        assert cache.load_divisors() is None
