"""The one place that imports TensorRT or TensorRT-RTX, whose Python APIs are nearly the same."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vmkla.errors import MissingDependencyError

logger = logging.getLogger(__name__)

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

    def make_logger(self, messages: Messages) -> Any:
        """An ``ILogger`` whose messages go to Python's logging and are kept in ``messages``."""
        severities = self.module.ILogger
        levels = {
            severities.INTERNAL_ERROR: logging.ERROR,
            severities.ERROR: logging.ERROR,
            severities.WARNING: logging.WARNING,
            severities.INFO: logging.INFO,
            severities.VERBOSE: logging.DEBUG,
        }

        class KeepingLogger(severities):  # type: ignore[misc, valid-type]
            """Called by the library from any of its threads."""

            def __init__(self) -> None:
                severities.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                messages.add(levels[severity], msg)

        return KeepingLogger()

    def make_builder(self, logger: Any) -> Any:
        """An ``IBuilder`` that speaks through a logger of ``make_logger``."""
        with _no_collection():
            return self.module.Builder(logger)

    def make_runtime(self, logger: Any) -> Any:
        """An ``IRuntime`` that speaks through a logger of ``make_logger``."""
        with _no_collection():
            return self.module.Runtime(logger)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold Python's garbage collection back.

    The library logs while it holds a lock. A collection in the logger may destroy an older builder, which
    waits for that lock in the same thread, for ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass
class Messages:
    """What a library has said.

    Attributes:
        errors, warnings: in the order in which they came.
        notes: messages below a warning; kept for what is only said there, such as a hit of the timing cache.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, level: int, text: str) -> None:
        """Keep a message and hand it to Python's logging.

        Its level there is one lower: what matters to a user is raised or reported by vmkla itself.
        """
        if level >= logging.ERROR:
            self.errors.append(text)
            logger.info("%s", text)
        elif level >= logging.WARNING:
            self.warnings.append(text)
            logger.info("%s", text)
        else:
            if level >= logging.INFO:
                self.notes.append(text)
            logger.debug("%s", text)


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
