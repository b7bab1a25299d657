"""Which of the two packages of ``onnxruntime`` is here, whole or spoilt, as ``vmkla doctor`` reports it.

Each case is a folder of packages with the real files of onnxruntime and a package's real record of them. What
removing one package after the other leaves was seen with onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = (
    "torch",
    "monai",
    "captum",
    "scipy",
    "matplotlib",
    "sklearn",
    "pandas",
    "triton",
    "tensorrt",
    "onnx",
    "h5py",
)
"""Not linked: doctor would import each."""
CUDA_LIBRARY = "capi/libonnxruntime_providers_cuda.so"
PROGRAM = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from vmkla.cli.main import run
run()
"""


class Packages:
    """A folder of packages: links to those of this installation but onnxruntime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._record = importlib.metadata.distribution("onnxruntime")
        self._source = Path(str(self._record.locate_file("onnxruntime")))
        for name in ("numpy", "vmkla"):
            for entry in Path(str(importlib.metadata.distribution(name).locate_file(""))).iterdir():
                link = folder / entry.name
                if not entry.name.startswith(HEAVY) and not os.path.lexists(link):
                    link.symlink_to(entry)
        for entry in folder.glob("onnxruntime*"):
            entry.unlink()

    def add_files(self) -> None:
        """The module, each file a link."""
        shutil.copytree(
            self._source,
            self.folder / "onnxruntime",
            copy_function=os.symlink,
            ignore=shutil.ignore_patterns("transformers", "quantization", "tools", "__pycache__"),
        )

    def add_record(self, name: str) -> None:
        """The record of onnxruntime, or the same one of onnxruntime-gpu with a library more."""
        version = self._record.version
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = self._record.read_text("METADATA") or ""
        (info / "METADATA").write_text(metadata.replace("Name: onnxruntime\n", f"Name: {name}\n"))
        left_out = ("transformers/", "quantization/", "tools/")
        lines = [line for line in (self._record.read_text("RECORD") or "").splitlines(keepends=True)
                 if not line.startswith(tuple(f"onnxruntime/{part}" for part in left_out))]  # fmt: skip
        if name == "onnxruntime-gpu":
            lines.append(f"onnxruntime/{CUDA_LIBRARY},sha256=abc,5\n")
        (info / "RECORD").write_text("".join(lines))

    def add_cuda_library(self) -> None:
        """What onnxruntime-gpu has and onnxruntime has not."""
        library = self.folder / "onnxruntime" / CUDA_LIBRARY
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_bytes(b"cuda\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line of vmkla with these packages and no others."""
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(self.folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def doctor(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Doctor's document, and its finding about the package."""
        done = self.run("doctor", "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        (finding,) = (
            f for f in document["findings"] if (f["group"], f["name"]) == ("package", "onnxruntime")
        )
        return document, finding


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path / "packages")


def test_onnxruntime_alone(packages: Packages) -> None:
    packages.add_files()
    packages.add_record("onnxruntime")
    document, finding = packages.doctor()
    assert finding["works"] and finding["detail"] == importlib.metadata.version("onnxruntime")
    assert document["cpu_inference_ready"]


def test_onnxruntime_gpu_alone_serves_the_cpu_as_well(packages: Packages) -> None:
    packages.add_files()
    packages.add_cuda_library()
    packages.add_record("onnxruntime-gpu")
    document, finding = packages.doctor()
    assert (
        finding["works"]
        and finding["detail"] == f"onnxruntime-gpu {importlib.metadata.version('onnxruntime')}"
    )
    assert document["cpu_inference_ready"]


def test_one_installed_over_the_other(packages: Packages) -> None:
    """It still runs on the CPU; but nobody knows what, and removing either breaks it."""
    packages.add_files()
    packages.add_cuda_library()
    packages.add_record("onnxruntime")
    packages.add_record("onnxruntime-gpu")
    document, finding = packages.doctor()
    assert not finding["works"] and "are both installed" in finding["detail"]
    assert "onnxruntime-gpu " in finding["detail"]
    assert finding["fix"].startswith(
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime "
    )
    assert document["cpu_inference_ready"]


def test_one_removed_after_the_other(packages: Packages) -> None:
    """Its own libraries are left, and Python imports a folder without the module's first file."""
    packages.add_cuda_library()
    packages.add_record("onnxruntime-gpu")
    document, finding = packages.doctor()
    assert not finding["works"] and "of which only parts are left" in finding["detail"]
    assert "of its files are missing" in finding["detail"] and finding["fix"].startswith(
        "pip uninstall -y onnx"
    )
    assert not document["cpu_inference_ready"]
    done = packages.run("bench", "--model", "nano")
    assert done.returncode == 4 and "of which only parts are left" in done.stderr
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in done.stderr


def test_a_file_that_another_package_wrote(packages: Packages) -> None:
    packages.add_files()
    packages.add_record("onnxruntime")
    spoilt = packages.folder / "onnxruntime" / "ThirdPartyNotices.txt"
    spoilt.unlink()
    spoilt.write_text("of another version\n")
    _, finding = packages.doctor()
    assert not finding["works"] and "1 of its files are missing or from another package" in finding["detail"]
    assert "onnxruntime/ThirdPartyNotices.txt" in finding["detail"]


def test_a_file_of_another_version_that_cannot_be_imported(packages: Packages) -> None:
    """Doctor never fails; the CPU is not ready."""
    packages.add_files()
    packages.add_record("onnxruntime-gpu")
    first = packages.folder / "onnxruntime" / "__init__.py"
    first.unlink()
    first.write_text("raise AttributeError('module has no attribute OrtNew')\n")
    document, finding = packages.doctor()
    assert not finding["works"] and "AttributeError: module has no attribute OrtNew" in finding["detail"]
    assert not document["cpu_inference_ready"]
