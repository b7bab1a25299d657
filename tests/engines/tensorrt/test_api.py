"""The one import of TensorRT, its logger, the plugin registry, and what can be asked of this machine."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vmkla.engines.tensorrt import api as api_module
from vmkla.engines.tensorrt import machine
from vmkla.engines.tensorrt.api import (
    RTX_TARGETS,
    TURING,
    TensorRTApi,
    how_to_get,
    load_api,
    parse_version,
)
from vmkla.engines.tensorrt.build.host_memory import check_memory, free_memory_bytes, needed_memory_bytes
from vmkla.engines.tensorrt.plugins import find_plugin
from vmkla.errors import MissingDependencyError


@pytest.fixture(scope="module")
def rtx() -> TensorRTApi:
    return load_api("tensorrt-rtx")


def test_tensorrt_rtx_is_loaded_with_its_version(rtx: TensorRTApi) -> None:
    assert rtx.runtime == "tensorrt-rtx" and rtx.is_rtx
    assert rtx.version_text == rtx.module.__version__ and rtx.version >= (1, 7)


def test_the_targets_are_those_that_the_library_names(rtx: TensorRTApi) -> None:
    named = {int(name[2:]) for name in dir(rtx.module.ComputeCapability) if name[:2] == "SM"}
    assert set(rtx.targets) == named - {TURING}
    assert rtx.targets == RTX_TARGETS
    assert TensorRTApi("tensorrt", rtx.module, (10, 3)).targets == ()


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
@pytest.mark.tensorrt
def test_without_tensorrt_it_is_said_how_to_get_it() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        load_api("tensorrt")
    assert caught.value.exit_status == 4 and "'tensorrt'" in caught.value.message
    assert caught.value.hint is not None and "pip install 'vmkla[tensorrt]'" in caught.value.hint
    assert "--system-site-packages" in caught.value.hint


@pytest.mark.parametrize("error", [ImportError("gone"), OSError("libnvinfer.so.10: cannot open")])
def test_a_package_that_does_not_load_is_missing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingDependencyError, match=str(error)):
        load_api("tensorrt")


def test_a_placeholder_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package index has packages of that name whose libraries come from elsewhere."""
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(MissingDependencyError, match="__version__"):
        load_api("tensorrt")


def test_on_a_jetson_it_is_a_system_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    monkeypatch.setattr(api_module, "_JETSON_RELEASE", release)
    assert how_to_get("tensorrt").startswith("Run: sudo apt install nvidia-jetpack")
    assert how_to_get("tensorrt-rtx") == "Run: pip install 'vmkla[rtx]'"
    monkeypatch.setattr(machine, "_JETSON_RELEASE", release)
    monkeypatch.setattr(machine, "_DRIVER_VERSION", tmp_path / "absent")
    assert machine.driver_version() == "R36.4.3"


def test_a_desktop_driver_says_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "version").write_text("570.86.15\n")
    monkeypatch.setattr(machine, "_DRIVER_VERSION", tmp_path / "version")
    assert machine.driver_version() == "570.86.15"
    monkeypatch.setattr(machine, "_DRIVER_VERSION", tmp_path / "absent")
    monkeypatch.setattr(machine, "_JETSON_RELEASE", tmp_path / "absent")
    assert machine.driver_version() is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("10.3.0", (10, 3, 0)), ("11.1.0.106", (11, 1, 0, 106)), ("10.3.0.post12.dev1", (10, 3, 0))],
)
def test_versions_are_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers
    assert parse_version("9.9") < parse_version("10.3") < parse_version("10.13")


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(RuntimeError, match="expected numbers such as"):
        parse_version("unknown")


def test_a_plugin_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="there is no plugin library") as caught:
        find_plugin(tmp_path / "absent.so")
    assert caught.value.hint is not None and "TENSORRT_ROOT=" in caught.value.hint
    monkeypatch.setattr("vmkla.engines.tensorrt.plugins.LIBRARY", "libvmkla_absent.so")
    with pytest.raises(MissingDependencyError, match="NvInfer|headers and nvcc are found"):
        find_plugin()


@pytest.mark.tensorrt
def test_the_plugin_library_registers_both_creators() -> None:
    """In a process of its own, since a registry forgets nothing."""

    try:
        path = find_plugin()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    code = (
        "from pathlib import Path\n"
        "from vmkla.engines.tensorrt.api import load_api\n"
        "from vmkla.engines.tensorrt.plugins import load_plugin, missing_creators\n"
        "api = load_api('tensorrt-rtx')\n"
        f"first = load_plugin(api, Path({str(path)!r}))\n"
        f"assert load_plugin(api, Path({str(path)!r})) == first\n"
        "assert missing_creators(api) == ()\n"
        "print(first.sha256)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    from vmkla.files import file_sha256

    assert done.stdout.strip() == file_sha256(path)


def test_free_memory_is_the_containers_where_that_is_less(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\nSwapFree: 1000000 kB\nHugePages: 0\n")
    assert free_memory_bytes(meminfo, tmp_path) == 5_000_000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory_bytes(meminfo, tmp_path) == 5_000_000 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert free_memory_bytes(meminfo, tmp_path) == 2000


def test_pages_of_files_do_not_count_as_used_in_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable: 4000000 kB\n")
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("2900\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 2400\ninactive_file 1500\nactive_file 700\n")
    assert free_memory_bytes(meminfo, tmp_path) == 3000 - (2900 - 1500 - 700)
    (tmp_path / "memory.stat").unlink()
    assert free_memory_bytes(meminfo, tmp_path) == 100


def test_swap_in_compressed_memory_is_no_further_memory(tmp_path: Path) -> None:
    """A Jetson's swap is zram on each core; a file of swap is memory."""
    meminfo, swaps = tmp_path / "meminfo", tmp_path / "swaps"
    meminfo.write_text("MemAvailable: 4000000 kB\nSwapFree: 1000000 kB\n")
    head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    swaps.write_text(f"{head}/dev/zram0 partition 300000 100000 5\n/dev/zram1 partition 300000 0 5\n")
    assert free_memory_bytes(meminfo, tmp_path, swaps) == 1024 * 4_500_000
    swaps.write_text(f"{head}/swap file 1000000 0 -2\n")
    assert free_memory_bytes(meminfo, tmp_path, swaps) == 1024 * 5_000_000
    assert free_memory_bytes(meminfo, tmp_path, tmp_path / "absent") == 1024 * 5_000_000


def test_too_little_memory_is_said_before_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = needed_memory_bytes(179_000_000, rtx=True)
    monkeypatch.setattr("vmkla.engines.tensorrt.build.host_memory.free_memory_bytes", lambda: needed)
    check_memory(179_000_000, rtx=True)
    with pytest.raises(MissingDependencyError, match=r"takes about 3.0 GiB of memory, 1.8 GiB are free"):
        check_memory(179_000_000, rtx=False)
    with pytest.raises(MissingDependencyError) as caught:
        check_memory(180_000_000, rtx=True)
    assert caught.value.hint is not None and "swap" in caught.value.hint


@pytest.mark.skipif(machine.cuda_version() is not None, reason="there is a driver here")
@pytest.mark.gpu
def test_a_machine_without_a_driver(rtx: TensorRTApi) -> None:
    with pytest.raises(MissingDependencyError, match="no NVIDIA driver"):
        machine.find_gpu()
    here = machine.this_machine(rtx, None)
    assert (here.gpu, here.cuda_version, here.plugin) == (None, None, None)
    assert (here.runtime, here.runtime_version) == ("tensorrt-rtx", rtx.version_text)
