"""vmkla's plugin library for TensorRT: where it is, and whether TensorRT took it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmkla.engines.tensorrt.api import Messages, TensorRTApi
from vmkla.engines.tensorrt.manifest import PluginFacts
from vmkla.errors import ArtefactMismatchError, MissingDependencyError
from vmkla.files import file_sha256
from vmkla.native import find_library

LIBRARY = "libvmkla_tensorrt.so"
NAMESPACE = "vmkla"
"""Of the plugins, and domain of their nodes in an ONNX file."""
VERSION = "1"
CREATORS = ("SelectiveScan2d", "BSplineBasis")

_BUILD = (
    "Run, with NvInfer.h and nvcc at hand: TENSORRT_ROOT=/path/to/TensorRT pip install --force-reinstall "
    "--no-deps vmkla   (from a checkout: pip install .)"
)


def find_plugin(path: Path | None = None) -> Path:
    """The plugin library.

    Args:
        path: a library of the user's; None takes the one that was installed with vmkla.
    Raises:
        MissingDependencyError: it is not there.
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
    """What an engine's manifest keeps of a plugin library."""
    return PluginFacts(path.name, file_sha256(path), VERSION)


def load_plugin(api: TensorRTApi, path: Path, messages: Messages) -> PluginFacts:
    """Register a library's creators with TensorRT; a second call finds them there.

    Args:
        api: the library that is to call them.
        path: the plugin library, see ``find_plugin``.
        messages: what TensorRT's logger said, for the error.
    Returns:
        Its facts.
    Raises:
        ArtefactMismatchError: TensorRT cannot load it, or it lacks a creator.
    """
    registry: Any = api.module.get_plugin_registry()
    if missing_creators(registry):
        handle, reason = None, ""
        try:
            handle = registry.load_library(str(path.resolve()))
        except Exception as error:  # the bindings raise several kinds
            reason = f": {error}"
        if handle is None:
            said = "; ".join(messages.errors[-3:])
            raise ArtefactMismatchError(
                f"{api.runtime} {api.version_text} cannot load the plugin library {path}"
                f"{reason}{f' ({said})' if said else ''}",
                hint=_BUILD,
            )
    if missing := missing_creators(registry):
        raise ArtefactMismatchError(
            f"the plugin library {path} was loaded, but these are not registered: {', '.join(missing)} "
            f"(namespace {NAMESPACE}, version {VERSION})",
            hint=_BUILD,
        )
    return plugin_facts(path)


def missing_creators(registry: Any) -> tuple[str, ...]:
    """Names of vmkla's plugins that a registry does not know."""
    # Not by `all_creators`, which in TensorRT 10.3 is None as soon as one creator is of a kind unknown to it.
    return tuple(name for name in CREATORS if registry.get_creator(name, VERSION, NAMESPACE) is None)
