"""``vmkla bench``: latency, throughput and memory of a model on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from vmkla.cli.console import print_json, progress_bar
from vmkla.cli.options import (
    Device,
    Json,
    Kernels,
    Plugin,
    Quiet,
    Runtime,
    RuntimeOption,
    Threads,
    parse_size,
)

RENDERED_FRAMES = 8


def bench(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|FILE", help="A shipped model or a file.")
    ] = "nano",
    runtime: RuntimeOption = Runtime.auto,
    device: Device = None,
    plugin: Plugin = None,
    kernels: Annotated[
        Kernels, typer.Option("--kernels", help="vmkla's own kernels, or the function bodies in the file.")
    ] = Kernels.native,
    frame: Annotated[
        str, typer.Option("--frame", metavar="HxW", help="Size of the frames that go in, in pixels.")
    ] = "360x480",
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Batches that are counted.")] = 100,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Batches before them.")] = 10,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency, throughput and memory. The frames are rendered."""
    from vmkla.engines import load_runner
    from vmkla.engines.bench import benchmark
    from vmkla.video.clip import render_clip

    height, width = parse_size(frame, flag="--frame")
    runner = load_runner(model, runtime.value, device, threads=threads, kernels=kernels.value, plugin=plugin)
    try:
        frames = [rgb for rgb, _ in render_clip(0, height, width, RENDERED_FRAMES)]
        with progress_bar("measuring", "batches", quiet=quiet) as bar:
            report = benchmark(
                runner,
                frames,
                warmup=warmup,
                iterations=iterations,
                threads=threads,
                progress=None if bar is None else lambda done: bar(done, warmup + iterations),
            )
    finally:
        runner.close()
    if json:
        print_json(report.to_dict())
        return
    print(f"{report.path} on {report.runtime}, {report.device}, kernels {report.kernels}")
    for note in report.notes:
        print(note)
    print(f"{report.cpu}, {report.cores} cores, threads {report.threads or 'as the runtime chooses'}")
    print(f"kernels use {report.kernel_instruction_set or '-'}; the CPU has {' '.join(report.cpu_flags)}")
    print(f"{'ms per batch':14}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for stage, latency in report.latency_ms.items():
        print(f"{stage:14}{latency.p50:9.2f}{latency.p95:9.2f}{latency.p99:9.2f}{latency.max:9.2f}")
    print(
        f"{report.fps:.1f} frames/s, batch {report.batch}, {report.iterations} batches after {report.warmup}"
    )
    print(f"peak memory {report.peak_memory_bytes / 2**20:.0f} MiB")
