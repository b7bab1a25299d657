"""The runner for ONNX Runtime, on the CPU or an NVIDIA GPU. Imports neither torch nor onnx."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vmkla.cpu_features import VNNI, missing_for_int8
from vmkla.engines.runners import custom_ops, onnxruntime_cuda
from vmkla.engines.runners.batches import check_batch, network_input
from vmkla.engines.runners.custom_ops import PROVIDER
from vmkla.engines.runners.model_file import ModelFile, open_model
from vmkla.engines.runners.onnx_file import with_batch_of_one
from vmkla.engines.tensorrt.machine import parse_device
from vmkla.errors import ArtefactMismatchError, MissingDependencyError, UsageError, VmklaError, first_line
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import ClosedOnExit, RunnerSpec
from vmkla.segment.self_test import check_self_test

logger = logging.getLogger(__name__)

Kernels = Literal["native", "bodies"]
INPUT, OUTPUT = "frames", "probability"
_NO_MEMORY = ("allocate", "bad_alloc", "out of memory")
"""Parts of onnxruntime's messages on a lack of memory, which is not an error of the file."""


class OnnxRuntimeRunner(ClosedOnExit):
    """Run an ONNX file of vmkla's in an ONNX Runtime session.

    On a GPU every node runs there, one frame at a time, and the self-test runs at the start.

    Args:
        path: path of a file that ``vmkla export`` wrote.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        threads: CPU threads; None takes one per physical core, within the affinity and the quota of this
            process. Not for a GPU.
        kernels: ``native`` runs the custom nodes with vmkla's kernels, and is an error where they cannot be
            used; ``bodies`` runs the function bodies in the file. None is native on the CPU, and bodies on a
            GPU, which supports no others.
        warn_unverified: log a warning where the file is unverified.
    Raises:
        UsageError: there is no such device, or threads or native kernels were requested on a GPU.
        BadInputError: the file is missing, cut off or not ONNX.
        ArtefactMismatchError: the file is not vmkla's, is damaged (see ``open_model``), or is not for this
            onnxruntime or this CPU; on a GPU also: it is an INT8 file, or a node would not run there.
        MissingDependencyError: the kernels cannot be used; or the GPU, its driver, or what ONNX Runtime needs
            for it is missing.
        VmklaError: memory ran out, or the self-test failed on the GPU.
    """

    name = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        threads: int | None = None,
        kernels: Kernels | None = None,
        warn_unverified: bool = True,
    ) -> None:
        gpu = _gpu_index(device, threads, kernels)
        self._gpu = gpu
        self._answered = False
        self._runtime = "onnxruntime"
        self._path = path
        model = open_model(path)
        if gpu is None:
            session, spec = self._on_cpu(model, threads, kernels or "native")
        else:
            session, spec = self._on_gpu(model, gpu)
        # It keeps the bytes to restart on another provider, which never happens here.
        session._model_bytes = b""
        self._session: Any = session
        self._spec: RunnerSpec = spec
        if gpu is not None:
            check_self_test(self)
        if warn_unverified and not model.metadata.verified:
            logger.warning("%s is unverified: the check at the end of its export was skipped", path)

    def _on_cpu(self, model: ModelFile, threads: int | None, kernels: Kernels) -> tuple[Any, RunnerSpec]:
        ort = require("onnxruntime", extra=None, purpose="the ONNX Runtime runner")
        self._runtime = f"onnxruntime {ort.__version__}"
        _check_cpu(model.metadata, model.path)
        options = custom_ops.cpu_options(threads, native=kernels == "native")
        options.inter_op_num_threads = 1
        # Threads spin while a frame is computed, which is faster, and not between frames, when the video's
        # decoder and encoder need the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            # The bytes that were checked: the file may have changed since.
            session = ort.InferenceSession(model.data, options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise self._failure(error, "load") from error
        if session.get_providers() != [PROVIDER]:
            raise MissingDependencyError(
                f"onnxruntime took the providers {session.get_providers()}, expected only {PROVIDER}"
            )
        return session, _spec_of(session, model, self._runtime, kernels)

    def _on_gpu(self, model: ModelFile, index: int) -> tuple[Any, RunnerSpec]:
        _check_not_int8(model.metadata, model.path)
        ort, gpu = onnxruntime_cuda.require_cuda(index)
        self._runtime = f"onnxruntime-gpu {ort.__version__}"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        onnxruntime_cuda.configure(options)
        providers = [onnxruntime_cuda.provider(index)]
        try:
            # With its default, onnxruntime continues on the CPU when the GPU fails, now or at any frame.
            session = ort.InferenceSession(
                with_batch_of_one(model.data), options, providers=providers, enable_fallback=0
            )
        except Exception as error:
            raise self._failure(error, "load") from error
        onnxruntime_cuda.check_assignment(session, model.path)
        spec = _spec_of(session, model, self._runtime, "bodies")
        notes = (*spec.notes, onnxruntime_cuda.describe(ort, gpu))
        return session, dataclasses.replace(spec, device=f"cuda:{index}", notes=notes)

    @property
    def spec(self) -> RunnerSpec:
        """Input, output and identity of the model."""
        return self._spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, height, width, 3) uint8 RGB -> (n, classes, height, width) float32 probability.

        Raises:
            ShapeError: the batch has another shape or type.
            ArtefactMismatchError: onnxruntime rejects a node of the file when it runs it for the first time.
            VmklaError: the runner is closed, onnxruntime failed later, or memory ran out.
        """
        check_batch(frames_rgb, self._spec)
        if self._session is None:
            raise VmklaError("the runner is closed")
        if len(frames_rgb) == 0:
            s = self._spec
            return np.empty((0, s.num_classes, s.height, s.width), np.float32)
        try:
            feed = network_input(frames_rgb, self._spec.metadata.input_type)
            (probability,) = self._session.run(None, {INPUT: feed})
        except Exception as error:
            raise self._failure(error, "run") from error
        self._answered = True
        return np.asarray(probability)

    def _failure(self, error: Exception, step: Literal["load", "run"]) -> VmklaError:
        """Make the error of a failed step: a mismatch before the first result, a plain failure later."""
        text = first_line(error)
        memory = isinstance(error, MemoryError) or any(word in str(error).lower() for word in _NO_MEMORY)
        if self._answered or memory:
            hint = (
                "Other programs may hold the GPU's memory, see nvidia-smi."
                if memory and self._gpu is not None
                else None
            )
            return VmklaError(f"onnxruntime failed on {self._path}: {text}", hint=hint)
        if self._gpu is not None and (failure := onnxruntime_cuda.device_failure(error)) is not None:
            return MissingDependencyError(
                f"{self._runtime} cannot use the GPU for {self._path}: {failure}",
                hint="Look at nvidia-smi and vmkla doctor; or use --device cpu.",
            )
        return ArtefactMismatchError(
            f"{self._runtime} cannot {step} {self._path}: {text}",
            hint="Run: vmkla export again, with the vmkla and onnxruntime installed here",
        )

    def close(self) -> None:
        """Release the session; a second call does nothing."""
        self._session = None


def _gpu_index(device: str, threads: int | None, kernels: Kernels | None) -> int | None:
    """Parse the device into the number of the GPU, None for the CPU, and check the options for it."""
    if device == "cpu":
        return None
    index = parse_device(device, "ONNX Runtime runs on cpu, cuda or cuda:N")
    if threads is not None:
        raise UsageError(f"threads are for the CPU runtimes, device is {device}", hint="Leave --threads out.")
    if kernels == "native":
        raise UsageError(
            f"vmkla's native kernels are for CPUs, device is {device}, where ONNX Runtime runs the function "
            "bodies",
            hint="Leave --kernels out, or use --kernels bodies.",
        )
    return index


def _check_not_int8(metadata: ArtefactMetadata, path: Path) -> None:
    """Reject an INT8 file on a GPU, where its products were never verified."""
    if metadata.precision == "int8":
        raise ArtefactMismatchError(
            f"{path} is an INT8 file, which was verified with 8-bit products; ONNX Runtime runs files "
            "in fp32 and fp16 on a GPU",
            hint="Use the file that it was made of, or --device cpu, or an engine of vmkla build.",
        )


def _check_cpu(metadata: ArtefactMetadata, path: Path) -> None:
    """Reject an INT8 file whose products would saturate on this CPU, so that results would differ.

    ONNX Runtime's precise mode would compute them exactly, but only in sessions that request it, and an older
    file may have been verified on a CPU where its products saturated.
    """
    required = metadata.requires
    if required is None or (required == VNNI and missing_for_int8() is None):
        return
    raise ArtefactMismatchError(
        f"{path} is an INT8 file for CPUs with {required.upper()}, which this CPU lacks: its 8-bit products "
        "would saturate and give wrong masks",
        hint=f"Run: vmkla calibrate MODEL.onnx --data DIR --target cpu --output {path.name}",
    )


def _spec_of(session: object, model: ModelFile, runtime: str, kernels: Kernels) -> RunnerSpec:
    """Compare the session's input and output with the metadata, and make the runner's spec."""
    metadata, path = model.metadata, model.path
    inputs, outputs = session.get_inputs(), session.get_outputs()  # type: ignore[attr-defined]
    height, width = metadata.preprocess.height, metadata.preprocess.width
    seen = [(value.name, value.type, list(value.shape)) for value in (*inputs, *outputs)]
    batch = seen[0][2][0] if seen and seen[0][2] else None
    classes = len(metadata.class_names)
    inputs_of = {
        "uint8": ("tensor(uint8)", [batch, height, width, 3]),
        "float32": ("tensor(float)", [batch, 3, height, width]),
    }
    expected = [
        (INPUT, *inputs_of[metadata.input_type]),
        (OUTPUT, "tensor(float)", [batch, classes, height, width]),
    ]
    if seen != expected:
        raise ArtefactMismatchError(
            f"{path} has inputs and outputs {seen}, its metadata asks for {expected}",
            hint="Use a file that `vmkla export` wrote, unchanged.",
        )
    return RunnerSpec(
        height=height,
        width=width,
        batch=batch if isinstance(batch, int) else None,
        num_classes=classes,
        metadata=metadata,
        path=str(path),
        sha256=model.sha256,
        runtime=runtime,
        device="cpu",
        kernels=kernels,
        notes=model.notes,
    )
