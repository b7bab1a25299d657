"""``vmkla build``: build an engine of TensorRT or TensorRT-RTX from one ONNX file, with its manifest."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vmkla.cli.console import print_json, print_line, progress_bar, say
from vmkla.cli.options import CheckFrames, Json, MaxMegapixels, Quiet, is_number
from vmkla.errors import UsageError
from vmkla.limits import MAX_MEGAPIXELS, check_max_megapixels

BODIES = "bodies"


class EngineRuntime(str, Enum):
    """Library that engines are built for."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def build(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A shipped model's name, or a file that `vmkla export` wrote."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .plan file to write.")],
    runtime: Annotated[
        EngineRuntime, typer.Option("--runtime", help="Library that will run the engine.")
    ] = EngineRuntime.tensorrt,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="MIN,OPT,MAX|N", help="Frames at once; default: as exported, else 1."
        ),
    ] = None,
    workspace: Annotated[
        float | None, typer.Option("--workspace", metavar="GIB", help="Largest scratch memory on the GPU.")
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option("--timing-cache", metavar="FILE", help="File of kernel timings to read and update."),
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option("--optimization-level", metavar="0-5", help="Default: the library's.")
    ] = None,
    target_sm: Annotated[
        str | None,
        typer.Option(
            "--target-sm",
            metavar="86,89",
            help="For tensorrt-rtx: GPUs to build for; default: this machine's; without one, all known ones.",
        ),
    ] = None,
    plugin: Annotated[
        str | None,
        typer.Option(
            "--plugin",
            metavar=f"FILE|{BODIES}",
            help=f"Of tensorrt: another plugin library; {BODIES}: none, the file's function bodies (slow).",
        ),
    ] = None,
    frames: CheckFrames = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    skip_gates: Annotated[
        bool, typer.Option("--skip-gates", help="Skip the checks; the engine is marked unverified.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build an engine. A GPU that can run it compares it with ONNX Runtime before it is written."""
    from vmkla.engines.tensorrt.build.builder import BuildRequest, build_engine
    from vmkla.engines.tensorrt.manifest import Profile, manifest_path

    check_max_megapixels(max_megapixels)
    batches = None if profile is None else Profile(*_parse_profile(profile))
    request = BuildRequest(
        model=model,
        output=output,
        runtime=runtime.value,
        profile=batches,
        workspace_bytes=None if workspace is None else _bytes_of(workspace),
        timing_cache=timing_cache,
        optimization_level=optimization_level,
        target_sms=None if target_sm is None else _parse_targets(target_sm),
        plugin=None if plugin in (None, BODIES) else Path(plugin),
        expand_bodies=plugin == BODIES,
        skip_gates=skip_gates,
        frames=frames,
        max_megapixels=max_megapixels,
    )
    with progress_bar("building", "steps", quiet=quiet) as bar:
        report = build_engine(request, bar, lambda line: say(line, quiet=quiet))
    if json:
        print_json(report.to_dict())
        return
    manifest = report.manifest
    print_line(
        f"engine: {report.path} ({manifest.engine_bytes / 1e6:.1f} MB), built in {report.seconds:.1f} s"
    )
    print_line(f"manifest: {manifest_path(report.path)}")
    if report.engine_layers is not None:
        before = sum(report.layers.values())
        print_line(f"layers: {before} before the build, {len(report.engine_layers)} in the engine")
    for line in report.warnings:
        say(f"{manifest.runtime} warns: {line}", quiet=quiet)
    reason = manifest.unverified_because
    print_line("check: passed" if reason is None else f"check: the engine is unverified: {reason}")


def _bytes_of(gib: float) -> int:
    if not math.isfinite(gib):
        raise UsageError(f"--workspace is {gib}, expected a number of GiB", hint="For instance: 0.5")
    return int(gib * 2**30)


def _parse_profile(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) in (1, 3) and all(is_number(part) for part in parts):
        numbers = [int(part) for part in parts]
        return numbers[0], numbers[len(numbers) // 2], numbers[-1]
    raise UsageError(f"--profile is {text!r}, expected MIN,OPT,MAX or one number of frames")


def _parse_targets(text: str) -> tuple[int, ...]:
    parts = [part.strip().lower().removeprefix("sm").lstrip("_") for part in text.split(",")]
    if not all(is_number(part) for part in parts):
        raise UsageError(f"--target-sm is {text!r}, expected numbers of GPUs", hint="For instance: 86,89")
    return tuple(int(part) for part in parts)
