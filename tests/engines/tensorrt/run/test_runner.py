"""The runner of engines from file to probability, on stand-ins for NVIDIA's driver and TensorRT's runtime.

The stand-ins compute with ONNX Runtime, so results are compared with ONNX Runtime's own, bit by bit.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.engines.tensorrt import stand_in_gpu, stand_in_tensorrt
from tests.engines.tensorrt.small_libraries import UNUSABLE, UNUSABLE_KINDS, write_plugin
from tests.export.exported_models import HEIGHT, WIDTH, frames, resealed, with_roots
from vmkla.engines import load_runner
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.manifest import GpuFacts, Profile, manifest_path, sealed
from vmkla.engines.tensorrt.plugins import CREATORS, LIBRARY
from vmkla.engines.tensorrt.run.runner import TensorRTRunner
from vmkla.errors import (
    ArtefactMismatchError,
    BadInputError,
    MissingDependencyError,
    ShapeError,
    UsageError,
    VmklaError,
)

pytestmark = pytest.mark.stand_in_gpu

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both libraries' stand-ins, fresh; a test must leave nothing on the GPU."""
    for runtime, name in MODULES.items():
        monkeypatch.setitem(sys.modules, name, stand_in_tensorrt.module(runtime))
    monkeypatch.setattr(stand_in_tensorrt, "faults", stand_in_tensorrt.Faults())
    monkeypatch.setattr(stand_in_tensorrt, "_registry", stand_in_tensorrt.IPluginRegistry())
    stand_in_gpu.library().stand_in_reset()
    assert stand_in_gpu.live() == 0
    yield
    assert stand_in_gpu.live() == 0


@pytest.fixture
def plan(tmp_path: Path, tiny_onnx: Path) -> Path:
    """An engine of the tiny network for batches of 1 to 4."""
    path = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(path, tiny_onnx)
    return path


def by_onnxruntime(path: Path, batch: npt.NDArray[np.uint8], *sizes: int) -> npt.NDArray[np.float32]:
    """What ONNX Runtime makes of frames in batches of these sizes."""
    runner = OnnxRuntimeRunner(path)
    parts, start = [], 0
    for size in sizes:
        parts.append(runner.infer(batch[start : start + size]))
        start += size
    runner.close()
    return np.concatenate(parts)


@pytest.mark.parametrize("runtime", MODULES)
@pytest.mark.parametrize("package", stand_in_gpu.PACKAGES)
def test_results_are_those_of_onnxruntime(
    tmp_path: Path, tiny_onnx: Path, runtime: str, package: Any
) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, profile=(1, 2, 4), runtime=runtime)
    runner = TensorRTRunner(plan, package=package)
    spec = runner.spec
    assert (runner.name, spec.device, spec.kernels, spec.batch) == (runtime, "cuda:0", "bodies", None)
    assert (spec.height, spec.width, spec.num_classes) == (HEIGHT, WIDTH, 1)
    assert spec.runtime == f"{runtime} {sys.modules[MODULES[runtime]].__version__}"
    assert spec.notes[1] == "CUDA graph" and package in spec.notes[0].lower()
    seen = frames(11, seed=3)
    for count, sizes in ((1, (1,)), (2, (2,)), (4, (4,)), (5, (4, 1)), (11, (4, 4, 3)), (1, (1,))):
        out = runner.infer(seen[:count])
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out, by_onnxruntime(tiny_onnx, seen[:count], *sizes))
    assert runner.infer(seen[:0]).shape == (0, 1, HEIGHT, WIDTH)
    assert stand_in_gpu.library().stand_in_pageable_copies() == 0
    # Buffers on the GPU: input and output of the largest batch, once.
    assert stand_in_gpu.library().stand_in_device_bytes() == 4 * HEIGHT * WIDTH * (3 + 4)
    runner.close()
    runner.close()
    with pytest.raises(VmklaError, match="closed"):
        runner.infer(seen[:1])


