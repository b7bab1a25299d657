"""Real builds with TensorRT-RTX, which needs no GPU for them; and what is left when one fails."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.engines.tensorrt.small_engines import small_model
from tests.export.exported_models import frames, resealed
from vmkla import __version__
from vmkla.cli.main import main
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.api import Messages, load_api
from vmkla.engines.tensorrt.build import builder as builder_module
from vmkla.engines.tensorrt.build.builder import BuildReport, build_engine, layer_report, summarise
from vmkla.engines.tensorrt.build.inspection import inspect_engine, layers_of
from vmkla.engines.tensorrt.build.preflight import BuildRequest, preflight
from vmkla.engines.tensorrt.build.verification import compare_with_onnxruntime
from vmkla.engines.tensorrt.machine import cuda_version
from vmkla.engines.tensorrt.manifest import (
    EngineManifest,
    GpuFacts,
    Profile,
    manifest_path,
    read_manifest,
)
from vmkla.engines.verify.gate_frames import RENDERED_FRAMES
from vmkla.errors import ArtefactMismatchError, BadInputError, GateError, VmklaError
from vmkla.files import file_sha256
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import RunnerSpec
from vmkla.video.media.images import write_png

without_gpu = pytest.mark.skipif(cuda_version() is not None, reason="on a GPU the engine would be run")


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return written(tmp_path / "model.onnx")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "made" / "model.plan"


def written(path: Path, **changed: Any) -> Path:
    path.write_bytes(small_model(**changed).SerializeToString())
    return path


def request(onnx_file: Path, output: Path, **changed: Any) -> BuildRequest:
    """For a GPU that is not here, so that the engine is not run anywhere."""
    return BuildRequest(str(onnx_file), output, "tensorrt-rtx", **{"target_sms": (86,), **changed})


def built(onnx_file: Path, output: Path, **changed: Any) -> BuildReport:
    return build_engine(request(onnx_file, output, **changed))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


@without_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
def test_an_engine_and_its_manifest(tmp_path: Path, output: Path, half: bool) -> None:
    onnx_file = written(tmp_path / "model.onnx", half=half, scan=True)
    report = built(onnx_file, output, target_sms=(86, 89), profile=Profile(1, 2, 4))
    assert left(output.parent) == ["model.plan", "model.plan.json"]
    manifest = read_manifest(output)
    assert manifest == report.manifest
    api = load_api("tensorrt-rtx")
    assert (manifest.runtime, manifest.runtime_version) == ("tensorrt-rtx", api.version_text)
    assert (manifest.engine_bytes, manifest.engine_sha256) == (output.stat().st_size, file_sha256(output))
    assert (manifest.onnx.name, manifest.onnx.sha256) == ("model.onnx", file_sha256(onnx_file))
    assert manifest.onnx.bytes == onnx_file.stat().st_size
    assert manifest.weights_sha256 == "ab" * 32 and manifest.vmkla_version == __version__
    assert manifest.profile == Profile(1, 2, 4) and manifest.target_sms == (86, 89)
    assert manifest.plugin is None and manifest.gpu is None and manifest.calibration_sha256 is None
    assert manifest.artefact(output).precision == ("fp16" if half else "fp32")
    assert not manifest.verified and "SM 86, 89" in str(manifest.unverified_because)
    assert report.layers[f"MATRIX_MULTIPLY {'HALF' if half else 'FLOAT'}"] >= 4
    assert report.layers["RECURRENCE FLOAT"] == 3  # the body's three scans, their state in float32
    assert report.engine_layers is None and report.warnings == ()


def test_the_engine_holds_the_network(onnx_file: Path, tmp_path: Path) -> None:
    """Other weights make another engine, a larger network a larger one."""
    plain = built(onnx_file, tmp_path / "a.plan").manifest
    again = built(onnx_file, tmp_path / "b.plan").manifest
    assert plain.onnx == again.onnx
    larger = built(written(tmp_path / "larger.onnx", scan=True), tmp_path / "c.plan").manifest
    assert larger.engine_bytes > 2 * plain.engine_bytes


def test_a_build_over_an_older_engine_replaces_both_files(tmp_path: Path, output: Path) -> None:
    first = built(written(tmp_path / "first.onnx"), output)
    second = built(written(tmp_path / "second.onnx", half=True), output)
    assert first.manifest.onnx != second.manifest.onnx
    assert read_manifest(output) == second.manifest
    assert left(output.parent) == ["model.plan", "model.plan.json"]


def test_skipped_gates_are_recorded(onnx_file: Path, output: Path) -> None:
    report = built(onnx_file, output, skip_gates=True)
    assert report.manifest.gates == {"skipped": True}
    assert read_manifest(output).unverified_because == "its maker's check was skipped"


def test_progress_runs_from_start_to_end(onnx_file: Path, output: Path) -> None:
    seen: list[tuple[int, str]] = []
    lines: list[str] = []

    def progress(done: int, total: int | None, note: str = "") -> None:
        assert total == 1000
        seen.append((done, note))

    build_engine(request(onnx_file, output), progress, lines.append)
    shares = [done for done, _ in seen]
    assert shares == sorted(shares) and shares[0] < 200 and shares[-1] == 1000
    assert len({note for _, note in seen}) > 3 and seen[-1] == (1000, "checking")
    text = "\n".join(lines)
    assert "for SM 86, batch 1,1,1, custom nodes by function bodies" in text
    assert "layers before the build: " in text and "MATRIX_MULTIPLY" not in text.partition("layers")[0]


def test_an_interrupted_build_leaves_nothing(onnx_file: Path, output: Path) -> None:
    """What Ctrl-C does, as soon as the library works."""
    sent: list[bool] = []

    def progress(done: int, total: int | None, note: str = "") -> None:
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_engine(request(onnx_file, output), progress)
    assert sent and not output.parent.exists()


def test_an_interrupted_build_leaves_the_older_engine(onnx_file: Path, output: Path) -> None:
    before = built(onnx_file, output).manifest

    def progress(done: int, total: int | None, note: str = "") -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_engine(request(onnx_file, output), progress)
    assert read_manifest(output) == before and file_sha256(output) == before.engine_sha256
    assert left(output.parent) == ["model.plan", "model.plan.json"]


def test_a_build_that_the_library_refuses(
    onnx_file: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turing, past the preflight that would have said so: the library's own words, and nothing left."""
    monkeypatch.setattr("vmkla.engines.tensorrt.build.preflight.TURING", 0)
    monkeypatch.setattr("vmkla.engines.tensorrt.api.TURING", 0)
    with pytest.raises(VmklaError) as caught:
        built(onnx_file, output, target_sms=(75,))
    assert caught.value.exit_status == 1
    assert "could not build the engine; it reported:" in caught.value.message
    assert "FP32 GEMM is not supported" in caught.value.message
    assert not output.parent.exists()


