"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.errors import UsageError
from vmkla.folders import latest_folder, new_folder

if TYPE_CHECKING:
    from vmkla.data.rules import ReadRules
    from vmkla.segment.preprocess import Rect

LONGEST_NUMBER = 100
"""Largest number of digits of a number."""


class Overlay(str, Enum):
    """Style of the overlay."""

    contour = "contour"
    fill = "fill"
    box = "box"
    none = "none"


class Label(str, Enum):
    """What is written beside each finding."""

    none = "none"
    probability = "probability"
    lesion = "lesion"


class Deinterlace(str, Enum):
    """Treatment of interlaced frames."""

    auto = "auto"
    no = "no"
    yes = "yes"


class ImageFormat(str, Enum):
    """Format of the overlays of images."""

    png = "png"
    jpg = "jpg"


class MaskLies(str, Enum):
    """Orientation of masks whose images have an EXIF orientation."""

    stored = "stored"
    upright = "upright"


class Kernels(str, Enum):
    """Implementation of the two custom ops inside ONNX Runtime."""

    native = "native"
    bodies = "bodies"


class Runtime(str, Enum):
    """Library that runs the network."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    torch = "torch"


Anonymous = Annotated[
    bool,
    typer.Option("--anonymous", help="Name every source and image by 12 digits of its sha256."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads; default: one per core, within the quota."),
]
RuntimeOption = Annotated[Runtime, typer.Option("--runtime", help="Library that runs the network.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda:0; default: the runtime's own.")]

Root = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Folder of a recipe given by its name.")
]
SplitSeed = Annotated[int, typer.Option("--split-seed", help="Seed of the splits that the data lack.")]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Probability from which a pixel counts; default: the model's."),
]
Peak = Annotated[
    float | None,
    typer.Option("--peak", help="Probability that a finding reaches at its highest; default: the model's."),
]
MinFraction = Annotated[
    float | None,
    typer.Option(
        "--min-fraction",
        help="Smallest area of a finding, a share of the field of view; default: the model's.",
    ),
]
GatesFile = Annotated[
    Path | None, typer.Option("--gates", metavar="FILE", help="JSON or TOML file with tighter limits.")
]
CheckFrames = Annotated[
    str | None,
    typer.Option("--frames", metavar="WHAT", help="Video or images to check with; default: rendered."),
]
MaskValues = Annotated[
    str | None,
    typer.Option(
        "--mask-values",
        metavar="V,V",
        help="Values of a lesion in mask files, if not only 255: 100,255 or 128-255 or ff0000.",
    ),
]
MaskOrientation = Annotated[
    MaskLies | None,
    typer.Option(
        "--mask-orientation",
        help="Orientation of masks whose images have an EXIF orientation, if their sizes do not show it.",
    ),
]
MaxMegapixels = Annotated[
    float,
    typer.Option("--max-megapixels", metavar="N", help="Larger images and frames are not decoded."),
]
Plugin = Annotated[
    Path | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Plugin library that a TensorRT engine was built with; default: the installed one.",
    ),
]

Model = Annotated[
    str, typer.Option("--model", metavar="NAME|FILE", help="A shipped model, an .onnx file or a .plan.")
]
OverlayOption = Annotated[Overlay, typer.Option("--overlay", help="How findings are drawn.")]
Alpha = Annotated[
    float | None, typer.Option("--alpha", help="Opacity of the overlay, 0 to 1; default: the style's.")
]
LabelOption = Annotated[Label, typer.Option("--label", help="Text beside each finding.")]
SaveMasks = Annotated[bool, typer.Option("--save-masks", help="Also write masks/.")]
SaveProbability = Annotated[
    bool, typer.Option("--save-probability", help="Also write probability/, the network's own output.")
]
Export = Annotated[
    str | None,
    typer.Option(
        "--export",
        metavar="FORMAT,...",
        help="Also write export/, the findings for annotation tools: coco, cvat, yolo.",
    ),
]
ExportFrames = Annotated[
    bool,
    typer.Option("--export-frames", help="With --export: also write each segmented frame of a video."),
]
Stride = Annotated[int, typer.Option("--stride", help="Segment only every Nth frame.")]
Roi = Annotated[
    str | None,
    typer.Option(
        "--roi",
        metavar="auto|none|X,Y,W,H",
        help="Field of view: without black border, whole frame, or a rectangle; default: the model's.",
    ),
]
DeinterlaceOption = Annotated[
    Deinterlace,
    typer.Option("--deinterlace", help="Interlaced video: detect it, leave it as it is, or interpolate it."),
]
Track = Annotated[
    int | None,
    typer.Option("--track", metavar="N", help="Number of the video track; default: the largest."),
]
Hide = Annotated[
    list[str] | None,
    typer.Option(
        "--hide",
        metavar="X,Y,W,H",
        help="A rectangle to black out in everything that shows frames, with --live in recordings and "
        "stills; may be repeated.",
    ),
]
PauseOnPoor = Annotated[
    bool,
    typer.Option("--pause-on-poor", help="Draw no markers where the picture is poor, such as blurred."),
]
ImageFormatOption = Annotated[
    ImageFormat,
    typer.Option("--image-format", help="Format of the overlays of images; jpg has quality 95."),
]


def is_gpu(device: str | None) -> bool:
    """Return whether ``--device`` names a GPU; the runner reports a name that is neither."""
    return device is not None and device.startswith("cuda")


def is_number(text: str) -> bool:
    """Return whether a text consists of digits, few enough for ``int``."""
    return text.strip().isdecimal() and len(text) <= LONGEST_NUMBER


def parse_size(text: str, *, flag: str) -> tuple[int, int]:
    """``"256"``, ``"192,256"`` or ``"192x256"`` -> (height, width) in pixels.

    Raises:
        UsageError: the text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:[,x](\d+))?", text.strip())
    if match is None or 0 in (int(match[1]), int(match[2] or match[1])):
        raise UsageError(f"{flag} is {text!r}, expected H or H,W in pixels", hint=f"For instance: {flag} 256")
    return int(match[1]), int(match[2] or match[1])


