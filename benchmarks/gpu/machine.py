"""Describe the machine of `make gpu-proof`: GPU, driver, packages, and why a step cannot run on it.

The first step asks in a process of its own, since a broken driver can hang or crash who asks it.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.records import Context, Recorder

PACKAGES = ("torch", "triton", "numpy", "mamba-ssm", "onnxruntime", "onnxruntime-gpu", "tensorrt",
            "tensorrt-rtx-cu13", "av")  # fmt: skip
TOOLS = ("compute-sanitizer", "ncu")
TOOL_FOLDERS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/cuda/nsight-compute*")
MACHINE, CARRIED = "machine.json", "carry.json"
OLDEST_TRITON = (8, 0)
Facts = Mapping[str, Any]


def find_tool(name: str) -> str | None:
    """Find one of NVIDIA's tools on PATH or in the folders of its installers."""
    folders = [folder for pattern in TOOL_FOLDERS for folder in sorted(glob.glob(pattern))]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def look(carry: Path) -> dict[str, Any]:
    """Collect the facts of this machine; ``gpu`` is None without one, and ``looked`` is what was searched."""
    import torch

    import vmkla
    from vmkla.cpu_features import cpu_name
    from vmkla.cpus import cpu_budget
    from vmkla.engines.tensorrt.machine import cuda_version, driver_version, find_gpu
    from vmkla.errors import MissingDependencyError

    gpu, refusal = None, ""
    try:
        gpu = find_gpu()
    except MissingDependencyError as error:
        refusal = error.message
    sees = bool(torch.cuda.is_available())
    devices = ", ".join(sorted(glob.glob("/dev/nvidia[0-9]*"))) or "none"
    return {
        "gpu": gpu and gpu.name,
        "capability": gpu and [int(part) for part in gpu.compute_capability.split(".")],
        "multiprocessors": gpu and gpu.sm_count,
        "driver": driver_version(),
        "driver_cuda": cuda_version(),
        "torch_cuda": torch.version.cuda,
        "torch_sees_gpu": sees,
        "versions": {name: version_of(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpus": cpu_budget().cpus,
        "stub_compiler": stub_compiler(),
        "carried": Path(vmkla.__path__[0]).is_relative_to(carry.resolve()),
        "tools": {name: find_tool(name) for name in TOOLS},
        "looked": [
            f"the driver's library: {refusal or 'it shows a GPU'}",
            f"device files /dev/nvidia[0-9]*: {devices}",
            f"CUDA_VISIBLE_DEVICES: {os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}",
            f"torch {torch.__version__}, built for CUDA {torch.version.cuda}: is_available() is {sees}",
        ],
    }


def version_of(package: str) -> str | None:
    """Return the version of an installed distribution; None when it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def stub_compiler() -> str | None:
    """Find the C compiler that Triton builds its stubs with; None when there is none that works.

    Triton (3.6: triton/runtime/build.py) compiles a C stub for the driver and one for each signature of a
    kernel, against Python's headers, and keeps them in its cache.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    scheme = sysconfig.get_default_scheme()
    headers = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]
    return compiler if compiler and Path(headers, "Python.h").is_file() else None


def read_carried(carry: Path) -> dict[str, Any] | None:
    """Read the list of what `make gpu-proof-pack` prepared; None when it prepared nothing."""
    try:
        found = json.loads((carry / CARRIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def obstacles(machine: Facts, carried: Facts | None, *, dry: bool) -> dict[str, str]:
    """Map each need of a step (``native``, ``torch``, ``triton``) that this machine lacks to the reason.

    Args:
        machine: of ``look``; empty where that step failed, and then nothing is held to be missing.
        carried: of ``read_carried``.
        dry: no GPU is wanted.
    """
    found = {}
    if carried is None:
        found["native"] = "nothing is carried here: make gpu-proof-pack prepares it"
    if dry or not machine:
        return found
    if carried is not None and (reason := _too_old_or_other(machine, carried)):
        found["native"] = reason
    if not machine["torch_sees_gpu"]:
        too_old = _too_old(machine, machine["torch_cuda"], f"torch {machine['versions']['torch']}")
        found["torch"] = too_old or f"torch sees no GPU: {machine['looked'][-1]}"
    if reason := found.get("torch") or _without_triton(machine):
        found["triton"] = reason
    return found


def _too_old(machine: Facts, runtime: str | None, what: str) -> str:
    """Return why the driver cannot run a program of this version of CUDA; an empty text when it can.

    A driver runs programs of its own major version and of older ones.
    """
    if runtime is None:
        return f"{what} was built without CUDA"
    offered = machine["driver_cuda"]
    if offered is None or int(offered.split(".")[0]) >= int(runtime.split(".")[0]):
        return ""
    return (
        f"the driver {machine['driver'] or ''} offers CUDA {offered}, older than CUDA {runtime}, which "
        f"{what} was built with: install a newer driver"
    )


def _too_old_or_other(machine: Facts, carried: Facts) -> str:
    if too_old := _too_old(machine, carried["cuda"], "what is carried"):
        return too_old
    major, minor = machine["capability"]
    here, built = 10 * major + minor, sorted(carried["architectures"])
    if here >= built[0]:  # PTX of the newest architecture is carried too
        return ""
    return (
        f"the carried kernels are compiled for sm_{built[0]} and newer, and {machine['gpu']} is sm_{here}: "
        f"make gpu-proof-pack ARCHITECTURES={here}"
    )


def _without_triton(machine: Facts) -> str:
    if machine["versions"]["triton"] is None:
        return "triton is not installed; PyTorch's CUDA build brings it"
    if tuple(machine["capability"]) < OLDEST_TRITON:
        return f"{machine['gpu']} is older than Triton's oldest GPU, sm_80"
    if machine["stub_compiler"] is None:
        return (
            f"Triton {machine['versions']['triton']} compiles a C stub for every signature of a kernel, and "
            "there is no C compiler (CC, gcc or clang on PATH) or no Python.h here"
        )
    return ""


def no_gpu_text(machine: Facts) -> str:
    """Describe what was searched when no GPU was found."""
    return f"no GPU here; looked at: {'; '.join(machine.get('looked', ['nothing: that step failed']))}"


def describe(machine: Facts) -> list[str]:
    """Describe the machine in sentences."""
    gpu = "no GPU"
    if machine["gpu"]:
        gpu = (
            f"{machine['gpu']}, compute capability {'.'.join(map(str, machine['capability']))}, "
            f"{machine['multiprocessors']} multiprocessors; driver {machine['driver']} for CUDA "
            f"{machine['driver_cuda']}"
        )
    versions = [f"{name} {version or 'absent'}" for name, version in machine["versions"].items()]
    tools = [f"{name} {path or 'not found'}" for name, path in machine["tools"].items()]
    return [
        gpu,
        f"{machine['system']}, {machine['cpu']}, {machine['cpus']} CPUs; Python {machine['python']}; torch "
        f"for CUDA {machine['torch_cuda']}; {', '.join(versions)}",
        f"C compiler for Triton {machine['stub_compiler'] or 'not found'}; {', '.join(tools)}; vmkla is "
        f"{'carried' if machine['carried'] else 'installed'}",
    ]


def versions_step(context: Context, out: Recorder) -> None:
    """Record the machine for the other steps and for the reader; this is the first step."""
    partial = context.results / f"{MACHINE}.part"
    partial.write_text(json.dumps(look(context.carry), indent=1), encoding="utf-8")
    partial.replace(context.results / MACHINE)
