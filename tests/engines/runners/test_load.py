"""From a name or a file to a runner, and every reason to refuse one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.engines.tensorrt import stand_in_tensorrt
from tests.export.exported_models import HEIGHT, WIDTH, frames, network, resealed
from vmkla.engines import load_runner
from vmkla.engines.runners import custom_ops
from vmkla.engines.tensorrt import machine
from vmkla.errors import (
    ArtefactMismatchError,
    BadInputError,
    MissingDependencyError,
    ShapeError,
    UsageError,
    VmklaError,
)
from vmkla.models.checkpoints import save_weights
from vmkla.segment.preprocess import PreprocessSpec


def test_a_file_runs(tiny_onnx: Path) -> None:
    runner = load_runner(tiny_onnx, threads=1)
    spec = runner.spec
    assert (spec.height, spec.width, spec.batch, spec.num_classes) == (HEIGHT, WIDTH, None, 1)
    assert (runner.name, spec.device, spec.kernels) == ("onnxruntime", "cpu", "native")
    assert len(spec.sha256) == 64
    out = runner.infer(frames(3))
    assert out.shape == (3, 1, HEIGHT, WIDTH) and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 1
    assert runner.infer(frames(3)[:0]).shape == (0, 1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(runner.infer(frames(3)[:, ::-1][:, ::-1]), out)
    runner.close()
    runner.close()
    with pytest.raises(VmklaError, match="closed"):
        runner.infer(frames(1))


@pytest.mark.parametrize("fails", [False, True])
def test_a_runner_is_closed_by_its_with_block(tiny_onnx: Path, fails: bool) -> None:
    try:
        with load_runner(tiny_onnx, threads=1) as runner:
            assert runner.infer(frames(1)).shape == (1, 1, HEIGHT, WIDTH)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    with pytest.raises(VmklaError, match="closed"):
        runner.infer(frames(1))


def test_both_kinds_of_kernels_agree(tiny_onnx: Path) -> None:
    native = load_runner(tiny_onnx, threads=1).infer(frames(2))
    bodies = load_runner(tiny_onnx, threads=1, kernels="bodies").infer(frames(2))
    np.testing.assert_allclose(native, bodies, atol=2e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        frames(1).astype(np.float32),
        frames(1)[0],
        frames(1, 64, 64),
        frames(1)[..., :2],
        frames(1).transpose(0, 3, 1, 2),
        [[0]],
    ],
)
def test_frames_of_another_shape_or_type(tiny_onnx: Path, wrong: Any) -> None:
    runner = load_runner(tiny_onnx, threads=1)
    with pytest.raises(ShapeError, match="frames must be"):
        runner.infer(wrong)


def test_missing_kernels_are_an_error_and_bodies_are_for_the_asking(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> Path:
        raise MissingDependencyError("the compiled library was not found")

    monkeypatch.setattr(custom_ops, "find_library", absent)
    with pytest.raises(MissingDependencyError, match="not found"):
        load_runner(tiny_onnx)
    assert load_runner(tiny_onnx, kernels="bodies").spec.kernels == "bodies"


def test_a_foreign_model(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(ArtefactMismatchError, match="no vmkla metadata") as caught:
        load_runner(path)
    assert caught.value.exit_status == 6


def test_a_model_that_contradicts_its_metadata(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"width": 64', '"width": 96')
    tiny_onnx.write_bytes(resealed(model))
    with pytest.raises(ArtefactMismatchError, match="its metadata asks for"):
        load_runner(tiny_onnx)


def test_a_graph_that_onnxruntime_refuses(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    model.graph.node[3].op_type = "NoSuchOp"
    tiny_onnx.write_bytes(resealed(model))
    with pytest.raises(ArtefactMismatchError, match="cannot load"):
        load_runner(tiny_onnx)


def test_damaged_and_missing_files(tiny_onnx: Path) -> None:
    data = tiny_onnx.read_bytes()
    tiny_onnx.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInputError, match="not a whole ONNX file") as caught:
        load_runner(tiny_onnx)
    assert caught.value.exit_status == 3
    with pytest.raises(BadInputError, match="no model file"):
        load_runner(tiny_onnx.with_name("absent.onnx"))
    with pytest.raises(BadInputError, match="no shipped .onnx model 'huge'"):
        load_runner("huge")
    with pytest.raises(BadInputError, match="folder"):
        load_runner(tiny_onnx.parent)


def test_engines_and_files_for_the_cpu_are_not_mixed_up(tiny_onnx: Path) -> None:
    for runtime in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(ArtefactMismatchError, match="is not an engine") as caught:
            load_runner(tiny_onnx, runtime)
        command = f"vmkla build {tiny_onnx} --output tiny.plan --runtime {runtime}"
        assert caught.value.exit_status == 6 and command in (caught.value.hint or "")
    plan = tiny_onnx.with_suffix(".plan")
    plan.write_bytes(b"engine")
    with pytest.raises(ArtefactMismatchError, match="no manifest") as caught:
        load_runner(plan)
    assert caught.value.exit_status == 6 and "vmkla build" in (caught.value.hint or "")


def test_an_engine_where_no_gpu_is(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX is installed, so all that is missing is the GPU; TensorRT is missing itself."""
    monkeypatch.setattr(machine, "_driver", _no_driver)
    plan = tiny_onnx.with_suffix(".plan")
    stand_in_tensorrt.write_engine(plan, tiny_onnx, runtime="tensorrt-rtx")
    with pytest.raises(MissingDependencyError, match="runs on an NVIDIA GPU: no NVIDIA driver") as caught:
        load_runner(plan)
    assert caught.value.exit_status == 4 and "onnxruntime" in (caught.value.hint or "")
    stand_in_tensorrt.write_engine(plan, tiny_onnx, runtime="tensorrt-rtx", runtime_version="1.0.0.1")
    with pytest.raises(ArtefactMismatchError, match="runtime_version is 1.0.0.1"):
        load_runner(plan)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    stand_in_tensorrt.write_engine(plan, tiny_onnx)
    with pytest.raises(MissingDependencyError, match="needs the Python package 'tensorrt'") as caught:
        load_runner(plan)
    assert "vmkla[tensorrt]" in (caught.value.hint or "")


