"""The torch backends of the scan on a GPU: held against float64, and timed against their floors.

Correctness: forward and every gradient of each GPU backend against the float64 reference, over the presets'
shapes and ragged ones, and two runs bit by bit. Times: beside the two floors, both measured here: the
exponentials alone, and the bytes at the speed of a device copy; and beside four separate scans with flips and
transposes (gpu_separate.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from common import Table
from gpu_report import Goal, Outcome, say
from gpu_separate import Scan, chunked_scan, four_separate_scans, mamba_scan
from torch import Tensor

from vmkla.config import get_preset
from vmkla.errors import MissingDependencyError, VmklaError
from vmkla.ops import backends, selective_scan2d, triton_op
from vmkla.ops.scan import selective_scan2d_reference

NAMES = ("y", "u", "p", "dt_weight", "A", "D", "delta_bias")
D_STATE = 16
LIMITS = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Largest error as a part of the tensor's largest: float32 sums over 4096 steps; one rounding to half."""
Shape = tuple[int, int, int, int, int, int]
RAGGED: tuple[Shape, ...] = (
    (1, 1, 1, 1, 1, 1),
    (3, 1, 7, 5, 3, 2),
    (2, 7, 1, 33, 5, 3),
    (2, 11, 13, 65, 17, 9),
    (1, 33, 65, 31, 16, 6),
    (2, 20, 28, 96, 64, 5),
)
"""b, H, W, d, n, R."""
TIMED = ("forward ms", "exponentials ms", "bytes ms", "over the larger", "forward + gradient ms", "MiB held")


