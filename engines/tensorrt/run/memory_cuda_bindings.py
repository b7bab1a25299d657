"""The interface of ``memory`` through cuda-bindings."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.tensorrt.run.memory import CAPTURE_THREAD_LOCAL, STREAM_NON_BLOCKING, Cuda, failure


class CudaBindings(Cuda):
    """A GPU through cuda-bindings, which cuda-python contains too.

    Args:
        index: number of the GPU, from 0.
    Raises:
        ImportError: cuda-bindings is not installed.
        CudaError: the GPU cannot be opened.
    """

    def __init__(self, index: int) -> None:
        self._driver = _bindings()
        self.package = _distribution()
        self.index = index
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", index)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    def allocate(self, nbytes: int) -> int:
        return int(self._call("cuMemAlloc", nbytes))

    def free(self, pointer: int) -> None:
        self._call("cuMemFree", pointer)

    def allocate_pinned(self, nbytes: int) -> npt.NDArray[np.uint8]:
        address = int(self._call("cuMemHostAlloc", nbytes, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        self._call("cuMemFreeHost", array.ctypes.data)

    def create_stream(self) -> int:
        return int(self._call("cuStreamCreate", STREAM_NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", self._driver.CUstream(stream))

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", self._driver.CUstream(stream))

    def create_event(self) -> int:
        return int(self._call("cuEventCreate", 0))

    def destroy_event(self, event: int) -> None:
        self._call("cuEventDestroy", self._driver.CUevent(event))

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", self._driver.CUevent(event), self._driver.CUstream(stream))

    def wait(self, event: int) -> None:
        self._call("cuEventSynchronize", self._driver.CUevent(event))

    def upload(self, pointer: int, array: npt.NDArray[Any], stream: int) -> None:
        handle = self._driver.CUstream(stream)
        self._call("cuMemcpyHtoDAsync", pointer, array.ctypes.data, array.nbytes, handle)

    def download(self, array: npt.NDArray[Any], pointer: int, stream: int) -> None:
        handle = self._driver.CUstream(stream)
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, pointer, array.nbytes, handle)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", self._driver.CUgraphExec(graph), self._driver.CUstream(stream))

    def destroy_captured(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", self._driver.CUgraphExec(graph))

    def close(self) -> None:
        if self._context is not None:
            self._context = None
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def _push(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def _pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def _begin_capture(self, stream: int) -> None:
        mode = self._driver.CUstreamCaptureMode(CAPTURE_THREAD_LOCAL)
        self._call("cuStreamBeginCapture", self._driver.CUstream(stream), mode)

    def _end_capture(self, stream: int) -> int:
        return int(self._call("cuStreamEndCapture", self._driver.CUstream(stream)))

    def _instantiate(self, graph: int) -> int:
        return int(self._call("cuGraphInstantiate", self._driver.CUgraph(graph), 0))

    def _destroy_graph(self, graph: int) -> None:
        self._call("cuGraphDestroy", self._driver.CUgraph(graph))

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver, check its status, and return its result."""
        status, *results = getattr(self._driver, name)(*arguments)
        if int(status) != 0:
            _, text = self._driver.cuGetErrorString(status)
            meaning = text.decode() if text else "the driver has no description"
            raise failure(name, int(status), status.name, meaning)
        return results[0] if results else None


def _bindings() -> Any:
    """Import the bindings of the driver's API from where the installed version keeps them."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError:
        return importlib.import_module("cuda.cuda")  # cuda-python before 12.6.1, which had no cuda-bindings


def _distribution() -> str:
    """Return name and version of the installed package that contains the bindings."""
    for name in ("cuda-bindings", "cuda-python"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    return "cuda-bindings of an unknown version"
