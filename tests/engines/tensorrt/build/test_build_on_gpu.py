"""``vmkla build --runtime tensorrt`` from the plugin to the verified engine, on the stand-in GPU."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx

from tests.engines.tensorrt import stand_in_builder, stand_in_gpu, stand_in_tensorrt
from tests.engines.tensorrt.small_engines import HEIGHT, WIDTH, small_model
from tests.engines.tensorrt.small_libraries import UNUSABLE, UNUSABLE_KINDS, write_plugin
from vmkla.engines import load_runner
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.manifest import GpuFacts, read_manifest
from vmkla.engines.tensorrt.plugins import CREATORS
from vmkla.engines.tensorrt.run.runner import TensorRTRunner
from vmkla.files import file_sha256

Run = Callable[..., tuple[int, str, str]]

OF_THE_TESTS = {"parsed", "prefers_bodies", "prefers_plugins", "swapped"}
"""What the stand-in's builder has for the tests alone."""


@pytest.fixture(autouse=True)
def tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is what ``import tensorrt`` gives, with nothing registered."""
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in_builder.module())
    monkeypatch.setattr(stand_in_tensorrt, "_registry", stand_in_tensorrt.IPluginRegistry())
    monkeypatch.setattr(stand_in_tensorrt, "faults", stand_in_tensorrt.Faults())
    monkeypatch.setattr(stand_in_builder.Builder, "swapped", None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path / "model.onnx")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The stand-in's kind of plugin library."""
    path = tmp_path / "libvmkla_tensorrt.so"
    return write_plugin(path)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "made" / "model.plan"


def written(path: Path, seed_shift: float = 0.0) -> Path:
    proto = small_model(scan=True, metadata={"random_weights": True})
    for tensor in proto.graph.initializer:
        if tensor.name == "project":
            values = onnx.numpy_helper.to_array(tensor) + np.float32(seed_shift)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "project"))
    path.write_bytes(proto.SerializeToString())
    return path


def engine_head(plan: Path) -> dict[str, object]:
    head: dict[str, object] = json.loads(plan.read_bytes().partition(b"\n")[0])
    return head


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_the_stand_in_offers_nothing_of_its_own() -> None:
    """What vmkla could call on it, TensorRT-RTX has too; test_api_names.py holds the calls to TensorRT's."""
    assert set(stand_in_builder.SHARED) <= set(dir(tensorrt_rtx))
    for ours, real in (
        (stand_in_builder.Builder, tensorrt_rtx.Builder),
        (stand_in_builder.OnnxParser, tensorrt_rtx.OnnxParser),
        (stand_in_builder.EngineInspector, tensorrt_rtx.EngineInspector),
        (stand_in_builder.Network, tensorrt_rtx.INetworkDefinition),
        (stand_in_builder.PluginLayer, tensorrt_rtx.ILayer),
    ):
        own = {name for name in vars(ours) if not name.startswith("_")} - OF_THE_TESTS
        assert own and own <= set(dir(real))
    assert hasattr(tensorrt_rtx.ICudaEngine, "create_engine_inspector")


