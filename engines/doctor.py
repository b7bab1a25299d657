"""Check what is installed here and works, and find the command that installs what is missing."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vmkla import __version__, weights
from vmkla.cpu_features import cpu_name, kernel_instruction_set, missing_for_int8
from vmkla.cpus import cpu_budget
from vmkla.engines.runners import custom_ops, onnxruntime_cuda
from vmkla.engines.runners.onnxruntime_package import find_installed
from vmkla.engines.tensorrt.api import load_api
from vmkla.engines.tensorrt.machine import cuda_version, driver_version, find_gpu
from vmkla.engines.tensorrt.plugins import CREATORS, LIBRARY, find_plugin, load_plugin, plugin_facts
from vmkla.engines.tensorrt.run.memory import install_command, open_cuda
from vmkla.errors import MissingDependencyError, VmklaError
from vmkla.imports import MODULE_OWNERS, REINSTALL_ONNXRUNTIME, require
from vmkla.native import CPU_LIBRARY, find_library

REINSTALL = "pip install --force-reinstall vmkla"

_DEVELOPERS = "dev"
_PURPOSES = {
    "": "every command",
    "train": "vmkla train",
    "export": "vmkla export",
    "calibrate": "vmkla calibrate",
    "report": "report.html of vmkla eval",
    "cuda": "the mamba_ssm backend",
    "tensorrt": "TensorRT",
    "jetson": "TensorRT on Jetson",
    "monitor": "the monitor page of live mode",
    "rtx": "TensorRT-RTX",
}
"""Extra -> what it is needed for."""
_MODULES = {
    "opencv-python": "cv2",
    "pillow": "PIL",
    "ImageHash": "imagehash",
    "cuda-bindings": "cuda",
    "tensorrt-rtx-cu13": "tensorrt_rtx",
}
"""Package -> its module, where that has another name."""
_ALIKE = {
    "opencv-python": (
        "opencv-python",
        "opencv-python-headless",  # packages without windows serve everything but --display
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
    "cuda-bindings": ("cuda-bindings", "cuda-python"),  # before 12.6.1 cuda-python had the bindings itself
    "onnxruntime": MODULE_OWNERS,
}
"""Package -> packages that can replace it."""


@dataclass(frozen=True)
class Component:
    """One component of the installation, and whether it works.

    Attributes:
        group: ``package``, ``library``, ``backend``, ``runtime``, ``weights`` or ``gpu``.
        name: name of the component.
        works: whether it is installed and passed its check.
        detail: its version and facts; where it does not work, why.
        needed_for: what it is needed for.
        fix: the command that installs it; None where there is nothing to do.
        base: whether inference on the CPU needs it.
    """

    group: str
    name: str
    works: bool
    detail: str
    needed_for: str
    fix: str | None = None
    base: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """The machine and all its components.

    Attributes:
        vmkla, python, platform, cpu: versions and names.
        cores: CPUs that this process may use, within its affinity and quota.
        quota: CPUs that its control groups allow; None without a quota.
        findings: all components, in the order for reading.
    """

    vmkla: str
    python: str
    platform: str
    cpu: str
    cores: int
    quota: float | None
    findings: tuple[Component, ...]

    @property
    def missing(self) -> tuple[Component, ...]:
        """Components that inference on the CPU needs and that do not work."""
        return tuple(finding for finding in self.findings if finding.base and not finding.works)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return {**dataclasses.asdict(self), "cpu_inference_ready": not self.missing}


def diagnose() -> Diagnosis:
    """Check every component. Never fails: an error becomes a component that does not work."""
    budget = cpu_budget()
    return Diagnosis(
        vmkla=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_name(),
        cores=budget.cpus,
        quota=budget.quota,
        findings=(
            *_packages(),
            _attempt("library", CPU_LIBRARY, "fast ops on the CPU", _native_library, base=True),
            _attempt("library", LIBRARY, "TensorRT", _tensorrt_library),
            *_backends(),
            _attempt("runtime", "onnxruntime", "vmkla infer", _onnxruntime, base=True),
            _attempt("runtime", "onnxruntime-gpu", "ONNX files with --device cuda:0", _onnxruntime_gpu),
            _attempt("runtime", "INT8 on this CPU", "vmkla calibrate", _int8),
            _attempt("runtime", "torch", "parity checks, training", _torch),
            _attempt("runtime", "tensorrt", "engines", _tensorrt),
            _attempt("runtime", "tensorrt-rtx", "engines", _tensorrt_rtx),
            *_weights(),
            _attempt("gpu", "NVIDIA GPU", "the GPU runtimes", _gpu),
            _attempt("gpu", "GPU memory", "running engines", _gpu_memory),
        ),
    )


def _attempt(
    group: str, name: str, needed_for: str, look: Callable[[], str], *, base: bool = False
) -> Component:
    """Check a component by a function that returns its facts or raises why it does not work."""
    try:
        return Component(group, name, True, look(), needed_for, base=base)
    except VmklaError as error:
        fix = (error.hint or "").removeprefix("Run: ") or None
        return Component(group, name, False, error.message, needed_for, fix, base)
    except Exception as error:  # a broken package may raise anything at its import
        return Component(group, name, False, f"{type(error).__name__}: {error}", needed_for, base=base)


def _packages() -> list[Component]:
    """Check every package in vmkla's metadata except developers' tools: installed, and importable."""
    wanted: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("vmkla") or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name is not None and name[0] != "vmkla" and (extra is None or extra[1] != _DEVELOPERS):
            wanted.setdefault(name[0], []).append(extra[1] if extra else "")
    return [_package(name, extras) for name, extras in wanted.items()]


def _package(name: str, extras: list[str]) -> Component:
    """Check that a package of these extras can be imported; the extra "" is the base installation."""
    needed_for = ", ".join(_PURPOSES.get(extra, extra) for extra in extras)
    fix = f"pip install 'vmkla[{extras[0]}]'" if extras[0] else REINSTALL
    if name == "cuda-bindings":
        fix = install_command()
    alike = _ALIKE.get(name, (name,))
    versions = {one: version for one in alike if (version := _version(one))}
    if not versions:
        return Component("package", name, False, "not installed", needed_for, fix, base="" in extras)
    detail = ", ".join(version if one == name else f"{one} {version}" for one, version in versions.items())
    if name == "onnxruntime" and (problem := find_installed().problem) is not None:
        return _mixture(problem, needed_for)
    module = _MODULES.get(name, name.replace("-", "_"))

    def look() -> str:
        try:
            require(module, extra=extras[0] or None, purpose=needed_for)
        except MissingDependencyError as error:
            why = f"{detail} is installed and cannot be imported: {error.__cause__}"
            raise MissingDependencyError(why, hint=error.hint) from error
        return detail

    return _attempt("package", name, needed_for, look, base="" in extras)


def _mixture(problem: str, needed_for: str) -> Component:
    """Describe two packages that own one module; the CPU can still run where the import works."""
    works = True
    try:
        require("onnxruntime", extra=None, purpose=needed_for)
    except Exception as error:  # files of two versions may raise anything at their import
        why = error.message if isinstance(error, VmklaError) else f"{type(error).__name__}: {error}"
        problem, works = f"{problem}; {why}", False
    return Component(
        "package", "onnxruntime", False, problem, needed_for, REINSTALL_ONNXRUNTIME, base=not works
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _native_library() -> str:
    return f"instruction set {kernel_instruction_set()}, {find_library()}"


def _backends() -> list[Component]:
    """Check the backends of the torch ops through their dispatcher."""
    purpose = "vmkla train, vmkla export"
    try:
        torch = require("torch", extra="train", purpose="the torch ops")
    except MissingDependencyError:
        return [
            Component(
                "backend", "torch ops", False, "torch is not installed", purpose, "pip install 'vmkla[train]'"
            )
        ]
    from vmkla.ops import backends

    names = [name for name in backends.BACKENDS if name != "auto"]
    on_gpu = backends.GPU_BACKENDS if torch.cuda.is_available() else ()

    def choose(name: str) -> str:
        sample = torch.zeros(1, device="cuda" if name in on_gpu else "cpu")
        return f"takes {backends.choose(name, sample)}"

    return [_attempt("backend", name, purpose, functools.partial(choose, name)) for name in names]


def _onnxruntime() -> str:
    ort = require("onnxruntime", extra=None, purpose="the ONNX Runtime runner")
    options = ort.SessionOptions()
    custom_ops.register(options)
    providers = ", ".join(ort.get_available_providers())
    return f"{ort.__version__} with vmkla's kernels; providers {providers}"


def _onnxruntime_gpu() -> str:
    """Check all but a session: the GPU, the package, the driver and CUDA's libraries."""
    ort, gpu = onnxruntime_cuda.require_cuda(0)
    return f"{ort.__version__}, built for CUDA {ort.cuda_version}, on {gpu.name}"


