"""Load a runner from a model's name or file, without a silent change of runtime or device."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from vmkla import weights
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.runner import Runner

RUNTIMES = ("auto", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch")


def load_runner(
    model: str | Path,
    runtime: str = "auto",
    device: str | None = None,
    *,
    threads: int | None = None,
    kernels: Literal["native", "bodies"] | None = None,
    plugin: Path | None = None,
) -> Runner:
    """Load a model, ready to run: ``with load_runner("nano") as runner: runner.infer(frames_rgb)``.

    Args:
        model: name of a shipped model (``"nano"``) or path of a file: ``.onnx``, ``.plan`` (an engine that
            ``vmkla build`` made), or ``.safetensors`` for torch.
        runtime: ``auto`` chooses by the file: ONNX Runtime for ``.onnx``, torch for ``.safetensors``, and for
            an engine the runtime that built it.
        device: ``"cpu"`` or ``"cuda:0"``; None is ``"cuda:0"`` for engines and ``"cpu"`` for other files.
        threads: CPU threads; None leaves the runtime's choice.
        kernels: how ONNX Runtime runs the custom nodes, see ``OnnxRuntimeRunner``; None is the device's
            default. An engine's kernels were chosen when it was built.
        plugin: path of the plugin library that an engine of TensorRT was built with; None takes the installed
            one.
    Returns:
        The runner. There is no fallback: a runtime or device that is missing is an error.
    Raises:
        UsageError: there is no such runtime, or threads, kernels or plugin do not suit the file.
        BadInputError: there is no such model, or the file is damaged.
        ArtefactMismatchError: the file is not vmkla's, or an engine does not fit its runtime or this machine.
        MissingDependencyError: the runtime or the device is missing.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"there is no runtime {runtime!r}", hint=f"Choose one of: {', '.join(RUNTIMES)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    if kernels not in (None, "native", "bodies"):
        raise UsageError(f"kernels is {kernels!r}", hint="Choose native or bodies.")
    path = weights.resolve(model, ".safetensors" if runtime == "torch" else ".onnx")
    if path.suffix == ".plan":
        if threads is not None:
            raise UsageError(f"{path} is an engine, which runs on a GPU; threads are for the CPU runtimes")
        if kernels == "bodies":
            raise UsageError(
                f"{path} is an engine, whose kernels were chosen by `vmkla build`; kernels {kernels!r} is "
                "for ONNX Runtime",
                hint="Leave --kernels out, or build the engine with --plugin bodies.",
            )
        return _load_engine(path, runtime, device, plugin)
    build = ["vmkla", "build", str(model), "--output", path.with_suffix(".plan").name]
    if runtime in ("tensorrt", "tensorrt-rtx"):
        raise ArtefactMismatchError(
            f"{path} is not an engine, and {runtime} runs engines, which are built once for each kind of GPU",
            hint=f"Run: {shlex.join([*build, '--runtime', runtime])}",
        )
    if plugin is not None:
        raise UsageError(f"{path} is not an engine, so it has no plugin library", hint="Leave --plugin out.")
    if runtime == "torch" or (runtime == "auto" and path.suffix == ".safetensors"):
        from vmkla.engines.runners.torch_runner import TorchRunner

        return TorchRunner.from_file(path, device=device or "cpu", threads=threads)
    return OnnxRuntimeRunner(path, device=device or "cpu", threads=threads, kernels=kernels)


def _load_engine(path: Path, runtime: str, device: str | None, plugin: Path | None) -> Runner:
    """Load an engine on the runtime that built it."""
    from vmkla.engines.tensorrt.manifest import read_manifest
    from vmkla.engines.tensorrt.run.runner import TensorRTRunner

    built_by = read_manifest(path).runtime
    if runtime not in ("auto", built_by):
        raise ArtefactMismatchError(
            f"{path} is an engine of {built_by}, the runtime {runtime} was requested",
            hint=f"Use --runtime {built_by}, or leave it out.",
        )
    return TensorRTRunner(path, device=device or "cuda:0", plugin=plugin)
