"""Find vmkla's plugin library for TensorRT, check it, and register it."""

from __future__ import annotations

import ctypes
from pathlib import Path

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.manifest import PluginFacts
from vmkla.engines.tensorrt.messages import Messages, take_errors
from vmkla.errors import ArtefactMismatchError, MissingDependencyError
from vmkla.files import file_sha256
from vmkla.native import find_library

LIBRARY = "libvmkla_tensorrt.so"
NAMESPACE = "vmkla"
"""Namespace of the plugins, and domain of their nodes in an ONNX file."""
VERSION = "1"
CREATORS = ("SelectiveScan2d", "BSplineBasis")
ENTRY_POINT = "getCreators"
"""Function of a plugin library that returns its creators to TensorRT."""
ELF_HEAD = 20
"""Length of a shared library's header up to the field that names its architecture, bytes."""
_ELF_MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "aarch64"}

_BUILD = (
    "Run, with NvInfer.h and nvcc at hand: TENSORRT_ROOT=/path/to/TensorRT pip install --force-reinstall "
    "--no-deps vmkla   (from a checkout: pip install .)"
)


def find_plugin(path: Path | None = None) -> Path:
    """Find the plugin library.

    Args:
        path: the user's library; None takes the one that was installed with vmkla.
    Raises:
        MissingDependencyError: it is missing.
    """
    if path is None:
        try:
            return find_library(LIBRARY)
        except MissingDependencyError as error:
            raise MissingDependencyError(
                f"{error.message}; it is compiled where TensorRT's headers and nvcc are found", hint=_BUILD
            ) from error
    if not path.is_file():
        raise MissingDependencyError(f"there is no plugin library {path}", hint=_BUILD)
    return path


def plugin_facts(path: Path) -> PluginFacts:
    """Return what an engine's manifest records of a plugin library."""
    return PluginFacts(path.name, file_sha256(path), VERSION)


def load_plugin(api: TensorRTApi, path: Path) -> PluginFacts:
    """Register a plugin library's creators with TensorRT; a second call changes nothing.

    Args:
        api: the library that will call them.
        path: path of the plugin library, see ``find_plugin``.
    Returns:
        What a manifest records of the plugin library.
    Raises:
        ArtefactMismatchError: the file is not a plugin library for this machine, TensorRT cannot load it, or
            a creator is missing.
    """
    if missing_creators(api):
        reason = why_not_a_plugin(path) or _register(api, path)
        if reason is not None:
            raise ArtefactMismatchError(
                f"{api.label} cannot load the plugin library {path}: {reason}",
                hint=_BUILD,
            )
    if missing := missing_creators(api):
        raise ArtefactMismatchError(
            f"the plugin library {path} was loaded, but these are not registered: {', '.join(missing)} "
            f"(namespace {NAMESPACE}, version {VERSION})",
            hint=_BUILD,
        )
    return plugin_facts(path)


def missing_creators(api: TensorRTApi) -> tuple[str, ...]:
    """Return the names of vmkla's plugins that are missing in TensorRT's registry."""
    registry = api.plugin_registry()
    with api.collecting(Messages()):  # TensorRT reports an error for each missing one
        # Not `all_creators`, which in TensorRT 10.3 is None once one creator is of an unknown kind.
        return tuple(name for name in CREATORS if registry.get_creator(name, VERSION, NAMESPACE) is None)


def why_not_a_plugin(path: Path) -> str | None:
    """Return why this process cannot load a file as a plugin library; None where it can.

    TensorRT's own message does not help here: the dynamic linker reports a library for another architecture
    as "No such file", and TensorRT binds functions at their first call, where a missing one ends the process.
    """
    try:
        with path.open("rb") as file:
            head = file.read(ELF_HEAD)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    with open("/proc/self/exe", "rb") as file:
        here = file.read(ELF_HEAD)
    if head[:4] != here[:4] or len(head) < ELF_HEAD:
        return "it is not a shared library"
    if _architecture(head) != _architecture(here):
        return f"it is compiled for {_architecture(head)}, and this process is {_architecture(here)}"
    try:
        library = ctypes.CDLL(str(path.resolve()))  # binds every symbol at once
    except OSError as error:
        return str(error).removeprefix(f"{path.resolve()}: ")
    if not hasattr(library, ENTRY_POINT):
        return f"it is a shared library without plugins for TensorRT: it has no function {ENTRY_POINT}"
    return None


def _register(api: TensorRTApi, path: Path) -> str | None:
    """Load a plugin library into TensorRT; return None, or why that failed."""
    messages = Messages()
    registry = api.plugin_registry()
    try:
        with api.collecting(messages):
            if registry.load_library(str(path.resolve())) is not None:
                return None
    except Exception as error:  # the bindings raise several kinds
        return str(error)
    return take_errors(messages)


def _architecture(head: bytes) -> str:
    """Return the processor that an ELF file is for, with its address width."""
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return f"{_ELF_MACHINES.get(machine, f'ELF machine {machine}')} ({32 * head[4]} bit)"
