"""``vmkla batch``: segment an archive of videos and images, on one machine or many."""

from __future__ import annotations

import functools
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmkla.cli.batch_output import print_end, print_notes, print_plan, summarise_again
from vmkla.cli.console import progress_bar, say
from vmkla.cli.options import (
    Alpha,
    Anonymous,
    Deinterlace,
    DeinterlaceOption,
    Device,
    Export,
    ExportFrames,
    Hide,
    ImageFormat,
    ImageFormatOption,
    Json,
    Label,
    LabelOption,
    MaxMegapixels,
    MinFraction,
    Model,
    Overlay,
    OverlayOption,
    PauseOnPoor,
    Peak,
    Plugin,
    Quiet,
    Roi,
    Runtime,
    RuntimeOption,
    SaveMasks,
    SaveProbability,
    Stride,
    Threads,
    Threshold,
    Track,
    is_gpu,
    parse_hide,
)
from vmkla.cli.shards import parse_shard
from vmkla.errors import UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.archive.options import Executor, Tally

_PANEL = "Archive"


class ExecutorName(str, Enum):
    """What runs the workers."""

    local = "local"
    ray = "ray"


class RayAuth(str, Enum):
    """Authentication of a Ray cluster."""

    token = "token"
    disabled = "disabled"


def batch(
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="SOURCE...", help="Folders, videos and images.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the batch; needed.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest", metavar="FILE.csv", help="Sources in the column source, names in the column id."
        ),
    ] = None,
    executor: Annotated[
        ExecutorName, typer.Option("--executor", help="What runs the workers.")
    ] = ExecutorName.local,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Worker processes; default: one per core, one for a GPU.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Only part I of N, from 0; N alone takes I from JOB_COMPLETION_INDEX or the Slurm array.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print what would run, and about how long.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try pieces that have failed again.")
    ] = False,
    max_failures: Annotated[
        int | None,
        typer.Option("--max-failures", metavar="N", min=0, help="Claim no more after more failures."),
    ] = None,
    part_s: Annotated[
        float,
        typer.Option(
            "--part-s",
            metavar="S",
            help="Workers that have no video of their own share long ones in parts of at least so many "
            "seconds; 0 cuts none.",
        ),
    ] = 300.0,
    max_piece_s: Annotated[
        float | None,
        typer.Option("--max-piece-s", help="Longest time of one piece; default: no limit."),
    ] = None,
    max_stall_s: Annotated[
        float, typer.Option("--max-stall-s", help="Longest time of a piece without a further frame.")
    ] = 600.0,
    max_piece_mb: Annotated[
        float | None,
        typer.Option(
            "--max-piece-mb",
            help="Largest resident memory of a worker; default: its share of 90 % of the machine's.",
        ),
    ] = None,
    lease_s: Annotated[
        float,
        typer.Option(
            "--lease-s", help="Time after which the work of a dead owner is taken over; on NFS at least 120."
        ),
    ] = 120.0,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", metavar="HOST:PORT", help="A Ray cluster; default: one on this machine."
        ),
    ] = None,
    ray_auth: Annotated[
        RayAuth, typer.Option("--ray-auth", help="Authentication of the Ray cluster.")
    ] = RayAuth.token,
    ray_cpus: Annotated[
        float | None,
        typer.Option("--ray-cpus", help="Ray CPUs that each worker reserves; default: its threads."),
    ] = None,
    ray_gpus: Annotated[
        float | None,
        typer.Option("--ray-gpus", help="Ray GPUs that each worker reserves; default: 1 for a GPU's model."),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option("--summary", metavar="DIR", help="Only write the summary of a batch again."),
    ] = None,
    model: Model = "nano",
    runtime: RuntimeOption = Runtime.auto,
    device: Device = None,
    plugin: Plugin = None,
    threads: Threads = None,
    threshold: Threshold = None,
    peak: Peak = None,
    min_fraction: MinFraction = None,
    overlay: OverlayOption = Overlay.contour,
    alpha: Alpha = None,
    label: LabelOption = Label.none,
    save_masks: SaveMasks = False,
    save_probability: SaveProbability = False,
    export: Export = None,
    export_frames: ExportFrames = False,
    stride: Stride = 1,
    roi: Roi = None,
    deinterlace: DeinterlaceOption = Deinterlace.auto,
    track: Track = None,
    image_format: ImageFormatOption = ImageFormat.png,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    hide: Hide = None,
    pause_on_poor: PauseOnPoor = False,
    anonymous: Anonymous = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment an archive of videos and images, each piece once, on one machine or many."""
    if summary is not None:
        if sources or manifest is not None or out is not None:
            raise UsageError(
                "--summary writes the summary of a batch again, and takes no sources and no --out",
                hint="For instance: vmkla batch --summary runs/archive",
            )
        summarise_again(summary, json=json)
        return
    if out is None:
        raise UsageError(
            "a batch needs a folder", hint="For instance: vmkla batch archive/ --out runs/archive"
        )
    if bool(sources) == (manifest is not None):
        raise UsageError(
            "give either sources or --manifest FILE.csv",
            hint="For instance: vmkla batch archive/ --out runs/archive",
        )
    _check_limits(lease_s, max_piece_s, max_stall_s, max_piece_mb, part_s)
    if executor is ExecutorName.ray:
        # Ray reads these while it is imported; other nodes have another working folder.
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE=ray_auth.value)
        out, sources = out.absolute(), [path.absolute() for path in sources or ()]
        manifest = None if manifest is None else manifest.absolute()
    elif ray_address is not None:
        raise UsageError("a Ray address was given without Ray", hint="Add --executor ray")
    part = parse_shard(shard, os.environ)

    from vmkla import weights
    from vmkla.archive.batch import raise_end, run_batch, shard_of
    from vmkla.archive.identity import batch_settings
    from vmkla.archive.layout import check_settings, find_batch, is_batch, open_batch
    from vmkla.archive.options import DriverOptions
    from vmkla.archive.plan import forecast, plan_batch
    from vmkla.archive.summary import summarise
    from vmkla.archive.work import find_work, read_manifest
    from vmkla.archive.worker import Limits, LocalExecutor, machine_memory_bytes
    from vmkla.cpus import cpu_budget
    from vmkla.engines import load_runner
    from vmkla.names import Names, given_names
    from vmkla.procedures.annotations.formats import parse_formats
    from vmkla.runner import check_one_by_one, model_warnings
    from vmkla.segment.operating_point import PointOverrides
    from vmkla.segment.preprocess import parse_roi
    from vmkla.video.cancellation import stop_on_signals
    from vmkla.video.file.options import SegmentOptions

    # All values are checked before any file is opened.
    options = SegmentOptions(
        out_dir=out,
        point=PointOverrides(threshold, peak, min_fraction),
        overlay=overlay.value,
        alpha=alpha,
        label=label.value,
        save_masks=save_masks,
        save_probability=save_probability,
        export=() if export is None else parse_formats(export),
        export_frames=export_frames,
        stride=stride,
        roi=None if roi is None else parse_roi(roi),
        image_format=image_format.value,
        max_megapixels=max_megapixels,
        anonymous=anonymous,
        track=track,
        deinterlace=deinterlace.value,
        hide=parse_hide(hide or ()),
        pause_on_poor=pause_on_poor,
    )
    given = [*(sources or ()), *(() if manifest is None else (manifest,))]
    hidden = given_names(map(str, given)) if anonymous else Names({})
    with hidden.in_errors():
        if manifest is None:
            work = find_work(sources or (), out)
        else:
            work = read_manifest(manifest, anonymous=anonymous)
    entries = work.entries if part is None else shard_of(work.entries, *part)
    print_notes(work, part, len(entries), quiet=quiet)

    on_gpu = is_gpu(device) or Path(model).suffix == ".plan"
    budget = cpu_budget()
    count = workers or (1 if on_gpu else budget.threads)
    if threads is None and not on_gpu:
        threads = max(1, budget.threads // count)
    suffix = ".safetensors" if runtime is Runtime.torch else ".onnx"
    if model not in weights.shipped(suffix):  # each node has its own shipped models
        model = str(weights.resolve(model, suffix).absolute())
    load = functools.partial(load_runner, model, runtime.value, device, threads=threads, plugin=plugin)
    with load() as runner:
        check_one_by_one(runner.spec)
        settings = batch_settings(runner, options)
        for warning in model_warnings(runner):
            say(f"note: {warning}", quiet=quiet)
        if plan:
            folder = find_batch(out) if is_batch(out) else None
            if folder is not None:
                check_settings(folder, settings)
            planned = plan_batch(folder, entries, settings, retry_failed=retry_failed)
            expected = forecast(planned, runner, options, count)
            print_plan(planned, expected, count, json=json, anonymous=anonymous)
            return
    folder = open_batch(out, settings)
    memory_bytes = machine_memory_bytes() * 0.9 / count if max_piece_mb is None else max_piece_mb * 1e6
    limits = Limits(max_piece_s, max_stall_s, int(memory_bytes))
    driver_options = DriverOptions(options, settings, retry_failed, max_failures, lease_s, part_s)
    with (
        stop_on_signals() as cancel,
        progress_bar("segmenting", "frames", quiet=quiet, one_part=True) as bar,
    ):

        def show(frames: Any, tally: Tally) -> None:
            if bar is not None:
                parts = f", {tally.parts} parts" if tally.parts else ""
                note = f"{tally.done + tally.degraded} pieces, {tally.failed} failed{parts}"
                bar(frames.done, frames.total, note)

        if executor is ExecutorName.ray:
            from vmkla.archive.ray_workers import RayExecutor, RayOptions

            reserved = RayOptions(
                ray_address, ray_cpus or threads or 1, on_gpu if ray_gpus is None else ray_gpus
            )
            pool: Executor = RayExecutor(load, count, limits, reserved)
        else:
            pool = LocalExecutor(load, count, limits)
        tally, records = run_batch(folder, entries, pool, driver_options, cancel, show)
    print_end(out, tally, summarise(records), json=json)
    raise_end(tally, cancel, out)


def _check_limits(
    lease_s: float,
    max_piece_s: float | None,
    max_stall_s: float,
    max_piece_mb: float | None,
    part_s: float,
) -> None:
    """Reject limits that make no sense."""
    for flag, value, least in (
        ("--lease-s", lease_s, 1.0),
        ("--max-piece-s", max_piece_s, 0.1),
        ("--max-stall-s", max_stall_s, 0.1),
        ("--max-piece-mb", max_piece_mb, 1.0),
        ("--part-s", part_s or None, 0.1),
    ):
        if value is not None and not least <= value <= 1e9:
            raise UsageError(f"{flag} is {value:g}, expected at least {least:g}")
