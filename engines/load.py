"""From a model's name or file to a runner: one function, and no silent change of runtime or device."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vmkla import weights
from vmkla.engines.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.errors import MissingDependencyError, UsageError
from vmkla.runner import Runner

RUNTIMES = ("auto", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch")


def load_runner(
    model: str | Path,
    runtime: str = "auto",
    device: str | None = None,
    *,
    threads: int | None = None,
    kernels: Literal["native", "bodies"] = "native",
) -> Runner:
    """Load a model, ready to infer.

    Args:
        model: name of a shipped model (``"nano"``) or a file: ``.onnx``, or ``.safetensors`` for torch.
        runtime: ``auto`` goes by the file: ONNX Runtime for ``.onnx``, torch for ``.safetensors``.
        device: ``"cpu"`` or ``"cuda:0"``; None is the runtime's own, ``"cpu"``.
        threads: CPU threads; None leaves the runtime's own choice.
        kernels: how ONNX Runtime runs the custom nodes, see ``OnnxRuntimeRunner``.
    Returns:
        The runner. What was asked for is what runs: anything missing is an error.
    Raises:
        UsageError: there is no such runtime, or threads or kernels make no sense.
        BadInputError: there is no such model, or the file is damaged.
        ArtefactMismatchError: the file is not one of vmkla's.
        MissingDependencyError: the runtime or the device is not here.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"there is no runtime {runtime!r}", hint=f"Choose one of: {', '.join(RUNTIMES)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    if kernels not in ("native", "bodies"):
        raise UsageError(f"kernels is {kernels!r}", hint="Choose native or bodies.")
    if runtime in ("tensorrt", "tensorrt-rtx"):
        raise MissingDependencyError(
            f"this version of vmkla has no {runtime} runner",
            hint="Use --runtime onnxruntime, which runs the same file on the CPU.",
        )
    path = weights.resolve(model, ".safetensors" if runtime == "torch" else ".onnx")
    if path.suffix == ".plan":
        raise MissingDependencyError(
            f"{path} is a TensorRT engine; engines come with `vmkla build`, which this version does not have",
            hint="Use the .onnx file that it was built from.",
        )
    if runtime == "torch" or (runtime == "auto" and path.suffix == ".safetensors"):
        from vmkla.engines.torch_runner import TorchRunner

        return TorchRunner.from_file(path, device=device or "cpu", threads=threads)
    if device not in (None, "cpu"):
        raise MissingDependencyError(
            f"device {device} was asked for; the ONNX Runtime runner of this version runs on the CPU alone",
            hint="Use --device cpu",
        )
    return OnnxRuntimeRunner(path, threads=threads, kernels=kernels)
