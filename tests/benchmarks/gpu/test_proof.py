"""`make gpu-proof` without a GPU: its dry run, whole, and what it makes of machines and steps that fail."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import machine as gpu_machine
from benchmarks.gpu import native as gpu_native
from benchmarks.gpu import pack as gpu_pack
from benchmarks.gpu import proof as gpu_proof
from benchmarks.gpu import report as gpu_report
from benchmarks.gpu.process import call
from benchmarks.gpu.records import read_tar, write_tar
from tests import ROOT
from tests.engines.tensorrt import stand_in_gpu

SCRIPT = Path(gpu_proof.__file__)
ABSENT = (
    "av",
    "captum",
    "h5py",
    "matplotlib",
    "monai",
    "rich",
    "segmentation_models_pytorch",
    "tensorboard",
    "typer",
)


def proof(
    folder: Path, *arguments: object, device: str = "cuda", **environment: str
) -> subprocess.Popen[str]:
    """The program, in a folder of its own."""
    command = [
        sys.executable,
        SCRIPT,
        "run",
        "--device",
        device,
        "--out",
        folder / "out",
        "--work",
        folder / "work",
    ]
    return subprocess.Popen(
        [*map(str, command), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment}, cwd=folder,
    )  # fmt: skip


def steps_in(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the tar says of each step."""
    return gpu_report.read_results(folder / "out" / gpu_proof.TAR).steps


def carry_with(
    folder: Path, architectures: tuple[int, ...] = (90,), cuda: str = "13.0", **programs: str
) -> Path:
    """A carry of shell scripts."""
    (folder / "carry" / "bin").mkdir(parents=True)
    for name, text in programs.items():
        path = folder / "carry" / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    facts = {"architectures": architectures, "cuda": cuda, "data": "none", "left_out": {}}
    (folder / "carry" / gpu_machine.CARRIED).write_text(json.dumps(facts))
    return folder / "carry"


@pytest.mark.slow
def test_dry_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    carry = tmp_path / "carry"
    pack = ["--device", "cpu", "--images", "14", "--imgsz", "32", "--out", str(carry), "--tensorrt-root", ""]
    assert gpu_pack.main([*pack, "--limit-mib", "1"]) == 3
    said = capfd.readouterr().err
    assert "at most 1 can" in said and "the tree" in said and "carry/site" in said
    assert not (carry / gpu_machine.CARRIED).exists()
    assert gpu_pack.main(pack) == 0

    # As on a machine where nobody installed anything of vmkla's.
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"
    )
    running = proof(tmp_path, "--carry", carry, device="cpu", PYTHONPATH=str(tmp_path / "bare"))
    _, log = running.communicate(timeout=300)
    assert running.returncode == 0, log
    skipped = {name: step["reason"] for name, step in steps_in(tmp_path).items() if step["status"] != "done"}
    assert set(skipped) == {"plugin", "sanitizer", "ncu"}, log
    assert "packed without TensorRT's headers" in skipped["plugin"]
    assert "compute-sanitizer was not found" in skipped["sanitizer"] and "ncu was not found" in skipped["ncu"]

    tar = tmp_path / "out" / gpu_proof.TAR
    results = gpu_report.read_results(tar)
    assert all(results.rows[name] for name in gpu_report.TITLES if name not in ("versions", *skipped))
    files, damage = read_tar(tar)
    assert damage == "" and {"nano-row.json", "nano-metrics.csv", "harness.log"} <= set(files)
    text = gpu_report.write_report(tar, tmp_path / "gpu.md").read_text()
    assert "triton: error of the spline bases" in text
    assert text.count("not measured: dry run without a GPU") > 20 and "on None" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    heads = [line for line in rows if line.endswith("| measured |")]
    assert all("not measured: " in line for line in rows if line not in heads)


def test_a_tar_that_ends_early_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    done = json.dumps({"status": "done", "reason": "", "seconds": 1.0})
    facts = {
        "proof.json": {"device": "cuda", "steps": ["harness", "train"]},
        gpu_machine.MACHINE: {"gpu": "A GPU"},
    }
    for name, content in facts.items():
        (tmp_path / "results" / name).write_text(json.dumps(content))
    (tmp_path / "results" / "harness.json").write_text(done)
    noise = bytes(
        random.Random(0).randbytes(50_000)
    ).hex()  # larger, so behind the others, and hard to compress
    (tmp_path / "results" / "train.json").write_text(done[:-1] + f', "noise": "{noise}"}}')
    tar = tmp_path / gpu_proof.TAR
    write_tar(tmp_path / "results", tar)
    assert gpu_report.read_results(tar).steps["train"]["status"] == "done"
    tar.write_bytes(tar.read_bytes()[:-1000])
    cut = gpu_report.read_results(tar)
    assert cut.where == "on A GPU" and cut.steps["harness"]["status"] == "done"
    assert "ends early or is damaged" in cut.why_not("train")
    tar.write_bytes(b"no tar")
    assert "damaged" in gpu_report.read_results(tar).why_not("harness")


