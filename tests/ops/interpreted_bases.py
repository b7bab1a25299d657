"""Run the Triton spline bases under Triton's interpreter, in the process of ``interpreted_scan``."""

from __future__ import annotations

import torch
from torch import Tensor

from vmkla.ops import UniformGrid, bspline_basis


def bases(x: Tensor, knots: Tensor, grid: UniformGrid, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Compute bases and the gradient of x through ``bspline_basis``."""
    leaf = x.detach().requires_grad_()
    found = bspline_basis(leaf, knots, 3, uniform=grid, backend="triton")
    assert found.is_contiguous()
    return found.detach(), torch.autograd.grad(found, leaf, grad)[0]


def any_bases(x: Tensor, knots: Tensor, order: int, grid: UniformGrid | None) -> Tensor:
    """Compute bases of any knots."""
    return bspline_basis(x, knots, order, uniform=grid, backend="triton")


def deterministic_bases(x: Tensor, knots: Tensor, grid: UniformGrid, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``bases`` with torch's deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    try:
        return bases(x, knots, grid, grad)
    finally:
        torch.use_deterministic_algorithms(False)


def compiled_bases(x: Tensor, knots: Tensor, grid: UniformGrid, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``bases`` with torch.compile, as one graph."""
    leaf = x.detach().requires_grad_()
    function = torch.compile(
        lambda v: bspline_basis(v, knots, 3, uniform=grid, backend="triton"),
        backend="aot_eager",
        fullgraph=True,
    )
    found = function(leaf)
    return found.detach(), torch.autograd.grad(found, leaf, grad)[0]


def bases_under_autocast(x: Tensor, knots: Tensor, grid: UniformGrid) -> Tensor:
    """Compute bases under bfloat16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return bspline_basis(x, knots, 3, uniform=grid, backend="triton")


def second_derivative(x: Tensor, knots: Tensor, grid: UniformGrid) -> Tensor:
    """Compute the second derivative of the bases' sum of squares."""
    leaf = x.detach().requires_grad_()
    found = bspline_basis(leaf, knots, 3, uniform=grid, backend="triton")
    (gradient,) = torch.autograd.grad(found.square().sum(), leaf, create_graph=True)
    return torch.autograd.grad(gradient.sum(), leaf)[0]


def check_ops(x: Tensor, knots: Tensor, grid: UniformGrid) -> None:
    """Run torch's checks of a custom op (schema, autograd, fake kernels) on x and its transpose."""
    for values in (x, x.T):
        arguments = (knots, 3, grid.grid_min, grid.step, "triton")
        leaf = values.detach().requires_grad_()
        torch.library.opcheck(torch.ops.vmkla.bspline_basis.default, (leaf, *arguments))
        grad = torch.ones(*values.shape, len(knots) - 4)
        torch.library.opcheck(torch.ops.vmkla.bspline_basis_backward.default, (grad, values, *arguments))
