"""A half-precision file of a tiny network: the type of every value, its numbers, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from tests.export.exported_models import HEIGHT, TINY, WIDTH, exported, frames, network, traced
from tests.tolerances import tol
from vmkla.cli.main import main
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.verify.gate_frames import RENDERED_FRAMES
from vmkla.engines.verify.gates import FP16_EXPORT, HALF_ARITHMETIC
from vmkla.errors import GateError, UsageError
from vmkla.export import exporter, half, tracing
from vmkla.export.form import GraphForm
from vmkla.metadata import ArtefactMetadata
from vmkla.models.serving import FramesToProbability, weights_sha256
from vmkla.models.vmkla_unet import VMKLAUNet
from vmkla.segment.preprocess import PreprocessSpec

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
FORM = GraphForm(HEIGHT, WIDTH, precision="fp16")
EXPANSION = "decoder.stages.1.upsample.expand"
"""A product with a norm behind it: scaled, it changes its own size alone."""
SCAN = "encoder.stages.3.blocks.0.scan"


@pytest.fixture(scope="module")
def fp16_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "tiny.fp16.onnx"
    path.write_bytes(exported("fp16"))
    return path


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Element type of every value and weight."""
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def check_types(model: onnx.ModelProto, *, wide: tuple[str, ...] = ()) -> None:
    """Hold every node of a half-precision graph against the rules of the project's design."""
    onnx.checker.check_model(model, full_check=True)
    types = element_types(model.graph)
    norms = {f"{scan.rpartition('.')[0].removesuffix('.main')}.out_norm" for scan in wide}
    seen = set()
    for node in model.graph.node:
        inside = [types[name] for name in node.input]
        outside = [types[name] for name in node.output]
        where = node.name.rpartition("/")[0]
        seen.add(node.op_type)
        match node.op_type:
            case "Conv" | "Gelu":
                assert {*inside, *outside} == {HALF}, node.name
            case "MatMul":
                # The one product in float32 is q times the mean of k, the normaliser of linear attention.
                normaliser = where.endswith(".mixer") and SINGLE in outside
                assert {*inside, *outside} == ({SINGLE} if normaliser else {HALF}), node.name
            case "LayerNormalization":
                element = SINGLE if where in norms else HALF
                assert {*inside, *outside} == {element}, f"{node.name} mixes types"
                stash = [a.i for a in node.attribute if a.name == "stash_type"]
                assert stash in ([], [SINGLE]), node.name
            case "ReduceMean" | "ReduceMax" | "Reciprocal" | "Div" | "Softmax":
                # The second input is the axes. A maximum reads the float32 copy that the mean needs.
                assert {inside[0], *outside} == {SINGLE}, node.name
            case "SelectiveScan2d":
                element = SINGLE if where in wide else HALF
                assert (inside, outside) == ([element] * 3 + [SINGLE] * 3, [element]), node.name
            case "BSplineBasis":
                assert (inside, outside) == ([HALF, SINGLE], [HALF]), node.name
            case "Sigmoid":
                assert {*inside, *outside} == ({HALF} if where else {SINGLE}), node.name
    assert {"Conv", "MatMul", "LayerNormalization", "ReduceMean", "SelectiveScan2d"} <= seen
    assert types["frames"] == TensorProto.UINT8 and types["probability"] == SINGLE
    assert [node.op_type for node in model.graph.node if "frames" in node.input] == ["Cast"]


def test_type_of_every_node(fp16_onnx: Path) -> None:
    model = onnx.load(fp16_onnx)
    check_types(model)
    types = element_types(model.graph)
    products = [types[node.output[0]] for node in model.graph.node if node.op_type == "MatMul"]
    assert products.count(SINGLE) == 2 * 4, "two of the normaliser in each of the four attentions"
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == SINGLE}
    kept = ("scan.A", "scan.D", "scan.delta_bias", ".grid", "mixer.constant", "head_of_pair", "constant")
    assert all(any(word in name for word in kept) for name in weights), weights
    assert {function.name for function in model.functions} == {"SelectiveScan2d", "BSplineBasis"}


@pytest.mark.slow
def test_types_where_a_scan_stays_float32() -> None:
    """Also in a decoder that scans, and in a network of several classes, which ends in a softmax."""
    config = dataclasses.replace(TINY, num_classes=3, decoder_block="csa")
    wide = (SCAN, "decoder.stages.3.blocks.0.main.mixer")
    model = traced(config, dataclasses.replace(FORM, wide_scans=wide, batch=2))
    check_types(model, wide=wide)
    assert "Softmax" in {node.op_type for node in model.graph.node}