def test_frames_that_are_no_plain_array(plan: Path, tiny_onnx: Path) -> None:
    runner = load_runner(plan)
    seen = frames(6, seed=4)[:, ::-1][::2]
    np.testing.assert_array_equal(
        runner.infer(seen), by_onnxruntime(tiny_onnx, np.ascontiguousarray(seen), 3)
    )
    runner.close()


def test_the_engine_runs_as_a_graph_once_it_is_warm(plan: Path) -> None:
    runner = load_runner(plan)
    launched, executed = stand_in_gpu.calls("cuGraphLaunch"), stand_in_tensorrt.faults.executed
    assert (launched, executed) == (0, 3)  # two warm-up runs, and the capture
    for number in range(3):
        runner.infer(frames(1, seed=number))
    assert stand_in_gpu.calls("cuGraphLaunch") == 3 and stand_in_tensorrt.faults.executed == 3
    # A batch of another size runs plainly, since the graph is of the first; then it gets its own.
    for number in range(4):
        runner.infer(frames(2, seed=number))
    assert stand_in_gpu.calls("cuGraphLaunch") == 3 + 2
    assert stand_in_tensorrt.faults.executed == 3 + 2 + 1
    runner.close()


def test_no_graph_where_the_engine_cannot_be_captured(
    plan: Path, tiny_onnx: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in_tensorrt.faults.capture = True
    rtx = tmp_path / "rtx.plan"
    stand_in_tensorrt.write_engine(rtx, tiny_onnx, runtime="tensorrt-rtx")
    reasons = {plan: "not permitted when stream is capturing", rtx: "cannot be captured"}
    for path, reason in reasons.items():
        caplog.clear()
        runner = load_runner(path)
        seen = frames(2)
        np.testing.assert_array_equal(runner.infer(seen), by_onnxruntime(tiny_onnx, seen, 2))
        for _ in range(4):
            runner.infer(seen)
        assert stand_in_gpu.calls("cuGraphLaunch") == 0
        assert "no CUDA graph" in runner.spec.notes[1] and reason in runner.spec.notes[1]
        (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert reason in line.getMessage()
        runner.close()


def test_no_graph_where_none_is_asked_for(plan: Path, tiny_onnx: Path) -> None:
    runner = TensorRTRunner(plan, graph=False)
    np.testing.assert_array_equal(runner.infer(frames(1)), by_onnxruntime(tiny_onnx, frames(1), 1))
    assert stand_in_gpu.calls("cuStreamBeginCapture") == 0 and "not requested" in runner.spec.notes[1]
    runner.close()


def test_a_batch_below_the_smallest(tmp_path: Path, tiny_onnx: Path) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, profile=(3, 3, 4))
    runner = load_runner(plan)
    seen = frames(2, seed=5)
    filled = np.concatenate([seen, seen[1:]])
    out = runner.infer(seen)
    np.testing.assert_array_equal(out, by_onnxruntime(tiny_onnx, filled, 3)[:2])
    np.testing.assert_array_equal(stand_in_tensorrt.faults.seen, filled)
    np.testing.assert_array_equal(runner.infer(seen[:1]), by_onnxruntime(tiny_onnx, seen[[0, 0, 0]], 3)[:1])
    runner.close()


def test_a_fixed_batch(tmp_path: Path, tiny_onnx: Path) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, profile=(2, 2, 2))
    runner = load_runner(plan)
    assert runner.spec.batch == 2
    np.testing.assert_array_equal(runner.infer(frames(2)), by_onnxruntime(tiny_onnx, frames(2), 2))
    for wrong in (frames(1), frames(3), frames(2).astype(np.float32), frames(2, 64, 64)):
        with pytest.raises(ShapeError, match="frames must be"):
            runner.infer(wrong)
    runner.close()


