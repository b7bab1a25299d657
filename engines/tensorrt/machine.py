"""Query this machine's GPU and driver, without any CUDA package."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.manifest import GpuFacts, PluginFacts
from vmkla.engines.tensorrt.matching import Machine
from vmkla.errors import MissingDependencyError, UsageError

# CUdevice_attribute of the driver's API.
_SM_COUNT, _MAJOR, _MINOR = 16, 75, 76
_DRIVER_VERSION = Path("/sys/module/nvidia/version")
_JETSON_RELEASE = Path("/etc/nv_tegra_release")
_LOOK = "Look at nvidia-smi; in a container, start it with --gpus all."


def this_machine(
    api: TensorRTApi, plugin: PluginFacts | None, index: int = 0, plugin_path: Path | None = None
) -> Machine:
    """Collect the facts of this machine that an engine's manifest is compared with.

    Args:
        api: the library that would run the engine.
        plugin: the plugin library installed here, see ``plugins.find_plugin``.
        index: number of the GPU, from 0.
        plugin_path: path of the plugin library that the user named; None for the installed one.
    """
    gpu, no_gpu = None, None
    try:
        gpu = find_gpu(index)
    except MissingDependencyError as error:
        no_gpu = error.message
    return Machine(
        api.runtime,
        api.version_text,
        gpu,
        plugin,
        cuda_version(),
        driver_version(),
        no_gpu=no_gpu,
        plugin_path=plugin_path,
    )


def parse_device(device: str, runs_on: str = "an engine runs on cuda or cuda:N") -> int:
    """Parse ``"cuda"`` or ``"cuda:N"`` into the number of a GPU.

    Args:
        device: the user's text.
        runs_on: what is accepted, for the message.
    Raises:
        UsageError: the text is neither.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"{runs_on}, device is {device!r}", hint="Use --device cuda:0")
    return int(match[1] or 0)


def find_gpu(index: int = 0) -> GpuFacts:
    """Query one GPU's name, compute capability and multiprocessors.

    Args:
        index: number of the GPU, from 0.
    Raises:
        MissingDependencyError: there is no driver, it fails, or there is no such GPU.
    """
    driver = _driver()
    count, device, major, minor, sm_count = (ctypes.c_int() for _ in range(5))
    status = driver.cuInit(0)
    if not status:
        _ask(driver, "cuDeviceGetCount", ctypes.byref(count))
    if status or not 0 <= index < count.value:
        raise MissingDependencyError(
            f"the NVIDIA driver shows {count.value} GPUs (cuInit returned {status}), requested is number "
            f"{index}",
            hint=_LOOK,
        )
    name = ctypes.create_string_buffer(256)
    _ask(driver, "cuDeviceGet", ctypes.byref(device), index)
    _ask(driver, "cuDeviceGetName", name, len(name), device)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR), (sm_count, _SM_COUNT)):
        _ask(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return GpuFacts(name.value.decode(), f"{major.value}.{minor.value}", sm_count.value)


def _ask(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        raise MissingDependencyError(f"the NVIDIA driver's {function} returned {status}", hint=_LOOK)


def cuda_version() -> str | None:
    """Return the driver's CUDA version, for instance ``"12.6"``; None without a driver."""
    number = ctypes.c_int()
    try:
        status = _driver().cuDriverGetVersion(ctypes.byref(number))
    except MissingDependencyError:
        return None
    return None if status else f"{number.value // 1000}.{number.value % 1000 // 10}"


def driver_version() -> str | None:
    """Return the driver's own version, for instance ``"570.86.15"``, or a Jetson's release ``"R36.4.3"``."""
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
