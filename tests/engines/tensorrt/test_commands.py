"""``vmkla infer``, ``bench``, ``inspect`` and ``doctor`` with an engine, on the stand-in GPU or none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.labelled_folders import write_folder
from tests.engines.tensorrt import stand_in_gpu, stand_in_tensorrt
from tests.engines.tensorrt.small_libraries import UNUSABLE, UNUSABLE_KINDS, write_plugin
from tests.export.exported_models import HEIGHT, WIDTH
from tests.video.small_videos import write_video
from vmkla.engines.tensorrt.manifest import read_manifest
from vmkla.engines.tensorrt.plugins import CREATORS, LIBRARY

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def engine(tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of the stand-in, which is what `import tensorrt` gives."""
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in_tensorrt.module("tensorrt"))
    monkeypatch.setattr(stand_in_tensorrt, "faults", stand_in_tensorrt.Faults())
    stand_in_gpu.library().stand_in_reset()
    path = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(path, tiny_onnx)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", 6, size_wh=(2 * WIDTH, 2 * HEIGHT))


@pytest.mark.stand_in_gpu
def test_infer_gives_what_it_gives_on_onnxruntime(
    run: Run, engine: Path, tiny_onnx: Path, clip: Path
) -> None:
    reports = {}
    for model in (engine, tiny_onnx):
        out = engine.parent / model.suffix[1:]
        status, _, stderr = run("infer", "--video", clip, "--model", model, "--out", out, "--save-masks")
        assert status == 0, stderr
        reports[model] = json.loads((out / "report.json").read_text())
    made = reports[engine]
    assert made["counts"] == reports[tiny_onnx]["counts"] and made["counts"]["frames"] == 6
    assert made["runtime"]["runner"] == "tensorrt" and made["runtime"]["device"] == "cuda:0"
    assert made["runtime"]["version"] == f"tensorrt {stand_in_tensorrt.VERSION}"
    assert "CUDA graph" in made["runtime"]["notes"]
    assert made["model"]["weights_sha256"] == reports[tiny_onnx]["model"]["weights_sha256"]
    lines = [
        [json.loads(line) for line in (engine.parent / name / "frames.jsonl").read_text().splitlines()]
        for name in ("plan", "onnx")
    ]
    for ours, theirs in zip(*lines, strict=True):
        for field in ("index", "area_px", "boxes", "max_probability"):
            assert ours[field] == theirs[field]
    masks = [
        sorted((engine.parent / name / "masks").iterdir(), key=lambda path: path.name)
        for name in ("plan", "onnx")
    ]
    assert len(masks[0]) == 6
    for ours, theirs in zip(*masks, strict=True):
        assert ours.name == theirs.name and ours.read_bytes() == theirs.read_bytes()
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
def test_tune_writes_the_engine_with_another_manifest(run: Run, engine: Path, clip: Path) -> None:
    data = write_folder(engine.parent / "set", 12)
    status, stdout, stderr = run(
        "tune", engine, "--data", data, "--quiet", clip, "--sensitivity", 0.6, "--json"
    )
    assert status == 0, stderr
    tuned = engine.with_name("tiny-tuned.plan")
    assert json.loads(stdout)["path"] == str(tuned) and tuned.read_bytes() == engine.read_bytes()
    metadata = read_manifest(tuned).artefact(tuned)
    assert metadata.operating_point is not None
    assert metadata.operating_point.to_dict() == json.loads(stdout)["new"] == metadata.tuning[0]["new"]
    assert read_manifest(engine).artefact(engine).tuning == ()
    out = engine.parent / "out"
    status, _, stderr = run("infer", "--video", clip, "--model", tuned, "--out", out)
    assert status == 0, stderr
    settings = json.loads((out / "report.json").read_text())["settings"]
    assert settings.items() >= metadata.operating_point.to_dict().items()


