"""What the processes of a run say to each other: torch's own process group, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from vmkla.errors import ErrorReport, UsageError, VmklaError
from vmkla.models.serving import check_device
from vmkla.training.ranks import Ranks

T = TypeVar("T")


class Processes:
    """The processes that train together. While entered they can talk; a single one says nothing.

    Every method but ``wrap``'s result must be called by all processes in the same order.

    Args:
        ranks: which of them this one is.
        device: ``"cpu"`` (gloo) or ``"cuda"`` (nccl, the GPU of the process's local rank).
    Raises:
        UsageError: several processes were told to use one GPU, or the device's name is wrong.
        MissingDependencyError: the GPU is not here.
    """

    def __init__(self, ranks: Ranks, device: str) -> None:
        self.ranks = ranks
        self._wrapped: list[nn.parallel.DistributedDataParallel] = []
        if ranks.world > 1 and device.startswith("cuda:"):
            raise UsageError(
                f"device {device} was asked for, and {ranks.world} processes cannot share it",
                hint="Use --device cuda: each process then takes the GPU of its local rank.",
            )
        device = f"cuda:{ranks.local_rank}" if device == "cuda" else device
        check_device(device)
        self.device = torch.device(device)

    @property
    def alone(self) -> bool:
        """There is one process."""
        return self.ranks.world == 1

    @property
    def first(self) -> bool:
        """This is the process that writes and reports."""
        return self.ranks.rank == 0

    def __enter__(self) -> Processes:
        if not self.alone:
            # What is said is said through the CPU; only gradients go from GPU to GPU.
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group(backend, rank=self.ranks.rank, world_size=self.ranks.world)
        return self

    def __exit__(self, *_: object) -> None:
        if self.alone:
            return
        # A thread of gloo may still be letting go of the last message's tensors, for which it needs the
        # interpreter's lock. Were the reducer the last to hold the group, it would wait for that thread with
        # the lock in hand, for ever; Python's own reference lets go of the lock first.
        for model in self._wrapped:
            del model.logger, model.reducer
        dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages the gradients over all processes."""
        if self.alone:
            return model
        on_gpu = [self.device.index] if self.device.type == "cuda" else None
        with naming_lost_processes():
            self._wrapped.append(nn.parallel.DistributedDataParallel(model, device_ids=on_gpu))
        return self._wrapped[-1]

    def mean(self, value: float) -> float:
        """Mean over the processes. NaN or infinite on one is so on all."""
        if self.alone:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        with naming_lost_processes():
            dist.all_reduce(tensor)
        return float(tensor) / self.ranks.world

    def highest(self, *values: float) -> tuple[float, ...]:
        """The largest of each value over the processes."""
        if self.alone:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        with naming_lost_processes():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tuple(tensor.tolist())

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.ranks.world
        with naming_lost_processes():
            dist.all_gather_object(values, value)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers: the running statistics of a batch norm differ."""
        if self.alone:
            return
        with naming_lost_processes():
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def together(self, action: Callable[[], T]) -> T:
        """Do something that may fail on one process alone; then it fails on all.

        The action itself must not talk to the others.

        Raises:
            VmklaError: what another process reports, with its exit status; a process's own error as it is.
        """
        if self.alone:
            return action()
        failure: Exception | None = None
        try:
            result = action()
        except Exception as error:
            failure = error
        reports = self.gather(None if failure is None else ErrorReport.of(failure))
        if failure is not None:
            raise failure
        for rank, report in enumerate(reports):
            if report is not None:
                raise report.error(f"process {rank} of {self.ranks.world} failed")
        return result


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """A broken connection to another process, as an error that states it.

    Raises:
        VmklaError: a process has gone without a word.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, dist.DistError) and not any(
            word in text.lower() for word in ("gloo", "nccl")
        ):
            raise
        raise VmklaError(
            f"another process of the run has gone: {text.splitlines()[0]}",
            hint="See what it printed; continue with --resume.",
        ) from error
