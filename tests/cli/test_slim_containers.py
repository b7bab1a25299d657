"""Containers without the libraries that OpenCV's windows need, and OpenCV without windows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmkla.errors import MissingDependencyError
from vmkla.imports import import_failure, require

VMKLA = str(Path(sys.executable).with_name("vmkla"))

HIDE = r"""
#define _GNU_SOURCE
#include <link.h>
#include <string.h>
unsigned int la_version(unsigned int version) { return LAV_CURRENT; }
char *la_objsearch(const char *name, uintptr_t *cookie, unsigned int flag) {
  return strstr(name, "libGL.so.1") ? (char *)"/hidden/libGL.so.1" : (char *)name;
}
"""
"""An auditor of glibc's loader: to the programs that it watches, libGL is not on this machine."""

WITHOUT_WINDOWS = """
import cv2

def without(*_):
    raise cv2.error(
        "OpenCV(5.0.0) /io/opencv/modules/highgui/src/window.cpp:1200: error: (-2:Unspecified error) The "
        "function is not implemented. Rebuild the library with Windows, GTK+ 2.x or Cocoa support. If you "
        "are on Ubuntu or Debian, install libgtk2.0-dev and pkg-config, then re-run cmake or configure "
        "script in function 'namedWindowImpl'"
    )

cv2.namedWindow = without
"""
"""What opencv-python-headless 5.0.0.93 does."""


@pytest.fixture(scope="module")
def without_libgl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process that has no libGL."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "hide.c").write_text(HIDE)
    compiler = shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "hide.so", folder / "hide.c"], check=True)
    return {**os.environ, "LD_AUDIT": str(folder / "hide.so")}


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VMKLA, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_command_names_the_packages(without_libgl: dict[str, str], tmp_path: Path) -> None:
    for arguments in (("infer", "--video", tmp_path / "a.mp4"), ("sample", tmp_path / "a.mp4")):
        done = run(without_libgl, *arguments)
        assert done.returncode == 4 and done.stdout == ""
        first, second = done.stderr.splitlines()
        assert first == (
            f"vmkla: vmkla {arguments[0]} needs OpenCV, which cannot be imported here: the system's library "
            "libGL.so.1 is missing"
        )
        assert "apt-get install libgl1 libglib2.0-0" in second and "opencv-python-headless" in second
    assert list(tmp_path.iterdir()) == []


def test_doctor_imports_what_it_judges(without_libgl: dict[str, str], tmp_path: Path) -> None:
    """The package alone: the others take their time."""
    code = """
from vmkla.engines.doctor import Diagnosis, _package
found = (_package("opencv-python", [""]), _package("numpy", [""]))
print(__import__("json").dumps(Diagnosis("", "", "", "", 1, None, found).to_dict()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_libgl,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    opencv, numpy = document["findings"]
    assert not opencv["works"] and "libGL.so.1: cannot open" in opencv["detail"]
    assert "libgl1 libglib2.0-0" in opencv["fix"] and numpy["works"]
    assert document["cpu_inference_ready"] is False


def test_windows_need_the_other_package(tmp_path: Path) -> None:
    """Everything else works: the command ends before anything is made."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_WINDOWS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    out = tmp_path / "out"
    done = run(environment, "infer", "--live", "--source", "sample://", "--display", "--out", out)
    assert done.returncode == 4 and not out.exists()
    assert "built without windows" in done.stderr and "pip uninstall opencv-python-headless" in done.stderr
    done = run(environment, "sample", tmp_path / "clip.mp4", "--frames", 2, "--size", 64)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            ImportError("libgthread-2.0.so.0: cannot open shared object file: No such file", name="cv2"),
            "the system's library libgthread-2.0.so.0 is missing",
            "apt-get install libgl1 libglib2.0-0 ",
        ),
        (
            ModuleNotFoundError("No module named 'cv2'", name="cv2"),
            "x needs OpenCV, which cannot be imported here: No module named 'cv2'",
            "pip install opencv-python ",
        ),
        (
            ModuleNotFoundError("No module named 'av'", name="av"),
            "x needs the package 'av', which cannot be imported here: No module named 'av'",
            "pip install --force-reinstall av",
        ),
    ],
)
def test_what_a_failed_import_means(error: ImportError, message: str, hint: str) -> None:
    meant = import_failure(error, purpose="x")
    assert message in meant.message and hint in str(meant.hint) and meant.exit_status == 4


def test_the_cause_is_named_and_not_who_imports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of vmkla that needs an extra may fail for another reason."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "vmkla.segment.overlay", raising=False)
    with pytest.raises(MissingDependencyError, match="needs OpenCV"):
        require("vmkla.segment.overlay", extra="train", purpose="x")
