"""The runner for engines of TensorRT and TensorRT-RTX. Imports neither torch nor onnx."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.batches import check_batch, network_input
from vmkla.engines.tensorrt.api import EngineRuntime, load_api
from vmkla.engines.tensorrt.machine import parse_device, this_machine
from vmkla.engines.tensorrt.manifest import EngineManifest, read_manifest
from vmkla.engines.tensorrt.matching import check_manifest
from vmkla.engines.tensorrt.messages import Messages
from vmkla.engines.tensorrt.plugins import find_plugin, load_plugin, plugin_facts
from vmkla.engines.tensorrt.run.execution import Execution
from vmkla.engines.tensorrt.run.loading import LoadedEngine, tensors
from vmkla.engines.tensorrt.run.memory import CudaError, Package, open_cuda
from vmkla.errors import BadInputError, MissingDependencyError, UsageError, VmklaError
from vmkla.runner import ClosedOnExit, RunnerSpec

logger = logging.getLogger(__name__)


class TensorRTRunner(ClosedOnExit):
    """Run an engine that ``vmkla build`` made, on an NVIDIA GPU.

    The manifest beside the engine is compared with this machine before the engine is deserialised. Batches
    larger than the engine's largest are split. Calls from several threads wait for each other.

    Args:
        path: path of the ``.plan``; its ``.plan.json`` lies beside it.
        device: ``"cuda"`` or ``"cuda:N"``.
        plugin: path of the plugin library; None takes the installed one.
        graph: launch the kernels as a CUDA graph where the engine can be captured.
        package: package that accesses the GPU's memory, see ``memory.open_cuda``.
        warn_unverified: log a warning where the engine is unverified.
    Attributes:
        name: ``tensorrt`` or ``tensorrt-rtx``.
    Raises:
        UsageError: the device is not a GPU, or a plugin library is given for an engine that calls none.
        BadInputError: there is no such file.
        ArtefactMismatchError: engine, manifest, library, plugin and GPU do not fit together.
        MissingDependencyError: the library, the GPU or a CUDA package is missing.
        VmklaError: the GPU's memory ran out, or the library failed.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cuda:0",
        plugin: Path | None = None,
        graph: bool = True,
        package: Package = "auto",
        warn_unverified: bool = True,
    ) -> None:
        index = parse_device(device)
        manifest = read_manifest(path)
        metadata = manifest.artefact(path)
        api = load_api(cast(EngineRuntime, manifest.runtime))
        library = _plugin_here(manifest, path, plugin)
        machine = this_machine(api, None if library is None else plugin_facts(library), index, plugin)
        data = _read(path)
        for remark in check_manifest(manifest, path, machine, data):
            logger.info("%s: %s", path, remark)
        self.name = manifest.runtime
        self._lock = threading.Lock()
        self._input_type = metadata.input_type
        self._api, self._messages = api, Messages()
        self._cuda = open_cuda(index, package)
        try:
            with self._current(), contextlib.ExitStack() as held:
                if library is not None:
                    load_plugin(api, library)
                engine = LoadedEngine(api, path, data, manifest, metadata, machine, self._messages)
                held.callback(engine.close)
                del data  # the library has its own copy by now
                self._execution = Execution(
                    api,
                    self._cuda,
                    engine.context,
                    *tensors(metadata),
                    manifest.profile,
                    self._messages,
                    graph=graph,
                )
                held.callback(self._execution.close)
                self._execution.warm_up()
                self._held: contextlib.ExitStack | None = held.pop_all()
        except BaseException:
            self._cuda.close()
            raise
        reason = None
        if not metadata.verified:
            reason = manifest.unverified_because or "the ONNX file that it was built from is not"
            if warn_unverified:
                logger.warning("%s is unverified: %s", path, reason)
        smallest, largest = manifest.profile.min, manifest.profile.max
        self._spec = RunnerSpec(
            height=metadata.preprocess.height,
            width=metadata.preprocess.width,
            batch=largest if 1 < smallest == largest else None,
            num_classes=len(metadata.class_names),
            metadata=metadata,
            path=str(path),
            sha256=manifest.engine_sha256,
            runtime=api.label,
            device=f"cuda:{index}",
            kernels="bodies" if library is None else "plugin",
            unverified_because=reason,
        )

    @property
    def spec(self) -> RunnerSpec:
        """Input, output and identity of the engine."""
        notes = (self._cuda.package, self._execution.launches)
        return dataclasses.replace(self._spec, notes=notes)

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, height, width, 3) uint8 RGB -> (n, classes, height, width) float32 probability.

        Raises:
            ShapeError: the batch has another shape or type.
            VmklaError: the runner is closed, or the library or the GPU failed.
        """
        check_batch(frames_rgb, self._spec)

        def fill(buffer: npt.NDArray[Any], start: int, end: int) -> None:
            buffer[:] = network_input(frames_rgb[start:end], self._input_type)

        with self._lock:
            if self._held is None:
                raise VmklaError("the runner is closed")
            s = self._spec
            probability = np.empty((len(frames_rgb), s.num_classes, s.height, s.width), np.float32)
            with self._current():
                for start, end, result in self._execution.run(len(frames_rgb), fill):
                    probability[start:end] = result
        return probability

    def close(self) -> None:
        """Release everything on the GPU; a second call does nothing."""
        with self._lock:
            held, self._held = self._held, None
            if held is None:
                return
            try:
                with self._current():
                    held.close()
                self._cuda.close()
            except CudaError as error:
                # The GPU failed before, and that error was raised then.
                logger.warning("the GPU could not be released: %s", error.message)

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the GPU current and collect the library's messages, for a block of the calling thread."""
        with self._api.collecting(self._messages), self._cuda.current():
            yield


def _plugin_here(manifest: EngineManifest, path: Path, plugin: Path | None) -> Path | None:
    """Find the plugin library that an engine needs; None where it needs none, or where none is installed."""
    if manifest.plugin is None:
        if plugin is not None:
            raise UsageError(f"{path} calls no plugin library", hint="Leave --plugin out.")
        return None
    if plugin is not None:
        return find_plugin(plugin)
    try:
        return find_plugin()
    except MissingDependencyError:
        return None  # `check_manifest` raises the error, which names the library that the engine needs


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