def test_a_float_input(float_onnx: Path) -> None:
    plan = float_onnx.with_suffix(".plan")
    stand_in_tensorrt.write_engine(plan, float_onnx)
    runner = load_runner(plan)
    assert runner.spec.metadata.input_type == "float32"
    seen = frames(5, seed=6)
    np.testing.assert_array_equal(runner.infer(seen), by_onnxruntime(float_onnx, seen, 4, 1))
    assert stand_in_gpu.library().stand_in_device_bytes() == 4 * HEIGHT * WIDTH * 4 * (3 + 1)
    runner.close()


def test_values_that_are_not_finite_are_handed_on(tmp_path: Path, tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    weights = [
        w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and len(w.dims) > 1
    ]
    tiny_onnx.write_bytes(resealed(with_roots(model, weights[0].name)))
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx)
    runner = load_runner(plan)
    out = runner.infer(frames(1))
    assert np.isnan(out).any()
    np.testing.assert_array_equal(out, by_onnxruntime(tiny_onnx, frames(1), 1))
    runner.close()


# Failures at work.


def test_an_engine_that_fails(plan: Path) -> None:
    stand_in_tensorrt.faults.execute = 2
    with pytest.raises(VmklaError, match="could not run the engine: .*convolution execution failed"):
        load_runner(plan)
    stand_in_tensorrt.faults.execute = None
    runner = TensorRTRunner(plan, graph=False)
    seen = frames(12)
    stand_in_tensorrt.faults.execute = stand_in_tensorrt.faults.executed + 2  # the second of three batches
    with pytest.raises(VmklaError, match="tensorrt 10.3.0.26 could not run the engine"):
        runner.infer(seen)
    assert stand_in_gpu.pending() == 0  # or a copy would still be under way while buffers are freed
    stand_in_tensorrt.faults.execute = None
    again = runner.infer(seen)
    runner.close()
    fresh = TensorRTRunner(plan, graph=False)
    np.testing.assert_array_equal(again, fresh.infer(seen))
    fresh.close()


