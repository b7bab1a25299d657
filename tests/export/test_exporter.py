"""The whole export of a tiny network: the file's form, its numbers, and what a wrong file comes to."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.export.exported_models import HEIGHT, TINY, WIDTH, exported, frames, network, resealed, traced
from tests.tolerances import tol
from vmkla.engines.runners.onnx_file import outline_of, read_model
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.verify.gate_frames import RENDERED_FRAMES
from vmkla.errors import (
    ArtefactMismatchError,
    BadInputError,
    GateError,
    ShapeError,
    UsageError,
    VmklaError,
)
from vmkla.export import exporter, tracing
from vmkla.metadata import ArtefactMetadata
from vmkla.models.serving import FramesToProbability, weights_sha256
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.segment.self_test import check_self_test

SPEC = PreprocessSpec(HEIGHT, WIDTH)


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces come from the session's cache, each a copy of its own; all else is the real exporter."""
    traced()  # fills the cache, by the real exporter
    monkeypatch.setattr(tracing, "trace", lambda model, form: traced(model.config, form))


def export(path: Path, **changes: Any) -> exporter.ExportReport:
    arguments: dict[str, Any] = {
        "spec": SPEC,
        "output": path,
        "frames": frames(3),
        "training": {"epochs": 3},
        **changes,
    }
    return exporter.export_onnx(arguments.pop("model", network()), **arguments)


