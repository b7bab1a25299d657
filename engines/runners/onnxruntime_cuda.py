"""ONNX Runtime on an NVIDIA GPU: check the installation, set up the session, check where each node runs.

The CUDA provider has only standard operators, so it runs the function bodies of the custom nodes. ONNX
Runtime moves nodes that the provider cannot run to the CPU without an error, and all nodes when the provider
does not start; here both are errors. Imports neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmkla.engines.runners.onnxruntime_package import GPU_PACKAGE, INSTALL_GPU, find_installed
from vmkla.engines.tensorrt.machine import cuda_version, driver_version, find_gpu
from vmkla.engines.tensorrt.manifest import GpuFacts
from vmkla.errors import ArtefactMismatchError, MissingDependencyError
from vmkla.imports import require

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CUDAExecutionProvider"
OLDEST = "1.24"
"""The first release whose sessions report the provider of each node; it needs Python 3.11."""
CUDNN = "libcudnn.so.9"
_LIBRARIES = f"pip install '{GPU_PACKAGE}[cuda,cudnn]'"
_FAILURE = re.compile(r"\b(?:CUDA|CUDNN|CUBLAS|CURAND|CUFFT) failure \d+[^;\n]*")


def require_cuda(index: int) -> tuple[Any, GpuFacts]:
    """Import onnxruntime and check that it can use a GPU: the GPU, its driver and CUDA's libraries.

    Args:
        index: number of the GPU, from 0.
    Returns:
        The module and the GPU.
    Raises:
        MissingDependencyError: one of them is missing, or they do not fit together.
    """
    gpu = find_gpu(index)
    installed = find_installed()
    if installed.problem is not None:
        raise MissingDependencyError(installed.problem, hint=f"Run: {INSTALL_GPU}")
    ort = require("onnxruntime", extra=None, purpose="--device cuda:N for an ONNX file")
    check_build(ort, installed.text)
    check_driver(ort.cuda_version, cuda_version())
    load_libraries(ort)
    # Its warnings are about conditions that are checked here.
    ort.set_default_logger_severity(3)
    return ort, gpu


def check_build(ort: Any, installed: str) -> None:
    """Check that onnxruntime has the CUDA provider and can report where nodes run.

    Args:
        ort: the module.
        installed: package and version, for the message.
    Raises:
        MissingDependencyError: it has no CUDA provider, or cannot report where nodes run.
    """
    providers = ort.get_available_providers()
    if PROVIDER not in providers:
        raise MissingDependencyError(
            f"{installed or 'onnxruntime'} is installed, which runs on {', '.join(providers)}; a GPU needs "
            f"{PROVIDER}",
            hint=f"Run: {INSTALL_GPU}",
        )
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        raise MissingDependencyError(
            f"{installed} does not report which nodes run on the GPU; that takes {GPU_PACKAGE} {OLDEST} or "
            "newer, and Python 3.11 or newer",
            hint=f"Run: pip install --upgrade '{GPU_PACKAGE}[cuda,cudnn]>={OLDEST}'",
        )


def check_driver(built_for: str, offered: str | None) -> None:
    """Check that the driver is not older than the CUDA version that onnxruntime was built for.

    Args:
        built_for: CUDA version of onnxruntime, for instance ``"13.0"``; empty without one.
        offered: CUDA version of the driver; None where it is unknown.
    Raises:
        MissingDependencyError: the driver's major version is smaller. Minor versions may differ.
    """
    if not built_for or offered is None or _major(offered) >= _major(built_for):
        return
    raise MissingDependencyError(
        f"the NVIDIA driver (version {driver_version() or 'unknown'}) offers CUDA {offered}, and the "
        f"installed {GPU_PACKAGE} was built for CUDA {built_for}",
        hint=f"Update the driver, or install an {GPU_PACKAGE} that was built for CUDA {_major(offered)}.",
    )


def load_libraries(ort: Any) -> None:
    """Load CUDA's libraries and cuDNN for onnxruntime, from their pip packages or the system.

    Args:
        ort: the module.
    Raises:
        MissingDependencyError: a library cannot be loaded; ONNX Runtime would continue without the GPU.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # it prints missing libraries on stdout, which is for results
        ort.preload_dlls()
    missing = dict(re.findall(r"^Failed to load (.+?\.so[.\d]*): (.*)$", printed.getvalue(), re.MULTILINE))
    try:
        ctypes.CDLL(CUDNN)  # onnxruntime treats it as optional, but convolutions need it
    except OSError as error:
        missing[CUDNN] = str(error)
    if missing:
        names = ", ".join(Path(name).name for name in missing)
        raise MissingDependencyError(
            f"onnxruntime cannot use the GPU: {names} cannot be loaded ({next(iter(missing.values()))})",
            hint=f"Run: {_LIBRARIES}",
        )


