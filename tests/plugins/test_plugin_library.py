"""libvmkla_tensorrt.so as the package builds it: what it exports and links, and a real registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins import plugin_builds
from tests.plugins.emulated_kernels import EMULATION, KERNELS, compile_emulation
from tests.plugins.plugin_builds import Build, must

pytestmark = [pytest.mark.tensorrt, pytest.mark.slow]

EXPORTED = {"getCreators", "setLoggerFinder", "vmkla_tensorrt_version"}
SYSTEM = ("libc.so", "libm.so", "libdl.so", "librt.so", "libpthread.so", "ld-linux")
"""What any Linux has: of CUDA the driver alone is needed, and it is found at run time."""

LOAD_INTO_RTX = """
import sys, numpy as np, tensorrt_rtx as trt
library, opened_first = sys.argv[1], sys.argv[2] == "opened"
builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
registry = trt.get_plugin_registry()
def ours():
    found = [c for c in registry.all_creators if c.plugin_namespace == "vmkla" and c.plugin_version == "1"]
    return sorted(creator.name for creator in found)
both = ["BSplineBasis", "SelectiveScan2d"]
if opened_first:
    import ctypes
    ctypes.CDLL(library)
    assert ours() == both, ours()
handle = registry.load_library(library)
assert handle is not None
assert ours() == both, ours()
assert builder.get_plugin_registry().load_library(library) is not None
creator = registry.get_creator("BSplineBasis", "1", "vmkla")
kinds = {np.int32: trt.PluginFieldType.INT32, np.float32: trt.PluginFieldType.FLOAT32}
values = {"order": np.int32(3), "uniform": np.int32(1), "grid_min": np.float32(-2)}
values["grid_step"] = np.float32(0.5)
def create(**changed):
    fields = {**values, **changed}
    arrays = [(name, np.array([value]), kinds[type(value)]) for name, value in fields.items()]
    collection = trt.PluginFieldCollection([trt.PluginField(*field) for field in arrays])
    return creator.create_plugin("node", collection, trt.TensorRTPhase.BUILD)
assert create() is not None
assert create(order=np.int32(0)) is None
assert registry.get_creator("SelectiveScan2d", "1", "vmkla") is not None
registry.deregister_library(handle)
assert ours() == [], ours()
assert registry.load_library(library) is not None
print("loaded")
"""


@pytest.fixture(scope="module", params=plugin_builds.each_root())
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Library and program for one TensorRT."""
    return plugin_builds.real(request.param, tmp_path_factory.mktemp("plugin"))


def test_exports_nothing_else(build: Build) -> None:
    lines = must(["nm", "-D", "--defined-only", str(build.library)]).splitlines()
    assert {line.split()[-1] for line in lines} == EXPORTED


def test_links_no_tensorrt_no_cuda_and_no_cxx_runtime(build: Build) -> None:
    lines = must(["readelf", "-d", str(build.library)]).splitlines()
    needed = [line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line]
    assert needed
    assert [name for name in needed if not name.startswith(SYSTEM)] == []
    # A registry holds pointers to its creators.
    assert any("NODELETE" in line for line in lines)
    undefined = must(["nm", "-D", "--undefined-only", str(build.library)])
    assert "getPluginRegistry" not in undefined and "Infer" not in undefined


def test_enqueue_without_a_gpu_is_an_error_code(build: Build) -> None:
    done = build.run("enqueue_without_gpu")
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def load_into_rtx(library: Path, how: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    done = subprocess.run(
        [sys.executable, "-c", LOAD_INTO_RTX, str(library), how],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "loaded" in done.stdout, (
        f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    )


def test_tensorrt_rtx_loads_it(build: Build) -> None:
    """The registry is a real one, though RTX runs no custom plugin."""
    load_into_rtx(build.library, "alone")


@pytest.fixture(scope="module", params=plugin_builds.each_root())
def rtx_plugin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, taking TensorRT-RTX for its TensorRT: it joins that registry when it is opened.

    RTX 1's registry and loggers have the tables of TensorRT 11: only a library of those headers fits.
    """
    if plugin_builds.version(request.param)[0] != 11:
        pytest.skip("TensorRT-RTX 1 has the registry of TensorRT 11")
    return compile_emulation(
        (*plugin_builds.SOURCES, *KERNELS, *EMULATION),
        tmp_path_factory.mktemp("rtx") / "libvmkla_tensorrt.so", "-shared", "-fPIC",
        "-fvisibility=hidden", f"-Wl,--version-script={plugin_builds.EXPORTS}", "-Wl,-z,nodelete",
        '-DVMKLA_HOST_LIBRARY="libtensorrt_rtx.so"', "-DVMKLA_HOST_MAJOR=1",
        "-isystem", str(request.param / "include"), "-ldl",
    )  # fmt: skip


@pytest.mark.parametrize("how", ["alone", "opened"])
def test_registers_itself_and_is_loaded_in_a_real_registry(rtx_plugin: Path, how: str) -> None:
    """In TensorRT-RTX's registry, opened first as by DeepStream, or by loadLibrary alone.

    Alone is the way of ``vmkla build`` and ``trtexec --dynamicPlugins``: the library then registers itself
    while the registry is inside loadLibrary.
    """
    load_into_rtx(rtx_plugin, how)
