"""A stand-in for TensorRT's runtime, which computes with ONNX Runtime on the stand-in GPU's streams.

An engine of it is one line of JSON and an ONNX file. Its messages take the way that TensorRT-RTX's take: to
the logger that a process registered first, and errors to a recorder instead where there is one. It offers
nothing that the real Python API lacks:
``tests/engines/tensorrt/test_api_names.py`` holds it to that. It reads and writes only the addresses that it
is given, and only when the stream comes to it. ``tensorrt_rtx`` is installed, and all of it is used but the
part that needs a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import importlib
import importlib.machinery
import json
import types
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.engines.tensorrt import stand_in_gpu
from tests.engines.tensorrt.small_libraries import creators_of
from vmkla.engines.runners import custom_ops
from vmkla.engines.runners.onnx_file import outline_of, read_model
from vmkla.engines.tensorrt.manifest import (
    EngineManifest,
    GpuFacts,
    OnnxFacts,
    PluginFacts,
    Profile,
    write_manifest,
)
from vmkla.files import file_sha256

VERSION = "10.3.0.26"
GPU = GpuFacts("Stand-in GPU", "8.7", 16)


@dataclass
class Faults:
    """The failures to inject.

    Attributes:
        execute: ``execute_async_v3`` fails from this call on, counted from 1.
        launch: the GPU fails at work on the stream.
        capture: running the engine does something that no capturing stream bears.
        context: there is no memory for an execution context.
        runtime: the driver is too old for any runtime.
        executed: calls of ``execute_async_v3`` so far.
        seen: the input of the last run on the GPU.
        released: classes of the objects that are gone, in their order.
    """

    execute: int | None = None
    launch: bool = False
    capture: bool = False
    context: bool = False
    runtime: bool = False
    executed: int = 0
    seen: Any = None
    released: list[str] = field(default_factory=list)


faults = Faults()


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        pass

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class ErrorCodeTRT(enum.IntEnum):
    UNSPECIFIED_ERROR = 1
    FAILED_EXECUTION = 7


class IErrorRecorder:
    def __init__(self) -> None:
        pass

    def report_error(self, val: ErrorCodeTRT, desc: str) -> bool:
        raise NotImplementedError

    def num_errors(self) -> int:
        raise NotImplementedError

    def get_error_code(self, error_idx: int) -> ErrorCodeTRT:
        raise NotImplementedError

    def get_error_desc(self, error_idx: int) -> str:
        raise NotImplementedError

    def has_overflowed(self) -> bool:
        raise NotImplementedError

    def clear(self) -> None:
        raise NotImplementedError


class SegmentationFault(BaseException):
    """Where the real library ends the process. No ``Exception``: nothing may recover from it."""


class _Process:
    """Which logger a library uses in a process: the first, for as long as any runtime lives."""

    def __init__(self) -> None:
        self._runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
        self._logger: weakref.ref[Any] | None = None

    def add(self, runtime: Runtime, logger: Any) -> None:
        if not self._runtimes:
            self._logger = weakref.ref(logger)
        elif self._logger is not None and self._logger() is not logger:
            logger.log(logger.WARNING, "The logger differs from one already registered, and is ignored")
        self._runtimes.add(runtime)

    def log(self, severity: str, text: str) -> None:
        if not self._runtimes or self._logger is None:
            return  # there is nobody to tell
        logger = self._logger()
        if logger is None:
            raise SegmentationFault(f"a message for a logger that was freed: {text}")
        logger.log(getattr(logger, severity), text)

    def report(self, recorder: Any, text: str) -> None:
        if recorder is None:
            self.log("ERROR", text)
        else:
            recorder.report_error(ErrorCodeTRT.UNSPECIFIED_ERROR, text)


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    FLOAT = np.dtype(np.float32)
    UINT8 = np.dtype(np.uint8)


_ELEMENTS = {"tensor(uint8)": DataType.UINT8, "tensor(float)": DataType.FLOAT}


@dataclass(frozen=True)
class _Creator:
    name: str
    plugin_version: str = "1"
    plugin_namespace: str = "vmkla"


class IPluginRegistry:
    def __init__(self) -> None:
        self.all_creators: list[_Creator] = []
        self.error_recorder: Any = None
        self._process = _Process()

    def load_library(self, plugin_path: str) -> object | None:
        self._process.log("VERBOSE", f"Global registry attempting to load library {plugin_path}")
        names = creators_of(Path(plugin_path))
        if not names:
            self._process.report(self.error_recorder, f"Unable to load library: {plugin_path}: no creators")
            return None
        self.all_creators = [_Creator(name) for name in names]
        return self

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> _Creator | None:
        wanted = _Creator(type, version, plugin_namespace)
        if wanted not in self.all_creators:
            self._process.report(self.error_recorder, f"Cannot find plugin: {type}, version: {version}")
            return None
        self._process.log("VERBOSE", f"Global registry found {type} creator")
        return wanted


_registry = IPluginRegistry()
_rtx_process = _Process()


def get_plugin_registry() -> IPluginRegistry:
    return _registry


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._process = self._of_process()
        if faults.runtime:
            logger.log(logger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._process.add(self, logger)
        self.error_recorder: Any = None

    def _of_process(self) -> _Process:
        return _registry._process

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        head, _, model = serialized_engine.partition(b"\n")
        try:
            facts = json.loads(head)
        except ValueError:
            self._process.report(self.error_recorder, "Magic tag does not match")
            return None
        if missing := set(facts["plugins"]) - {creator.name for creator in _registry.all_creators}:
            text = f"Cannot find plugin {sorted(missing)}, is it registered?"
            self._process.report(self.error_recorder, text)
            return None
        return ICudaEngine(self, model, facts)

    def __del__(self) -> None:
        faults.released.append("Runtime")


class ICudaEngine:
    def __init__(self, runtime: Runtime, model: bytes, facts: dict[str, Any]) -> None:
        self._runtime, self._facts, self._process = runtime, facts, runtime._process
        self.error_recorder = runtime.error_recorder
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        custom_ops.register(options)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = {value.name: value for value in self._session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _ELEMENTS[{**self._inputs, **self._outputs}[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = {**self._inputs, **self._outputs}[name].shape
        return tuple(extent if isinstance(extent, int) else -1 for extent in shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name in self._inputs and profile_index == 0
        return [(batch, *self.get_tensor_shape(name)[1:]) for batch in self._facts["profile"]]

    def create_execution_context(self) -> IExecutionContext | None:
        if faults.context:
            text = "Requested amount of GPU memory could not be allocated"
            self._process.report(self.error_recorder, text)
            return None
        return IExecutionContext(self)

    def __del__(self) -> None:
        faults.released.append("ICudaEngine")


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.error_recorder = engine.error_recorder
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] | None = None
        self._callbacks: list[object] = []  # a captured graph calls them for as long as the context lives

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        if tuple(shape[1:]) != low[1:] or not low[0] <= shape[0] <= high[0]:
            return self._fail(f"setInputShape: {shape} is outside of {low} to {high}")
        self._shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        faults.executed += 1
        if faults.execute is not None and faults.executed >= faults.execute:
            return self._fail("enqueueV3: Cask convolution execution failed")
        if self._shape is None or len(self._addresses) != self.engine.num_io_tensors:
            return self._fail("enqueueV3: a shape or an address is missing")
        driver = stand_in_gpu.library()
        if faults.capture and driver.cuStreamSynchronize(ctypes.c_void_p(stream_handle)) == 900:
            return self._fail("enqueueV3: operation not permitted when stream is capturing")
        if faults.launch:
            return bool(driver.stand_in_launch_failure(stream_handle) == 0)
        shape, addresses = self._shape, dict(self._addresses)
        engine = self.engine
        callback = stand_in_gpu.HOST_FUNCTION(lambda _: _compute(engine, shape, addresses))
        self._callbacks.append(callback)
        return bool(driver.cuLaunchHostFunc(stream_handle, callback, None) == 0)

    def _fail(self, text: str) -> bool:
        self.engine._process.report(self.error_recorder, text)
        return False

    def __del__(self) -> None:
        faults.released.append("IExecutionContext")


class _RtxConfig:
    """What ``ICudaEngine.create_runtime_config`` of TensorRT-RTX gives."""

    dynamic_shapes_kernel_specialization_strategy: Any = None


class _RtxEngine(ICudaEngine):
    def create_runtime_config(self) -> _RtxConfig:
        return _RtxConfig()

    def create_execution_context(  # type: ignore[override]
        self, runtime_config: _RtxConfig
    ) -> IExecutionContext | None:
        strategies = importlib.import_module("tensorrt_rtx").DynamicShapesKernelSpecializationStrategy
        assert runtime_config.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER
        made = super().create_execution_context()
        return None if made is None else _RtxContext(self)


class _RtxContext(IExecutionContext):
    def is_stream_capturable(self, stream: int) -> bool:
        return not faults.capture


class _RtxRuntime(Runtime):
    def _of_process(self) -> _Process:
        return _rtx_process

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        made = super().deserialize_cuda_engine(serialized_engine)
        if made is None:
            return None
        return _RtxEngine(self, serialized_engine.partition(b"\n")[2], made._facts)


def _compute(engine: ICudaEngine, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
    """What the GPU would do: from the input's address to the output's."""
    (source,), (result,) = engine._inputs, engine._outputs
    frames = _array(addresses[source], shape, engine.get_tensor_dtype(source).value)
    faults.seen = frames.copy()
    (probability,) = engine._session.run(None, {source: frames})
    out = (shape[0], *engine.get_tensor_shape(result)[1:])
    _array(addresses[result], out, engine.get_tensor_dtype(result).value)[:] = probability


def _array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Memory at an address, which on the stand-in GPU is the host's."""
    count = int(np.prod(shape)) * dtype.itemsize
    memory = (ctypes.c_uint8 * count).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


