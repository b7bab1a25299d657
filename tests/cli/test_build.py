"""``vmkla build``: what it prints, its exit statuses, and what is left when it is stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines.tensorrt.small_engines import small_model
from vmkla.engines.tensorrt.manifest import Profile, manifest_path, read_manifest

RTX = ("--runtime", "tensorrt-rtx", "--target-sm", "86")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(small_model().SerializeToString())
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "made" / "model.plan"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_an_engine_is_built(vmkla: Any, model: Path, plan: Path) -> None:
    done = vmkla("build", model, *RTX, "--output", plan, "--profile", "1,2,4")
    assert done.status == 0, done.stderr
    assert done.stdout.startswith(f"engine: {plan} (") and str(manifest_path(plan)) in done.stdout
    assert "unverified: it has not been run on any GPU" in done.stdout
    assert "layers before the build" in done.stderr and "for SM 86, batch 1,2,4" in done.stderr
    assert read_manifest(plan).profile == Profile(1, 2, 4)
    assert left(plan.parent) == ["model.plan", "model.plan.json"]


def test_json_is_one_document_and_quiet_is_quiet(vmkla: Any, model: Path, plan: Path) -> None:
    done = vmkla("build", model, *RTX, "--output", plan, "--json", "--quiet", "--skip-gates")
    assert done.status == 0 and done.stderr == ""
    document = done.json
    assert document["manifest"] == json.loads(manifest_path(plan).read_text())
    assert document["path"] == str(plan) and document["verified"] is False
    assert document["manifest"]["gates"] == {"skipped": True}
    assert sum(document["layers"].values()) > 40 and document["engine_layers"] is None


def test_every_option_arrives(vmkla: Any, model: Path, plan: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    done = vmkla(
        *("build", model, "--runtime", "tensorrt-rtx", "--target-sm", "sm_89,86", "--output", plan),
        *("--profile", "2", "--workspace", "0.5", "--optimization-level", "2", "--timing-cache", cache),
    )
    assert done.status == 0, done.stderr
    manifest = read_manifest(plan)
    assert manifest.target_sms == (86, 89) and manifest.profile == Profile(2, 2, 2)
    settings = manifest.settings
    assert (settings.workspace_bytes, settings.optimization_level) == (1 << 29, 2)
    assert settings.timing_cache == str(cache) and cache.is_file()


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
@pytest.mark.tensorrt
def test_tensorrt_that_is_not_here_is_status_4(vmkla: Any, model: Path, plan: Path) -> None:
    for runtime in ((), ("--runtime", "tensorrt")):
        done = vmkla("build", model, *runtime, "--output", plan)
        assert done.status == 4 and done.stdout == ""
        assert "pip install 'vmkla[tensorrt]'" in done.stderr and "--system-site-packages" in done.stderr
        assert not plan.parent.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--profile", "1,2"), "expected MIN,OPT,MAX or one number"),
        (("--profile", "4,2,1"), "expected 1 <= min <= opt <= max"),
        (("--profile", "many"), "expected MIN,OPT,MAX or one number"),
        (("--target-sm", "87"), "does not build for SM 87; it builds for 80, 86, 89, 120, 121"),
        (("--target-sm", "90,86"), "does not build for SM 90"),
        (("--target-sm", "ada"), "expected numbers of GPUs"),
        (("--target-sm", "75"), "no float32 matrix products for Turing"),
        (("--optimization-level", "9"), "expected 0 to 5"),
        (("--workspace", "0"), "expected more than 0"),
        (("--workspace", "nan"), "expected a number of GiB"),
        (("--workspace", "inf"), "expected a number of GiB"),
        (("--workspace", "1e12"), "at most 1024 GiB"),
        (("--profile", "99999999999"), "expected 1 <= min <= opt <= max <= 256"),
        (("--profile", "1,1,3000000"), "expected 1 <= min <= opt <= max <= 256"),
        (("--profile", "9" * 5000), "expected MIN,OPT,MAX or one number"),
        (("--target-sm", "9" * 5000), "expected numbers of GPUs"),
        (("--output", ""), "expected a file name that ends in .plan"),
        (("--output", "model.engine"), "--output model.plan"),
        (("--plugin", "libvmkla_tensorrt.so"), "does not load plugins"),
        (("--runtime", "onnxruntime"), "onnxruntime"),
    ],
)
def test_usage_errors_are_status_2(
    vmkla: Any, model: Path, plan: Path, options: tuple[str, ...], said: str
) -> None:
    done = vmkla("build", model, "--runtime", "tensorrt-rtx", "--output", plan, *options)
    assert done.status == 2 and done.stdout == ""
    assert said in done.stderr and left(plan.parent) == []


def test_the_model_is_never_overwritten(vmkla: Any, model: Path, plan: Path) -> None:
    before = model.read_bytes()
    for options in (
        ("--output", model),
        ("--output", plan, "--timing-cache", model),
        ("--output", plan, "--timing-cache", plan),
        ("--output", plan, "--timing-cache", manifest_path(plan)),
    ):
        done = vmkla("build", model, *RTX, *options)
        assert done.status == 2 and done.stdout == "", done.stderr
    assert model.read_bytes() == before and not plan.parent.exists()


def test_an_engine_that_infer_cannot_run_is_remarked_on(vmkla: Any, model: Path, plan: Path) -> None:
    done = vmkla("build", model, *RTX, "--output", plan, "--profile", "8", "--skip-gates")
    assert done.status == 0 and "for that, --profile 1,1,8" in done.stderr


def test_bad_files_are_status_3(vmkla: Any, model: Path, plan: Path, tmp_path: Path) -> None:
    done = vmkla("build", tmp_path / "absent.onnx", *RTX, "--output", plan)
    assert done.status == 3 and "no model file" in done.stderr
    model.write_bytes(model.read_bytes()[:-1000])
    done = vmkla("build", model, *RTX, "--output", plan)
    assert done.status == 3 and "not a whole ONNX file" in done.stderr
    assert left(plan.parent) == []


def test_an_unwritable_output_is_status_3(vmkla: Any, model: Path, plan: Path) -> None:
    plan.mkdir(parents=True)
    done = vmkla("build", model, *RTX, "--output", plan)
    assert done.status == 3 and "is a folder" in done.stderr and left(plan) == []


def test_a_foreign_file_is_status_6(vmkla: Any, plan: Path, tmp_path: Path) -> None:
    foreign = small_model()
    del foreign.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    path.write_bytes(foreign.SerializeToString())
    done = vmkla("build", path, *RTX, "--output", plan)
    assert done.status == 6 and "carries no vmkla metadata" in done.stderr


def test_an_unsupported_op_is_status_6_and_named(vmkla: Any, plan: Path, tmp_path: Path) -> None:
    unknown = small_model()
    unknown.graph.node[4].op_type = "NoSuchOp"
    path = tmp_path / "unknown.onnx"
    path.write_bytes(unknown.SerializeToString())
    done = vmkla("build", path, *RTX, "--output", plan)
    assert done.status == 6 and done.stdout == ""
    assert "node 4 'kan/MatMul' (NoSuchOp)" in done.stderr and "vmkla export" in done.stderr
    assert "Traceback" not in done.stderr and left(plan.parent) == []


def begun(plan: Path) -> subprocess.Popen[str]:
    """A real process that builds the shipped nano, once the library works."""
    command = [str(Path(sys.executable).with_name("vmkla")), "build", "nano", *RTX, "--output", str(plan)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "layers before the build" in line:
            break
    time.sleep(1.0)  # of the five seconds or so that the library takes
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_build_and_leaves_nothing(plan: Path, signum: int, status: int) -> None:
    with begun(plan) as process:
        assert process.stderr is not None
        os.kill(process.pid, signum)
        rest = process.stderr.read()
        process.wait(120)
    assert process.returncode == status, rest
    assert "stopping at the library's next step" in rest
    assert "Traceback" not in rest and left(plan.parent) == []


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait(plan: Path) -> None:
    """Whether the library was still deep in a step decides how the process ends."""
    with begun(plan) as process:
        assert process.stderr is not None
        os.kill(process.pid, signal.SIGINT)
        for line in process.stderr:
            if "stopping at the library's next step" in line:
                break
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        process.stderr.read()
        process.wait(120)
    assert process.returncode in (-signal.SIGINT, 130) and left(plan.parent) == []