@pytest.mark.stand_in_gpu
def test_an_engine_that_calls_the_plugin_is_built_and_verified(
    run: Run, model: Path, plugin: Path, plan: Path
) -> None:
    status, stdout, stderr = run(
        "build", model, "--output", plan, "--plugin", plugin, "--profile", "1,2,4", "--json"
    )
    assert status == 0, stderr
    report = json.loads(stdout)
    manifest = read_manifest(plan)
    assert engine_head(plan) == {"profile": [1, 2, 4], "plugins": sorted(CREATORS)}  # bodies were stripped
    assert manifest.verified and report["verified"] is True
    checks = manifest.gates["checks"]
    assert {check["measured"]["candidate"] for check in checks} == {"tensorrt/plugin"}
    assert [check["batch"] for check in checks] == [1, 2, 4]
    for check in checks:  # whole batches, three at least: the third goes through the graph
        calls, rest = divmod(check["measured"]["frames"], check["batch"])
        assert calls >= 3 and rest == 0
    # Loading, and each of three batch sizes: two runs and a capture; a graph made the third run.
    assert stand_in_tensorrt.faults.executed == 4 * 3
    assert report["layers"]["PLUGIN_V3 FLOAT"] == 2
    assert manifest.plugin is not None
    assert (manifest.plugin.name, manifest.plugin.sha256) == (plugin.name, file_sha256(plugin))
    assert manifest.gpu == GpuFacts("Stand-in GPU", "8.7", 16) and manifest.target_sms == ()
    assert (manifest.runtime, manifest.runtime_version) == ("tensorrt", stand_in_tensorrt.VERSION)
    assert manifest.cuda_version is not None
    assert {layer["LayerType"] for layer in report["engine_layers"]} >= set(CREATORS)
    assert left(plan.parent) == ["model.plan", "model.plan.json"]
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
def test_the_built_engine_infers_what_the_file_does(run: Run, model: Path, plan: Path) -> None:
    status, _, stderr = run("build", model, "--output", plan, "--plugin", "bodies")
    assert status == 0, stderr
    assert "custom nodes by function bodies" in stderr and engine_head(plan)["plugins"] == []
    frames = np.random.default_rng(5).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    ours, reference = load_runner(plan), OnnxRuntimeRunner(model)
    try:
        np.testing.assert_allclose(ours.infer(frames), reference.infer(frames), atol=1e-5)
        assert ours.spec.metadata.verified
    finally:
        ours.close()
        reference.close()
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize("gates", [True, False])
def test_an_engine_that_computes_something_else(
    run: Run, model: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: bool
) -> None:
    """A builder that goes wrong: status 5 and nothing left, or an engine that says that nobody checked it."""
    other = written(tmp_path / "other.onnx", seed_shift=0.05)
    monkeypatch.setattr(stand_in_builder.Builder, "swapped", other.read_bytes())
    options = () if gates else ("--skip-gates",)
    status, stdout, stderr = run("build", model, "--output", plan, "--plugin", "bodies", *options)
    if gates:
        assert status == 5 and "mean probability error" in stderr and stdout == ""
        assert left(plan.parent) == []
    else:
        assert status == 0 and "unverified: its maker's check was skipped" in stdout
        assert not read_manifest(plan).verified
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
def test_a_plugin_library_that_lacks_a_creator(run: Run, model: Path, plugin: Path, plan: Path) -> None:
    write_plugin(plugin, CREATORS[:1])
    status, _, stderr = run("build", model, "--output", plan, "--plugin", plugin)
    assert status == 6 and f"not registered: {CREATORS[1]}" in stderr
    write_plugin(plugin, ())
    status, _, stderr = run("build", model, "--output", plan, "--plugin", plugin)
    assert status == 6 and f"cannot load the plugin library {plugin}: Unable to load library" in stderr
    assert left(plan.parent) == []


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize("kind", UNUSABLE_KINDS)
def test_a_plugin_library_that_does_not_load(
    run: Run, model: Path, plugin: Path, plan: Path, kind: str
) -> None:
    UNUSABLE[kind].write(plugin)
    status, _, stderr = run("build", model, "--output", plan, "--plugin", plugin)
    library = f"tensorrt {stand_in_tensorrt.VERSION}"
    assert status == 6
    assert f"{library} cannot load the plugin library {plugin}: {UNUSABLE[kind].reason}" in stderr
    assert left(plan.parent) == []


@pytest.mark.stand_in_gpu
def test_builds_and_runners_come_and_go(run: Run, model: Path, plugin: Path, plan: Path) -> None:
    """Open A and B, close A, build, open C: the registry logs through the logger of whoever came first."""
    assert run("build", model, "--output", plan, "--plugin", plugin)[0] == 0
    first, second = (TensorRTRunner(plan, plugin=plugin) for _ in range(2))
    first.close()
    del first
    gc.collect()
    again = plan.with_name("again.plan")
    status, _, stderr = run("build", model, "--output", again, "--plugin", plugin)
    assert status == 0, stderr
    third = TensorRTRunner(again, plugin=plugin)
    frames = np.random.default_rng(6).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.testing.assert_array_equal(second.infer(frames), third.infer(frames))
    second.close()
    third.close()
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
def test_tensorrt_rtx_has_no_targets_among_this_gpu(run: Run, model: Path, plan: Path) -> None:
    status, _, stderr = run("build", model, "--runtime", "tensorrt-rtx", "--output", plan)
    assert status == 4 and "Stand-in GPU (SM 87)" in stderr and "--runtime tensorrt here" in stderr
    assert left(plan.parent) == []


@pytest.mark.stand_in_gpu
def test_a_parser_that_prefers_bodies_to_the_plugin(
    run: Run, model: Path, plugin: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine would compute the same, slowly, and its manifest would say that it calls the plugin."""
    monkeypatch.setattr(stand_in_builder.Builder, "prefers_bodies", True)
    status, _, stderr = run("build", model, "--output", plan, "--plugin", plugin)
    assert status == 6 and "for 0 of the 2 custom nodes" in stderr and "--plugin bodies" in stderr
    assert not plan.parent.exists()


@pytest.mark.stand_in_gpu
def test_a_parser_that_prefers_a_plugin_to_the_bodies(
    run: Run, model: Path, plugin: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in_builder.Builder, "prefers_plugins", True)
    stand_in_tensorrt.get_plugin_registry().load_library(str(plugin))
    status, _, stderr = run("build", model, "--output", plan, "--plugin", "bodies")
    assert status == 6 and "took a plugin for 2 nodes" in stderr
    assert not plan.parent.exists()
