"""The one place that imports TensorRT or TensorRT-RTX, whose Python APIs are nearly the same."""

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
"""GPUs that TensorRT-RTX 1.7 builds these networks for (compute capability); the builder asks the library."""
TURING = 75
"""TensorRT-RTX builds for it too, but no float32 matrix product ("FP32 GEMM is not supported"), and the
function body of the scan has one whatever the file's precision: its state is float32."""

_JETSON_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class TensorRTApi:
    """An imported library.

    Attributes:
        runtime: which of the two.
        module: the Python module itself.
        version: its version as numbers, for instance ``(10, 3, 0, 26)``.
    """

    runtime: EngineRuntime
    module: Any
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """Its version as it stands in manifests, for instance ``"10.3.0.26"``."""
        return ".".join(map(str, self.version))

    @property
    def is_rtx(self) -> bool:
        """It is TensorRT-RTX, which knows no plugins and builds ahead of time."""
        return self.runtime == "tensorrt-rtx"

    @property
    def targets(self) -> tuple[int, ...]:
        """GPUs that TensorRT-RTX builds these networks for, as it names them; of TensorRT none."""
        if not self.is_rtx:
            return ()
        names = (re.fullmatch(r"SM(\d+)", name) for name in dir(self.module.ComputeCapability))
        return tuple(sorted({int(match[1]) for match in names if match} - {TURING}))

    @property
    def logger(self) -> Any:
        """The one ``ILogger`` of this library in this process, see ``messages.LibraryLog``."""
        return library_log(self.module).logger

    def collecting(self, messages: Messages) -> contextlib.AbstractContextManager[None]:
        """Collect what the library reports, see ``messages.LibraryLog.collecting``."""
        return library_log(self.module).collecting(messages)

    def make_builder(self) -> Any:
        """An ``IBuilder``. What it reports, and what is made from it, goes to ``collecting``."""
        with _no_collection():
            builder = self.module.Builder(self.logger)
        builder.error_recorder = library_log(self.module).recorder
        return builder

    def make_runtime(self) -> Any:
        """An ``IRuntime``. What it reports, its engines and their contexts, goes to ``collecting``."""
        with _no_collection():
            runtime = self.module.Runtime(self.logger)
        runtime.error_recorder = library_log(self.module).recorder
        return runtime

    def plugin_registry(self) -> Any:
        """The ``IPluginRegistry`` of this process. What it reports goes to ``collecting``."""
        registry = self.module.get_plugin_registry()
        if registry.error_recorder is None:  # or another program in this process has its own
            registry.error_recorder = library_log(self.module).recorder
        return registry


_creating = threading.Lock()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold Python's garbage collection back, for one thread at a time.

    The library may log while it holds a lock, for instance that another program's logger came first. A
    collection in the logger may destroy an older builder, which waits for that lock in the same thread, for
    ever. Measured with TensorRT-RTX 1.7; it holds no such lock when it loads a plugin library or an engine.
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
        MissingDependencyError: it is not installed, or its libraries do not load.
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
    """The command that brings a runtime to this machine."""
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
    """``"10.3.0.26"`` -> (10, 3, 0, 26); what stands behind the numbers (``.post1``) does not count.

    Raises:
        RuntimeError: the text starts with no number.
    """
    match = re.match(r"\d+(?:\.\d+)*", text)
    if match is None:
        raise RuntimeError(f"its version {text!r} is no version")
    return tuple(int(part) for part in match[0].split("."))
