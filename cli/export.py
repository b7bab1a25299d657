"""``vmkla export``: export weights as one verified ONNX file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, progress_bar, say
from vmkla.cli.options import (
    CheckFrames,
    Json,
    MaxMegapixels,
    MinFraction,
    Peak,
    Quiet,
    Threshold,
    is_number,
    parse_size,
)
from vmkla.errors import UsageError
from vmkla.limits import MAX_MEGAPIXELS, check_max_megapixels

if TYPE_CHECKING:
    from vmkla.export import ExportReport
    from vmkla.export.form import Batch


class Precision(str, Enum):
    """Precision of the graph's arithmetic."""

    fp32 = "fp32"
    fp16 = "fp16"


class Input(str, Enum):
    """Type of the graph's input."""

    uint8 = "uint8"
    float = "float"


def export(
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="NAME|FILE", help="Shipped weights, a .safetensors file or a preset."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .onnx file to write.")],
    imgsz: Annotated[
        str | None,
        typer.Option("--imgsz", metavar="H[,W]", help="Input size in pixels; default: as trained."),
    ] = None,
    batch: Annotated[
        str,
        typer.Option(
            "--batch",
            metavar="dynamic|N|MIN,OPT,MAX",
            help="Frames at once; three numbers: a dynamic batch, and the sizes that engines are built for.",
        ),
    ] = "dynamic",
    precision: Annotated[
        Precision, typer.Option("--precision", help="fp16 writes a half-precision graph, for engines.")
    ] = Precision.fp32,
    input_type: Annotated[
        Input,
        typer.Option("--input", help="float: planes of floats, 0 to 255, for pipelines that produce these."),
    ] = Input.uint8,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights of a preset.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights, for benchmarks; noted in the file.")
    ] = False,
    frames: CheckFrames = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    roi: Annotated[
        str | None,
        typer.Option("--roi", metavar="auto|none|X,Y,W,H", help="Field of view; default: as trained."),
    ] = None,
    threshold: Threshold = None,
    peak: Peak = None,
    min_fraction: MinFraction = None,
    half_storage: Annotated[
        bool,
        typer.Option("--half-storage", help="For fp32: store weights as float16: half the size, rounded."),
    ] = False,
    skip_gates: Annotated[
        bool, typer.Option("--skip-gates", help="Skip the checks; the file is marked unverified.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a network as one ONNX file. The file is compared with PyTorch before it is written."""
    from vmkla.export.request import ExportRequest, export_request
    from vmkla.segment.operating_point import PointOverrides
    from vmkla.segment.preprocess import parse_roi

    check_max_megapixels(max_megapixels)
    request = ExportRequest(
        model=model,
        output=output,
        size_hw=None if imgsz is None else parse_size(imgsz, flag="--imgsz"),
        weights=weights,
        random_weights=random_weights,
        batch=_parse_batch(batch),
        precision=precision.value,
        input_type="float32" if input_type is Input.float else "uint8",
        roi=None if roi is None else parse_roi(roi),
        point=PointOverrides(threshold, peak, min_fraction),
        frames=frames,
        max_megapixels=max_megapixels,
        skip_gates=skip_gates,
        half_storage=half_storage,
    )
    with progress_bar("exporting", "steps", quiet=quiet) as bar:
        report = export_request(request, lambda line: say(line, quiet=quiet), bar)
    if precision is Precision.fp16 and frames is None and not skip_gates:
        say(
            "warning: half precision was checked on rendered frames only; export again with --frames, "
            "a folder or video of real ones",
            quiet=quiet,
        )
    if json:
        print_json(report.to_dict())
        return
    _print_report(report)


def _print_report(report: ExportReport) -> None:
    from vmkla.export.checks import figures

    print_line(f"model: {report.path} ({report.size_bytes / 1e6:.1f} MB)")
    if report.half_range is not None:
        name, value = report.half_range.largest[0]
        wide = len(report.half_range.float32_scans)
        print_line(
            f"range: at most {value:.4g} in {report.half_range.tensors} half tensors ({name}), "
            f"allowed {report.half_range.limit:.4g}; scans in float32: {wide}"
        )
    size = report.metadata.preprocess
    for comparison, gate in zip(report.comparisons, report.gates, strict=True):
        print_line(f"{comparison.candidate}: {figures(comparison, gate.gates, size.height * size.width)}")
    if not report.metadata.verified:
        print_line("check: skipped; the file is marked unverified")
        return
    facts = report.metadata.gates
    print_line(f"check: passed over {facts['frames']} {'rendered' if facts['rendered'] else 'given'} frames")


def _parse_batch(text: str) -> Batch:
    from vmkla.export.form import check_batch

    if text == "dynamic":
        return "dynamic"
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(is_number(part) for part in parts):
        raise UsageError(f"--batch is {text!r}, expected dynamic, a number, or three as MIN,OPT,MAX")
    numbers = [int(part) for part in parts]
    batch: Batch = numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])
    try:
        check_batch(batch)
    except UsageError as error:
        raise UsageError(f"--batch: {error.message}") from error
    return batch