def test_metadata_and_proofs(fp16_onnx: Path) -> None:
    spec = OnnxRuntimeRunner(fp16_onnx, threads=1).spec
    metadata = spec.metadata
    assert (metadata.precision, metadata.input_type, metadata.profile) == ("fp16", "uint8", None)
    assert metadata.verified and metadata.weights_sha256 == weights_sha256(network())
    checks = [(c["gates"]["name"], c["measured"]["candidate"]) for c in metadata.gates["checks"]]
    assert checks == [
        (HALF_ARITHMETIC.name, "widened onnxruntime/native"),
        (HALF_ARITHMETIC.name, "widened onnxruntime/bodies"),
        (FP16_EXPORT.name, "torch/half"),
        (FP16_EXPORT.name, "onnxruntime/native"),
        (FP16_EXPORT.name, "onnxruntime/bodies"),
    ]
    measured = metadata.gates["range"]
    assert measured["passed"] and measured["beyond"] == 0 and measured["frames"] == 3
    assert measured["limit"] == 65504 / 4 and measured["tensors"] > 500
    assert list(measured["largest"].values())[0] == 255.0, "pixels are the largest of this network"


@pytest.mark.parametrize("kernels", ["native", "bodies"])
def test_probability_is_torchs_at_any_batch(fp16_onnx: Path, kernels: Any) -> None:
    runner = OnnxRuntimeRunner(fp16_onnx, threads=1, kernels=kernels)
    inputs = frames(3, seed=5)
    with torch.no_grad():
        expected = FramesToProbability(network(), 1).eval()(torch.from_numpy(inputs))
    assert expected.min() < 0.4 and expected.max() > 0.6
    batch = torch.from_numpy(runner.infer(inputs))
    torch.testing.assert_close(batch, expected, **tol(("fp16 file", "torch"), torch.float16))
    assert not torch.equal(batch, expected), "nothing was rounded"
    for i in range(3):
        torch.testing.assert_close(
            torch.from_numpy(runner.infer(inputs[i : i + 1]))[0],
            batch[i],
            **tol(("fp16 batch", "fp16 single"), torch.float16),
        )


def scaled(name: str, factor: float) -> VMKLAUNet:
    model = copy.deepcopy(network())
    with torch.no_grad():
        model.get_parameter(name).mul_(factor)
    return model


def export(path: Path, model: VMKLAUNet, **changes: Any) -> exporter.ExportReport:
    return exporter.export_onnx(
        model, spec=PreprocessSpec(HEIGHT, WIDTH), output=path, precision="fp16", frames=frames(2),
        random_weights=True, **changes,
    )  # fmt: skip


def largest_result(module: str) -> float:
    """Largest magnitude of a module's result in float32, over the frames of ``export``."""
    seen: list[float] = []
    served = FramesToProbability(network(), 1).eval()
    handle = served.model.get_submodule(module).register_forward_hook(  # type: ignore[union-attr]
        lambda module, inputs, y: seen.append(float(y.abs().max()))
    )
    with torch.no_grad():
        served(torch.from_numpy(frames(2)))
    handle.remove()
    return max(seen)


@pytest.mark.parametrize("reaches", [30_000.0, 200_000.0])
def test_a_planted_overflow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaches: float
) -> None:
    """A tensor past a quarter of half's range, or past all of it, behind which a norm hides it in float32."""
    factor = reaches / largest_result(EXPANSION)
    model = scaled(f"{EXPANSION}.weight", factor)

    def spoilt(_: VMKLAUNet, form: GraphForm) -> onnx.ModelProto:
        proto = traced(TINY, form)
        (tensor,) = (t for t in proto.graph.initializer if t.name == f"{EXPANSION}.weight_transposed")
        values = (onnx.numpy_helper.to_array(tensor).astype(np.float32) * factor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return proto

    traced(TINY, FORM)  # fills the cache, by the real exporter
    monkeypatch.setattr(tracing, "trace", spoilt)
    with torch.no_grad():
        inputs = torch.from_numpy(frames(2))
        before, after = (FramesToProbability(m, 1).eval()(inputs) for m in (network(), model))
    torch.testing.assert_close(after, before, **tol(("fp16 file", "torch"), torch.float16))
    with pytest.raises(GateError, match=f"{EXPANSION}/MatMul reaches {reaches:.1g}"[:-5]) as caught:
        export(tmp_path / "model.onnx", model)
    assert caught.value.exit_status == 5 and "allowed is 1.638e+04" in caught.value.message
    assert "half precision has no room" in caught.value.message and "fp32" in str(caught.value.hint)
    assert ("torch/half: frame 0 has values that are not finite" in caught.value.message) is (reaches > 65504)
    assert list(tmp_path.iterdir()) == []


def spoil_routes(proto: onnx.ModelProto) -> None:
    """Two routes of the deepest scan change places."""
    (tensor,) = (t for t in proto.graph.initializer if t.name == f"{SCAN}.delta_bias")
    values = onnx.numpy_helper.to_array(tensor)[[2, 1, 0, 3]]
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def spoil_body(proto: onnx.ModelProto) -> None:
    """One route of the bodies is not reversed."""
    (body,) = (function for function in proto.functions if function.name == "SelectiveScan2d")
    (node,) = (node for node in body.node if node.output[0] == "u_back")
    node.op_type, node.input[:] = "Identity", node.input[:1]


@pytest.mark.parametrize(
    ("spoil", "kernels"), [(spoil_routes, {"native", "bodies"}), (spoil_body, {"bodies"})]
)
def test_what_rounding_hides_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, kernels: set[str]
) -> None:
    """Errors smaller than half's rounding: the widened graph shows them."""
    traced(TINY, FORM)  # fills the cache, by the real exporter

    def spoilt(_: VMKLAUNet, form: GraphForm) -> onnx.ModelProto:
        proto = traced(TINY, form)
        tracing.append_functions(proto)
        spoil(proto)
        return proto

    monkeypatch.setattr(tracing, "build_onnx", spoilt)
    with pytest.raises(GateError) as caught:
        export(tmp_path / "model.onnx", network())
    for name in ("native", "bodies"):
        seen = f"with widened onnxruntime/{name}: mean probability error" in caught.value.message
        assert seen is (name in kernels), caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_scan_beyond_half_is_exported_in_float32(tmp_path: Path) -> None:
    """Trained networks do this: nano's deepest scan reaches 7e8, and the norm behind it takes it away."""
    model = scaled(f"{SCAN}.D", 1e5)
    assert set(half.scans_beyond_half(model, frames(2))) == {SCAN}
    narrow = half.HalfTorchRunner(model, FORM, metadata_of(model))
    assert not np.isfinite(narrow.infer(frames(2))).all()
    report = export(tmp_path / "model.onnx", model)
    assert report.half_range is not None and report.half_range.float32_scans == (SCAN,)
    assert report.metadata.gates["range"]["float32_scans"] == [SCAN]
    check_types(onnx.load(report.path), wide=(SCAN,))
    assert all(gate.passed for gate in report.gates)


