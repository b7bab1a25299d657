"""ONNX Runtime on a GPU, as far as it goes without one: real sessions, whose nodes all lie on the CPU.

The texts of onnxruntime-gpu are those of 1.31.1 on a machine without a GPU.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.export.exported_models import HEIGHT, WIDTH, frames, resealed
from vmkla.engines import load_runner
from vmkla.engines.runners import onnxruntime_cuda
from vmkla.engines.runners.onnx_file import with_batch_of_one
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt import machine
from vmkla.engines.tensorrt.manifest import GpuFacts
from vmkla.errors import ArtefactMismatchError, MissingDependencyError, ShapeError, UsageError, VmklaError
from vmkla.segment.self_test import known_output

CPU = "CPUExecutionProvider"
GPU = GpuFacts("NVIDIA Test", "8.9", 40)
NO_LIBRARIES = "\n".join(
    f"Failed to load {name}: {name}: cannot open shared object file: No such file or directory"
    for name in ("libcublasLt.so.13", "libcurand.so.10")
)
OLD_DRIVER = (
    "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: cuda_call.cc:154 "
    "std::conditional_t<THRW, void, onnxruntime::common::Status> "
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; "
    "hostname=vm ; file=cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(info_.device_id);"
)


def session(data: bytes, *providers: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime_cuda.configure(options)
    return onnxruntime.InferenceSession(data, options, providers=list(providers), enable_fallback=0)


@pytest.fixture
def on_cpu(tiny_onnx: Path) -> onnxruntime.InferenceSession:
    """The tiny network by its bodies, every node on the CPU."""
    return session(with_batch_of_one(tiny_onnx.read_bytes()), CPU)


@pytest.fixture
def cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's CPU provider in the place of the CUDA provider, for what lies around it."""
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", CPU)
    monkeypatch.setattr(onnxruntime_cuda, "provider", lambda index: (CPU, {}))
    monkeypatch.setattr(onnxruntime_cuda, "require_cuda", lambda index: (onnxruntime, GPU))


def test_nodes_on_the_cpu_are_an_error_that_names_them(on_cpu: onnxruntime.InferenceSession) -> None:
    assigned = on_cpu.get_provider_graph_assignment_info()
    count = sum(len(part.get_nodes()) for part in assigned)
    assert count > 500
    with pytest.raises(
        ArtefactMismatchError, match=rf"run {count} of {count} nodes of m.onnx outside"
    ) as caught:
        onnxruntime_cuda.check_nodes(assigned, Path("m.onnx"))
    assert f" Mul on {CPU}" in caught.value.message and "more kinds" in caught.value.message


def test_one_node_on_the_cpu_is_enough(on_cpu: onnxruntime.InferenceSession) -> None:
    assigned: list[Any] = list(on_cpu.get_provider_graph_assignment_info())
    scans = [i for i, part in enumerate(assigned) if part.get_nodes()[0].op_type == "Scan"]
    everywhere = [
        SimpleNamespace(ep_name=onnxruntime_cuda.PROVIDER, get_nodes=part.get_nodes) for part in assigned
    ]
    onnxruntime_cuda.check_nodes(everywhere, Path("m.onnx"))
    everywhere[scans[0]] = assigned[scans[0]]
    with pytest.raises(ArtefactMismatchError, match=f"run 1 of .* outside the GPU: 1 Scan on {CPU}"):
        onnxruntime_cuda.check_nodes(everywhere, Path("m.onnx"))


def test_nodes_inside_loops_are_judged(on_cpu: onnxruntime.InferenceSession) -> None:
    """Three Scans for each selective scan, with an Exp in each; and one Exp outside, that of softplus."""
    nodes = [node for part in on_cpu.get_provider_graph_assignment_info() for node in part.get_nodes()]
    scans = sum(node.op_type == "Scan" for node in nodes)
    assert scans and sum(node.op_type == "Exp" for node in nodes) >= scans + scans // 3


def test_no_report_is_no_proof() -> None:
    with pytest.raises(ArtefactMismatchError, match="reported no node"):
        onnxruntime_cuda.check_nodes([], Path("m.onnx"))