def probability(config: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        served = FramesToProbability(network(config), config.num_classes).eval()
        out: torch.Tensor = served(torch.from_numpy(inputs))
    return out


def test_form_of_the_graph(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "vmkla": 1}
    assert [value.name for value in graph.input] == ["frames"]
    assert [value.name for value in graph.output] == ["probability"]
    consumers = [node.op_type for node in graph.node if "frames" in node.input]
    assert consumers == ["Cast"]
    dims = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["n", HEIGHT, WIDTH, 3]
    assert {function.name for function in model.functions} == {"SelectiveScan2d", "BSplineBasis"}
    custom = [node for node in graph.node if node.domain == "vmkla"]
    assert len(custom) == 4 + 8
    for node in custom:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["plugin_namespace"] == b"vmkla"
        assert attributes["plugin_version"] == b"1"


def test_graph_has_no_loose_pieces(tiny_onnx: Path) -> None:
    """Norms, GELU and the ops' insides are single nodes; what depends on weights alone is a weight."""
    nodes = outline_of(read_model(tiny_onnx), tiny_onnx).nodes
    loose = {
        "Where",
        "Softplus",
        "Pow",
        "Abs",
        "Erf",
        "Neg",
        "Cos",
        "Sin",
        "BatchNormalization",
        "Shape",
    }
    assert not loose & set(nodes)
    assert nodes["Gelu"] == 4
    assert nodes["Exp"] == 4, "of ELU + 1; softplus and A = -exp(A_log) have left none"
    assert nodes["Cast"] == 1


def test_names_are_readable_and_carry_nothing_of_the_machine(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "encoder.stages.0.blocks.0.scan/SelectiveScan2d" in names
    assert "decoder.stages.3.blocks.0.mlp.act/Gelu" in names
    initializers = [tensor.name for tensor in model.graph.initializer]
    assert len(set(initializers)) == len(initializers)
    assert "encoder.stages.0.blocks.0.scan.A" in initializers
    data = tiny_onnx.read_bytes()
    for trace in (b"site-packages", b"pkg.torch", os.fsencode(Path(__file__).parents[2]), b"stack_trace"):
        assert trace not in data


def test_metadata(tiny_onnx: Path) -> None:
    metadata = ArtefactMetadata.from_props(outline_of(read_model(tiny_onnx), tiny_onnx).metadata, path="")
    assert metadata.verified
    assert metadata.random_weights
    assert metadata.model_config == {**TINY.to_dict(), "encoder_depths": [1] * 4, "decoder_depths": [1] * 4}
    assert metadata.preprocess == SPEC
    assert metadata.weights_sha256 == weights_sha256(network())
    assert [check["measured"]["candidate"] for check in metadata.gates["checks"]] == [
        "onnxruntime/native",
        "onnxruntime/bodies",
    ]


@pytest.mark.parametrize("kernels", ["native", "bodies"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_verified_file_carries_its_self_test(tmp_path: Path, kernels: Any, precision: Any) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(exported(precision))
    runner = OnnxRuntimeRunner(path, threads=1, kernels=kernels)
    own = runner.spec.metadata.self_test
    assert own is not None and check_self_test(runner) == own
    other = tmp_path / "other.onnx"
    model = onnx.load_model_from_string(exported(precision))
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.raw_data = bytes(len(tensor.raw_data))
    other.write_bytes(resealed(model))
    with pytest.raises(VmklaError, match="the self-test failed"):
        check_self_test(OnnxRuntimeRunner(other, threads=1, kernels=kernels))


@pytest.mark.parametrize("kernels", ["native", "bodies"])
@pytest.mark.parametrize("count", [1, 3])
def test_probability_is_torchs(tiny_onnx: Path, kernels: Any, count: int) -> None:
    runner = OnnxRuntimeRunner(tiny_onnx, threads=1, kernels=kernels)
    inputs = frames(count, seed=5)
    expected = probability(TINY, inputs)
    assert expected.min() < 0.4 and expected.max() > 0.6
    torch.testing.assert_close(
        torch.from_numpy(runner.infer(inputs)), expected, **tol(("onnx", "torch"), torch.float32)
    )


def test_fixed_batch_many_classes_and_half_storage(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, num_classes=3, decoder_block="csa")
    lines: list[str] = []
    report = export(
        tmp_path / "a" / "model.onnx", model=network(config), batch=2, class_names=("background", "a", "b"),
        half_storage=True, progress=lines.append,
    )  # fmt: skip
    assert report.path.stat().st_size == report.size_bytes
    assert len(report.comparisons) == 2 and all(gate.passed for gate in report.gates)
    assert any("mask Dice mean" in line and "passed" in line for line in lines)
    runner = OnnxRuntimeRunner(report.path, threads=1)
    assert runner.spec.batch == 2
    assert check_self_test(runner) == report.metadata.self_test
    inputs = frames(2, seed=6)
    out = runner.infer(inputs)
    assert out.shape == (2, 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(out.sum(axis=1), 1.0, atol=1e-5)
    with pytest.raises(ShapeError, match="frames must be"):
        runner.infer(frames(1))


def test_float_frames(tmp_path: Path) -> None:
    """Planes of floats give what uint8 frames give, at any batch; the runner makes them of its frames."""
    path = tmp_path / "float.onnx"
    path.write_bytes(exported(input_type="float32"))
    outline = outline_of(read_model(path), path)
    assert [value.to_dict() for value in outline.inputs] == [
        {"name": "frames", "element": "float32", "shape": ["n", 3, HEIGHT, WIDTH]}
    ]
    metadata = ArtefactMetadata.from_props(outline.metadata, path="")
    assert metadata.input_type == "float32" and metadata.verified
    other = tmp_path / "uint8.onnx"
    other.write_bytes(exported())
    inputs = frames(3, seed=8)
    expected = torch.from_numpy(OnnxRuntimeRunner(other, threads=1).infer(inputs))
    runner = OnnxRuntimeRunner(path, threads=1)
    for part in (slice(0, 3), slice(1, 2)):
        torch.testing.assert_close(
            torch.from_numpy(runner.infer(inputs[part])),
            expected[part],
            **tol(("uint8 frames", "float frames"), torch.float32),
        )
    assert np.abs(runner.infer(inputs[..., ::-1].copy()) - expected.numpy()).max() > 1e-2, "colours matter"


def test_an_input_type_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(exported())
    for entry in model.metadata_props:
        if entry.key == "vmkla.input_type":
            entry.value = "float32"
    (tmp_path / "wrong.onnx").write_bytes(resealed(model))
    with pytest.raises(ArtefactMismatchError, match="its metadata asks for"):
        OnnxRuntimeRunner(tmp_path / "wrong.onnx", threads=1)


def test_a_profile_is_written_down(tmp_path: Path, no_tracing: None) -> None:
    report = export(tmp_path / "model.onnx", batch=(1, 2, 4), skip_gates=True)
    runner = OnnxRuntimeRunner(report.path, threads=1)
    assert runner.spec.metadata.profile == (1, 2, 4) and runner.spec.batch is None
    assert runner.infer(frames(3)).shape == (3, 1, HEIGHT, WIDTH)
    assert report.to_dict()["profile"] == (1, 2, 4)


def body_with_a_route_not_reversed() -> onnx.FunctionProto:
    body = real_scan_body()
    for node in body.node:
        if node.op_type == "Slice" and node.output[0] == "u_back":
            node.op_type, node.input[:] = "Identity", node.input[:1]
    return body


real_scan_body = tracing.bodies.scan_body


def test_a_wrong_body_is_refused(tmp_path: Path, no_tracing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing.bodies, "scan_body", body_with_a_route_not_reversed)
    with pytest.raises(GateError) as caught:
        export(tmp_path / "model.onnx")
    assert caught.value.exit_status == 5
    assert "onnxruntime/bodies" in caught.value.message
    assert "onnxruntime/native" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("random_weights", [False, True])
def test_a_wrong_graph_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_weights: bool
) -> None:
    """Two routes of one scan have changed places: both ways to run it must fail."""

    def spoilt(model: Any, form: Any) -> onnx.ModelProto:
        proto = traced(model.config, form)
        for tensor in proto.graph.initializer:
            if tensor.name == "encoder.stages.3.blocks.0.scan.delta_bias":
                values = onnx.numpy_helper.to_array(tensor)[[2, 1, 0, 3]]
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
                return proto
        raise AssertionError("the weight to spoil is not there")

    traced()  # fills the cache, by the real exporter
    monkeypatch.setattr(tracing, "trace", spoilt)
    with pytest.raises(GateError, match="onnxruntime/native.*onnxruntime/bodies"):
        export(tmp_path / "model.onnx", random_weights=random_weights)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_file_of_before(
    tmp_path: Path, no_tracing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the one before")
    monkeypatch.setattr(tracing.bodies, "scan_body", body_with_a_route_not_reversed)
    with pytest.raises(GateError):
        export(path)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_skipped_gates_are_written_down_and_warned_of(
    tmp_path: Path, no_tracing: None, caplog: pytest.LogCaptureFixture
) -> None:
    report = export(tmp_path / "model.onnx", skip_gates=True)
    assert report.comparisons == ()
    assert report.metadata.gates == {"skipped": True}
    runner = OnnxRuntimeRunner(report.path, threads=1)
    assert not runner.spec.metadata.verified
    assert runner.spec.metadata.self_test is None
    assert "is unverified" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [{}, {"skip_gates": True}, pytest.param({"precision": "fp16"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_every_step_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """The last one begins when one is left: what progress says of the end is true."""
    exported(changes.get("precision", "fp32"))  # by the real exporter; its trace is taken again
    monkeypatch.setattr(tracing, "trace", lambda model, form: traced(model.config, form))
    seen: list[tuple[int, int | None, str]] = []
    export(tmp_path / "model.onnx", on_step=lambda *step: seen.append(step), **changes)
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert {total for _, total, _ in seen} == {len(seen)}
    assert "tracing" in {name for _, _, name in seen}


def test_the_model_is_not_changed(tmp_path: Path, no_tracing: None) -> None:
    before = weights_sha256(network())
    report = export(tmp_path / "model.onnx", half_storage=True, skip_gates=True)
    assert weights_sha256(network()) == before
    assert report.metadata.weights_sha256 != before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"spec": PreprocessSpec(40, 64)}, ShapeError, "multiples of 32"),
        ({"batch": 0}, UsageError, "batch"),
        ({"batch": (4, 2, 1)}, UsageError, "min <= opt <= max"),
        ({"batch": (0, 1, 2)}, UsageError, "batch is 0,1,2"),
        ({"class_names": ("a", "b")}, UsageError, "class names"),
        ({"threshold": 7.0}, UsageError, "threshold"),
        ({"frames": frames(1, 64, 64)}, ShapeError, "frames must be"),
    ],
)
def test_arguments_that_make_no_sense(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export(tmp_path / "model.onnx", **changes)
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written(tmp_path: Path, no_tracing: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="cannot write .*: File exists"):
        export(tmp_path / "file" / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(BadInputError, match="cannot write .*: Is a directory"):
        export(tmp_path / "folder.onnx")
    with pytest.raises(BadInputError, match="cannot write .*: File name too long"):
        export(tmp_path / f"{'long' * 70}.onnx")
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export(tmp_path / "model.plan")


def test_frames_are_rendered_when_none_are_given(tmp_path: Path, no_tracing: None) -> None:
    report = export(tmp_path / "model.onnx", frames=None)
    assert report.metadata.gates["rendered"] is True
    assert report.metadata.gates["frames"] == RENDERED_FRAMES
    assert report.metadata.verified


@pytest.mark.slow
def test_nano(tmp_path: Path) -> None:
    """The preset as it is, traced anew."""
    from vmkla.config import get_preset
    from vmkla.models.vmkla_unet import build_model

    torch.manual_seed(0)
    report = export(
        tmp_path / "nano.onnx", model=build_model(get_preset("nano")), spec=PreprocessSpec(64, 64),
        frames=frames(2, 64, 64), random_weights=True, half_storage=True,
    )  # fmt: skip
    assert all(comparison.max_error < 1e-5 for comparison in report.comparisons)
    assert report.size_bytes < 10e6
