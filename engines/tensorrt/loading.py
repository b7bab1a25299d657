"""From the bytes of an engine to an execution context, with every claim of its manifest held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vmkla.engines.tensorrt.api import Messages, TensorRTApi
from vmkla.engines.tensorrt.execution import INPUT, OUTPUT, Tensor, said
from vmkla.engines.tensorrt.manifest import EngineManifest, rebuild_command
from vmkla.errors import ArtefactMismatchError, BadInputError, VmklaError
from vmkla.metadata import ArtefactMetadata


def tensors(metadata: ArtefactMetadata) -> tuple[Tensor, Tensor]:
    """Input and output of one frame, as the metadata describe them."""
    height, width = metadata.preprocess.height, metadata.preprocess.width
    source = Tensor((height, width, 3), np.dtype(np.uint8))
    if metadata.input_type == "float32":
        source = Tensor((3, height, width), np.dtype(np.float32))
    return source, Tensor((len(metadata.class_names), height, width), np.dtype(np.float32))


class LoadedEngine:
    """The library's objects for one engine. Made, used and closed inside ``cuda.current()``.

    Args:
        api: the library.
        path: the engine, already held against its manifest's hash.
        manifest: of the engine.
        metadata: what the network says of itself.
    Attributes:
        context: the ``IExecutionContext``.
        messages: what the library's logger says.
    Raises:
        ArtefactMismatchError: the library refuses the engine, or it is not what its manifest says.
        VmklaError: there is not enough memory for its context.
    """

    def __init__(
        self,
        api: TensorRTApi,
        path: Path,
        manifest: EngineManifest,
        metadata: ArtefactMetadata,
        messages: Messages,
    ) -> None:
        self.messages = messages
        # The library keeps no reference of its own to a logger or a runtime, and both are used to the end.
        self._logger = api.make_logger(messages)
        self._runtime: Any = api.module.Runtime(self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(_read(path))
        if self._engine is None:
            raise ArtefactMismatchError(
                f"{api.runtime} {api.version_text} cannot load {path}: {said(messages)}",
                hint=f"Run: {rebuild_command(manifest, path)}",
            )
        _check_tensors(self._engine, manifest, metadata, path)
        self.context: Any = _make_context(api, self._engine)
        if self.context is None:
            raise VmklaError(
                f"{api.runtime} {api.version_text} makes no execution context for {path}: {said(messages)}",
                hint="Other programs may hold the GPU's memory, see nvidia-smi.",
            )

    def close(self) -> None:
        """Release context, engine and runtime, in this order."""
        self.context = None
        self._engine = None
        self._runtime = None


def _make_context(api: TensorRTApi, engine: Any) -> Any:
    if not api.is_rtx:
        return engine.create_execution_context()
    # TensorRT-RTX compiles for the GPU at hand, by default first a slow version for any shape. Here it
    # compiles for each shape at once: a captured graph would keep the slow one.
    config = engine.create_runtime_config()
    strategies = api.module.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(runtime_config=config)


def _check_tensors(engine: Any, manifest: EngineManifest, metadata: ArtefactMetadata, path: Path) -> None:
    """Names, directions, types, shapes and batch sizes of an engine's input and output."""
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
        raise ArtefactMismatchError(
            f"{path} has inputs and outputs {seen} behind the batch, its manifest asks for {expected}",
            hint=f"Run: {rebuild_command(manifest, path)}",
        )
    batches = tuple(tuple(shape)[0] for shape in engine.get_tensor_profile_shape(INPUT, 0))
    profile = manifest.profile
    if batches != (profile.min, profile.opt, profile.max):
        raise ArtefactMismatchError(
            f"{path} takes the batch sizes {batches}, its manifest says "
            f"{(profile.min, profile.opt, profile.max)}",
            hint=f"Run: {rebuild_command(manifest, path)}",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
