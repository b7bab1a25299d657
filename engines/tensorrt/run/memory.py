"""Device and pinned memory, streams, events and CUDA graphs of one GPU: one interface over two packages.

Desktops have cuda-bindings, many Jetsons have PyCUDA. Both bind the driver's API, and the interface is a part
of that API. Handles are plain numbers, as TensorRT takes them. Like TensorRT, everything here works in the
GPU's primary context.
"""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vmkla.engines.tensorrt.machine import cuda_version, find_gpu
from vmkla.errors import MissingDependencyError, VmklaError

logger = logging.getLogger(__name__)

Package = Literal["auto", "cuda-bindings", "pycuda"]

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
OLDEST_CUDA = 12
# CUstream_flags and CUstreamCaptureMode of the driver's API, the same in every version.
STREAM_NON_BLOCKING = 1
CAPTURE_THREAD_LOCAL = 1


class CudaError(VmklaError):
    """A call of CUDA's driver failed."""


class Cuda(ABC):
    """One GPU through one package. Every call but ``close`` is made inside ``current()``.

    Attributes:
        package: name and version of the package.
        index: number of the GPU, from 0.
    """

    package: str
    index: int

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's primary context current in the calling thread, for a block."""
        self._push()
        try:
            yield
        except BaseException:
            # A GPU that failed reports an error at every later call; the first one is raised.
            with contextlib.suppress(CudaError):
                self._pop()
            raise
        self._pop()

    @abstractmethod
    def allocate(self, nbytes: int) -> int:
        """Allocate device memory and return its address."""

    @abstractmethod
    def free(self, pointer: int) -> None:
        """Free device memory."""

    @abstractmethod
    def allocate_pinned(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Allocate pinned host memory, which asynchronous copies need; (nbytes,) uint8."""

    @abstractmethod
    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        """Free pinned memory; the array and its views are invalid from then on."""

    @abstractmethod
    def create_stream(self) -> int:
        """Make a stream that does not wait for the default stream, and return its handle."""

    @abstractmethod
    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until a stream is empty."""

    @abstractmethod
    def create_event(self) -> int:
        """Make an event and return its handle."""

    @abstractmethod
    def destroy_event(self, event: int) -> None:
        """Destroy an event."""

    @abstractmethod
    def record(self, event: int, stream: int) -> None:
        """Record an event behind everything that a stream holds so far."""

    @abstractmethod
    def wait(self, event: int) -> None:
        """Wait until a stream has reached an event."""

    @abstractmethod
    def upload(self, pointer: int, array: npt.NDArray[Any], stream: int) -> None:
        """Queue a copy of a contiguous pinned array to device memory."""

    @abstractmethod
    def download(self, array: npt.NDArray[Any], pointer: int, stream: int) -> None:
        """Queue a copy of device memory to a contiguous pinned array."""

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Capture the work that ``enqueue`` puts on a stream as a CUDA graph, without running it.

        Returns:
            Handle of the graph, ready to launch.
        Raises:
            VmklaError: ``enqueue`` failed; the stream is unchanged.
            CudaError: an operation cannot be captured.
        """
        self._begin_capture(stream)
        try:
            enqueue()
        except BaseException:
            # The capture must end in every case; the first error is raised.
            with contextlib.suppress(CudaError):
                self._destroy_graph(self._end_capture(stream))
            raise
        graph = self._end_capture(stream)
        try:
            return self._instantiate(graph)
        finally:
            self._destroy_graph(graph)

    @abstractmethod
    def launch(self, graph: int, stream: int) -> None:
        """Queue a captured graph."""

    @abstractmethod
    def destroy_captured(self, graph: int) -> None:
        """Destroy a graph that ``capture`` returned."""

    @abstractmethod
    def close(self) -> None:
        """Release the primary context, once everything in it is released."""

    @abstractmethod
    def _push(self) -> None: ...

    @abstractmethod
    def _pop(self) -> None: ...

    @abstractmethod
    def _begin_capture(self, stream: int) -> None: ...

    @abstractmethod
    def _end_capture(self, stream: int) -> int: ...

    @abstractmethod
    def _instantiate(self, graph: int) -> int: ...

    @abstractmethod
    def _destroy_graph(self, graph: int) -> None: ...


def open_cuda(index: int = 0, package: Package = "auto") -> Cuda:
    """Open a GPU through the package that is installed.

    Args:
        index: number of the GPU, from 0.
        package: ``auto`` takes cuda-bindings, else PyCUDA; both do the same.
    Raises:
        MissingDependencyError: there is no driver, no such GPU, or neither package.
    """
    find_gpu(index)
    tried = []
    for name in ("cuda-bindings", "pycuda") if package == "auto" else (package,):
        try:
            opened = _open_cuda_bindings(index) if name == "cuda-bindings" else _open_pycuda(index)
        except ImportError as error:
            tried.append(f"{name} ({error})")
        except CudaError as error:
            raise MissingDependencyError(
                f"GPU {index} cannot be opened: {error.message}",
                hint="Look at nvidia-smi: is the GPU free?",
            ) from error
        else:
            logger.info("GPU %d through %s", index, opened.package)
            return opened
    raise MissingDependencyError(
        f"an engine needs cuda-bindings or PyCUDA, which cannot be imported here: {', '.join(tried)}",
        hint=f"Run: {install_command()}   (on a Jetson also: pip install 'vmkla[jetson]')",
    )


def install_command() -> str:
    """Return the command that installs cuda-bindings in the version for this machine's driver."""
    version = cuda_version()
    major = 0 if version is None else int(version.partition(".")[0])
    if major < OLDEST_CUDA:  # no driver, or one too old for every supported version
        return "pip install 'vmkla[tensorrt]'"
    return f"pip install 'cuda-bindings>=12.8,<{major + 1}'"


def failure(call: str, code: int | None, name: str, meaning: str) -> CudaError:
    """Make the error of a failed call.

    Args:
        call: function of the driver's API.
        code: the status that it returned; None where the package does not report it.
        name, meaning: name and description of the status.
    """
    status = f"status {code} ({name})" if code is not None else name
    hint = None
    if name == OUT_OF_MEMORY:
        hint = "Other programs may hold the GPU's memory, see nvidia-smi; or build with a smaller --profile."
    return CudaError(f"CUDA's {call} failed with {status}: {meaning}", hint=hint)


def _open_cuda_bindings(index: int) -> Cuda:
    from vmkla.engines.tensorrt.run.memory_cuda_bindings import CudaBindings

    return CudaBindings(index)


def _open_pycuda(index: int) -> Cuda:
    from vmkla.engines.tensorrt.run.memory_pycuda import PyCuda

    return PyCuda(index)
