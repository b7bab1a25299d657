"""``vmkla data``: check a set of labelled images, or pack it into one file."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, progress_bar, say
from vmkla.cli.help import command
from vmkla.cli.options import (
    Json,
    MaskOrientation,
    MaskValues,
    MaxMegapixels,
    Quiet,
    Root,
    SplitSeed,
    parse_size,
    read_rules,
)
from vmkla.errors import BadInputError, UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.data.check import CheckReport

SHOWN = 20
"""Number of problems of a kind that the table shows; --json has all."""

data = typer.Typer(help="Check or pack labelled images.", no_args_is_help=True, rich_markup_mode=None)

DataOption = Annotated[
    str, typer.Option("--data", help="A folder, DIR:LIST, a packed file, or a recipe: NAME or NAME=DIR.")
]


@command(data, "check", example="vmkla data check --data DIR")
def check(
    data: DataOption,
    root: Root = None,
    split_seed: SplitSeed = 0,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read every image and mask, and list all problems. Ends with status 3 when there are any."""
    from vmkla.data.check import check as run_check
    from vmkla.data.recipes import open_dataset

    problems: list[str] = []
    reading = read_rules(max_megapixels, mask_values, mask_orientation)
    data_set = open_dataset(
        data, root=root, seed=split_seed, split_validation=False, problems=problems, reading=reading
    )
    with progress_bar("checking", "images", quiet=quiet) as bar:
        report = run_check(data_set, problems=problems, on_progress=bar)
    if json:
        print_json({"data": data, "ok": not report.problems, **dataclasses.asdict(report)})
    else:
        _print_report(report)
    if report.problems:
        count = len(report.problems)
        raise BadInputError(
            f"{data} has {count} problem{'s' if count > 1 else ''} in {sum(report.images.values())} images"
        )


@command(data, "pack", example="vmkla data pack --data DIR --out mine.vmkpack --imgsz 256")
def pack(
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write, *.vmkpack.")],
    root: Root = None,
    split_seed: SplitSeed = 0,
    imgsz: Annotated[str, typer.Option("--imgsz", help="The network's input in pixels, H or H,W.")] = "256",
    roi: Annotated[str, typer.Option("--roi", help="auto cuts off black borders; none does not.")] = "none",
    margin: Annotated[
        float,
        typer.Option(
            "--margin",
            help="Factor by which training images are larger; 1 where augmentation moves no pixel.",
        ),
    ] = 1.25,
    quality: Annotated[int, typer.Option("--quality", help="Quality of the JPEG files, 1 to 100.")] = 95,
    lossless: Annotated[bool, typer.Option("--lossless", help="Store PNG: several times as large.")] = False,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Replace a file of that name.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pack a set into one file that a training machine reads fast, without OpenCV."""
    from vmkla.data.packing import PackOptions
    from vmkla.data.packing import pack as run_pack
    from vmkla.data.recipes import open_dataset

    size_hw = parse_size(imgsz, flag="--imgsz")
    options = PackOptions(size_hw, roi, margin, None if lossless else quality)
    if out.exists() and not exist_ok:
        raise UsageError(
            f"{out} exists already", hint="Add --exist-ok to replace it, or choose another name."
        )
    reading = read_rules(max_megapixels, mask_values, mask_orientation)
    data_set = open_dataset(data, root=root, seed=split_seed, reading=reading)
    with progress_bar("packing", "images", quiet=quiet) as bar:
        report = run_pack(data_set, out, options, seed=split_seed, on_progress=bar)
    if json:
        print_json(dataclasses.asdict(report))
        return
    for part, count in report.images.items():
        print_line(f"{part + ':':<24}{count:>8} images")
    print_line(f"{report.path}: {report.size_bytes / 1e6:.1f} MB, sha256 {report.sha256}")
    size = "x".join(map(str, size_hw))
    say(f"train on it with: vmkla train --data {shlex.quote(str(report.path))} --imgsz {size}", quiet=quiet)


def _print_report(report: CheckReport) -> None:
    from vmkla.data.check import KINDS

    print_line(f"{'set':<24}{'images':>8}{'empty masks':>14}")
    for part, count in report.images.items():
        print_line(f"{part:<24}{count:>8}{report.without_foreground[part]:>14}")
    print_line()
    for kind, title in KINDS.items():
        found = [problem.message for problem in report.problems if problem.kind == kind]
        print_line(f"{title:<48}{len(found) or 'none':>8}")
        for message in found[:SHOWN]:
            print_line(f"  {message}")
        if len(found) > SHOWN:
            print_line(f"  and {len(found) - SHOWN} more; --json lists all")
