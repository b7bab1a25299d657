"""Steps of `make gpu-proof` that compare the torch backends of the ops with float64 and time the scan.

Run as a program it launches one Triton forward pass, for a profiler.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import torch
from torch import Tensor

from benchmarks.gpu.floors import floor_cells, floors_ms
from benchmarks.gpu.records import Context, Recorder, SkippedError
from vmkla.config import get_preset
from vmkla.errors import VmklaError
from vmkla.ops import UniformGrid, backends, bspline_basis, selective_scan2d, triton_op
from vmkla.ops.scan import selective_scan2d_reference

NAMES = ("y", "u", "p", "dt_weight", "A", "D", "delta_bias")
D_STATE = 16
LIMITS = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Largest error as a part of the tensor's largest: float32 sums over 4096 steps; one rounding to half."""
Shape = tuple[int, int, int, int, int, int]
Case = tuple[Shape, torch.dtype]
RAGGED: tuple[Shape, ...] = (
    (1, 1, 1, 1, 1, 1),
    (3, 1, 7, 5, 3, 2),
    (2, 7, 1, 33, 5, 3),
    (2, 11, 13, 65, 17, 9),
    (1, 33, 65, 31, 16, 6),
    (2, 20, 28, 96, 64, 5),
)
"""b, H, W, d, n, R."""
TINY: Shape = (1, 2, 2, 33, 3, 2)
"""What Triton's interpreter does in a moment; two blocks of channels."""


