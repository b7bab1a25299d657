"""The GPU, the driver and the plugin library of this machine, asked without any CUDA package."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.manifest import GpuFacts, Machine, PluginFacts
from vmkla.errors import MissingDependencyError

# CUdevice_attribute of the driver's API.
_SM_COUNT, _MAJOR, _MINOR = 16, 75, 76
_DRIVER_VERSION = Path("/sys/module/nvidia/version")
_JETSON_RELEASE = Path("/etc/nv_tegra_release")


def this_machine(api: TensorRTApi, plugin: PluginFacts | None, index: int = 0) -> Machine:
    """What an engine is held against here.

    Args:
        api: the library that would run it.
        plugin: the plugin library here, see ``plugins.find_plugin``.
        index: of the GPU.
    """
    try:
        gpu = find_gpu(index)
    except MissingDependencyError:
        gpu = None
    return Machine(api.runtime, api.version_text, gpu, plugin, cuda_version(), driver_version())


def find_gpu(index: int = 0) -> GpuFacts:
    """One GPU's facts.

    Raises:
        MissingDependencyError: there is no driver, or no such GPU.
    """
    driver = _driver()
    count, device, major, minor, sm_count = (ctypes.c_int() for _ in range(5))
    status = driver.cuInit(0)
    if status or driver.cuDeviceGetCount(ctypes.byref(count)) or not 0 <= index < count.value:
        raise MissingDependencyError(
            f"the NVIDIA driver shows {count.value} GPUs (cuInit returned {status}), wanted is number "
            f"{index}",
            hint="Look at nvidia-smi; in a container, start it with --gpus all.",
        )
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR), (sm_count, _SM_COUNT)):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return GpuFacts(name.value.decode(), f"{major.value}.{minor.value}", sm_count.value)


def cuda_version() -> str | None:
    """CUDA as the driver offers it, for instance ``"12.6"``; None without a driver."""
    number = ctypes.c_int()
    try:
        status = _driver().cuDriverGetVersion(ctypes.byref(number))
    except MissingDependencyError:
        return None
    return None if status else f"{number.value // 1000}.{number.value % 1000 // 10}"


def driver_version() -> str | None:
    """The driver's own version, for instance ``"570.86.15"``, or a Jetson's release ``"R36.4.3"``."""
    for path, pattern, form in (
        (_DRIVER_VERSION, r"([\d.]+)", "{0}"),
        (_JETSON_RELEASE, r"# R(\d+) \(release\), REVISION: ([\d.]+)", "R{0}.{1}"),
    ):
        try:
            match = re.match(pattern, path.read_text(encoding="ascii", errors="replace"))
        except OSError:
            continue
        if match is not None:
            return form.format(*match.groups())
    return None


def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MissingDependencyError(
            "no NVIDIA driver (libcuda.so.1) here", hint="Install NVIDIA's driver; then look at nvidia-smi."
        ) from error
