"""Plugin libraries that do not load, and what is reported of each, with the real TensorRT-RTX."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.tensorrt.small_libraries import UNUSABLE, UNUSABLE_KINDS, write_plugin
from vmkla.engines.tensorrt.api import TensorRTApi, load_api
from vmkla.engines.tensorrt.plugins import (
    CREATORS,
    LIBRARY,
    find_plugin,
    load_plugin,
    missing_creators,
    why_not_a_plugin,
)
from vmkla.errors import ArtefactMismatchError
from vmkla.native import find_library


@pytest.fixture(scope="module")
def rtx() -> TensorRTApi:
    return load_api("tensorrt-rtx")


@pytest.mark.parametrize("kind", UNUSABLE_KINDS)
def test_the_reason_is_reported(rtx: TensorRTApi, tmp_path: Path, kind: str) -> None:
    path = UNUSABLE[kind].write(tmp_path / LIBRARY)
    with pytest.raises(ArtefactMismatchError) as caught:
        load_plugin(rtx, find_plugin(path))
    assert caught.value.message == (
        f"tensorrt-rtx {rtx.version_text} cannot load the plugin library {path}: {UNUSABLE[kind].reason}"
    )
    assert "TENSORRT_ROOT=" in (caught.value.hint or "")


def test_what_tensorrt_itself_reports(rtx: TensorRTApi, tmp_path: Path) -> None:
    """It has nobody to tell but the registry's recorder: no builder or runtime lives here."""
    path = write_plugin(tmp_path / LIBRARY)
    assert why_not_a_plugin(path) is None
    with pytest.raises(ArtefactMismatchError, match=r"libvmkla_tensorrt\.so: .*setLoggerFinder could not be"):
        load_plugin(rtx, path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    reason = why_not_a_plugin(tmp_path / "absent.so")
    assert reason == "it cannot be read: No such file or directory"
    (tmp_path / "short.so").write_bytes(find_library().read_bytes()[:10])
    assert why_not_a_plugin(tmp_path / "short.so") == "it is not a shared library"


def test_vmklas_own_cpu_library_has_no_plugins(rtx: TensorRTApi) -> None:
    with pytest.raises(ArtefactMismatchError, match="without plugins for TensorRT"):
        load_plugin(rtx, find_library())


def test_the_registry_is_asked_for_both_creators(rtx: TensorRTApi) -> None:
    assert set(missing_creators(rtx)) <= set(CREATORS)
