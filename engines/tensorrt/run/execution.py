"""Run batches on an engine: its buffers, its stream, and the CUDA graph that launches its kernels at once.

There is one execution context, one stream, and one pair of buffers on the GPU at fixed addresses, so that a
graph stays valid. On the host there are two pairs of pinned buffers: while the GPU computes one batch, the
next is written and the one before is read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.manifest import Profile
from vmkla.engines.tensorrt.messages import Messages, take_errors
from vmkla.engines.tensorrt.run.memory import Cuda, CudaError
from vmkla.errors import VmklaError

logger = logging.getLogger(__name__)

INPUT, OUTPUT = "frames", "probability"
WARMUP_RUNS = 2
"""Runs before a graph is captured: the first run of a new shape does work that must not be captured."""


@dataclass(frozen=True)
class Tensor:
    """Shape and type of an engine's input or output.

    Attributes:
        shape: extents of one frame, without the batch.
        dtype: type of the elements.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def nbytes(self, batch: int) -> int:
        """Return the size of a batch, bytes."""
        return batch * int(np.prod(self.shape)) * self.dtype.itemsize

    def view(self, buffer: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """View a buffer as (batch, *shape)."""
        return buffer.view(self.dtype).reshape(-1, *self.shape)


@dataclass(frozen=True)
class Slot:
    """Pinned buffers of one batch.

    Attributes:
        input, output: (largest batch, *shape).
        done: handle of the event behind the copy of the output.
    """

    input: npt.NDArray[Any]
    output: npt.NDArray[Any]
    done: int


Fill = Callable[[npt.NDArray[Any], int, int], None]
"""Callback that writes the frames ``start`` to ``end`` into (end - start, *shape)."""


class Execution:
    """Run batches of any size on an execution context. Every call is made inside ``cuda.current()``.

    Args:
        api: the library.
        cuda: the GPU.
        context: the ``IExecutionContext``, which nothing else uses.
        source, result: input and output of one frame.
        profile: batch sizes that the engine accepts.
        messages: collects the library's messages.
        graph: launch the kernels as a CUDA graph where the engine can be captured.
    Raises:
        VmklaError: memory ran out, or the library rejects the buffers.
    """

    def __init__(
        self,
        api: TensorRTApi,
        cuda: Cuda,
        context: Any,
        source: Tensor,
        result: Tensor,
        profile: Profile,
        messages: Messages,
        *,
        graph: bool = True,
    ) -> None:
        self._api, self._cuda, self._context, self._messages = api, cuda, context, messages
        self._source, self._result, self._profile = source, result, profile
        self._batch = self._runs = 0
        self._graph: int | None = None
        self._no_graph_because = None if graph else "it was not requested"
        with contextlib.ExitStack() as held:
            self._stream = cuda.create_stream()
            held.callback(cuda.destroy_stream, self._stream)
            self._device_input = self._allocate(held, source.nbytes(profile.max))
            self._device_output = self._allocate(held, result.nbytes(profile.max))
            self._slots = (self._make_slot(held), self._make_slot(held))
            for name, address in ((INPUT, self._device_input), (OUTPUT, self._device_output)):
                self._expect(context.set_tensor_address(name, address), f"rejects a buffer for {name}")
            self._held = held.pop_all()

    @property
    def launches(self) -> str:
        """How kernels are launched, for people."""
        if self._no_graph_because:
            return f"kernels launched one by one, no CUDA graph: {self._no_graph_because}"
        return "CUDA graph"

    def warm_up(self) -> None:
        """Run the batch size that the engine is tuned for, so that the first frames are not slower."""
        for _ in range(WARMUP_RUNS):
            for _ in self.run(self._profile.opt, _fill_with_zeros):
                pass

    def run(self, count: int, fill: Fill) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
        """Run frames in batches of at most the profile's largest size.

        Args:
            count: number of frames, at least 1.
            fill: writes frames into the engine's input.
        Returns:
            First frame, end, and result (end - start, *shape) of each batch, valid until the next batch.
        Raises:
            VmklaError: the library or the GPU failed; no copy is pending afterwards.
        """
        largest = self._profile.max
        pending: tuple[Slot, int, int] | None = None
        try:
            for number, start in enumerate(range(0, count, largest)):
                end = min(start + largest, count)
                slot = self._slots[number % 2]
                fill(slot.input[: end - start], start, end)
                # The last frame fills up the smallest batch; the results of the copies are dropped.
                batch = max(end - start, self._profile.min)
                slot.input[end - start : batch] = slot.input[end - start - 1]
                self._submit(slot, batch)
                if pending is not None:
                    yield self._collect(*pending)
                pending = slot, start, end
            if pending is not None:
                yield self._collect(*pending)
        except BaseException:
            # A pending copy still uses the pinned buffers. The first error is raised.
            with contextlib.suppress(CudaError):
                self._cuda.synchronize(self._stream)
            raise
        self._capture_when_warm()

    def close(self) -> None:
        """Release the graph, the context, the stream and all buffers."""
        self._drop_graph()
        self._context = None
        self._held.close()

    def _submit(self, slot: Slot, batch: int) -> None:
        """Queue a batch: copy of the input, kernels, copy of the output."""
        if batch != self._batch:
            self._set_batch(batch)
        cuda, stream = self._cuda, self._stream
        cuda.upload(self._device_input, slot.input[:batch], stream)
        if self._graph is not None:
            cuda.launch(self._graph, stream)
        else:
            self._enqueue()
            self._runs += 1
        cuda.download(slot.output[:batch], self._device_output, stream)
        cuda.record(slot.done, stream)

    def _collect(self, slot: Slot, start: int, end: int) -> tuple[int, int, npt.NDArray[Any]]:
        self._cuda.wait(slot.done)
        return start, end, slot.output[: end - start]

    def _set_batch(self, batch: int) -> None:
        """Set another batch size; drop the graph of the old one, which must not be launched again."""
        self._cuda.synchronize(self._stream)
        self._drop_graph()
        shape = (batch, *self._source.shape)
        self._expect(self._context.set_input_shape(INPUT, shape), f"rejects the input shape {shape}")
        self._batch, self._runs = batch, 0

    def _enqueue(self) -> None:
        self._expect(self._context.execute_async_v3(self._stream), "could not run the engine")

    def _capture_when_warm(self) -> None:
        if self._graph is not None or self._no_graph_because or self._runs < WARMUP_RUNS:
            return
        try:
            if self._api.is_rtx and not self._context.is_stream_capturable(self._stream):
                raise VmklaError(f"{self._api.runtime} reports that this engine cannot be captured")
            self._graph = self._cuda.capture(self._stream, self._enqueue)
        except VmklaError as error:
            self._no_graph_because = error.message
            logger.warning("no CUDA graph, kernels are launched one by one: %s", error.message)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._cuda.destroy_captured(graph)

    def _allocate(self, held: contextlib.ExitStack, nbytes: int) -> int:
        pointer = self._cuda.allocate(nbytes)
        held.callback(self._cuda.free, pointer)
        return pointer

    def _make_slot(self, held: contextlib.ExitStack) -> Slot:
        views = []
        for tensor in (self._source, self._result):
            buffer = self._cuda.allocate_pinned(tensor.nbytes(self._profile.max))
            held.callback(self._cuda.free_pinned, buffer)
            views.append(tensor.view(buffer))
        done = self._cuda.create_event()
        held.callback(self._cuda.destroy_event, done)
        return Slot(views[0], views[1], done)

    def _expect(self, succeeded: bool, what: str) -> None:
        """Raise the library's latest errors where a call returned False."""
        if not succeeded:
            raise VmklaError(f"{self._api.label} {what}: {take_errors(self._messages)}")


def _fill_with_zeros(buffer: npt.NDArray[Any], start: int, end: int) -> None:
    buffer[:] = 0
