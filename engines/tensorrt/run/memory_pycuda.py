"""The interface of ``memory`` through PyCUDA, and through the driver for CUDA graphs, which PyCUDA lacks."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.tensorrt.run.memory import (
    CAPTURE_THREAD_LOCAL,
    OUT_OF_MEMORY,
    STREAM_NON_BLOCKING,
    Cuda,
    failure,
)


class PyCuda(Cuda):
    """A GPU through PyCUDA.

    PyCUDA releases memory, streams and events with the last reference to their object, so the objects are
    kept by their handles until they are freed.

    Args:
        index: number of the GPU, from 0.
    Raises:
        ImportError: PyCUDA is not installed.
        CudaError: the GPU cannot be opened.
    """

    def __init__(self, index: int) -> None:
        self._driver = importlib.import_module("pycuda.driver")
        self.package = f"PyCUDA {importlib.metadata.version('pycuda')}"
        self.index = index
        self._library = ctypes.CDLL("libcuda.so.1")
        self._kept: dict[int, Any] = {}
        with self._checked("cuDevicePrimaryCtxRetain"):
            self._driver.init()
            self._context = self._driver.Device(index).retain_primary_context()

    def allocate(self, nbytes: int) -> int:
        return self._keep("cuMemAlloc", lambda: self._driver.mem_alloc(nbytes), int)

    def free(self, pointer: int) -> None:
        with self._checked("cuMemFree"):
            self._kept.pop(pointer).free()

    def allocate_pinned(self, nbytes: int) -> npt.NDArray[np.uint8]:
        with self._checked("cuMemHostAlloc"):
            array: npt.NDArray[np.uint8] = self._driver.pagelocked_empty(nbytes, np.uint8)
        return array

    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        with self._checked("cuMemFreeHost"):
            array.base.free()  # type: ignore[union-attr]

    def create_stream(self) -> int:
        return self._keep("cuStreamCreate", lambda: self._driver.Stream(STREAM_NON_BLOCKING), _handle)

    def destroy_stream(self, stream: int) -> None:
        del self._kept[stream]

    def synchronize(self, stream: int) -> None:
        with self._checked("cuStreamSynchronize"):
            self._kept[stream].synchronize()

    def create_event(self) -> int:
        return self._keep("cuEventCreate", self._driver.Event, id)

    def destroy_event(self, event: int) -> None:
        del self._kept[event]

    def record(self, event: int, stream: int) -> None:
        with self._checked("cuEventRecord"):
            self._kept[event].record(self._kept[stream])

    def wait(self, event: int) -> None:
        with self._checked("cuEventSynchronize"):
            self._kept[event].synchronize()

    def upload(self, pointer: int, array: npt.NDArray[Any], stream: int) -> None:
        with self._checked("cuMemcpyHtoDAsync"):
            self._driver.memcpy_htod_async(pointer, array, self._kept[stream])

    def download(self, array: npt.NDArray[Any], pointer: int, stream: int) -> None:
        with self._checked("cuMemcpyDtoHAsync"):
            self._driver.memcpy_dtoh_async(array, pointer, self._kept[stream])

    def launch(self, graph: int, stream: int) -> None:
        self._direct("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_captured(self, graph: int) -> None:
        self._direct("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def close(self) -> None:
        if self._context is None:
            return
        context, self._context = self._context, None
        # Detached while it is current: PyCUDA releases a context of another thread in no other way. It does
        # not pop the context from the driver's stack then.
        with self._checked("cuDevicePrimaryCtxRelease"):
            context.push()
            context.detach()
        self._direct("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _push(self) -> None:
        with self._checked("cuCtxPushCurrent"):
            self._context.push()

    def _pop(self) -> None:
        with self._checked("cuCtxPopCurrent"):
            self._driver.Context.pop()

    def _begin_capture(self, stream: int) -> None:
        self._direct("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(CAPTURE_THREAD_LOCAL))

    def _end_capture(self, stream: int) -> int:
        graph = ctypes.c_void_p()
        self._direct("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        return graph.value or 0

    def _instantiate(self, graph: int) -> int:
        made = ctypes.c_void_p()
        arguments = ctypes.byref(made), ctypes.c_void_p(graph), ctypes.c_ulonglong(0)
        self._direct("cuGraphInstantiateWithFlags", *arguments)
        return made.value or 0

    def _destroy_graph(self, graph: int) -> None:
        self._direct("cuGraphDestroy", ctypes.c_void_p(graph))

    def _keep(self, call: str, make: Callable[[], Any], handle: Callable[[Any], int]) -> int:
        """Make one of PyCUDA's objects, keep it, and return its handle."""
        with self._checked(call):
            made = make()
        self._kept[handle(made)] = made
        return handle(made)

    @contextlib.contextmanager
    def _checked(self, call: str) -> Iterator[None]:
        """Convert PyCUDA's errors, which have the call and the meaning of a status but not its number."""
        try:
            yield
        except self._driver.Error as error:
            routine, _, meaning = str(error).partition(" failed: ")
            name = OUT_OF_MEMORY if isinstance(error, self._driver.MemoryError) else type(error).__name__
            raise failure(routine if meaning else call, None, name, meaning or str(error)) from error

    def _direct(self, name: str, *arguments: Any) -> None:
        """Call the driver directly and check its status."""
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            label, meaning = ctypes.c_char_p(), ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(label))
            self._library.cuGetErrorString(status, ctypes.byref(meaning))
            words = [(text.value or b"unknown").decode() for text in (label, meaning)]
            raise failure(name.removesuffix("_v2"), status, words[0], words[1])


def _handle(made: Any) -> int:
    return int(made.handle)
