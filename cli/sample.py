"""``vmkla sample``: render an endoscopic clip with an exact mask for each frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vmkla.cli.console import print_json, print_line, say
from vmkla.cli.options import Json, Quiet, parse_size
from vmkla.errors import UsageError
from vmkla.files import output_errors

FRAMES = 90


def sample(
    output: Annotated[Path, typer.Argument(metavar="OUT.mp4", help="The video to write.")],
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help=f"Length of the clip; default {FRAMES}.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="M", help="Length of a procedure with lesions that come and go."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the clip.")] = 0,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="DIR",
            help="Also write a mask for each frame; default with --minutes: masks beside the video.",
        ),
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
    height, width = parse_size(size, flag="--size")
    if minutes is not None:
        if frames is not None:
            raise UsageError("--frames and --minutes both state a length", hint="Leave one of them out.")
        _sample_procedure(
            output, minutes, seed, masks, (height, width), exist_ok=exist_ok, json=json, quiet=quiet
        )
        return
    from vmkla.video.media.clip import write_clip

    frames = FRAMES if frames is None else frames
    say(f"rendering {frames} frames of {width}x{height}", quiet=quiet)
    write_clip(output, frames, seed, height=height, width=width, masks_dir=masks)
    if json:
        print_json({"video": str(output), "masks": None if masks is None else str(masks), "frames": frames})
    else:
        print_line(f"video: {output}")
        if masks is not None:
            print_line(f"masks: {masks}")


def _sample_procedure(
    output: Path,
    minutes: float,
    seed: int,
    masks: Path | None,
    frame_hw: tuple[int, int],
    *,
    exist_ok: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Render a scripted procedure with its truth, and print its lesions."""
    from vmkla.video.media.clip_script import script_frames, write_procedure

    masks = output.parent / "masks" if masks is None else masks
    frames = script_frames(minutes)
    _clear(masks, exist_ok=exist_ok)
    height, width = frame_hw
    say(f"rendering {frames} frames of {width}x{height}", quiet=quiet)
    lesions = write_procedure(output, minutes, seed, masks, height=height, width=width)
    if json:
        found = [lesion.to_dict() for lesion in lesions]
        print_json({"video": str(output), "masks": str(masks), "frames": frames, "lesions": found})
        return
    print_line(f"video:   {output}")
    print_line(f"masks:   {masks}")
    print_line(f"lesions: {len(lesions)}")
    for lesion in lesions:
        times = [f"{first_s:.1f} to {last_s:.1f}" for first_s, last_s in lesion.to_dict()["spans_s"]]
        print_line(f"{lesion.number:7}  {lesion.frames} frames, s: {', '.join(times)}")


def _clear(masks: Path, *, exist_ok: bool) -> None:
    """Remove the masks of an earlier clip, which would be frames too many.

    Raises:
        UsageError: there are files, and they are not to be replaced, or are not masks of a clip.
    """
    found = sorted(masks.iterdir()) if masks.is_dir() else []
    if found and not exist_ok:
        raise UsageError(
            f"{masks} is not empty",
            hint="Add --exist-ok to replace its masks, or choose another: --masks DIR",
        )
    if others := [file.name for file in found if re.fullmatch(r"\d{6,}\.png", file.name) is None]:
        raise UsageError(
            f"{masks} holds {others[0]}, expected only masks such as 000000.png",
            hint="Choose another folder: --masks DIR",
        )
    with output_errors(masks):
        for file in found:
            file.unlink()