def stages(preset: str, batch: int, size: int = 256) -> list[Shape]:
    """Return the scan shapes of a preset's encoder stages."""
    sides = [size // 4 >> stage for stage in range(4)]
    return [
        (batch, side, side, 2 * dim, D_STATE, -(-dim // 16))
        for side, dim in zip(sides, get_preset(preset).dims, strict=True)
    ]


def cases(context: Context) -> list[Case]:
    """Return the checked cases: every shape in float32, three of them in the half types."""
    if context.dry:
        return [(TINY, torch.float32), (TINY, torch.float16)]
    shapes = [*RAGGED, *stages("nano", 2), *stages("small", 1)]
    halves = [(shape, dtype) for shape in RAGGED[3:] for dtype in (torch.float16, torch.bfloat16)]
    return [*((shape, torch.float32) for shape in shapes), *halves]


def scan_inputs(shape: Shape, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Make random u, p, dt_weight, A, D and delta_bias."""
    b, H, W, d, n, R = shape
    g = torch.Generator().manual_seed(0)
    u, p = torch.randn(b, H, W, d, generator=g), torch.randn(b, H, W, 4 * (2 * n + R), generator=g)
    weight, A = torch.randn(4, R, d, generator=g) * R**-0.5, -0.1 - 4 * torch.rand(4, n, d, generator=g)
    D, bias = torch.randn(d, generator=g), torch.randn(4, d, generator=g) - 2
    halves = [t.to(device, dtype) for t in (u, p, weight)]
    return [t.requires_grad_() for t in (*halves, A.to(device), D.to(device), bias.to(device))]


def random_grad(shape: Shape, dtype: torch.dtype, device: str) -> Tensor:
    """Make a random gradient of y."""
    return torch.randn(shape[:4], generator=torch.Generator().manual_seed(1)).to(device, dtype)


def run(inputs: list[Tensor], grad_y: Tensor, backend: str) -> list[Tensor]:
    """Compute y and all gradients with a backend."""
    y = selective_scan2d(*inputs, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad_y)]


def exact(inputs: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    """Compute y and all gradients with the reference in float64."""
    leaves = [t.detach().double().requires_grad_() for t in inputs]
    y = selective_scan2d_reference(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y.double())]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Compute the largest error of each tensor relative to its largest element; NaN counts as infinite."""
    result = []
    for value, wanted in zip(found, expected, strict=True):
        scale = max(float(wanted.abs().max()), 1e-30)
        error = float((value.double() - wanted).abs().max()) / scale
        result.append(error if error == error else float("inf"))
    return result


def check_case(backend: str, case: Case, device: str, out: Recorder, *, repeatable: bool) -> None:
    """Compare one backend with float64.

    Args:
        repeatable: two runs must give the same bits (mamba-ssm's gradient uses atomics).
    """
    shape, dtype = case
    inputs, grad_y = scan_inputs(shape, dtype, device), random_grad(shape, dtype, device)
    first, second = run(inputs, grad_y, backend), run(inputs, grad_y, backend)
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    found = dict(zip(NAMES, errors(first, exact(inputs, grad_y)), strict=True))
    out.row(
        f"{backend}: error of y and of the gradients against float64, over the largest element",
        {"b, H, W, d, n, R": str(list(shape)), "type": str(dtype).removeprefix("torch."),
         **{name: f"{error:.1e}" for name, error in found.items()}, "limit": f"{LIMITS[dtype]:.0e}",
         "same bits twice": "yes" if same else "no"},
    )  # fmt: skip
    for name, error in found.items():
        if not error <= LIMITS[dtype]:
            out.wrong(f"{backend} {shape} {dtype}: {name} is off by {error:.1e}")
    if repeatable and not same:
        out.wrong(f"{backend} {shape} {dtype}: two runs differ")


def check(context: Context, out: Recorder) -> None:
    """Compare every GPU backend of this machine with float64."""
    ran = 0
    for backend in backends.GPU_BACKENDS:
        try:
            backends.choose(backend, torch.empty(1, device=context.device))
        except VmklaError as error:
            out.absent(f"the scan by {backend}", error.message)
            continue
        ran += 1
        for case in cases(context):
            check_case(backend, case, context.device, out, repeatable=backend == "triton")
        if backend == "triton":
            for dtype in sorted({case[1] for case in cases(context)}, key=str):
                check_bases(backend, context, dtype, out)
    if not ran:
        raise SkippedError("no backend of the scan runs on this GPU")


def check_bases(backend: str, context: Context, dtype: torch.dtype, out: Recorder) -> None:
    """Compare the spline bases and their gradient with the reference in float64."""
    grid, shape = UniformGrid.over(-1, 1, 5, 3), (3, 5) if context.dry else (1000, 33)
    knots, g = grid.knots(5, 3), torch.Generator().manual_seed(2)
    x, grad = torch.randn(shape, generator=g).to(dtype), torch.randn(*shape, 8, generator=g).to(dtype)
    results = []
    for leaf, its_knots, which in (
        (x.to(context.device), knots.to(context.device), backend),
        (x.to(context.device).double(), knots.to(context.device).double(), "reference"),
    ):
        leaf.requires_grad_()
        bases = bspline_basis(leaf, its_knots, 3, uniform=grid, backend=which)
        results.append([bases.detach(), *torch.autograd.grad(bases, leaf, grad.to(bases))])
    found = dict(zip(("bases", "gradient"), errors(*results), strict=True))
    out.row(
        f"{backend}: error of the spline bases and their gradient against float64, over the largest element",
        {"type": str(dtype).removeprefix("torch."), **{name: f"{error:.1e}" for name, error in found.items()},
         "limit": f"{LIMITS[dtype]:.0e}"},
    )  # fmt: skip
    for name, error in found.items():
        if not error <= LIMITS[dtype]:
            out.wrong(f"{backend}, spline bases, {dtype}: {name} is off by {error:.1e}")


def warm(context: Context, number: int, count: int) -> None:
    """Compile this process's share of the Triton kernels, one of ``count``, into their cache."""
    from benchmarks.gpu.training import warm_step

    work: list[Callable[[], object]] = [partial(warm_step, context, name) for name in ("nano", "small")]
    for shape, dtype in cases(context):
        inputs = scan_inputs(shape, dtype, context.device)
        work.append(partial(run, inputs, random_grad(shape, dtype, context.device), "triton"))
    for piece in work[number::count]:
        piece()


def gpu_ms(function: Callable[[], object], repeats: int = 20) -> float:
    """Measure the median time on the GPU, in ms."""
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def graph_ms(function: Callable[[], object], context: Context) -> float:
    """Measure the median time of a function replayed as a CUDA graph, in ms, without launches from Python.

    In a dry run it is the wall time of one call.
    """
    if context.dry:
        begun = time.perf_counter()
        function()
        return (time.perf_counter() - begun) * 1e3
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    graph.replay()
    return gpu_ms(graph.replay)


def times(context: Context, out: Recorder) -> None:
    """Time the Triton scan as a CUDA graph, with its lower bounds."""
    kernels, figures = backends.triton_scan(), context.figures()
    for batch in (1,) if context.dry else (1, 8, 32):
        for stage, shape in enumerate([TINY] if context.dry else stages("small", batch), start=1):
            inputs = [t.detach() for t in scan_inputs(shape, torch.float32, context.device)]
            grad_y = random_grad(shape, torch.float32, context.device)

            def forward(inputs: list[Tensor] = inputs) -> Tensor:
                return selective_scan2d(*inputs, backend="triton")

            def both(inputs: list[Tensor] = inputs, grad_y: Tensor = grad_y) -> None:
                _, states, sums = kernels.forward(*inputs, triton_op.SAVED_CHUNK)
                kernels.backward(grad_y, *inputs, states, sums, triton_op.SAVED_CHUNK)

            b, H, W, d, n, R = shape
            _, size = kernels.floors(b, H * W, d, n, R, 4)
            instructions = figures.get("triton.1.instructions") if (batch, stage) == (1, 1) else None
            floors, ms = floors_ms(shape, size, figures, instructions), graph_ms(forward, context)
            whole_ms = graph_ms(both, context)
            out.row(
                "Triton: one scan of `small`, float32, by CUDA graph",
                {"batch": batch, "b, H, W, d, n, R": str(list(shape)), **floor_cells(ms, floors),
                 "forward and gradient, ms": round(whole_ms, 4)},
            )  # fmt: skip
            if stage == 1 and floors:
                out.figure(f"triton.{batch}.exponentials", ms / floors["exponentials"])


def launch_once() -> None:
    """Launch one forward pass of `small`'s first stage, batch 1."""
    inputs = [t.detach() for t in scan_inputs(stages("small", 1)[0], torch.float32, "cuda")]
    selective_scan2d(*inputs, backend="triton")
    torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(launch_once())
