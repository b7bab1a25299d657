"""The CPU library under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.plugins.plugin_builds import must

pytestmark = pytest.mark.slow

TARGET = "vmkla_cpu_self_test"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
NODES = 200
HERE = Path(__file__).parent


def run(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command's output, whatever its exit status."""
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def build(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the library and its self-test."""
    folder = tmp_path_factory.mktemp("sanitized")
    options = ["-DVMKLA_CUDA=OFF", "-DVMKLA_KERNEL_OPTIMISATION=-O1", f"-DCMAKE_CXX_FLAGS={FLAGS}"]
    must(["cmake", "-S", str(root), "-B", str(folder), *options])
    jobs = str(len(os.sched_getaffinity(0)))
    must(["cmake", "--build", str(folder), "--target", TARGET, "--parallel", jobs])
    return folder / "engines" / "plugins" / "cpu"


def test_the_kernels_of_every_instruction_set_here(build: Path) -> None:
    done = run([build / TARGET])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "ok     baseline scan-backward" in done.stdout


def on_nodes(library: Path) -> subprocess.CompletedProcess[str]:
    """ONNX Runtime on senseless nodes. Python has no sanitizer, so their library is loaded before it."""
    preloaded = [
        must(["gcc", f"-print-file-name={name}"]).strip() for name in ("libasan.so", "libstdc++.so.6")
    ]
    return run(
        [sys.executable, HERE / "sanitized_ops.py", library, str(NODES)],
        LD_PRELOAD=" ".join(preloaded),
        ASAN_OPTIONS="detect_leaks=0",  # Python's own, at its end
    )


def test_senseless_nodes_in_onnxruntime(build: Path) -> None:
    done = on_nodes(build / "libvmkla_cpu.so")
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.fullmatch(r"(\d+) computed, (\d+) refused\n", done.stdout)
    assert found is not None and min(int(found[1]), int(found[2])) > NODES / 4, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "seen"),
    [
        ("if (order_ < 1 || order_ > kMost)", "if (order_ < 1)", "signed integer overflow"),
        (
            "out_shape.push_back(knots - order_ - 1)",
            "out_shape.push_back(knots - order_ - 2)",
            "AddressSanitizer",
        ),
    ],
    ids=["overflow", "out of bounds"],
)
def test_a_fault_in_the_ops_is_seen(
    build: Path, root: Path, tmp_path: Path, right: str, wrong: str, seen: str
) -> None:
    """One source is compiled anew, and linked to the objects of the build."""
    source = root / "engines" / "plugins" / "cpu"
    text = (source / "ort_ops.cpp").read_text(encoding="utf-8")
    assert text.count(right) == 1
    spoilt = tmp_path / "ort_ops.cpp"
    spoilt.write_text(text.replace(right, wrong), encoding="utf-8")
    objects = [
        path for path in build.rglob("*.o") if "self_test" not in str(path) and "ort_ops" not in path.name
    ]
    library = tmp_path / "libvmkla_cpu.so"
    must(["g++", "-std=gnu++17", "-O1", "-fPIC", "-shared", *FLAGS.split(), f"-I{source}", str(spoilt),
          *map(str, objects), "-o", str(library)])  # fmt: skip
    done = on_nodes(library)
    assert done.returncode != 0 and seen in done.stderr, done.stdout + done.stderr[-2000:]