@pytest.mark.slow
def test_the_carried_package_needs_no_installation(tmp_path: Path) -> None:
    """Not even PyAV, typer or onnxruntime are there, and nothing that an installation hooks in."""
    gpu_pack.copy_package(tmp_path)
    code = (
        "import sys; sys.path.pop(0)  # the working folder\n"
        "sys.modules.update(dict.fromkeys(('av', 'onnxruntime', 'matplotlib')))\n"
        "import vmkla.engines, vmkla.export, vmkla.calibration\n"
        "from benchmarks.gpu import native, scan, training\n"
        "from vmkla.native import find_library; print(find_library())"
    )
    folders = [tmp_path / "site", ROOT, *(path for path in sys.path if "site-packages" in path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = call((sys.executable, "-S", "-c", code), 120, env=environment)
    assert (done.status, done.stdout.strip()) == (0, str(tmp_path / "site/vmkla/lib/libvmkla_cpu.so")), done


@pytest.mark.slow
def test_the_harness_is_compiled_for_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    gpu_pack.build_kernels(tmp_path, None, "90")
    done = call((tmp_path / gpu_native.HARNESS, "--quick", "--no-times"), 120)
    assert done.status in (0, 4), done  # 4: it runs, and finds no GPU


def test_without_a_gpu_it_states_what_it_looked_at(tmp_path: Path) -> None:
    running = proof(tmp_path, "--carry", carry_with(tmp_path), CUDA_VISIBLE_DEVICES="")
    _, log = running.communicate(timeout=120)
    assert running.returncode == 4
    assert "no GPU here; looked at: the driver's library" in log and "CUDA_VISIBLE_DEVICES:" in log
    assert steps_in(tmp_path)["train"]["status"] == "skipped"
    text = gpu_report.write_report(tmp_path / "out" / gpu_proof.TAR, tmp_path / "gpu.md").read_text()
    assert "not measured: no GPU here" in text


def test_a_step_that_hangs_or_crashes_ends_alone(tmp_path: Path) -> None:
    carry = carry_with(tmp_path, vmkla_harness="sleep 300", plugin_host="kill -SEGV $PPID")
    (carry / "bin" / "libvmkla_tensorrt.so").touch()
    chosen = ("--only", "harness", "plugin", "sanitizer", "--limits", "harness=2")
    running = proof(tmp_path, "--carry", carry, *chosen, device="cpu")
    running.communicate(timeout=120)
    found = {name: step["status"] for name, step in steps_in(tmp_path).items()}
    assert (
        found["harness"] == "out of time" and found["plugin"] == "crashed" and found["sanitizer"] == "skipped"
    )
    assert found["train"] == "missing" and running.returncode == 1
    assert "SIGSEGV" in steps_in(tmp_path)["plugin"]["reason"]
    with pytest.raises(subprocess.CalledProcessError):  # nothing of the step that hung is alive
        subprocess.run(["pgrep", "-f", f"{carry}/bin/vmkla_harness"], check=True, capture_output=True)


def test_a_run_that_is_ended_leaves_what_it_has(tmp_path: Path) -> None:
    carry = carry_with(tmp_path, vmkla_harness=f"touch {tmp_path}/begun; sleep 300")
    running = proof(tmp_path, "--carry", carry, device="cpu")
    while not (tmp_path / "begun").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    found = steps_in(tmp_path)
    assert [found[name]["status"] for name in ("versions", "harness", "train")] == [
        "done",
        "cut off",
        "not begun",
    ]


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, str]:
    """A stand-in for the driver: CUDA 13.0 and a GPU of compute capability 8.7."""
    stand_in_gpu.build(tmp_path)
    return {"LD_LIBRARY_PATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("architectures", "cuda", "says"),
    [
        ((90,), "13.0", "compiled for sm_90 and newer, and Stand-in GPU is sm_87: make gpu-proof-pack"),
        ((80,), "14.1", "offers CUDA 13.0, older than CUDA 14.1, which what is carried was built with"),
        ((80,), "13.2", ""),  # an older minor version runs it
    ],
)
def test_a_gpu_or_driver_that_does_not_fit(
    architectures: tuple[int, ...], cuda: str, says: str, driver: dict[str, str], tmp_path: Path
) -> None:
    carry = carry_with(tmp_path, architectures, cuda, vmkla_harness="echo no GPU here >&2; exit 4")
    running = proof(tmp_path, "--carry", carry, "--only", "harness", "triton", **driver)
    running.communicate(timeout=120)
    found = steps_in(tmp_path)
    assert running.returncode == 4 and (says or "no GPU here") in found["harness"]["reason"]
    assert "was built without CUDA" in found["triton"]["reason"]  # this torch, whatever is carried


def test_without_a_c_compiler_triton_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_machine.stub_compiler() is None
    machine = {
        "gpu": "A GPU", "capability": [9, 0], "driver_cuda": "13.0", "torch_sees_gpu": True,
        "versions": {"triton": "3.6.0"}, "stub_compiler": None,
    }  # fmt: skip
    found = gpu_machine.obstacles(machine, {"cuda": "13.0", "architectures": [90]}, dry=False)
    assert set(found) == {"triton"} and "no C compiler" in found["triton"]
    assert gpu_machine.obstacles({**machine, "stub_compiler": "/usr/bin/gcc"}, None, dry=False).keys() == {
        "native"
    }


def test_the_committed_page_is_what_the_command_writes(tmp_path: Path) -> None:
    page = SCRIPT.with_name("results.md").read_text()
    if "not measured: nobody has run it" in page:
        assert page == gpu_report.write_report(None, tmp_path / "gpu.md").read_text()


def test_steps_have_titles_and_functions() -> None:
    assert [step.name for step in gpu_proof.STEPS] == list(gpu_report.TITLES)
    assert sum(step.limit_s for step in gpu_proof.STEPS[:-1]) < 570
    assert {step for *_, step in gpu_report.ESTIMATES} <= set(gpu_report.TITLES)