def _no_driver() -> Any:
    raise MissingDependencyError("no NVIDIA driver (libcuda.so.1) here")


def test_choices_that_make_no_sense(tiny_onnx: Path) -> None:
    with pytest.raises(UsageError, match="no runtime"):
        load_runner(tiny_onnx, "openvino")
    with pytest.raises(UsageError, match="threads"):
        load_runner(tiny_onnx, threads=0)
    with pytest.raises(UsageError, match="kernels"):
        load_runner(tiny_onnx, kernels="fast")  # type: ignore[arg-type]
    plan = tiny_onnx.with_suffix(".plan")
    stand_in_tensorrt.write_engine(plan, tiny_onnx, runtime="tensorrt-rtx")
    for refused in ({"kernels": "bodies"}, {"threads": 2}, {"plugin": Path("own.so")}):
        with pytest.raises(UsageError, match=next(iter(refused))):
            load_runner(plan, **refused)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no plugin library"):
        load_runner(tiny_onnx, plugin=Path("own.so"))


def test_torch_runs_weights_and_agrees_with_the_file(tiny_onnx: Path) -> None:
    weights = tiny_onnx.with_name("tiny.safetensors")
    spec = PreprocessSpec(HEIGHT, WIDTH, "auto")
    save_weights(network(), weights, training={"image_size_hw": [HEIGHT, WIDTH], "roi": "auto"})
    runner = load_runner(weights)
    onnx_runner = load_runner(tiny_onnx, threads=1)
    assert (runner.name, runner.spec.kernels) == ("torch", "torch")
    assert runner.spec.metadata.preprocess == spec
    assert runner.spec.metadata.weights_sha256 == onnx_runner.spec.metadata.weights_sha256
    np.testing.assert_allclose(runner.infer(frames(3)), onnx_runner.infer(frames(3)), atol=2e-5)
    with pytest.raises(ShapeError, match="frames must be"):
        runner.infer(frames(1, 64, 64))
    runner.close()
    with pytest.raises(VmklaError, match="closed"):
        runner.infer(frames(1))


def test_torch_devices_that_are_not_there(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_weights(network(), weights, training={"image_size_hw": [HEIGHT, WIDTH], "roi": "none"})
    with pytest.raises(UsageError, match="device is 'gpu', expected cpu, cuda or cuda:N"):
        load_runner(weights, device="gpu")
    with pytest.raises(MissingDependencyError, match="cuda:99 was asked for"):
        load_runner(weights, device="cuda:99")


def test_weights_that_do_not_say_their_size(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_weights(network(), weights, training={})
    with pytest.raises(ArtefactMismatchError, match="the size that it was trained at"):
        load_runner(weights)


def test_inference_imports_neither_torch_nor_onnx(tiny_onnx: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from vmkla.engines import load_runner\n"
        "from vmkla.engines import bench, inspect, verify\n"
        f"runner = load_runner({str(tiny_onnx)!r}, threads=1)\n"
        f"runner.infer(np.zeros((1, {HEIGHT}, {WIDTH}, 3), np.uint8))\n"
        f"inspect.describe({str(tiny_onnx)!r})\n"
        "heavy = {'torch', 'onnx', 'onnxscript', 'safetensors', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
