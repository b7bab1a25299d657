"""How many kernels Triton compiles for a training, counted by its own keys on a machine without a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from vmkla.config import get_preset
from vmkla.models import kan, ss2d
from vmkla.models.vmkla_unet import build_model
from vmkla.ops import triton_backward, triton_bspline, triton_forward, triton_op, triton_scan

BATCHES = (32, 17, 1)
"""Images of a whole batch, of a set's last one, of the least."""
PIXELS, MULTIPROCESSORS = 256, 132
MODULES = (triton_forward, triton_backward, triton_bspline)


class Recorder:
    """Replaces the kernels: notes what Triton would look a launch up by, and launches nothing."""

    def __init__(self) -> None:
        self.kernels: set[tuple[str, str]] = set()

    def instead_of(self, kernel: JITFunction[Any]) -> dict[Any, Callable[..., None]]:
        """What ``kernel[grid](...)`` then means."""
        backend = make_backend(GPUTarget("cuda", 90, 32))
        binder = create_function_from_signature(kernel.signature, kernel.params, backend)

        def launch(*arguments: object, **options: object) -> None:
            _, specialization, chosen = binder(*arguments, debug=False, **options)
            self.kernels.add((kernel.__name__, f"{specialization} {chosen}"))

        class AnyGrid(dict[Any, Callable[..., None]]):
            def __missing__(self, grid: object) -> Callable[..., None]:
                return launch

        return AnyGrid()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """In the place of every kernel, on a GPU of 132 multiprocessors."""
    recorder = Recorder()
    for module in MODULES:
        for name, kernel in vars(module).items():
            if isinstance(kernel, JITFunction):
                monkeypatch.setattr(module, name, recorder.instead_of(kernel))
    monkeypatch.setattr(triton_scan, "_multiprocessors", lambda _: MULTIPROCESSORS)
    return recorder


def op_inputs(monkeypatch: pytest.MonkeyPatch, batch: int) -> tuple[list[list[Tensor]], list[Tensor]]:
    """What a batch gives ``nano``'s scans and bases, as tensors without memory."""
    scans: list[list[Tensor]] = []
    values: list[Tensor] = []

    def scan(*inputs: Tensor, backend: str) -> Tensor:
        scans.append(list(inputs))
        return torch.empty_like(inputs[0])

    def bases(x: Tensor, grid: Tensor, order: int, **_: object) -> Tensor:
        values.append(x)
        return x.new_empty((*x.shape, grid.shape[-1] - order - 1))

    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr(ss2d, "selective_scan2d", scan)
        patch.setattr(kan, "bspline_basis", bases)
        build_model(get_preset("nano"))(torch.empty(batch, 3, PIXELS, PIXELS))
    assert scans and values
    return scans, values


def test_kernels_of_a_training(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes seconds to compile: one for every rank and flag, none for sizes of images and batches."""
    for batch in BATCHES:
        scans, values = op_inputs(monkeypatch, batch)
        for inputs in scans:
            y, states, sums = triton_scan.forward(*inputs, triton_op.SAVED_CHUNK)
            triton_scan.backward(y, *inputs, states, sums, triton_op.SAVED_CHUNK)
            triton_scan.forward(*inputs, triton_scan.fitting_chunk(inputs[0]))  # validation
        for x in values:
            triton_bspline.backward(triton_bspline.forward(x, 8, -2.2, 0.4), x, -2.2, 0.4)
    counts = Counter(kernel for kernel, _ in recorder.kernels)
    # nano has four ranks of delta; in training its last stage is one chunk, which needs fewer kernels.
    # Specialized on every integer (but d in three kernels) the scan's were 9, 7, 40, 6 and 24.
    assert counts == {
        "chunk_ends": 4,
        "carry_chunks": 2,  # forwards, backwards
        "scan_chunks": 4 * 2 + 2,  # the routes that store, those that add; from zero
        "adjoint_ends": 3,
        "scan_chunks_backward": 4 * 2,
        "uniform_cubic": 1,
        "uniform_cubic_backward": 1,
    }


def test_an_unaligned_view_is_another_kernel(recorder: Recorder) -> None:
    """The count would not notice a key that lacks what a launch depends on."""
    for start in (0, 1, 4):
        triton_bspline.forward(torch.zeros(64)[start:], 8, -2.2, 0.4)
    assert len(recorder.kernels) == 2
