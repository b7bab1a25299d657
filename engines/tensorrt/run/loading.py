"""Deserialise an engine and compare it with its manifest."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.manifest import EngineManifest
from vmkla.engines.tensorrt.matching import Machine, rebuild_hint
from vmkla.engines.tensorrt.messages import Messages, take_errors
from vmkla.engines.tensorrt.run.execution import INPUT, OUTPUT, Tensor
from vmkla.errors import ArtefactMismatchError, VmklaError
from vmkla.metadata import ArtefactMetadata


def tensors(metadata: ArtefactMetadata) -> tuple[Tensor, Tensor]:
    """Return the tensors of one frame that the metadata describe: input and output."""
    height, width = metadata.preprocess.height, metadata.preprocess.width
    source = Tensor((height, width, 3), np.dtype(np.uint8))
    if metadata.input_type == "float32":
        source = Tensor((3, height, width), np.dtype(np.float32))
    return source, Tensor((len(metadata.class_names), height, width), np.dtype(np.float32))


class LoadedEngine:
    """The library's objects for one engine, made, used and closed inside ``cuda.current()``.

    Args:
        api: the library.
        path: path of the engine, for messages.
        engine: the engine's bytes, whose hash agrees with the manifest.
        manifest: the engine's manifest.
        metadata: the network's metadata.
        machine: facts of this machine, for hints.
        messages: collects the library's messages, where the caller runs ``api.collecting(messages)``.
    Attributes:
        context: the ``IExecutionContext``.
    Raises:
        ArtefactMismatchError: the library rejects the engine, or it differs from its manifest.
        VmklaError: the library does not start here, or there is not enough memory for a context.
    """

    def __init__(
        self,
        api: TensorRTApi,
        path: Path,
        engine: bytes,
        manifest: EngineManifest,
        metadata: ArtefactMetadata,
        machine: Machine,
        messages: Messages,
    ) -> None:
        self._runtime: Any = _make_runtime(api, messages)
        self._engine: Any = None
        self.context: Any = None
        try:
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise ArtefactMismatchError(
                    f"{api.label} cannot load {path}: {take_errors(messages)}",
                    hint=rebuild_hint(manifest, path, machine),
                )
            if difference := _difference(self._engine, manifest, metadata):
                raise ArtefactMismatchError(
                    f"{path} {difference}", hint=rebuild_hint(manifest, path, machine)
                )
            self.context = _make_context(api, self._engine)
            if self.context is None:
                raise VmklaError(
                    f"{api.label} cannot make an execution context for {path}: {take_errors(messages)}",
                    hint="Other programs may hold the GPU's memory, see nvidia-smi.",
                )
        except BaseException as error:
            # The caller releases the GPU next, and the error's frames would keep these objects alive.
            traceback.clear_frames(error.__traceback__)
            self.close()
            raise

    def close(self) -> None:
        """Release context, engine and runtime, in this order."""
        self.context = None
        self._engine = None
        self._runtime = None


def _make_runtime(api: TensorRTApi, messages: Messages) -> Any:
    try:
        return api.make_runtime()
    except TypeError as error:  # the bindings raise it where the library returns nothing
        raise VmklaError(
            f"{api.label} does not start here: {take_errors(messages)}",
            hint="Run: vmkla doctor   (an older driver than the library was made for is one reason)",
        ) from error


def _make_context(api: TensorRTApi, engine: Any) -> Any:
    if not api.is_rtx:
        return engine.create_execution_context()
    # TensorRT-RTX compiles for this GPU, by default a slow version for any shape first. EAGER compiles for
    # each shape at once, since a captured graph would keep the slow version.
    config = engine.create_runtime_config()
    strategies = api.module.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(runtime_config=config)


def _difference(engine: Any, manifest: EngineManifest, metadata: ArtefactMetadata) -> str | None:
    """Describe how an engine's inputs, outputs or batch sizes differ from its manifest; None where equal."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    seen = [
        (
            name,
            engine.get_tensor_mode(name).name,
            engine.get_tensor_dtype(name).name,
            tuple(engine.get_tensor_shape(name))[1:],
        )
        for name in names
    ]
    source, result = tensors(metadata)
    element = {"uint8": "UINT8", "float32": "FLOAT"}[metadata.input_type]
    expected = [(INPUT, "INPUT", element, source.shape), (OUTPUT, "OUTPUT", "FLOAT", result.shape)]
    if sorted(seen) != expected:
        return f"has inputs and outputs {seen} behind the batch, its manifest asks for {expected}"
    batches = tuple(tuple(shape)[0] for shape in engine.get_tensor_profile_shape(INPUT, 0))
    profile = (manifest.profile.min, manifest.profile.opt, manifest.profile.max)
    return None if batches == profile else f"takes the batch sizes {batches}, its manifest has {profile}"
