"""Make ONNX Runtime sessions with vmkla's kernels. Imports neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmkla.cpus import runtime_threads
from vmkla.errors import ArtefactMismatchError, MissingDependencyError
from vmkla.imports import require
from vmkla.native import find_library

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"
OLDEST_ONNXRUNTIME = "1.20"
"""Oldest supported release, whose API ``engines/plugins/cpu/ort_abi.h`` requests."""


def register(session_options: onnxruntime.SessionOptions, library: Path | None = None) -> None:
    """Make a session run the nodes of domain ``vmkla`` with the compiled kernels.

    Registered kernels take precedence over the function bodies in the file. A library that cannot be used is
    an error, since the session would otherwise run the bodies, many times slower, without any warning.

    Args:
        session_options: options of a session that is not created yet, registered once.
        library: path of the compiled library; None takes the one that was installed with vmkla.
    Raises:
        MissingDependencyError: there is no library, or onnxruntime is too old for it.
        ArtefactMismatchError: the file is not a vmkla library for this machine.
    """
    path = find_library() if library is None else library
    if not path.is_file():
        raise MissingDependencyError(
            f"the compiled library {path} does not exist",
            hint="Run: pip install --force-reinstall vmkla   (from a checkout: pip install .)",
        )
    try:
        session_options.register_custom_ops_library(str(path.resolve()))
    except Exception as error:  # onnxruntime's exceptions have no common base class
        if "need ONNX Runtime" in str(error):  # ort_ops.cpp, RegisterCustomOps
            raise MissingDependencyError(
                f"onnxruntime is too old for the kernels of {path}: {error}",
                hint=f"Run: pip install --upgrade 'onnxruntime>={OLDEST_ONNXRUNTIME}'",
            ) from error
        raise ArtefactMismatchError(
            f"onnxruntime cannot use {path} as vmkla's kernel library for this machine: {error}",
            hint="Run: pip install --force-reinstall vmkla   (from a checkout: pip install .)",
        ) from error


def cpu_options(threads: int | None, *, native: bool = True) -> onnxruntime.SessionOptions:
    """Make the options of a session on the CPU, which logs only errors.

    Args:
        threads: CPU threads; None as ``vmkla.cpus.runtime_threads``.
        native: run the custom nodes with vmkla's kernels, otherwise the function bodies in the file.
    Raises:
        MissingDependencyError, ArtefactMismatchError: see ``register``.
    """
    options = require("onnxruntime", extra=None, purpose="running ONNX files").SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = runtime_threads(threads)
    if native:
        register(options)
    return options


def cpu_session(model: bytes | str, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Make a session for a graph that vmkla changed to look into it, with vmkla's kernels.

    Args:
        model: the graph's bytes, or the path of its file.
        threads: as of ``cpu_options``.
    """
    ort = require("onnxruntime", extra=None, purpose="running ONNX files")
    return ort.InferenceSession(model, cpu_options(threads), providers=[PROVIDER])