@pytest.mark.stand_in_gpu
def test_infer_when_the_engine_fails_on_the_way(
    run: Run, engine: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_tensorrt.faults.capture = True
    stand_in_tensorrt.faults.execute = 7
    status, _, stderr = run("infer", "--video", clip, "--model", engine, "--out", engine.parent / "out")
    assert status == 1 and "could not run the engine" in stderr and "Traceback" not in stderr
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
def test_bench_says_how_the_engine_is_launched(run: Run, engine: Path) -> None:
    status, stdout, stderr = run("bench", "--model", engine, "--iterations", 3, "--warmup", 1, "--json")
    assert status == 0, stderr
    report = json.loads(stdout)
    assert report["runner"] == "tensorrt" and "CUDA graph" in report["notes"]
    assert report["kernel_instruction_set"] is None and report["latency_ms"]["infer"]["p50"] > 0
    assert "CUDA graph" in run("bench", "--model", engine, "--iterations", 1, "--warmup", 0)[1]


@pytest.mark.stand_in_gpu
def test_another_machine_is_status_6(run: Run, engine: Path, tiny_onnx: Path, clip: Path) -> None:
    stand_in_tensorrt.write_engine(engine, tiny_onnx, runtime_version="10.16.0.1")
    status, _, stderr = run("infer", "--video", clip, "--model", engine, "--out", engine.parent / "out")
    assert status == 6 and "runtime_version is 10.16.0.1" in stderr and "vmkla build" in stderr
    assert not (engine.parent / "out").exists()


@pytest.mark.stand_in_gpu
def test_why_nobody_may_rely_on_an_engine(run: Run, engine: Path, tiny_onnx: Path, clip: Path) -> None:
    stand_in_tensorrt.write_engine(engine, tiny_onnx, gates={"not_run": "built ahead of time"})
    out = engine.parent / "out"
    status, _, stderr = run("infer", "--video", clip, "--model", engine, "--out", out)
    said = "the model is unverified: it has not been run on any GPU (built ahead of time)"
    assert status == 0 and said in stderr and "export" not in stderr
    assert said in json.loads((out / "report.json").read_text())["warnings"]


@pytest.mark.stand_in_gpu
def test_an_engine_with_a_plugin_library_that_lies_elsewhere(
    run: Run, engine: Path, tiny_onnx: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = engine.parent / "own" / "libown.so"
    own.parent.mkdir()
    write_plugin(own)
    monkeypatch.setattr(stand_in_tensorrt, "_registry", stand_in_tensorrt.IPluginRegistry())
    stand_in_tensorrt.write_engine(engine, tiny_onnx, plugin=own)
    commands = {
        "infer": ("infer", "--video", clip, "--model", engine, "--out", engine.parent / "out"),
        "bench": ("bench", "--model", engine, "--iterations", 1, "--warmup", 0),
        "verify": ("verify", tiny_onnx, engine, "--source", clip, "--out", engine.parent / "verified"),
    }
    for name, command in commands.items():
        status, _, stderr = run(*command)
        assert status == 6 and "--plugin FILE" in stderr, name
        assert run(*command, "--plugin", own)[0] == 0, name
    assert run(*commands["bench"], "--plugin", own.with_name("absent.so"))[0] == 4
    assert run(*commands["bench"], "--plugin", own, "--kernels", "bodies")[0] == 2
    status, _, stderr = run("verify", tiny_onnx, tiny_onnx, "--source", clip, "--plugin", own)
    assert status == 2 and "neither model is an engine" in stderr
    write_plugin(own, note=b"another")
    status, _, stderr = run(*commands["bench"], "--plugin", own)
    assert status == 6 and "plugin.sha256" in stderr and f"--plugin {own}" in stderr


@pytest.mark.stand_in_gpu
def test_doctor_with_everything(
    run: Run, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vmkla

    library = tmp_path / "package" / "lib" / LIBRARY
    library.parent.mkdir(parents=True)
    monkeypatch.setattr(vmkla, "__path__", [str(library.parents[1]), *vmkla.__path__])
    monkeypatch.setattr(stand_in_tensorrt, "_registry", stand_in_tensorrt.IPluginRegistry())
    for creators, works in ((CREATORS[:1], False), (CREATORS, True)):
        write_plugin(library, creators)
        status, stdout, _ = run("doctor", "--json")
        assert status == 0
        found = {finding["name"]: finding for finding in json.loads(stdout)["findings"]}
        assert found["tensorrt" if works else LIBRARY]["works"]
        runtime = next(
            f for f in json.loads(stdout)["findings"] if (f["group"], f["name"]) == ("runtime", "tensorrt")
        )
        assert runtime["works"] == works and CREATORS[1] in runtime["detail"]
        assert found["NVIDIA GPU"]["detail"].startswith("Stand-in GPU, compute capability 8.7, 16 ")
        assert found["GPU memory"]["detail"].startswith("cuda-bindings")
    assert stand_in_gpu.live() == 0


@pytest.mark.parametrize("kind", UNUSABLE_KINDS)
def test_doctor_reports_why_the_plugin_library_does_not_load(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With or without a GPU: the registry is asked before any runtime is made."""
    import vmkla

    monkeypatch.setitem(sys.modules, "tensorrt", stand_in_tensorrt.module("tensorrt"))
    monkeypatch.setattr(stand_in_tensorrt, "_registry", stand_in_tensorrt.IPluginRegistry())
    library = tmp_path / "package" / "lib" / LIBRARY
    library.parent.mkdir(parents=True)
    monkeypatch.setattr(vmkla, "__path__", [str(library.parents[1]), *vmkla.__path__])
    UNUSABLE[kind].write(library)
    status, stdout, _ = run("doctor", "--json")
    found = {(f["group"], f["name"]): f for f in json.loads(stdout)["findings"]}
    runtime = found["runtime", "tensorrt"]
    assert status == 0 and not runtime["works"] and "pip install" in runtime["fix"]
    assert runtime["detail"] == (
        f"tensorrt {stand_in_tensorrt.VERSION} cannot load the plugin library {library}: "
        f"{UNUSABLE[kind].reason}"
    )


# Without a GPU, as this machine really is, or as a process that finds no driver.


def test_infer_without_a_gpu_is_status_4(tmp_path: Path, tiny_onnx: Path, clip: Path) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx, runtime="tensorrt-rtx")
    code = (
        "import sys\n"
        "from vmkla.engines.tensorrt import machine\n"
        "from vmkla.errors import MissingDependencyError\n"
        "def absent():\n"
        "    raise MissingDependencyError('no driver')\n"
        "machine._driver = absent\n"
        "from vmkla.cli.main import main\n"
        "status = main(sys.argv[1:])\n"
        "heavy = {'torch', 'onnx', 'onnxscript', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(
        [*command, "infer", "--video", str(clip), "--model", str(plan), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "runs on an NVIDIA GPU: no driver" in done.stderr and "onnxruntime" in done.stderr
    assert not (tmp_path / "out").exists()


def test_inspect_needs_no_gpu(run: Run, tmp_path: Path, tiny_onnx: Path) -> None:
    plan = tmp_path / "tiny.plan"
    stand_in_tensorrt.write_engine(plan, tiny_onnx)
    status, stdout, _ = run("inspect", plan)
    assert status == 0
    for line in ("unchanged: True", "runtime: tensorrt", f"runtime_version: {stand_in_tensorrt.VERSION}"):
        assert line in stdout
    assert "compute_capability: 8.7" in stdout and "name: tiny-test" in stdout
