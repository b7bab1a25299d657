"""``vmkla export``: weights to one verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vmkla.cli.console import print_json, say
from vmkla.cli.options import Json, Quiet, parse_size
from vmkla.errors import UsageError


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
    batch: Annotated[str, typer.Option("--batch", metavar="dynamic|N", help="Frames at once.")] = "dynamic",
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights of a preset.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights, for benchmarks; the file says so.")
    ] = False,
    frames: Annotated[
        str | None,
        typer.Option("--frames", metavar="WHAT", help="Video or images to check with; default: rendered."),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option("--roi", metavar="auto|none|X,Y,W,H", help="Field of view; default: as trained."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Kept in the file; default: that of the weights.")
    ] = None,
    half_storage: Annotated[
        bool, typer.Option("--half-storage", help="Store float16 weights: half the size, rounded.")
    ] = False,
    skip_gates: Annotated[
        bool, typer.Option("--skip-gates", help="Do not check; the file is marked unverified.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a network as one ONNX file. It is compared with PyTorch before it gets its name."""
    from vmkla.export.request import ExportRequest, export_request
    from vmkla.preprocess import parse_roi

    request = ExportRequest(
        model=model,
        output=output,
        size_hw=None if imgsz is None else parse_size(imgsz, flag="--imgsz"),
        weights=weights,
        random_weights=random_weights,
        batch=_parse_batch(batch),
        roi=None if roi is None else parse_roi(roi),
        threshold=threshold,
        frames=frames,
        skip_gates=skip_gates,
        half_storage=half_storage,
    )
    report = export_request(request, lambda line: say(line, quiet=quiet))
    if json:
        print_json(report.to_dict())
        return
    print(f"model: {report.path} ({report.size_bytes / 1e6:.1f} MB)")
    for comparison in report.comparisons:
        print(
            f"{comparison.candidate}: probability error max {comparison.max_error:.2e} "
            f"mean {comparison.mean_error:.2e}, mask Dice mean {comparison.mean_dice:.4f} "
            f"worst {comparison.worst_dice:.4f}"
        )
    print("check: passed" if report.metadata.verified else "check: skipped; the file is marked unverified")


def _parse_batch(text: str) -> Literal["dynamic"] | int:
    if text == "dynamic":
        return "dynamic"
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"--batch is {text!r}, expected dynamic or a number of at least 1")
