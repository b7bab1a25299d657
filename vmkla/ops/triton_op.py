"""The Triton scan as torch ops with a gradient. Importing this does not import triton.

The op of ``vmkla.ops.scan`` gives y only, which suits inference. Training uses the one here: it also gives
the states that the gradient starts from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmkla.errors import ShapeError, UsageError
from vmkla.ops import backends

ROUTES = 4
LARGEST_IMAGE = 2**31
"""Numbers of one image of u or p: within an image the kernels count in 32 bits."""
SAVED_CHUNK = 64
"""Steps between two states that the forward pass keeps for the gradient: one more u in float32 at n = 16."""


def infer(u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """Compute y only, in chunks that suit the GPU. See ``selective_scan2d``."""
    tensors = _checked(u, p, dt_weight, A, D, delta_bias)
    kernels = backends.triton_scan()
    y: Tensor = kernels.forward(*tensors, kernels.fitting_chunk(u))[0]
    return y


@torch.library.custom_op("vmkla::selective_scan2d_triton", mutates_args=())
def _op(
    u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state at the start of every chunk (b, 4, chunks, n, d), the sums of delta (b, 4, chunks, d)."""
    tensors = _checked(u, p, dt_weight, A, D, delta_bias)
    y, states, sums = backends.triton_scan().forward(*tensors, SAVED_CHUNK)
    return y, states, sums


@_op.register_fake
def _(
    u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    b, H, W, d = u.shape
    chunks = (H * W + SAVED_CHUNK - 1) // SAVED_CHUNK
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    states = A.new_empty((b, ROUTES, chunks, A.shape[1], d))
    return y, states, A.new_empty((b, ROUTES, chunks, d))


@torch.library.custom_op("vmkla::selective_scan2d_triton_backward", mutates_args=())
def _backward_op(
    grad_y: Tensor,
    u: Tensor,
    p: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    states: Tensor,
    sums: Tensor,
) -> list[Tensor]:
    tensors = _checked(u, p, dt_weight, A, D, delta_bias)
    gradients: list[Tensor] = backends.triton_scan().backward(
        grad_y.to(u.dtype).contiguous(), *tensors, states, sums, SAVED_CHUNK
    )
    return gradients


@_backward_op.register_fake
def _(grad_y: Tensor, *tensors: Tensor) -> list[Tensor]:
    *inputs, _states, _sums = tensors
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, states, sums = output
    ctx.mark_non_differentiable(states, sums)
    ctx.save_for_backward(*inputs, states, sums)


def _backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.ops.vmkla.selective_scan2d_triton_backward(grad_y, *ctx.saved_tensors))


_op.register_autograd(_backward, setup_context=_setup_context)


def _checked(*tensors: Tensor) -> list[Tensor]:
    """u, p, dt_weight, A, D and delta_bias, contiguous; of the types and on the device that the kernels read.

    Raises:
        UsageError: names the tensor that is of another type or elsewhere.
        ShapeError: an image is too large for the kernels.
    """
    u = tensors[0]
    names = ("u", "p", "dt_weight", "A", "D", "delta_bias")
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        expected = u.dtype if i < 3 else torch.float32
        if tensor.dtype != expected or tensor.device != u.device:
            raise UsageError(
                f"the Triton kernels expect {name} to be {expected} on {u.device}, got {tensor.dtype} on "
                f"{tensor.device}",
                hint="Give all tensors the types that the op's description names.",
            )
    for name, tensor in zip(names, tensors[:2], strict=False):
        if tensor[:1].numel() >= LARGEST_IMAGE:
            raise ShapeError(
                f"{name} has {tensor[:1].numel()} numbers per image, the Triton kernels take fewer than "
                f"{LARGEST_IMAGE}",
                hint="Use a smaller image, or backend='reference'.",
            )
    return [t.contiguous() for t in tensors]
