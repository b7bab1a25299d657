"""Compare the scan kernel with the cost of its exponentials, and native with reference ops."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import SIZE, Table, apart, exported, median_ms
from benchmarks.cpu.graphs import ort_latency
from vmkla.config import get_preset
from vmkla.models import build_model
from vmkla.ops import selective_scan2d
from vmkla.ops.backends import native

D_STATE = 16


def scan_inputs(side: int, d: int, rank: int) -> list[Tensor]:
    """Make u, p, dt_weight, A, D and delta_bias of one image."""
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, side, side, d, generator=g),
        torch.randn(1, side, side, 4 * (2 * D_STATE + rank), generator=g),
        torch.randn(4, rank, d, generator=g) * rank**-0.5,
        -0.1 - 4 * torch.rand(4, D_STATE, d, generator=g),
        torch.randn(d, generator=g),
        torch.randn(4, d, generator=g) - 2,
    ]


def measure_scan(threads: int) -> list[Table]:
    """Time one scan of every stage of ``small`` at 256x256, on each of this CPU's instruction sets."""
    torch.set_num_threads(threads)
    before = native().instruction_set
    tables = []
    for name in ("avx512", "avx2", "neon"):
        if native().set_instruction_set(name):
            tables.append(_scans(threads))
    native().set_instruction_set(before)
    return tables


def _scans(threads: int) -> Table:
    table = Table(
        f"The scan kernel of `small`, {native().instruction_set}, {threads} threads",
        ("stage", "scan ms", "exponentials ms", "ratio", "recurrence ms", "ratio", "scans per frame"),
        notes=[
            "Exponentials: 4 H W d n of them at the speed of a bare vector loop over the same polynomial",
            f"on one thread, divided by {threads}. Goal: ratio at most 1.5.",
            "Recurrence: the same loop with each exponential used as a decay (state and output are two",
            "multiply-adds and a product more), all in registers. No scan with this exponential is",
            "faster, and the kernel also projects and softpluses every delta and touches memory.",
        ],
    )
    x = -10 * torch.rand(4096, generator=torch.Generator().manual_seed(1))
    repeats = 2000
    count = repeats * x.numel()
    exp_ms = median_ms(lambda: native().exp2_loop(x, repeats), repeats=9) / count
    floor_ms = median_ms(lambda: native().recurrence_loop(x, repeats), repeats=9) / count
    totals = np.zeros(3)  # of a frame: scan, exponentials, recurrence
    config = get_preset("small")
    for stage, (dim, depth) in enumerate(zip(config.dims, config.encoder_depths, strict=True)):
        side, d, rank = SIZE // 4 >> stage, 2 * dim, -(-dim // 16)
        inputs = scan_inputs(side, d, rank)
        with torch.no_grad():
            scan = median_ms(lambda inputs=inputs: selective_scan2d(*inputs, backend="native"), repeats=31)
        states = 4 * side * side * d * D_STATE / threads
        exponentials, floor = states * exp_ms, states * floor_ms
        table.add(f"{side}x{side}x{d}", scan, exponentials, scan / exponentials, floor, scan / floor, depth)
        totals += depth * np.array([scan, exponentials, floor])
    scan, exponentials, floor = totals
    depths = sum(config.encoder_depths)
    table.add("whole frame", scan, exponentials, scan / exponentials, floor, scan / floor, depths)
    return table


def measure_reference_frame(threads: int) -> list[Table]:
    """Time one frame of ``small`` in torch with native and with reference ops."""
    torch.set_num_threads(threads)
    x = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    table = Table(
        f"One frame of `small`, {threads} threads",
        ("runtime and ops", "ms"),
        notes=[
            "Goal: at least 20 times. The reference advances the four routes side by side: that makes it",
            "much faster than four scans one after the other.",
        ],
    )
    times = {}
    for backend, repeats in (("native", 7), ("reference", 1)):
        model = build_model(get_preset("small"), backend).eval()
        with torch.inference_mode():
            times[backend] = median_ms(lambda model=model: model(x), repeats=repeats, warmup=1)
        table.add(f"torch, {backend}", times[backend])
    with exported("small") as path:
        frame = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
        onnx_ms = apart(ort_latency, path, frame, threads, "native")
    table.add("ONNX Runtime, vmkla kernels", onnx_ms)
    table.add("reference over torch native", times["reference"] / times["native"])
    table.add("reference over ONNX Runtime", times["reference"] / onnx_ms)
    return [table]


def measure_training_step(threads: int) -> list[Table]:
    """Time the forward pass, backward pass and optimiser step of ``nano``."""
    torch.set_num_threads(threads)
    batch, side = 4, 128
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, side, side, generator=g)
    target = (torch.rand(batch, 1, side, side, generator=g) > 0.8).float()
    table = Table(
        f"Training step of `nano`, batch {batch} at {side}x{side}, float32, {threads} threads",
        ("ops", "ms", "ms per image"),
        notes=["Goal: at least 3 times."],
    )
    times = {}
    for backend, repeats in (("native", 7), ("reference", 1)):
        torch.manual_seed(0)
        model = build_model(get_preset("nano"), backend)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step(model: torch.nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        begun = time.perf_counter()
        step()
        first = (time.perf_counter() - begun) * 1e3
        times[backend] = first if repeats == 1 else median_ms(step, repeats=repeats, warmup=1)
        table.add(backend, times[backend], times[backend] / batch)
    table.add("reference over native", times["reference"] / times["native"], "")
    return [table]
