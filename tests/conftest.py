"""Fixtures of the whole suite, and the rule that a test may not quietly skip itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import ROOT, built_once

# Torch's compiler imports setuptools, and that fails in a process that imported pip before: so it is first.
with contextlib.suppress(ImportError):
    import setuptools  # noqa: F401

# Some tests import onnxruntime directly, and its telemetry must not run in them either.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# The same inputs in every run, and no time limit for one of them: other processes share the machine.
settings.register_profile("vmkla", derandomize=True, deadline=None)
settings.load_profile("vmkla")

# For tests, benchmarks and experiments, and last: `vmkla` is what is installed, not the checkout's folder.
sys.path.append(str(ROOT))

MAY_SKIP = {"needs_data", "gpu", "tensorrt", "hardware"}
"""Markers of tests that need what no installation can bring."""


_builds = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder for what all processes of this run share; they inherit its name."""
    if built_once.FOLDER not in os.environ:
        config.stash[_builds] = Path(tempfile.mkdtemp(prefix="vmkla-tests-"))
        os.environ[built_once.FOLDER] = str(config.stash[_builds])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder in the process that made it."""
    if folder := config.stash.get(_builds, None):
        del os.environ[built_once.FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionstart() -> None:
    """Accept Ctrl-C, and stop the session when vmkla's compiled library is missing."""
    # A shell ignores SIGINT in what it runs in the background; tests that send it would wait for nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from vmkla.errors import VmklaError
    from vmkla.native import find_library

    try:
        find_library()
    except VmklaError as error:
        pytest.exit(f"vmkla is not installed: {error}", returncode=4)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip counts as a failure, unless a marker says that the machine lacks something."""
    report = yield
    if report.skipped and os.environ.get("CI") and not any(item.iter_markers("xfail")):
        if not MAY_SKIP & {marker.name for marker in item.iter_markers()}:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"skipped in CI without one of the markers {sorted(MAY_SKIP)}: {reason}"
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images (``data/``) and videos (``video/``), for tests marked ``needs_data``.

    It is named by the environment variable VMKLA_DATA; else it is the folder ``shared`` beside the checkout.
    """
    folder = Path(os.environ.get("VMKLA_DATA") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} does not exist; set VMKLA_DATA")
    return folder


@pytest.fixture
def tiny_onnx(tmp_path: Path) -> Path:
    """A complete, verified ONNX file of a tiny network with random weights, which a test may change."""
    from tests.export.exported_models import exported

    path = tmp_path / "tiny.onnx"
    path.write_bytes(exported())
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as a weights file."""
    from tests.export.exported_models import HEIGHT, WIDTH, network
    from vmkla.models.checkpoints import save_weights

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(network(), path, training={"image_size_hw": [HEIGHT, WIDTH], "roi": "none"})
    return path


@pytest.fixture(scope="session")
def other_cpus_folder() -> Path:
    """The patched libraries for ``other_cpus.run``, built once in about five seconds."""
    from tests import other_cpus

    if other_cpus.FOLDER in os.environ:  # the tests themselves run as another CPU
        return Path(os.environ[other_cpus.FOLDER])
    return built_once.built_once("other-cpus", other_cpus.build)


@pytest.fixture(scope="session")
def small_nano() -> Path:
    """``nano`` at 96x96: one slow core with AVX2 keeps the limits of live mode with it, at 256x256 not."""
    from vmkla.cli.main import main
    from vmkla.weights import resolve

    def export(path: Path) -> None:
        weights = str(resolve("nano", ".safetensors"))
        assert main(["export", "--model", weights, "--imgsz", "96", "--output", str(path), "--quiet"]) == 0

    return built_once.built_once("nano-96.onnx", export)
