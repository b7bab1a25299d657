"""Tests marked ``stand_in_gpu`` run in one process for each file, whose NVIDIA driver is a stand-in.

A process has one libcuda.so.1 for its whole life, and the other tests are to see the machine's own, or none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.built_once import built_once
from tests.engines.tensorrt import stand_in_gpu
from tests.export.exported_models import exported
from vmkla.cli.main import main

RESULTS = "VMKLA_STAND_IN_RESULTS"
"""Environment variable of that process: the file to write results to, one line of JSON for each report."""

_reports = pytest.StashKey[dict[Path, dict[str, list[dict[str, str]]]]]()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return status, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def float_onnx(tmp_path: Path) -> Path:
    """The network of ``tiny_onnx`` with a float input."""
    path = tmp_path / "float.onnx"
    path.write_bytes(exported("fp32", "float32"))
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside, nothing is set up for a test that runs elsewhere."""
    if RESULTS in os.environ:
        return
    for item in items:
        if item.get_closest_marker("stand_in_gpu") and isinstance(item, pytest.Function):
            item.fixturenames.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Outside, a test's result is what it came to inside."""
    if RESULTS in os.environ or not pyfuncitem.get_closest_marker("stand_in_gpu"):
        return None
    of_files = pyfuncitem.session.stash.setdefault(_reports, {})
    if pyfuncitem.path not in of_files:
        of_files[pyfuncitem.path] = _run_inside(pyfuncitem.session, pyfuncitem.path)
    reports = of_files[pyfuncitem.path].get(pyfuncitem.nodeid, [])
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


def _run_inside(session: pytest.Session, path: Path) -> dict[str, list[dict[str, str]]]:
    """Run every such test of a file; reports by test."""
    chosen = [item for item in session.items if item.path == path and item.get_closest_marker("stand_in_gpu")]
    factory: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]
    results: Path = factory.mktemp("stand_in_gpu") / "results.jsonl"
    results.touch()
    folder = built_once("stand_in_gpu", _build_stand_in)
    environment = {
        **os.environ,
        RESULTS: str(results),
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


def _build_stand_in(folder: Path) -> None:
    folder.mkdir()
    stand_in_gpu.build(folder)
