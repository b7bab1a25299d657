"""``vmkla sample``: render an endoscopic clip with an exact mask for each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmkla.cli.console import print_json, print_line, say
from vmkla.cli.options import Json, Quiet, parse_size
from vmkla.errors import UsageError


def sample(
    output: Annotated[Path, typer.Argument(metavar="OUT.mp4", help="The video to write.")],
    frames: Annotated[int, typer.Option("--frames", min=1, help="Length of the clip.")] = 90,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the clip.")] = 0,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Also write a mask for each frame.")
    ] = None,
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="Frame size in pixels.")] = "360x480",
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Replace an earlier clip.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Render an endoscopic clip for trials. It is not evidence of accuracy."""
    if output.exists() and not exist_ok:
        raise UsageError(
            f"{output} exists already", hint="Add --exist-ok to replace it, or choose another name."
        )
    from vmkla.video.media.clip import write_clip

    height, width = parse_size(size, flag="--size")
    say(f"rendering {frames} frames of {width}x{height}", quiet=quiet)
    write_clip(output, frames, seed, height=height, width=width, masks_dir=masks)
    if json:
        print_json({"video": str(output), "masks": None if masks is None else str(masks), "frames": frames})
    else:
        print_line(f"video: {output}")
        if masks is not None:
            print_line(f"masks: {masks}")
