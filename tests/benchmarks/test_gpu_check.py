"""The GPU check as far as a CPU can run it: its parts, its file, and what it does without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gpu_check
import pytest
from common import Table
from gpu_process import call
from gpu_report import Goal, Outcome, Part, Result, document, exit_status, run_part, slug

from vmkla.errors import BadInputError, MissingDependencyError


def test_without_a_gpu_it_says_so(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "gpu_check.py", "--output", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 4 and "no CUDA GPU" in done.stderr
    assert not output.exists()


def fine() -> Outcome:
    table = Table("A table", ("a", "b"))
    table.add("x", 1.5)
    return Outcome([table], [], ["a note"], [Goal("speed", "at least 3", 2.5, False)])


def wrong() -> Outcome:
    return Outcome(wrong=["the answer is 41"])


def broken() -> Outcome:
    raise RuntimeError("it fell over\nand more")


def refused() -> Outcome:
    raise BadInputError("no such model:\n  a | b", hint="Run: something")


def absent() -> Outcome:
    raise MissingDependencyError("no tensorrt here", hint="Run: pip install it")


FINE, WRONG, BROKEN, REFUSED, ABSENT = (
    Part(function.__name__, f"part {function.__name__}", function)
    for function in (fine, wrong, broken, refused, absent)
)


def results(*parts: Part) -> list[Result]:
    return [run_part(part) for part in parts]


def test_a_part_that_breaks_is_reported_and_the_others_still_run(tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    found = gpu_check.run_parts([BROKEN, ABSENT, REFUSED, WRONG, FINE], "A GPU", ["- machine"], output)
    assert [result.part.name for result in found] == ["broken", "absent", "refused", "wrong", "fine"]
    text = output.read_text()
    assert text == document("A GPU", ["- machine"], found)
    assert "| part broken | BROKE: RuntimeError: it fell over |" in text
    assert "| part refused | BROKE: no such model: a / b Run: something |" in text
    assert "| part absent | not run: no tensorrt here" in text
    assert "| part wrong | WRONG |" in text and "- the answer is 41" in text
    assert "| part fine | right |" in text and "| x | 1.50 |" in text and "- a note" in text
    assert "| speed | at least 3 | 2.50 | NO |" in text


def test_the_file_is_there_before_the_last_part(tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"

    def cut_off() -> Outcome:
        assert "part fine" in output.read_text()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu_check.run_parts([FINE, Part("cut", "cut", cut_off)], "A GPU", [], output)
    assert "part fine | right" in output.read_text()


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((FINE,), 0),
        ((FINE, ABSENT), 0),  # what cannot be had here is no failure
        ((ABSENT, ABSENT), 4),
        ((FINE, BROKEN), 1),
        ((FINE, REFUSED), 1),
        ((BROKEN, WRONG, FINE), 5),  # a wrong result counts more than a part that broke
    ],
)
def test_exit_status(parts: tuple[Part, ...], status: int) -> None:
    assert exit_status(results(*parts)) == status


def test_a_gpu_gives_a_file_name() -> None:
    assert slug("NVIDIA A100-SXM4-40GB") == "a100-sxm4-40gb"
    assert slug("NVIDIA GeForce RTX 4090") == "geforce-rtx-4090"


def test_parts_have_the_names_of_the_help() -> None:
    import argparse

    args = argparse.Namespace(no_times=True, models=[], work=Path("."))
    names = [part.name for part in gpu_check.parts(args, 90)]
    assert names == ["scan", "harness", "tensorrt-rtx", "tensorrt"]
    assert gpu_check.__doc__ is not None
    assert all(f"| `{name}` |" in gpu_check.__doc__ for name in names)


def test_a_process_is_measured() -> None:
    code = "import sys, time; x = bytearray(200_000_000); time.sleep(0.3); print('out'); sys.exit('why not')"
    done = call([sys.executable, "-c", code])
    assert (done.status, done.stdout) == (1, "out\n")
    assert done.reason == "status 1: why not"
    assert 200e6 < done.peak_bytes < 600e6 and done.seconds > 0.3


def test_a_process_out_of_time_is_ended() -> None:
    done = call([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5)
    assert done.status is None and done.seconds < 20
    assert done.reason.startswith("stopped after")


def test_a_process_that_aborts_takes_nobody_along() -> None:
    done = call([sys.executable, "-c", "import os; os.abort()"])
    assert done.status == -6 and done.reason.startswith("status -6")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `main` asks torch about the GPU before any part runs."""
    monkeypatch.setattr(gpu_check.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check.torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(gpu_check.torch.cuda, "get_device_name", lambda: "NVIDIA Pretence 90")
    monkeypatch.setattr(gpu_check, "machine", lambda: ["- a machine"])


def test_parts_can_be_chosen(pretended_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "parts", lambda args, sm: [FINE, WRONG, ABSENT] if sm == 90 else [])
    output = tmp_path / "gpu.md"
    common = ["--output", str(output), "--work", str(tmp_path / "work")]
    assert gpu_check.main([*common, "--only", "fine", "absent"]) == 0
    assert "part wrong" not in output.read_text() and output.read_text().startswith("# NVIDIA Pretence 90")
    assert gpu_check.main([*common, "--only", "absent"]) == 4
    assert gpu_check.main(common) == 5
    with pytest.raises(SystemExit) as caught:
        gpu_check.main([*common, "--only", "nothing"])
    assert caught.value.code == 2


def test_tensorrt_is_not_run_where_it_is_absent(
    pretended_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # importing it fails, wherever it is installed
    output = tmp_path / "gpu.md"
    status = gpu_check.main(["--only", "tensorrt", "--output", str(output), "--work", str(tmp_path / "work")])
    assert status == 4
    assert (
        "| engines of TensorRT | not run: tensorrt needs the Python package 'tensorrt'" in output.read_text()
    )