def _int8() -> str:
    if (missing := missing_for_int8()) is not None:
        return (
            f"no {missing.upper()}: runs files of `vmkla calibrate --target cpu`, refuses those of cpu-vnni"
        )
    return "runs files of `vmkla calibrate --target cpu` and cpu-vnni"


def _torch() -> str:
    torch = require("torch", extra="train", purpose="the torch runner")
    return f"{torch.__version__}; CUDA {'available' if torch.cuda.is_available() else 'not available'}"


def _weights() -> list[Component]:
    files = sorted({*weights.shipped(".onnx").values(), *weights.shipped(".safetensors").values()})
    if not files:
        detail = "no weights are installed"
        return [
            Component("weights", "shipped weights", False, detail, "models by name", REINSTALL, base=True)
        ]
    return [
        Component("weights", path.name, True, f"{path.stat().st_size / 1e6:.1f} MB", "models by name")
        for path in files
    ]


def _tensorrt_library() -> str:
    path = find_plugin()
    return f"sha256 {plugin_facts(path).sha256[:12]}, {path}"


def _tensorrt() -> str:
    """Check that TensorRT loads vmkla's plugin library."""
    api = load_api("tensorrt")
    load_plugin(api, find_plugin())
    return f"{api.version_text} with vmkla's plugins {', '.join(CREATORS)}"


def _tensorrt_rtx() -> str:
    api = load_api("tensorrt-rtx")
    return f"{api.version_text}; builds for SM {', '.join(map(str, api.targets))}"


def _gpu() -> str:
    """Query the driver for the first GPU; no CUDA package is needed."""
    gpu = find_gpu()
    driver = driver_version() or "unknown"
    return (
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.sm_count} multiprocessors; "
        f"driver {driver}, CUDA {cuda_version()}"
    )


def _gpu_memory() -> str:
    """Check that the package which the engines' runners use can allocate GPU memory."""
    cuda = open_cuda()
    try:
        with cuda.current():
            cuda.free(cuda.allocate(1 << 20))
    finally:
        cuda.close()
    return cuda.package