def metadata_of(model: VMKLAUNet) -> ArtefactMetadata:
    return ArtefactMetadata(
        model.config.to_dict(), ("polyp",), 0.5, PreprocessSpec(HEIGHT, WIDTH), weights_sha256(model)
    )


def test_scans_of_a_tame_network_stay_half() -> None:
    assert half.scans_beyond_half(network(), frames(2)) == {}


def test_half_storage_is_for_float32(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="half weights already"):
        export(tmp_path / "model.onnx", network(), half_storage=True)


@pytest.mark.slow
def test_tensorrt_rtx_builds_it_strongly_typed(fp16_onnx: Path) -> None:
    """Parser and builder run without a GPU; they refuse a product or a sum of two types."""
    import tensorrt_rtx as trt

    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(flags)
    parser = trt.OnnxParser(definition, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(fp16_onnx.read_bytes()), [parser.get_error(i) for i in range(parser.num_errors)]
    assert definition.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert definition.get_input(0).dtype == trt.uint8 and definition.get_output(0).dtype == trt.float32
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("frames", *((n, HEIGHT, WIDTH, 3) for n in (1, 1, 3)))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    engine = builder.build_serialized_network(definition, config)
    assert engine is not None and engine.nbytes > 100_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "clip", [False, pytest.param(True, marks=pytest.mark.long)], ids=["rendered", "clip"]
)
def test_the_documented_command_exports_nano(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: bool
) -> None:
    """At a size where no 1 / L is a power of two."""
    path, video = tmp_path / "nano.fp16.onnx", tmp_path / "clip.mp4"
    arguments = ["export", "--model", "nano", "--imgsz", "192", "--precision", "fp16", "--output", str(path)]
    if clip:
        assert main(["sample", str(video), "--frames", "8", "--seed", "2", "--quiet"]) == 0
        arguments += ["--frames", str(video)]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert ("warning: half precision was checked on rendered frames only" in shown.err) is not clip
    kind = "8 given" if clip else f"{RENDERED_FRAMES} rendered"
    assert f"check: passed over {kind} frames" in shown.out
    metadata = OnnxRuntimeRunner(path, threads=1).spec.metadata
    assert (metadata.preprocess.height, metadata.preprocess.width) == (192, 192)
    assert metadata.verified and path.stat().st_size < 9.5e6
    measured = metadata.gates["range"]
    assert max(measured["largest"].values()) < 4096 and SCAN in measured["float32_scans"]
    check_types(onnx.load(path), wide=tuple(measured["float32_scans"]))
    for check in metadata.gates["checks"]:
        figures, widened = check["measured"], check["gates"]["name"] == HALF_ARITHMETIC.name
        assert figures["max_error"] < (6e-5 if widened else 8e-2), check
        assert figures["mean_error"] < (1e-7 if widened else 1e-4), check
        assert figures["relative_error"] < (8e-5 if widened else 3e-2), check