NAMES = (
    "DataType",
    "IErrorRecorder",
    "ILogger",
    "IPluginRegistry",
    "Runtime",
    "TensorIOMode",
    "get_plugin_registry",
)
"""What a module of the stand-in has."""


def module(runtime: str) -> types.ModuleType:
    """A module to stand in for ``tensorrt``; or the real ``tensorrt_rtx`` with another ``Runtime``."""
    made = types.ModuleType("tensorrt")
    made.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # torch's exporter looks for it
    if runtime == "tensorrt":
        made.__dict__.update({name: globals()[name] for name in NAMES}, __version__=VERSION)
    else:
        real = importlib.import_module("tensorrt_rtx")
        made.__dict__.update(vars(real))
        made.__dict__.update(Runtime=_RtxRuntime)
    return made


def write_engine(
    path: Path,
    onnx: Path,
    *,
    profile: tuple[int, int, int] = (1, 1, 4),
    runtime: str = "tensorrt",
    plugin: Path | None = None,
    **changed: Any,
) -> EngineManifest:
    """Write an engine of the stand-in with a valid manifest, except for the fields in ``changed``."""
    plugins = [] if plugin is None else creators_of(plugin)
    head = json.dumps({"profile": profile, "plugins": plugins}).encode()
    path.write_bytes(head + b"\n" + onnx.read_bytes())
    metadata = dict(outline_of(read_model(onnx), onnx).metadata)
    facts: dict[str, Any] = {
        "runtime": runtime,
        "runtime_version": module(runtime).__version__,
        "engine_sha256": file_sha256(path),
        "engine_bytes": path.stat().st_size,
        "onnx": OnnxFacts(onnx.name, file_sha256(onnx), onnx.stat().st_size),
        "weights_sha256": metadata["vmkla.weights_sha256"],
        "profile": Profile(*profile),
        "metadata": metadata,
        "plugin": None if plugin is None else PluginFacts(plugin.name, file_sha256(plugin), "1"),
        "gpu": GPU if runtime == "tensorrt" else None,
        "target_sms": () if runtime == "tensorrt" else (86, 87),
        "gates": {"passed": True},
    }
    manifest = EngineManifest(**{**facts, **changed})
    write_manifest(manifest, path)
    return manifest
