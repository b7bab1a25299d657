"""``vmkla calibrate``: quantize a float32 file to a verified INT8 file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, progress_bar, say
from vmkla.cli.options import (
    Anonymous,
    GatesFile,
    Json,
    MaskOrientation,
    MaskValues,
    MaxMegapixels,
    Quiet,
    Threads,
    read_rules,
)
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.calibration.calibrate import CalibrateReport


class CalibrationTarget(str, Enum):
    """Kind of machine that will run the INT8 file."""

    cpu = "cpu"
    cpu_vnni = "cpu-vnni"
    tensorrt = "tensorrt"


class CalibrationMethod(str, Enum):
    """Rule by which a range follows from the measured values."""

    min_max = "min-max"
    percentile = "percentile"
    entropy = "entropy"


def calibrate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A shipped model's name, or a float32 file of `vmkla export`."),
    ],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="WHAT", help="Video, images or labelled folder; may be repeated."),
    ],
    target: Annotated[
        CalibrationTarget,
        typer.Option("--target", help="Kind of machine: any CPU, a CPU with VNNI, or TensorRT."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .onnx file to write.")],
    half: Annotated[
        Path | None,
        typer.Option("--half", metavar="FILE", help="For tensorrt: the fp16 file; default: MODEL.fp16.onnx."),
    ] = None,
    method: Annotated[
        CalibrationMethod,
        typer.Option("--method", help="Rule by which a range follows from the measured values."),
    ] = CalibrationMethod.percentile,
    percentile: Annotated[
        float | None,
        typer.Option("--percentile", metavar="P", help="Percentile of magnitudes; default 99.999."),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option("--frames", metavar="N", min=1, help="Largest number of frames; default 128."),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check", metavar="WHAT", help="Data to check with; default: a part of --data that is held out."
        ),
    ] = None,
    check_frames: Annotated[
        int | None,
        typer.Option("--check-frames", metavar="N", min=1, help="Largest number of frames; default 256."),
    ] = None,
    max_dice_drop: Annotated[
        float | None,
        typer.Option("--max-dice-drop", metavar="F", help="Largest loss of mean Dice; default 0.01."),
    ] = None,
    gates: GatesFile = None,
    allow_few: Annotated[
        bool, typer.Option("--allow-few", help="Accept fewer than 32 distinct frames.")
    ] = False,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity/--no-sensitivity",
            help="Measure each group of layers by itself even when all may be quantized.",
        ),
    ] = True,
    skip_gates: Annotated[
        bool, typer.Option("--skip-gates", help="Skip the checks; the file is marked unverified.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of cache, table, plot and report; default runs/calibrate/NAME.",
        ),
    ] = None,
    anonymous: Anonymous = False,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize a network to INT8. The file is compared with the float32 file before it is written."""
    from vmkla.calibration.calibrate import calibrate
    from vmkla.calibration.ranges import PERCENTILE
    from vmkla.calibration.request import CHECK_FRAMES, FRAMES, CalibrateRequest

    request = CalibrateRequest(
        model=model,
        data=tuple(data),
        target=target.value,
        output=output,
        out=out or Path("runs/calibrate") / output.stem,
        half=half,
        method=method.value,
        percentile=PERCENTILE if percentile is None else percentile,
        frames=frames or FRAMES,
        check=tuple(check or ()),
        check_frames=check_frames or CHECK_FRAMES,
        max_dice_drop=max_dice_drop,
        gates=gates,
        allow_few=allow_few,
        reading=read_rules(max_megapixels, mask_values, mask_orientation),
        measure_sensitivity=sensitivity,
        skip_gates=skip_gates,
        threads=threads,
        anonymous=anonymous,
    )
    with progress_bar("calibrating", "steps", quiet=quiet) as bar:
        report = calibrate(request, lambda line: say(line, quiet=quiet), bar)
    if json:
        print_json(report.to_dict())
        return
    _print_report(report)


def _print_report(report: CalibrateReport) -> None:
    facts = report.calibration
    share = report.size_bytes / report.source_bytes
    print_line(f"model: {report.path} ({report.size_bytes / 1e6:.1f} MB, {share:.2f} of the float32 file)")
    print_line(f"layers: {facts['layers']} of {facts['of_layers']} in int8")
    for back in facts["put_back"]:
        print_line(f"in higher precision: {back['group']}, because of {'; '.join(back['because'])}")
    if report.milliseconds is not None:
        before, after = report.milliseconds["before"], report.milliseconds["after"]
        print_line(
            f"one frame here: {after:.1f} ms, before {before:.1f} ms ({before / after:.2f} times as fast)"
        )
    print_line(f"table and report: {report.folder}")
    print_line("check: passed" if report.verified else "check: skipped; the file is marked unverified")
