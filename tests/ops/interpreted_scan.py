"""Run the Triton scan under Triton's interpreter, in a process of its own.

TRITON_INTERPRET must stand in the environment before triton is imported for the first time, and changes it
for good: so a spawned process has it, and the tests' own process never does.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from vmkla.ops import selective_scan2d

T = TypeVar("T")


def _begin() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    from vmkla.ops import backends

    assert backends.triton_scan().INTERPRETED


@contextmanager
def interpreter() -> Iterator[Callable[..., T]]:
    """Yields ``run(function, *args)``, which calls a function of this module in the other process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


def scan(inputs: list[Tensor], grad_y: Tensor, backend: str = "triton") -> list[Tensor]:
    """Compute y and the gradients of all inputs through ``selective_scan2d``."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = selective_scan2d(*leaves, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y)]


def infer(inputs: list[Tensor], chunk: int) -> Tensor:
    """Compute y by the kernels alone, in chunks of any length."""
    from vmkla.ops import triton_scan

    return triton_scan.forward(*inputs, chunk)[0]


def gradients(inputs: list[Tensor], grad_y: Tensor, chunk: int, programs: int) -> list[Tensor]:
    """Compute gradients by the kernels alone, with a given number of programs at once."""
    from vmkla.ops import triton_scan

    before = triton_scan.BACKWARD_PROGRAMS
    triton_scan.BACKWARD_PROGRAMS = programs
    try:
        _, states, sums = triton_scan.forward(*inputs, chunk)
        return triton_scan.backward(grad_y, *inputs, states, sums, chunk)
    finally:
        triton_scan.BACKWARD_PROGRAMS = before


def direct_op(inputs: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    """Compute y and gradients through the op of all backends, which keeps no states."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = torch.ops.vmkla.selective_scan2d(*leaves, "triton")
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y)]


def check_ops(inputs: list[Tensor]) -> None:
    """Run torch's checks of a custom op: schema, autograd, fake kernels."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    torch.library.opcheck(torch.ops.vmkla.selective_scan2d_triton.default, tuple(leaves))
    torch.library.opcheck(torch.ops.vmkla.selective_scan2d.default, (*leaves, "triton"))
    _, states, sums = torch.ops.vmkla.selective_scan2d_triton(*inputs)
    torch.library.opcheck(
        torch.ops.vmkla.selective_scan2d_triton_backward.default,
        (torch.ones_like(inputs[0]), *inputs, states, sums),
    )


def compiled(inputs: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    """Compute ``scan`` with torch.compile, as one graph."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    function = torch.compile(
        lambda *t: selective_scan2d(*t, backend="triton"), backend="aot_eager", fullgraph=True
    )
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y)]


def under_autocast(inputs: list[Tensor]) -> Tensor:
    """Compute y under bfloat16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return selective_scan2d(*inputs, backend="triton")
