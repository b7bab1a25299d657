"""Import TensorRT or TensorRT-RTX, whose Python APIs are nearly the same. No other module imports them."""

from __future__ import annotations

import contextlib
import gc
import importlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vmkla.engines.tensorrt.messages import Messages, library_log
from vmkla.errors import MissingDependencyError

EngineRuntime = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
RTX_TARGETS = (80, 86, 89, 120, 121)
"""Compute capabilities that TensorRT-RTX 1.7 builds these networks for; the builder queries the library."""
TURING = 75
"""Compute capability of Turing GPUs, for which TensorRT-RTX has no float32 matrix product ("FP32 GEMM is not
supported"). The function body of the scan has one in every precision, since its state is float32."""

_JETSON_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class TensorRTApi:
    """An imported library, TensorRT or TensorRT-RTX.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        module: the Python module.
        version: version as numbers, for instance ``(10, 3, 0, 26)``.
    """

    runtime: EngineRuntime
    module: Any
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """Version as manifests record it, for instance ``"10.3.0.26"``."""
        return ".".join(map(str, self.version))

    @property
    def label(self) -> str:
        """Name and version for messages and reports, for instance ``"tensorrt 10.3.0.26"``."""
        return f"{self.runtime} {self.version_text}"

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which has no plugins and builds ahead of time."""
        return self.runtime == "tensorrt-rtx"

    @property
    def targets(self) -> tuple[int, ...]:
        """Compute capabilities that TensorRT-RTX builds these networks for, sorted; empty for TensorRT."""
        if not self.is_rtx:
            return ()
        names = (re.fullmatch(r"SM(\d+)", name) for name in dir(self.module.ComputeCapability))
        return tuple(sorted({int(match[1]) for match in names if match} - {TURING}))

    @property
    def logger(self) -> Any:
        """The library's only ``ILogger`` in this process, see ``messages.LibraryLog``."""
        return library_log(self.module).logger

    def collecting(self, messages: Messages) -> contextlib.AbstractContextManager[None]:
        """Collect the library's messages during a block, see ``messages.LibraryLog.collecting``."""
        return library_log(self.module).collecting(messages)

    def make_builder(self) -> Any:
        """Make an ``IBuilder``; ``collecting`` gets its messages and those of objects made from it."""
        with _no_collection():
            builder = self.module.Builder(self.logger)
        builder.error_recorder = library_log(self.module).recorder
        return builder

    def make_runtime(self) -> Any:
        """Make an ``IRuntime``; ``collecting`` gets its messages and those of its engines and contexts."""
        with _no_collection():
            runtime = self.module.Runtime(self.logger)
        runtime.error_recorder = library_log(self.module).recorder
        return runtime

    def plugin_registry(self) -> Any:
        """Return the ``IPluginRegistry`` of this process; ``collecting`` gets its messages."""
        registry = self.module.get_plugin_registry()
        if registry.error_recorder is None:  # else another program in this process has set its own
            registry.error_recorder = library_log(self.module).recorder
        return registry


_creating = threading.Lock()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Turn off Python's garbage collection for a block, in one thread at a time.

    The library may log while it holds a lock, for instance that another program's logger was set first. A
    collection inside the logger may destroy an older builder, which waits for that lock in the same thread: a
    deadlock, seen with TensorRT-RTX 1.7. The library holds no such lock when it loads a plugin or an engine.
    """
    with _creating:
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


def load_api(runtime: EngineRuntime) -> TensorRTApi:
    """Import a runtime's library.

    Args:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
    Raises:
        MissingDependencyError: it is not installed, or its libraries cannot be loaded.
    """
    name = _MODULES[runtime]
    try:
        module = importlib.import_module(name)
        version = parse_version(module.__version__)
    # A package whose libraries are missing raises OSError; a placeholder package has no version.
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        raise MissingDependencyError(
            f"{runtime} needs the Python package {name!r}, which cannot be imported here: {error}",
            hint=how_to_get(runtime),
        ) from error
    return TensorRTApi(runtime, module, version)


def how_to_get(runtime: EngineRuntime) -> str:
    """Return the command that installs a runtime on this machine."""
    if runtime == "tensorrt-rtx":
        return "Run: pip install 'vmkla[rtx]'"
    if _JETSON_RELEASE.is_file():
        return (
            "Run: sudo apt install nvidia-jetpack, and make the virtual environment with "
            "python3 -m venv --system-site-packages: a Jetson's TensorRT is a system package"
        )
    return (
        "Run: pip install 'vmkla[tensorrt]'   (on a Jetson: sudo apt install nvidia-jetpack, and a virtual "
        "environment made with --system-site-packages, which sees the system's TensorRT)"
    )


def parse_version(text: str) -> tuple[int, ...]:
    """Parse ``"10.3.0.26"`` into (10, 3, 0, 26); a suffix such as ``.post1`` is ignored.

    Raises:
        RuntimeError: the text does not start with a number.
    """
    match = re.match(r"\d+(?:\.\d+)*", text)
    if match is None:
        raise RuntimeError(f"its version is {text!r}, expected numbers such as 10.3.0")
    return tuple(int(part) for part in match[0].split("."))