def test_a_batch_of_one_leaves_no_shape_to_compute(
    tiny_onnx: Path, on_cpu: onnxruntime.InferenceSession
) -> None:
    data = tiny_onnx.read_bytes()
    fixed = with_batch_of_one(data)
    before, after = onnx.load_model_from_string(data), onnx.load_model_from_string(fixed)
    shapes = [value.type.tensor_type.shape.dim for value in (*after.graph.input, *after.graph.value_info)]
    assert len(shapes) > 100 and not any(dim.dim_param for shape in shapes for dim in shape)
    assert [dim.dim_value for dim in after.graph.input[0].type.tensor_type.shape.dim] == [1, HEIGHT, WIDTH, 3]
    assert before.graph.node == after.graph.node and before.graph.initializer == after.graph.initializer
    assert len(fixed) == len(data) and with_batch_of_one(fixed) == fixed
    kinds = {
        node.op_type for part in on_cpu.get_provider_graph_assignment_info() for node in part.get_nodes()
    }
    assert not kinds & {"Shape", "Gather"}
    shape_nodes = session(data, CPU).get_provider_graph_assignment_info()
    assert "Shape" in {node.op_type for part in shape_nodes for node in part.get_nodes()}
    answer = on_cpu.run(None, {"frames": frames(1)})[0]
    np.testing.assert_allclose(answer, load_runner(tiny_onnx, kernels="bodies").infer(frames(1)), atol=1e-6)


def test_a_longer_name_of_the_batch_and_names_of_other_extents(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["frames", "rest"])],
        [value("y", onnx.TensorProto.FLOAT, ["frames", "rest"])],
    )
    fixed = onnx.load_model_from_string(with_batch_of_one(onnx.helper.make_model(graph).SerializeToString()))
    for part in (fixed.graph.input[0], fixed.graph.output[0]):
        first, second = part.type.tensor_type.shape.dim
        assert (first.dim_value, second.dim_param) == (1, "rest")


def test_the_cpu_in_place_of_the_gpu_is_an_error(tiny_onnx: Path) -> None:
    """This onnxruntime has no CUDA provider: it takes the CPU, and raises nothing."""
    if onnxruntime_cuda.PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")  # the test that is marked gpu runs there
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        made = session(with_batch_of_one(tiny_onnx.read_bytes()), onnxruntime_cuda.provider(0))
    with pytest.raises(MissingDependencyError, match=f"could not start CUDAExecutionProvider and took {CPU}"):
        onnxruntime_cuda.check_assignment(made, tiny_onnx)


def test_an_onnxruntime_without_the_provider_or_the_report() -> None:
    plain = SimpleNamespace(get_available_providers=lambda: [CPU])
    with pytest.raises(
        MissingDependencyError, match=r"onnxruntime 9 is installed, which runs on CPU"
    ) as caught:
        onnxruntime_cuda.check_build(plain, "onnxruntime 9")
    assert "uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[" in (
        caught.value.hint or ""
    )
    old = SimpleNamespace(
        get_available_providers=lambda: [onnxruntime_cuda.PROVIDER, CPU], InferenceSession=SimpleNamespace()
    )
    with pytest.raises(MissingDependencyError, match="does not report which nodes") as caught:
        onnxruntime_cuda.check_build(old, "onnxruntime-gpu 1.23.2")
    assert "onnxruntime-gpu[cuda,cudnn]>=1.24" in (caught.value.hint or "")
    assert hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


@pytest.mark.parametrize(("built_for", "offered"), [("13.0", "12.9"), ("12.8", "11.8")])
def test_a_driver_that_is_older_than_the_runtime(built_for: str, offered: str) -> None:
    with pytest.raises(
        MissingDependencyError, match=f"offers CUDA {offered}, .* built for CUDA {built_for}"
    ) as caught:
        onnxruntime_cuda.check_driver(built_for, offered)
    assert caught.value.exit_status == 4


@pytest.mark.parametrize(
    ("built_for", "offered"),
    [("13.0", "13.0"), ("12.8", "12.4"), ("12.8", "13.0"), ("9.2", "10.0"), ("", "12.0")],
)
def test_drivers_that_suit(built_for: str, offered: str) -> None:
    onnxruntime_cuda.check_driver(built_for, offered)


def test_missing_libraries_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "CUDNN", "libcudnn_of_nobody.so.9")
    ort = SimpleNamespace(preload_dlls=lambda: print(NO_LIBRARIES))
    with pytest.raises(MissingDependencyError) as caught:
        onnxruntime_cuda.load_libraries(ort)
    for name in ("libcublasLt.so.13", "libcurand.so.10", "libcudnn_of_nobody.so.9"):
        assert name in caught.value.message
    assert "cannot open shared object file" in caught.value.message
    assert caught.value.hint == "Run: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert capsys.readouterr().out == "", "results are on stdout"