def test_an_unsupported_op_leaves_nothing(tmp_path: Path, output: Path) -> None:
    model = small_model()
    model.graph.node[4].op_type = "NoSuchOp"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtefactMismatchError, match=r"node 4 'kan/MatMul' \(NoSuchOp\)"):
        built(path, output)
    assert left(output.parent) == []


def test_a_disk_that_refuses_at_the_end(
    onnx_file: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something takes the place of the engine's folder while the library works."""

    def progress(done: int, total: int | None, note: str = "") -> None:
        if not output.parent.exists():
            output.parent.write_text("in the way")

    with pytest.raises(BadInputError, match="cannot be written"):
        build_engine(request(onnx_file, output), progress)
    assert output.parent.read_text() == "in the way"


@pytest.mark.parametrize("stored", [None, b"", b"ptrt of another version" * 20])
def test_the_timing_cache_is_written_whatever_it_held(
    onnx_file: Path, output: Path, tmp_path: Path, stored: bytes | None
) -> None:
    cache = tmp_path / "caches" / "timings"
    if stored is not None:
        cache.parent.mkdir()
        cache.write_bytes(stored)
    report = built(onnx_file, output, timing_cache=cache)
    assert cache.stat().st_size > 0 and cache.read_bytes() != stored
    assert report.manifest.settings.timing_cache == str(cache)
    assert report.manifest.settings.timing_cache_hit is False
    assert any("times nothing when it builds" in remark for remark in report.remarks)
    assert any("not used" in remark for remark in report.remarks) == bool(stored)


def test_a_file_that_is_no_timing_cache_is_left_alone(onnx_file: Path, output: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("these are no timings\n" * 20)
    with pytest.raises(BadInputError, match="holds no timings of tensorrt-rtx") as caught:
        built(onnx_file, output, timing_cache=notes)
    assert caught.value.hint is not None and "--timing-cache" in caught.value.hint
    assert notes.read_text() == "these are no timings\n" * 20 and not output.parent.exists()


def test_a_timing_cache_that_cannot_be_written_is_said_before_the_build(
    onnx_file: Path, output: Path, tmp_path: Path
) -> None:
    steps: list[int] = []

    def progress(done: int, total: int | None, note: str = "") -> None:
        steps.append(done)

    for cache in (tmp_path, onnx_file / "timings"):
        with pytest.raises(BadInputError, match="is a folder|cannot be"):
            build_engine(request(onnx_file, output, timing_cache=cache), progress)
    assert steps == [] and not output.parent.exists()


def test_a_timing_cache_that_is_lost_meanwhile_costs_no_engine(
    onnx_file: Path, output: Path, tmp_path: Path
) -> None:
    caches = tmp_path / "caches"

    def progress(done: int, total: int | None, note: str = "") -> None:
        if not caches.exists():
            caches.write_text("in the way")

    lines: list[str] = []
    cache = caches / "timings"
    report = build_engine(request(onnx_file, output, timing_cache=cache), progress, lines.append)
    assert read_manifest(output) == report.manifest
    (unsaved,) = (remark for remark in report.remarks if "were not kept" in remark)
    assert str(cache) in unsaved and unsaved in lines


def test_a_disk_that_is_full_at_the_manifest_leaves_the_older_engine(
    onnx_file: Path, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = built(onnx_file, output).manifest
    write = builder_module.write_manifest

    def full(manifest: EngineManifest, plan: Path) -> Path:
        if manifest.gates:  # the last one, behind the check
            raise BadInputError(f"{plan} cannot be written: No space left on device")
        return write(manifest, plan)

    monkeypatch.setattr(builder_module, "write_manifest", full)
    with pytest.raises(BadInputError, match="No space left"):
        built(written(tmp_path / "other.onnx", half=True), output)
    assert read_manifest(output) == before and file_sha256(output) == before.engine_sha256
    assert left(output.parent) == ["model.plan", "model.plan.json"]


def test_settings_reach_the_library(onnx_file: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    make = builder_module._make_config

    def spy(*arguments: Any) -> Any:
        seen.append(make(*arguments))
        return seen[0]

    monkeypatch.setattr(builder_module, "_make_config", spy)
    report = built(onnx_file, output, workspace_bytes=1 << 28, optimization_level=1, target_sms=(80, 120))
    module = load_api("tensorrt-rtx").module
    (config,) = seen
    assert config.get_memory_pool_limit(module.MemoryPoolType.WORKSPACE) == 1 << 28
    assert config.builder_optimization_level == 1
    assert not config.get_flag(module.BuilderFlag.TF32)
    assert config.num_compute_capabilities == 2
    capabilities = [config.get_compute_capability(i) for i in range(2)]
    assert capabilities == [module.ComputeCapability.SM80, module.ComputeCapability.SM120]
    assert config.num_optimization_profiles == 1
    settings = report.manifest.settings
    assert (settings.workspace_bytes, settings.optimization_level) == (1 << 28, 1)


@without_gpu
@pytest.mark.gpu
def test_without_a_gpu_the_inspector_says_that_the_engine_does_not_load(
    onnx_file: Path, output: Path
) -> None:
    built(onnx_file, output)
    with pytest.raises(VmklaError, match="does not load the engine"):
        inspect_engine(load_api("tensorrt-rtx"), output, Messages())


def test_the_inspectors_layers_with_and_without_details() -> None:
    text = '{"Layers": [{"Name": "a", "LayerType": "gemm"}, "b"], "Bindings": ["frames"]}'
    assert layers_of(text) == ({"Name": "a", "LayerType": "gemm"}, {"Name": "b"})
    assert layers_of("{}") == ()


def test_messages_of_one_kind_are_shown_once() -> None:
    twice = [
        "ImporterContext.hpp:501: A node named x already exists, the output tensors of this new instance "
        "will not be queryable.",
        "something else",
        "a tensor named p is unused",
        "a tensor named q is unused",
    ]
    assert summarise(twice) == ("something else", "a tensor named p is unused (and 1 like it)")


def test_layers_are_reported_by_type_and_kind() -> None:
    line = layer_report({"SHUFFLE HALF": 3, "CAST FLOAT": 2, "CONSTANT HALF": 1})
    assert line == (
        "6 layers before the build: 4 HALF, 2 FLOAT; most frequent 3 SHUFFLE HALF, 2 CAST FLOAT, "
        "1 CONSTANT HALF"
    )


class Shifted:
    """ONNX Runtime's own result, off by a little: an engine that computes something else."""

    name = "shifted"

    def __init__(self, path: Path, shift: float) -> None:
        self._inner = OnnxRuntimeRunner(path, kernels="bodies", warn_unverified=False)
        self._shift = shift

    @property
    def spec(self) -> RunnerSpec:
        return self._inner.spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(self._inner.infer(frames_rgb) + np.float32(self._shift))

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize(("half", "shift"), [(False, 0.0), (True, 0.0), (True, 1e-4)])
def test_an_engine_that_computes_the_same_passes(
    tmp_path: Path, output: Path, half: bool, shift: float
) -> None:
    path = written(tmp_path / "model.onnx", scan=True, half=half, metadata={"random_weights": True})
    plan = preflight(request(path, output), load_api("tensorrt-rtx"), None)
    gates = compare_with_onnxruntime(plan, Shifted(path, shift), lambda line: None)
    assert gates["passed"] is True and gates["rendered"] is True
    assert gates["checks"][0]["gates"]["name"] == ("fp16 engine" if half else "fp32 engine")
    assert gates["checks"][0]["measured"]["candidate"] == "shifted/bodies"


@pytest.mark.parametrize("half", [False, True])
def test_an_engine_that_computes_something_else_fails(tmp_path: Path, output: Path, half: bool) -> None:
    path = written(tmp_path / "model.onnx", scan=True, half=half, metadata={"random_weights": True})
    plan = preflight(request(path, output), load_api("tensorrt-rtx"), None)
    lines: list[str] = []
    with pytest.raises(GateError, match="mean probability error") as caught:
        compare_with_onnxruntime(plan, Shifted(path, 1e-3), lines.append)
    assert caught.value.exit_status == 5 and "was not written" in caught.value.message
    assert "FAILED" in lines[0]


class WrongInOneCall(Shifted):
    """Right but for one call of one batch size: the first is run by kernels, the third by the CUDA graph."""

    def __init__(self, path: Path, batch: int, call: int) -> None:
        super().__init__(path, 0.0)
        self._wrong = batch, call
        self._calls: Counter[int] = Counter()

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batch = len(frames_rgb)
        self._calls[batch] += 1
        right = super().infer(frames_rgb)
        return right + np.float32(1e-2) if (batch, self._calls[batch]) == self._wrong else right


class Stale(Shifted):
    """A graph that does not read its input: from the third call of a batch size on the result is the last."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 0.0)
        self._results: dict[int, list[npt.NDArray[np.float32]]] = {}

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        results = self._results.setdefault(len(frames_rgb), [])
        results.append(results[-1] if len(results) >= 2 else super().infer(frames_rgb))
        return results[-1]


@pytest.mark.parametrize(("batch", "call"), [(1, 1), (1, 3), (2, 2), (2, 3), (4, 1), (4, 3)])
def test_every_batch_size_is_checked_with_and_without_its_graph(
    tmp_path: Path, output: Path, batch: int, call: int
) -> None:
    path = written(tmp_path / "model.onnx", metadata={"random_weights": True})
    plan = preflight(request(path, output, profile=Profile(1, 2, 4)), load_api("tensorrt-rtx"), None)
    with pytest.raises(GateError, match=f"was not written: batch {batch}: "):
        compare_with_onnxruntime(plan, WrongInOneCall(path, batch, call), lambda line: None)


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
def test_a_result_of_the_call_before_is_seen(tmp_path: Path, output: Path, batch: int) -> None:
    path = written(tmp_path / "model.onnx", metadata={"random_weights": True})
    profile = Profile(batch, batch, batch)
    plan = preflight(request(path, output, profile=profile), load_api("tensorrt-rtx"), None)
    with pytest.raises(GateError, match=f"batch {batch}: "):
        compare_with_onnxruntime(plan, Stale(path), lambda line: None)


def test_the_check_says_what_it_ran_and_the_reference_computes_a_frame_once(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "model.onnx", metadata={"random_weights": True})
    plan = preflight(request(path, output, profile=Profile(1, 2, 8)), load_api("tensorrt-rtx"), None)
    candidate = Shifted(path, 0.0)
    computed: list[int] = []
    infer = OnnxRuntimeRunner.infer

    def counted(runner: OnnxRuntimeRunner, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if runner is not candidate._inner:
            computed.append(len(frames))
        return infer(runner, frames)

    monkeypatch.setattr(OnnxRuntimeRunner, "infer", counted)
    gates = compare_with_onnxruntime(plan, candidate, lambda line: None)
    ran = [(check["batch"], check["measured"]["frames"]) for check in gates["checks"]]
    assert gates["frames"] == RENDERED_FRAMES == 7
    assert ran == [(1, 7), (2, 12), (8, 24)], "every frame at every batch size"
    assert computed == [1] * 7


def test_frames_of_ones_own_are_what_it_runs(tmp_path: Path, output: Path) -> None:
    path = written(tmp_path / "model.onnx", metadata={"random_weights": True})
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames(4)):
        write_png(folder / f"{number}.png", frame)
    asked = request(path, output, frames=str(folder))
    plan = preflight(asked, load_api("tensorrt-rtx"), None)
    candidate = Shifted(path, 0.0)
    gates = compare_with_onnxruntime(plan, candidate, lambda line: None)
    assert gates["rendered"] is False and gates["frames"] == 3, "an odd number of them"
    with pytest.raises(BadInputError, match="no_such_folder"):
        preflight(request(path, output, frames="no_such_folder"), load_api("tensorrt-rtx"), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "scan"),
    [
        pytest.param("fp32", "encoder.stages.3.blocks.0.scan", marks=pytest.mark.long),
        ("fp16", "encoder.stages.2.blocks.1.scan"),
    ],
)
def test_an_exchanged_route_in_a_deep_scan_of_nano_is_refused(
    tmp_path: Path, output: Path, precision: str, scan: str
) -> None:
    """In half the deepest scan's share of the result is below rounding; the one before is seen."""
    path = tmp_path / "nano.onnx"
    options = ("--precision", precision, "--skip-gates", "--quiet")
    assert main(["export", "--model", "nano", "--output", str(path), *options]) == 0
    proto = onnx.load(path)
    (tensor,) = (t for t in proto.graph.initializer if t.name == f"{scan}.delta_bias")
    routes = onnx.numpy_helper.to_array(tensor)[[2, 1, 0, 3]]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(routes), tensor.name))
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(resealed(proto))
    plan = preflight(request(path, output), load_api("tensorrt-rtx"), None)
    candidate = OnnxRuntimeRunner(wrong, threads=1, warn_unverified=False)
    with pytest.raises(GateError, match=r"relative to p \(1 - p\)"):
        compare_with_onnxruntime(plan, candidate, lambda line: None)


@without_gpu
@pytest.mark.gpu
def test_a_gpu_that_can_run_the_engine_is_asked_to(
    onnx_file: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's answer is made up; what follows is real, so it ends where there is no such GPU."""
    monkeypatch.setattr(builder_module, "_gpu", lambda: (GpuFacts("Made up", "8.6", 10), ""))
    with pytest.raises(VmklaError, match="does not load the engine"):
        built(onnx_file, output)
    assert not output.parent.exists()


@pytest.mark.slow
@without_gpu
@pytest.mark.gpu
def test_the_shipped_nano_becomes_an_engine_for_every_target(output: Path) -> None:
    report = build_engine(BuildRequest("nano", output, "tensorrt-rtx"))
    manifest = report.manifest
    assert manifest.onnx.name == "nano"
    assert manifest.target_sms == load_api("tensorrt-rtx").targets
    assert manifest.profile == Profile(1, 1, 1)
    assert report.layers["RECURRENCE FLOAT"] == 3 * 8  # three scans in each body, one body in each block
    assert report.seconds < 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "input_type"),
    [("fp16", "uint8"), pytest.param("fp32", "float", marks=pytest.mark.long)],
)
def test_nano_as_it_is_exported(tmp_path: Path, output: Path, precision: str, input_type: str) -> None:
    model = tmp_path / "nano.onnx"
    options = ("--precision", precision, "--input", input_type, "--batch", "1,2,4", "--quiet")
    assert main(["export", "--model", "nano", "--output", str(model), *options]) == 0
    report = built(model, output, target_sms=(120,))
    assert report.manifest.profile == Profile(1, 2, 4)
    metadata = report.manifest.artefact(output)
    assert metadata.precision == precision
    assert metadata.input_type == ("uint8" if input_type == "uint8" else "float32")
    halves = report.layers.get("MATRIX_MULTIPLY HALF", 0)
    assert (halves > 50) if precision == "fp16" else (halves == 0)


@pytest.mark.slow
def test_a_whole_network_of_every_weight_random(tiny_onnx: Path, output: Path) -> None:
    report = built(tiny_onnx, output, target_sms=(89,), profile=Profile(1, 1, 2))
    metadata: ArtefactMetadata = read_manifest(output).artefact(output)
    assert metadata.random_weights and (metadata.preprocess.height, metadata.preprocess.width) == (32, 64)
    assert report.manifest.engine_bytes > 2_000_000
    assert manifest_path(output).is_file()