def test_a_gpu_that_fails(plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = TensorRTRunner(plan, graph=False)
    stand_in_tensorrt.faults.launch = True
    with pytest.raises(VmklaError, match="an illegal memory access was encountered"):
        runner.infer(frames(1))
    stand_in_tensorrt.faults.launch = False
    with pytest.raises(VmklaError, match="illegal memory access"):  # it stays so, as on a GPU
        runner.infer(frames(1))
    runner.close()  # hides nothing of the failure, and raises nothing over it
    assert "could not be released" in caplog.text
    stand_in_gpu.library().stand_in_reset()
    stand_in_gpu.forget()


@pytest.mark.parametrize("function", ["cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"])
def test_a_gpu_without_memory(plan: Path, function: str) -> None:
    stand_in_gpu.fail(function, 2)
    with pytest.raises(VmklaError, match=f"{function}.*out of memory"):
        load_runner(plan)


def test_a_driver_that_is_too_old_for_the_library(plan: Path) -> None:
    stand_in_tensorrt.faults.runtime = True
    with pytest.raises(VmklaError, match="does not start here: CUDA initialization failure"):
        load_runner(plan)


def test_no_memory_for_a_context(plan: Path) -> None:
    stand_in_tensorrt.faults.context = True
    with pytest.raises(
        VmklaError, match="cannot make an execution context.*GPU memory could not be allocated"
    ):
        load_runner(plan)


def test_an_engine_that_is_refused_goes_before_the_gpu_does(
    plan: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while somebody still holds the error, whose frames have seen the engine."""
    alive: list[list[str]] = []
    close = stand_in_tensorrt.faults.released
    stand_in_tensorrt.faults.context = True
    with pytest.raises(VmklaError, match="cannot make an execution context") as first:
        load_runner(plan)
    alive.append(list(close))
    stand_in_tensorrt.faults.context = False
    stand_in_tensorrt.write_engine(plan, tiny_onnx, profile=(1, 2, 4))
    data = json.loads(manifest_path(plan).read_text())
    data["profile"] = {"min": 1, "opt": 1, "max": 2}
    manifest_path(plan).write_text(json.dumps(sealed(data)))
    with pytest.raises(ArtefactMismatchError, match="batch sizes") as second:
        load_runner(plan)
    assert first.value.__traceback__ is not None and second.value.__traceback__ is not None
    assert alive == [["ICudaEngine", "Runtime"]] and close == ["ICudaEngine", "Runtime"] * 2


def test_the_engine_is_read_once(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed is what is loaded, whatever becomes of the file meanwhile."""
    opened = []
    read = Path.open

    def count(path: Path, *arguments: Any, **more: Any) -> Any:
        if path == plan:
            opened.append(path)
        return read(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", count)
    load_runner(plan).close()
    assert len(opened) == 1


def test_the_library_is_released_in_order(plan: Path) -> None:
    runner = load_runner(plan)
    gc.collect()
    stand_in_tensorrt.faults.released.clear()
    runner.close()
    assert stand_in_tensorrt.faults.released == ["IExecutionContext", "ICudaEngine", "Runtime"]


def test_several_threads(plan: Path, tiny_onnx: Path) -> None:
    runner = load_runner(plan)
    seen = [frames(3, seed=seed) for seed in range(4)]
    results: dict[int, npt.NDArray[np.float32]] = {}

    def work(number: int) -> None:
        for _ in range(3):
            results[number] = runner.infer(seen[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, out in results.items():
        np.testing.assert_array_equal(out, by_onnxruntime(tiny_onnx, seen[number], 3))
    assert len(results) == 4
    runner.close()


# Before anything is deserialised.

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "runtime_version": ({"runtime_version": "10.13.3.9"}, "runtime_version is 10.13.3.9.*and 10.3.0.26 here"),
    "gpu": ({"gpu": GpuFacts("Orin", "8.7", 16)}, "gpu.name is Orin.*Stand-in GPU"),
    "capability": ({"gpu": GpuFacts("Stand-in GPU", "8.6", 16)}, "gpu.compute_capability is 8.6.*8.7"),
    "sm_count": ({"gpu": GpuFacts("Stand-in GPU", "8.7", 8)}, "gpu.sm_count is 8 .*16"),
    "hash": ({"engine_sha256": "0" * 64}, "engine_sha256 is 0000"),
    "size": ({"engine_bytes": 7}, "engine_bytes is 7"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_machine_that_is_another(tmp_path: Path, tiny_onnx: Path, field: str) -> None:
    changed, message = WRONG[field]
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, **changed)
    with pytest.raises(ArtefactMismatchError, match=message) as caught:
        load_runner(plan)
    assert caught.value.exit_status == 6
    assert (caught.value.hint or "").startswith("Run: vmkla build ")
    assert "--runtime tensorrt" in (caught.value.hint or "")
    assert stand_in_gpu.calls("cuMemAlloc") == 0


def test_changed_bytes(plan: Path) -> None:
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(bytes(data))
    with pytest.raises(ArtefactMismatchError, match="engine_sha256"):
        load_runner(plan)


def test_bytes_that_the_library_refuses(tmp_path: Path, tiny_onnx: Path) -> None:
    """As its manifest says, and yet no engine of this library."""
    plan = tmp_path / "tiny.plan"
    written = stand_in_tensorrt.write_engine(plan, tiny_onnx)
    plan.write_bytes(b"x" * 100)
    data = json.loads(manifest_path(plan).read_text())
    from vmkla.files import file_sha256

    data.update(engine_sha256=file_sha256(plan), engine_bytes=100)
    manifest_path(plan).write_text(json.dumps(sealed(data)))
    with pytest.raises(ArtefactMismatchError, match="cannot load.*Magic tag does not match") as caught:
        load_runner(plan)
    assert written.runtime == "tensorrt" and "vmkla build" in (caught.value.hint or "")


def test_an_engine_that_contradicts_its_manifest(tmp_path: Path, tiny_onnx: Path) -> None:
    plan = tmp_path / "tiny.plan"
    metadata = stand_in_tensorrt.write_engine(plan, tiny_onnx).metadata
    stand_in_tensorrt.write_engine(plan, tiny_onnx, profile=(1, 1, 4), **{"metadata": metadata})
    edited = json.loads(manifest_path(plan).read_text())
    edited["profile"] = dataclasses.asdict(Profile(1, 2, 8))
    manifest_path(plan).write_text(json.dumps(sealed(edited)))
    with pytest.raises(ArtefactMismatchError, match=r"batch sizes \(1, 1, 4\), its manifest has \(1, 2, 8\)"):
        load_runner(plan)
    for key, old, new in (
        ("vmkla.preprocess", '"width": 64', '"width": 96'),
        ("vmkla.class_names", "polyp", 'polyp", "other'),
        ("vmkla.input_type", "uint8", "float32"),
    ):
        props = {**metadata, key: metadata[key].replace(old, new)}
        stand_in_tensorrt.write_engine(plan, tiny_onnx, metadata=props)
        with pytest.raises(ArtefactMismatchError, match="has inputs and outputs.*its manifest asks for"):
            load_runner(plan)


def test_no_manifest(plan: Path) -> None:
    manifest_path(plan).unlink()
    with pytest.raises(ArtefactMismatchError, match="no manifest") as caught:
        load_runner(plan)
    assert "vmkla build" in (caught.value.hint or "")
    with pytest.raises(BadInputError, match="no model file|no engine file"):
        load_runner(plan.with_name("absent.plan"))


def test_runtimes_and_devices(plan: Path, tiny_onnx: Path) -> None:
    for runtime in ("tensorrt-rtx", "onnxruntime", "torch"):
        with pytest.raises(
            ArtefactMismatchError, match=f"engine of tensorrt, the runtime {runtime}"
        ) as caught:
            load_runner(plan, runtime)
        assert "--runtime tensorrt," in (caught.value.hint or "")
    for runtime in MODULES:
        with pytest.raises(ArtefactMismatchError, match="is not an engine") as caught:
            load_runner(tiny_onnx, runtime)
        assert f"vmkla build {tiny_onnx} --output tiny.plan --runtime {runtime}" in (caught.value.hint or "")
    for device in ("cpu", "gpu:0", "cuda:-1"):
        with pytest.raises(UsageError, match="an engine runs on cuda"):
            load_runner(plan, device=device)
    with pytest.raises(UsageError, match="threads"):
        load_runner(plan, threads=2)
    runner = load_runner(plan, "tensorrt", "cuda")
    assert runner.spec.device == "cuda:0"
    runner.close()


def test_a_gpu_that_is_not_there(plan: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (plan, tiny_onnx):
        with pytest.raises(MissingDependencyError, match="shows 1 GPUs .*number 1"):
            load_runner(model, device="cuda:1")
    for function in ("cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"):
        stand_in_gpu.fail(function, 999)
        with pytest.raises(MissingDependencyError, match=f"{function} returned 999"):
            load_runner(plan)
    monkeypatch.setenv("STAND_IN_GPUS", "0")
    with pytest.raises(MissingDependencyError, match="shows 0 GPUs") as caught:
        load_runner(plan)
    assert caught.value.exit_status == 4 and "onnxruntime" in (caught.value.hint or "")


def test_the_second_gpu(plan: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_GPUS", "2")
    with pytest.raises(ArtefactMismatchError, match="gpu.name is Stand-in GPU .*Second stand-in GPU"):
        load_runner(plan, device="cuda:1")
    stand_in_tensorrt.write_engine(plan, tiny_onnx, gpu=GpuFacts("Second stand-in GPU", "8.7", 16))
    runner = load_runner(plan, device="cuda:1")
    assert runner.spec.device == "cuda:1"
    np.testing.assert_array_equal(runner.infer(frames(1)), by_onnxruntime(tiny_onnx, frames(1), 1))
    runner.close()


def test_no_library(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="'tensorrt'.*cannot be imported") as caught:
        load_runner(plan)
    assert caught.value.exit_status == 4 and "pip install" in (caught.value.hint or "")


# The plugin library.


@pytest.fixture
def installed_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library, where the installed one would lie, that the stand-in's registry reads creators from."""
    path = tmp_path / "package" / "lib" / LIBRARY
    path.parent.mkdir(parents=True)
    write_plugin(path)
    import vmkla

    monkeypatch.setattr(vmkla, "__path__", [str(path.parents[1]), *vmkla.__path__])
    return path


def test_an_engine_with_plugins(tmp_path: Path, tiny_onnx: Path, installed_plugin: Path) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, plugin=installed_plugin)
    runner = load_runner(plan)  # deserialising fails unless the creators are there
    assert runner.spec.kernels == "plugin"
    np.testing.assert_array_equal(runner.infer(frames(1)), by_onnxruntime(tiny_onnx, frames(1), 1))
    runner.close()


def test_another_plugin_library(
    tmp_path: Path, tiny_onnx: Path, installed_plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, plugin=installed_plugin)
    own = tmp_path / "own.so"
    installed_plugin.rename(own)
    with pytest.raises(ArtefactMismatchError, match=f"plugin is {LIBRARY} in its manifest and absent here"):
        load_runner(plan)
    runner = TensorRTRunner(plan, plugin=own)
    runner.close()
    write_plugin(installed_plugin, note=b"another")
    with pytest.raises(ArtefactMismatchError, match="plugin.sha256 is .* here") as caught:
        load_runner(plan)
    assert caught.value.exit_status == 6 and "vmkla build" in (caught.value.hint or "")


def test_a_plugin_library_without_creators(tmp_path: Path, tiny_onnx: Path, installed_plugin: Path) -> None:
    for creators, message in (
        ((), "cannot load .*: Unable to load library"),
        (CREATORS[:1], "not registered"),
    ):
        write_plugin(installed_plugin, creators)
        plan = tmp_path / "tiny.plan"
        stand_in_tensorrt.write_engine(plan, tiny_onnx, plugin=installed_plugin)
        with pytest.raises(ArtefactMismatchError, match=message):
            load_runner(plan)


@pytest.mark.parametrize("kind", UNUSABLE_KINDS)
def test_a_plugin_library_that_does_not_load(
    tmp_path: Path, tiny_onnx: Path, installed_plugin: Path, kind: str
) -> None:
    plan = tmp_path / "tiny.plan"
    UNUSABLE[kind].write(installed_plugin)
    stand_in_tensorrt.write_engine(plan, tiny_onnx, plugin=installed_plugin)
    with pytest.raises(ArtefactMismatchError) as caught:
        load_runner(plan)
    version = stand_in_tensorrt.VERSION
    assert caught.value.message == (
        f"tensorrt {version} cannot load the plugin library {installed_plugin}: {UNUSABLE[kind].reason}"
    )


def test_runners_come_and_go(tmp_path: Path, tiny_onnx: Path, installed_plugin: Path) -> None:
    """Open A and B, close A, open C: the registry logs through the logger of whoever came first."""
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, plugin=installed_plugin)
    first, second = load_runner(plan), load_runner(plan)
    first.close()
    del first
    gc.collect()
    third = load_runner(plan)
    for runner in (second, third):
        np.testing.assert_array_equal(runner.infer(frames(1)), by_onnxruntime(tiny_onnx, frames(1), 1))
        runner.close()


def test_each_runner_reports_its_own_errors(plan: Path) -> None:
    """Two runners in two threads, both failing, also while the other one is at work."""
    runners = [TensorRTRunner(plan, graph=False) for _ in range(2)]
    stand_in_tensorrt.faults.execute = 1
    texts: dict[int, str] = {}

    def work(number: int) -> None:
        with pytest.raises(VmklaError) as caught:
            runners[number].infer(frames(1))
        texts[number] = caught.value.message

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stand_in_tensorrt.faults.execute = None
    for number in range(2):
        assert texts[number].count("convolution execution failed") == 1
        runners[number].close()