def test_no_gpu(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_driver", _no_driver)
    for device in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(MissingDependencyError, match=r"no NVIDIA driver \(libcuda.so.1\) here") as caught:
            load_runner(tiny_onnx, "onnxruntime", device)
        assert caught.value.exit_status == 4


def _no_driver() -> None:
    raise MissingDependencyError("no NVIDIA driver (libcuda.so.1) here")


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cuda:0", {"kernels": "native"}, "native kernels are for CPUs, device is cuda:0"),
        ("cuda", {"threads": 2}, "threads are for the CPU runtimes, device is cuda"),
        ("gpu", {}, "ONNX Runtime runs on cpu, cuda or cuda:N, device is 'gpu'"),
        ("cuda:-1", {}, "device is 'cuda:-1'"),
        ("CPU", {}, "device is 'CPU'"),
    ],
)
def test_what_makes_no_sense_on_a_gpu(
    tiny_onnx: Path, device: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_runner(tiny_onnx, device=device, **options)


def test_int8_files_are_refused(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    (precision,) = (entry for entry in model.metadata_props if entry.key == "vmkla.precision")
    precision.value = "int8"
    tiny_onnx.write_bytes(resealed(model))
    with pytest.raises(
        ArtefactMismatchError, match="is an INT8 file, which was verified with 8-bit products"
    ) as caught:
        load_runner(tiny_onnx, device="cuda:0")
    assert caught.value.exit_status == 6


@pytest.mark.usefixtures("cpu_as_gpu")
def test_a_runner_on_a_gpu(tiny_onnx: Path) -> None:
    runner = load_runner(tiny_onnx, device="cuda:1")
    spec = runner.spec
    assert (spec.device, spec.kernels, spec.batch) == ("cuda:1", "bodies", 1)
    assert spec.runtime == f"onnxruntime-gpu {onnxruntime.__version__}"
    # onnxruntime would go on with the CPU after a failed frame.
    assert isinstance(runner, OnnxRuntimeRunner) and runner._session._enable_fallback is False
    assert any("NVIDIA Test" in note and "every node on the GPU" in note for note in spec.notes)
    expected = load_runner(tiny_onnx, kernels="bodies").infer(frames(1))
    np.testing.assert_allclose(runner.infer(frames(1)), expected, atol=1e-6)
    with pytest.raises(ShapeError):
        runner.infer(frames(2))
    runner.close()


@pytest.mark.usefixtures("cpu_as_gpu")
def test_nodes_elsewhere_stop_the_runner(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "check_assignment", lambda made, path: onnxruntime_cuda.check_nodes(
        [SimpleNamespace(ep_name="elsewhere", get_nodes=part.get_nodes)
         for part in made.get_provider_graph_assignment_info()], path))  # fmt: skip
    with pytest.raises(ArtefactMismatchError, match="outside the GPU"):
        load_runner(tiny_onnx, device="cuda:0")


@pytest.mark.usefixtures("cpu_as_gpu")
def test_the_self_test_runs_at_the_start(tiny_onnx: Path) -> None:
    """A file with another network's answer: a GPU that computes something else looks like this."""
    answer = known_output(load_runner(tiny_onnx))
    answer["grids"] = (1 - np.asarray(answer["grids"])).tolist()
    model = onnx.load(tiny_onnx)
    props = {entry.key: entry for entry in model.metadata_props}
    props["vmkla.self_test"].value = str(answer).replace("'", '"')
    tiny_onnx.write_bytes(resealed(model))
    with pytest.raises(VmklaError, match="the self-test failed"):
        load_runner(tiny_onnx, device="cuda:0")
    load_runner(tiny_onnx)


@pytest.mark.usefixtures("cpu_as_gpu")
@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (OLD_DRIVER, 4, "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version$"),
        (
            "CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED ; GPU=0",
            4,
            "CUDNN failure 1001: CUDNN_STATUS_NOT_",
        ),
        ("CUDA failure 2: out of memory ; GPU=0", 1, "out of memory"),
        ("Failed to allocate memory for requested buffer of size 123", 1, "allocate memory"),
        ("some node does not run", 6, "cannot (load|run) .*some node does not run"),
    ],
)
@pytest.mark.parametrize("step", ["load", "run"])
def test_what_a_failure_on_a_gpu_means(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, step: str, text: str, status: int, message: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(text)

    method = "__init__" if step == "load" else "run"
    monkeypatch.setattr(onnxruntime.InferenceSession, method, fail)
    with pytest.raises(VmklaError) as caught:
        OnnxRuntimeRunner(tiny_onnx, device="cuda:0")
    assert re.search(message, caught.value.message)
    assert caught.value.exit_status == status
    assert status != 1 or "nvidia-smi" in (caught.value.hint or "")


@pytest.mark.gpu
def test_nano_on_a_gpu() -> None:
    """Not run so far: it needs a GPU, its driver and onnxruntime-gpu."""
    try:
        onnxruntime_cuda.require_cuda(0)
    except MissingDependencyError as error:
        pytest.skip(error.message)
    runner = load_runner("nano", device="cuda:0")
    shown = frames(1, runner.spec.height, runner.spec.width)
    first = runner.infer(shown)
    np.testing.assert_array_equal(runner.infer(shown), first)
    np.testing.assert_allclose(first, load_runner("nano").infer(shown), atol=1e-3)
