"""``vmkla explain``: draw heat maps of two decoder blocks side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vmkla.cli.console import print_json, print_line, progress_bar
from vmkla.cli.options import Anonymous, Json, MaxMegapixels, Quiet, run_folder
from vmkla.errors import BadInputError, DegradedError, UsageError
from vmkla.limits import MAX_MEGAPIXELS, check_max_megapixels


def explain(
    source: Annotated[
        str, typer.Option("--source", metavar="WHAT", help="An image, a folder of images or a pattern.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|FILE", help="A shipped model or a .safetensors file.")
    ] = "nano",
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="Second network, for instance of another block."),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(
            "--block",
            help="STAGE or STAGE.BLOCK, stage 0 the deepest, 3 the shallowest. Give one or two; default: 2 "
            "and 3, with --against 3 of both.",
        ),
    ] = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda:0.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/explain/MODEL, numbered.")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Write into a folder that is not empty.")
    ] = False,
    anonymous: Anonymous = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where decoder blocks look (Grad-CAM), side by side. Writes a PNG per image."""
    from vmkla import weights
    from vmkla.explain import BlockName, Panel
    from vmkla.explain import explain as run_explain
    from vmkla.names import given_names
    from vmkla.video.file.outputs import OVERLAY_FOLDER
    from vmkla.video.media.naming import name_source
    from vmkla.video.media.options import ReadOptions
    from vmkla.video.media.sources import ImageSource, open_source

    names = block or (["3"] if against else ["2", "3"])
    if len(names) > 2:
        raise UsageError(f"{len(names)} blocks are given, expected one or two")
    blocks = [BlockName.parse(name) for name in names]
    first = weights.resolve(model, ".safetensors")
    files = [first, against] if against else [first] * len(blocks)
    check_max_megapixels(max_megapixels)
    with run_folder(out, Path("runs/explain") / first.stem, again=exist_ok) as folder:
        with given_names([source]).in_errors(anonymous):
            found = open_source(
                source, ReadOptions(max_megapixels=max_megapixels), exclude=[folder / OVERLAY_FOLDER]
            )
            if not isinstance(found, ImageSource):
                raise BadInputError(
                    f"{source} is a video, expected images", hint="Write its frames as images first."
                )
            named = name_source(found, anonymous=anonymous)
        images = named.source
        assert isinstance(images, ImageSource)
        panels = [
            Panel(file, blocks[min(number, len(blocks) - 1)], device=device)
            for number, file in enumerate(files)
        ]
        with named.names.in_errors(anonymous), progress_bar("explaining", "images", quiet=quiet) as bar:
            done = run_explain(panels, images, folder, bar, exist_ok=exist_ok)
    if json:
        print_json({"out_dir": str(folder), "images": [dataclasses.asdict(each) for each in done]})
    else:
        print_line(f"pictures: {len(done)} in {folder / OVERLAY_FOLDER}")
    if images.problems:
        listed = "; ".join(map(str, images.problems))
        raise DegradedError(
            f"{len(images.problems)} of {images.named} images could not be read: {named.names.hide(listed)}"
        )
