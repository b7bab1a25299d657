"""Tests marked ``stand_in_gpu`` run together in a process of their own, whose NVIDIA driver is a stand-in.

A process has one libcuda.so.1 for its whole life, and the other tests are to see the machine's own, or none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exported_models
import pytest
import stand_in_gpu

from vmkla.cli.main import main
from vmkla.metadata import InputType

RESULTS = "VMKLA_STAND_IN_RESULTS"
"""Environment variable of that process: the file to write results to, one line of JSON for each report."""

MODELS = "VMKLA_STAND_IN_MODELS"
"""Environment variable of that process: the folder with what was exported for it outside."""
INPUT_TYPES: dict[str, InputType] = {"tiny_onnx": "uint8", "float_onnx": "float32"}
"""Fixtures that are exported files, and the type of their input."""

_fixtures = pytest.StashKey[frozenset[str]]()
_reports = pytest.StashKey[dict[str, list[dict[str, str]]]]()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def tiny_onnx(tmp_path: Path) -> Path:
    """A whole, verified file of a tiny network with a dynamic batch, to be spoilt at will."""
    return _exported(tmp_path, "tiny_onnx")


@pytest.fixture
def float_onnx(tmp_path: Path) -> Path:
    """The same network with a float input."""
    return _exported(tmp_path, "float_onnx")


def _exported(folder: Path, fixture: str) -> Path:
    """Export costs seconds, and most sessions have done it outside anyhow."""
    path = folder / f"{fixture.removesuffix('_onnx')}.onnx"
    models = os.environ.get(MODELS)
    if models is None:
        path.write_bytes(exported_models.exported("fp32", INPUT_TYPES[fixture]))
    else:
        shutil.copy(Path(models) / path.name, path)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside, nothing is set up for a test that runs elsewhere."""
    if RESULTS in os.environ:
        return
    for item in items:
        if item.get_closest_marker("stand_in_gpu") and isinstance(item, pytest.Function):
            item.stash[_fixtures] = frozenset(item.fixturenames)
            item.fixturenames.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Outside, a test's result is what it came to inside."""
    if RESULTS in os.environ or not pyfuncitem.get_closest_marker("stand_in_gpu"):
        return None
    session = pyfuncitem.session
    if _reports not in session.stash:
        session.stash[_reports] = _run_inside(session)
    reports = session.stash[_reports].get(pyfuncitem.nodeid, [])
    failed = [report["text"] for report in reports if report["outcome"] != "passed"]
    if failed or len(reports) != 3:  # set up, call, tear down
        pytest.fail("\n".join(failed) or "the process on the stand-in ended before this test", pytrace=False)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside, results are written down."""
    if path := os.environ.get(RESULTS):
        line = {"test": report.nodeid, "outcome": report.outcome, "text": report.longreprtext}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _run_inside(session: pytest.Session) -> dict[str, list[dict[str, str]]]:
    """Run every such test of this session; reports by test."""
    chosen = [item for item in session.items if item.get_closest_marker("stand_in_gpu")]
    factory: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]
    folder: Path = factory.mktemp("stand_in_gpu")
    stand_in_gpu.build(folder)
    for fixture in INPUT_TYPES:
        if any(fixture in item.stash[_fixtures] for item in chosen):
            _exported(folder, fixture)
    results = folder / "results.jsonl"
    results.touch()
    environment = {
        **os.environ,
        RESULTS: str(results),
        MODELS: str(folder),
        "LD_LIBRARY_PATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, str(Path(sysconfig.get_path("scripts")) / "pytest"), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-q", *(item.nodeid for item in chosen)],
        cwd=session.config.rootpath,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        pytest.fail(
            f"the process on the stand-in ended with {done.returncode}:\n{done.stdout}{done.stderr}",
            pytrace=False,
        )
    found: dict[str, list[dict[str, str]]] = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        found.setdefault(report["test"], []).append(report)
    return found
