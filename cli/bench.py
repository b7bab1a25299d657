"""``vmkla bench``: measure latency, throughput and memory of a model, or live mode against its limits."""

from __future__ import annotations

import functools
import json as json_format
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vmkla.cli.console import print_json, print_line, print_tables, progress_bar, say
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
    run_folder,
)
from vmkla.errors import GateError, UsageError

RENDERED_FRAMES = 8
CONFORMANCE_RUNS = Path("runs/bench/conformance")
SOURCE = "sample://?seed=8&size=480x360&fps=30"
CONFORMANCE_JSON, CONFORMANCE_PAGE = "conformance.json", "conformance.html"


def bench(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|FILE", help="A shipped model or a file.")
    ] = "nano",
    runtime: RuntimeOption = Runtime.auto,
    device: Device = None,
    plugin: Plugin = None,
    kernels: Annotated[
        Kernels | None,
        typer.Option(
            "--kernels",
            help="vmkla's own kernels, or the function bodies in the file; default: native on the CPU.",
        ),
    ] = None,
    frame: Annotated[
        str, typer.Option("--frame", metavar="HxW", help="Size of the input frames in pixels.")
    ] = "360x480",
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Batches to measure.")] = 100,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Batches to run first, not measured.")] = 10,
    threads: Threads = None,
    conformance: Annotated[
        bool,
        typer.Option(
            "--conformance", help="Compare live mode's delays and pixels with their limits instead."
        ),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="WHAT", help=f"With --conformance: a live source. Default: {SOURCE}"
        ),
    ] = None,
    duration_s: Annotated[
        float | None,
        typer.Option("--duration-s", help="With --conformance: seconds with frames; default 60."),
    ] = None,
    idle_s: Annotated[
        float | None,
        typer.Option(
            "--idle-s", help="With --conformance: seconds without frames after that; default 60, 0 for none."
        ),
    ] = None,
    display: Annotated[
        bool, typer.Option("--display", help="With --conformance: show a window and include its time.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help=f"With --conformance. Default: {CONFORMANCE_RUNS}, numbered."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency, throughput and memory. The frames are rendered."""
    if conformance:
        from vmkla.cli.live import live_loader

        load: Callable[..., Any] = live_loader(model, runtime.value, device, threads, plugin)
        load = functools.partial(load, kernels=kernels.value) if kernels is not None else load
        plan = {"duration_s": duration_s, "idle_s": idle_s}
        document = _conform(load, source or SOURCE, out, plan, display=display, quiet=quiet)
        _print_conformance(document, json=json)
        return
    extra = {"--source": source, "--duration-s": duration_s, "--idle-s": idle_s, "--out": out,
             "--display": display or None}  # fmt: skip
    if given := [flag for flag, value in extra.items() if value is not None]:
        raise UsageError(
            f"{given[0]} is for --conformance", hint=f"Add --conformance, or leave {given[0]} out."
        )
    from vmkla.engines import load_runner
    from vmkla.engines.bench import benchmark
    from vmkla.video.media.clip import render_clip

    height, width = parse_size(frame, flag="--frame")
    with load_runner(
        model,
        runtime.value,
        device,
        threads=threads,
        kernels=None if kernels is None else kernels.value,
        plugin=plugin,
    ) as runner:
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
    if json:
        print_json(report.to_dict())
        return
    print_line(f"{report.path} on {report.runtime}, {report.device}, kernels {report.kernels}")
    for note in report.notes:
        print_line(note)
    quota = "" if report.quota is None else f" (quota {report.quota:g})"
    threads_used = "" if report.threads is None else f", {report.threads} threads"
    print_line(f"{report.cpu}, {report.cores} cores{quota}{threads_used}")
    print_line(
        f"kernels use {report.kernel_instruction_set or '-'}; the CPU has {' '.join(report.cpu_flags)}"
    )
    print_line(f"{'ms per batch':14}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for stage, latency in report.latency_ms.items():
        print_line(f"{stage:14}{latency.p50:9.2f}{latency.p95:9.2f}{latency.p99:9.2f}{latency.max:9.2f}")
    print_line(
        f"{report.fps:.1f} frames/s, batch {report.batch}, {report.iterations} batches after {report.warmup}"
    )
    print_line(f"peak memory {report.peak_memory_bytes / 2**20:.0f} MiB")


def _conform(
    load: Callable[[], Any],
    source: str,
    out: Path | None,
    plan: dict[str, float | None],
    *,
    display: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Run the conformance check and write its report and page."""
    from vmkla.video.live.screen import WindowScreen

    # Imported first: a window whose OpenCV is imported after PyAV never opens.
    window = WindowScreen() if display else None

    from vmkla.files import write_whole
    from vmkla.folders import locked_folder
    from vmkla.video.cancellation import stop_on_signals
    from vmkla.video.live.conformance.check import ConformancePlan, run_conformance
    from vmkla.video.live.conformance.page import conformance_page
    from vmkla.video.live.options import LiveOptions
    from vmkla.video.media.address import parse_address

    times = ConformancePlan(**{name: value for name, value in plan.items() if value is not None})
    with run_folder(out, CONFORMANCE_RUNS, again=False) as out_dir:
        with stop_on_signals() as cancel:
            document = run_conformance(
                load,
                parse_address(source),
                LiveOptions(out_dir=out_dir, loop=True),
                cancel,
                plan=times,
                machine=_machine(),
                window=window,
                progress=lambda phase: say(f"conformance: {phase}", quiet=quiet),
            )
        with locked_folder(out_dir, (CONFORMANCE_JSON, CONFORMANCE_PAGE)):
            text = json_format.dumps(document, indent=1, ensure_ascii=False)
            write_whole(out_dir / CONFORMANCE_JSON, text.encode())
            write_whole(out_dir / CONFORMANCE_PAGE, conformance_page(document).encode())
    document["out_dir"] = str(out_dir)  # printed only; the report names no folder
    return document


def _print_conformance(document: dict[str, Any], *, json: bool) -> None:
    from vmkla.video.live.conformance.page import conformance_tables

    if json:
        print_json(document)
    else:
        print_tables(conformance_tables(document))
        for warning in document["warnings"]:
            print_line(f"note: {warning}")
        print_line(f"report: {Path(document['out_dir']) / CONFORMANCE_PAGE}")
    if document["passed"]:
        return
    checks = document["checks"]
    exceeded = [check for check in checks if not check["passed"]]
    first = exceeded[0]
    measured = "was not measured" if first["measured"] is None else f"is {first['measured']:.4g}"
    raise GateError(
        f"{len(exceeded)} of {len(checks)} limits are not met: {first['name']}, {first['phase']}, "
        f"{measured}, allowed {first['limit']:.4g}",
        hint="Close what else runs on this machine, give it full power, or set fewer --threads than cores.",
    )


def _machine() -> dict[str, Any]:
    """Describe the CPU, its threads and its instruction sets in one line."""
    import os
    import platform

    from vmkla.cpu_features import cpu_flags, cpu_name, kernel_instruction_set
    from vmkla.cpus import cpu_budget

    budget = cpu_budget()
    return {
        "cpu": cpu_name(),
        "cores": budget.cpus,
        "CPU quota": budget.quota,
        "instruction sets": list(cpu_flags()),
        "kernels use": kernel_instruction_set(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load average at the beginning": round(os.getloadavg()[0], 2),
    }