def stages(preset: str, batch: int, size: int = 256) -> list[Shape]:
    """The scans of a preset's encoder stages."""
    sides = [size // 4 >> stage for stage in range(4)]
    return [
        (batch, side, side, 2 * dim, D_STATE, -(-dim // 16))
        for side, dim in zip(sides, get_preset(preset).dims, strict=True)
    ]


def scan_inputs(shape: Shape, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Random u, p, dt_weight, A, D and delta_bias."""
    b, H, W, d, n, R = shape
    g = torch.Generator().manual_seed(0)
    u, p = torch.randn(b, H, W, d, generator=g), torch.randn(b, H, W, 4 * (2 * n + R), generator=g)
    weight, A = torch.randn(4, R, d, generator=g) * R**-0.5, -0.1 - 4 * torch.rand(4, n, d, generator=g)
    D, bias = torch.randn(d, generator=g), torch.randn(4, d, generator=g) - 2
    halves = [t.to(device, dtype) for t in (u, p, weight)]
    return [t.requires_grad_() for t in (*halves, A.to(device), D.to(device), bias.to(device))]


def run(inputs: list[Tensor], grad_y: Tensor, backend: str) -> list[Tensor]:
    """y and all gradients."""
    y = selective_scan2d(*inputs, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad_y)]


def exact(inputs: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    """The same by the reference in float64."""
    leaves = [t.detach().double().requires_grad_() for t in inputs]
    y = selective_scan2d_reference(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y.double())]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Largest error of each tensor as a part of its largest element; NaN counts as infinite."""
    result = []
    for value, wanted in zip(found, expected, strict=True):
        scale = max(float(wanted.abs().max()), 1e-30)
        error = float((value.double() - wanted).abs().max()) / scale
        result.append(error if error == error else float("inf"))
    return result


def check(
    backend: str, shapes: list[Shape], dtypes: list[torch.dtype], device: str, *, repeatable: bool
) -> tuple[Table, list[str]]:
    """Largest errors of a backend, and what is wrong.

    Args:
        repeatable: two runs must give the same bits (mamba-ssm's gradient uses atomics).
    """
    table = Table(
        f"{backend}: error against float64, as a part of the largest element",
        ("b, H, W, d, n, R", "type", *NAMES, "same bits twice"),
        notes=[f"Limits: {', '.join(f'{dtype} {limit:g}' for dtype, limit in LIMITS.items())}."],
    )
    wrong = []
    for shape in shapes:
        for dtype in dtypes:
            inputs = scan_inputs(shape, dtype, device)
            grad_y = torch.randn(shape[:4], generator=torch.Generator().manual_seed(1)).to(device, dtype)
            first, second = run(inputs, grad_y, backend), run(inputs, grad_y, backend)
            same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
            found = errors(first, exact(inputs, grad_y))
            table.add(str(shape), str(dtype), *(f"{e:.1e}" for e in found), "yes" if same else "no")
            where = f"{backend} {shape} {dtype}"
            wrong += [
                f"{where}: {name} is off by {e:.1e}"
                for name, e in zip(NAMES, found, strict=True)
                if not e <= LIMITS[dtype]
            ]
            if repeatable and not same:
                wrong.append(f"{where}: two runs differ")
    return table, wrong


def gpu_ms(function: Callable[[], object], repeats: int = 20) -> float:
    """Median time on the GPU, ms."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def floor_rates() -> tuple[float, float]:
    """Exponentials per ms of a bare loop, and bytes per ms of a device copy (read and written both count)."""
    import gpu_exponentials

    count, launch = gpu_exponentials.bare_loop(torch.device("cuda"))
    source = torch.empty(2**28, dtype=torch.float32, device="cuda")  # 1 GiB
    target = torch.empty_like(source)
    return count / gpu_ms(launch), 2 * source.nbytes / gpu_ms(lambda: target.copy_(source))


def graph_ms(function: Callable[[], object]) -> float:
    """Median time of a function replayed as a CUDA graph, ms: without what launching from Python costs."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return gpu_ms(graph.replay)


def measure(backend: str, batch: int, rates: tuple[float, float]) -> Table:
    """Times of one scan per stage of ``small``."""
    table = Table(f"{backend}: one scan of `small` at 256x256, float32, batch {batch}", ("stage", *TIMED))
    exponentials_ms, bytes_ms = rates
    for shape in stages("small", batch):
        inputs = scan_inputs(shape, torch.float32, "cuda")
        b, H, W, d, n, R = shape
        count, size = backends.triton_scan().floors(b, H * W, d, n, R, 4)
        floor = (count / exponentials_ms, size / bytes_ms)
        grad_y = torch.randn(shape[:4], device="cuda")

        def forward(inputs: list[Tensor] = inputs) -> Tensor:
            with torch.no_grad():
                return selective_scan2d(*inputs, backend=backend)

        def both(inputs: list[Tensor] = inputs, grad_y: Tensor = grad_y) -> list[Tensor]:
            return run(inputs, grad_y, backend)

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        whole = gpu_ms(both)
        held = (torch.cuda.max_memory_allocated() - before) / 2**20
        time = gpu_ms(forward)
        table.add(f"{H}x{W}x{d}", time, *floor, time / max(floor), whole, held)
    return table


def chunk_lengths(batch: int) -> Table:
    """What the length of a chunk does to training."""
    lengths = (32, 64, 128)
    table = Table(
        f"triton: forward + gradient ms by steps per chunk, batch {batch}",
        ("stage", *map(str, lengths)),
        notes=[f"In use: {triton_op.SAVED_CHUNK}."],
    )
    kernels = backends.triton_scan()
    for shape in stages("small", batch):
        inputs = [t.detach() for t in scan_inputs(shape, torch.float32, "cuda")]
        grad_y = torch.randn(shape[:4], device="cuda")

        def both(chunk: int, inputs: list[Tensor] = inputs, grad_y: Tensor = grad_y) -> list[Tensor]:
            _, states, sums = kernels.forward(*inputs, chunk)
            result: list[Tensor] = kernels.backward(grad_y, *inputs, states, sums, chunk)
            return result

        times = [gpu_ms(lambda chunk=chunk, both=both: both(chunk)) for chunk in lengths]
        table.add(f"{shape[1]}x{shape[2]}x{shape[3]}", *times)
    return table


def working() -> list[str]:
    """The GPU backends that are here; says why another is not.

    Raises:
        MissingDependencyError: there is none.
    """
    found = []
    for backend in backends.GPU_BACKENDS:
        try:
            found.append(backends.choose(backend, torch.empty(1, device="cuda")))
        except VmklaError as error:
            say(f"{backend}: {error}")
    if not found:
        raise MissingDependencyError("no backend of the scan runs on this GPU", hint="pip install triton")
    return found


def separate_scans() -> dict[str, Scan]:
    """One-directional scans that four separate scans can be made of here."""
    found: dict[str, Scan] = {"torch, chunked": chunked_scan}
    try:
        backends.choose("mamba_ssm", torch.empty(1, device="cuda"))
        found["mamba-ssm"] = mamba_scan
    except VmklaError as error:
        say(f"mamba-ssm: {error}")
    return found


def separate_ms(batch: int) -> float:
    """Time of four separate scans in torch at `small`'s first stage, as a CUDA graph, float32, ms."""
    inputs = [t.detach() for t in scan_inputs(stages("small", batch)[0], torch.float32, "cuda")]
    return graph_ms(lambda: four_separate_scans(*inputs, scan=chunked_scan))


def against_separate(backend: str, batch: int) -> tuple[Table, list[str], list[Goal]]:
    """The fused scan beside four separate ones at `small`'s first stage.

    Returns:
        The times, what is wrong with the separate scans' results, and the goal of a factor of 3.
    """
    shape = stages("small", batch)[0]
    inputs = [t.detach() for t in scan_inputs(shape, torch.float32, "cuda")]
    table = Table(
        f"One scan of `small`'s first stage {shape[1:4]}, float32, batch {batch}: fused and separate",
        ("what", "ms", "ms as a CUDA graph", "times the fused one"),
    )

    def fused() -> Tensor:
        return selective_scan2d(*inputs, backend=backend)

    expected, own = fused(), (gpu_ms(fused), graph_ms(fused))
    table.add(f"{backend}, fused", *own, 1.0)
    wrong, goals = [], []
    for name, scan in separate_scans().items():

        def separate(scan: Scan = scan) -> Tensor:
            return four_separate_scans(*inputs, scan=scan)

        error = errors([separate()], [expected.double()])[0]
        if not error <= LIMITS[torch.float32]:
            wrong.append(f"four separate scans ({name}), batch {batch}: off by {error:.1e}")
        times = (gpu_ms(separate), graph_ms(separate))
        table.add(f"four separate scans, {name}", *times, times[1] / own[1])
        if name == "torch, chunked":
            factor = times[1] / own[1]
            what = f"{backend}: four separate scans in torch, batch {batch}, take so much longer"
            goals.append(Goal(what, "at least 3", factor, factor >= 3))
    return table, wrong, goals


def floor_goals(table: Table, what: str) -> list[Goal]:
    """The goal at a table's first stage: at most 3 times the larger floor."""
    over = table.rows[0][table.columns.index("over the larger")]
    assert isinstance(over, float)
    return [Goal(f"{what}, over the larger of its floors", "at most 3", over, over <= 3)]


def scan_part(*, times: bool) -> Outcome:
    """Everything of the torch backends.

    Raises:
        MissingDependencyError: none runs here.
    """
    outcome = Outcome()
    names = working()
    shapes = [*RAGGED, *stages("nano", 2), *stages("small", 1)]
    for backend in names:
        table, wrong = check(backend, shapes, list(LIMITS), "cuda", repeatable=backend == "triton")
        outcome.tables.append(table)
        outcome.wrong += wrong
        say(table.markdown())
    if not times:
        return outcome
    rates = floor_rates()
    for backend in names:
        for batch in (1, 8, 32):
            table = measure(backend, batch, rates)
            outcome.tables.append(table)
            if backend == "triton" and batch in (1, 8):
                outcome.goals += floor_goals(table, f"{backend}, `small`'s first stage, batch {batch}")
        if backend == "triton":
            for batch in (1, 8):
                table, wrong, goals = against_separate(backend, batch)
                outcome.tables.append(table)
                outcome.wrong += wrong
                outcome.goals += goals
            outcome.tables.append(chunk_lengths(32))
    return outcome