def parse_hide(texts: Iterable[str]) -> tuple[Rect, ...]:
    """Read the values of ``--hide``, ``X,Y,W,H`` in pixels each.

    Raises:
        UsageError: one is not four whole numbers, or has no area.
    """
    from vmkla.segment.preprocess import Rect
    from vmkla.video.hiding import HIDE_EXAMPLE, check_hide

    rects = []
    for text in texts:
        try:
            rects.append(Rect(*(int(part) for part in text.split(","))))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--hide is {text!r}, expected X,Y,W,H in pixels of the frame", hint=HIDE_EXAMPLE
            ) from error
    check_hide(rects)
    return tuple(rects)


def read_rules(
    max_megapixels: float, mask_values: str | None = None, mask_orientation: MaskLies | None = None
) -> ReadRules:
    """Turn the flags on reading files into ``ReadRules``.

    Raises:
        UsageError: a value makes no sense.
    """
    from vmkla.data import rules

    return rules.ReadRules(
        max_megapixels,
        None if mask_values is None else rules.MaskValues.parse(mask_values),
        None if mask_orientation is None else mask_orientation.value,
    )


@contextlib.contextmanager
def run_folder(out: Path | None, default: Path, *, again: bool, private: bool = True) -> Iterator[Path]:
    """Provide the folder that a run writes to.

    Args:
        out: the value of ``--out``.
        default: without it, a folder of this name or the same with a number.
        again: use the newest of these, to continue or replace it; else a new one is made at once,
            so that no other run takes it, and removed when the run leaves it empty.
        private: see ``vmkla.files.make_folder``.
    """
    if out is not None or again:
        yield out or latest_folder(default)
        return
    made = new_folder(default, private=private)
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            made.rmdir()