def configure(options: onnxruntime.SessionOptions) -> None:
    """Set up a session on a GPU: repeatable, and able to report where each node runs."""
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.use_deterministic_compute = True
    options.intra_op_num_threads = 1


def provider(index: int) -> tuple[str, dict[str, str]]:
    """The CUDA provider and its options: float32 products in float32, and the same algorithms at each start.

    Args:
        index: of the GPU.
    """
    return PROVIDER, {
        "device_id": str(index),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE chooses by times, so differently from run to run
    }


def check_assignment(session: Any, path: Path) -> None:
    """Check that every node of a session runs on the GPU, including nodes inside loops.

    With a dynamic batch ONNX Runtime runs the nodes that compute shapes on the CPU. With a batch of 1 these
    are constants, so that no node has to run there.

    Args:
        session: session of a file with a fixed batch, made with ``configure`` and ``provider``.
        path: path of the file, for messages.
    Raises:
        MissingDependencyError: the CUDA provider did not start.
        ArtefactMismatchError: a node runs elsewhere.
    """
    if PROVIDER not in (taken := session.get_providers()):
        raise MissingDependencyError(
            f"onnxruntime could not start {PROVIDER} and took {', '.join(taken)}",
            hint="Look at nvidia-smi and vmkla doctor; or use --device cpu.",
        )
    check_nodes(session.get_provider_graph_assignment_info(), path)


def check_nodes(assigned: Iterable[Any], path: Path) -> None:
    """Check that every node is assigned to the CUDA provider.

    Args:
        assigned: result of a session's ``get_provider_graph_assignment_info``.
        path: path of the file, for messages.
    Raises:
        ArtefactMismatchError: a node is assigned elsewhere, or no node was reported.
    """
    count, elsewhere, names = 0, Counter[str](), []
    for part in assigned:
        for node in part.get_nodes():
            count += 1
            if part.ep_name != PROVIDER:
                elsewhere[f"{node.op_type} on {part.ep_name}"] += 1
                names += [node.name] if node.name else []
    if count and not elsewhere:
        return
    kinds = ", ".join(f"{number} {kind}" for kind, number in elsewhere.most_common(5))
    more = f", and {len(elsewhere) - 5} more kinds" if len(elsewhere) > 5 else ""
    called = f" (such as {', '.join(names[:3])})" if names else ""
    raise ArtefactMismatchError(
        f"onnxruntime would run {elsewhere.total()} of {count} nodes of {path} outside the GPU: "
        f"{kinds or 'it reported no node'}{more}{called}",
        hint="Run: vmkla export again with this version, or use --device cpu, or an engine of vmkla build",
    )


def device_failure(error: Exception) -> str | None:
    """Return the part of an error's text on a failed call of CUDA or its libraries; None without one."""
    found = _FAILURE.search(str(error))
    return None if found is None else found[0].strip()


def describe(ort: Any, gpu: GpuFacts) -> str:
    """Describe the GPU and the libraries in one line, for reports.

    Args:
        ort: the module.
        gpu: result of ``require_cuda``.
    """
    return (
        f"{gpu.name}, driver {driver_version() or 'unknown'}, CUDA {ort.cuda_version or 'unknown'}; every "
        "node on the GPU, one frame at a time"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])
