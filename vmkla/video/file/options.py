"""Options of a run in file mode, and its progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vmkla.errors import UsageError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.procedures.annotations.formats import check_formats
from vmkla.segment.operating_point import OWN_POINT, PointOverrides
from vmkla.segment.overlay import Label, OverlayStyle
from vmkla.segment.preprocess import Rect
from vmkla.video.hiding import check_hide
from vmkla.video.media.interlace import Deinterlace
from vmkla.video.media.options import ReadOptions
from vmkla.video.option_checks import check_drawing, check_roi

ImageFormat = Literal["png", "jpg"]


@dataclass(frozen=True)
class SegmentOptions:
    """Options of one run in file mode.

    Attributes:
        out_dir: folder of all outputs; created when missing.
        point: values of the operating point in the place of the model's own. A threshold only for models
            with one output channel.
        overlay: how findings are drawn.
        alpha: opacity of what is drawn, 0 to 1; None uses the style's default.
        label: text beside each region.
        save_masks: write a mask of the findings for each segmented frame.
        save_probability: write the network's own output for each segmented frame, at its own size, without
            the operating point.
        export: annotation formats to write the findings in: ``"coco"``, ``"cvat"``, ``"yolo"``.
        export_frames: also write each segmented frame of a video as a PNG file, under the name that the
            formats give it.
        stride: segment every Nth frame, at least 1, starting with the first. A video's other frames are
            written without an overlay; a folder's other images are skipped.
        roi: field of view: ``"auto"``, ``"none"`` or a ``Rect``; None uses the model's own.
        image_format: format of the overlays of images, ``"png"`` or ``"jpg"`` (quality 95). Masks are PNG
            files.
        max_megapixels: size of the largest image or frame that is decoded, megapixels.
        resume: continue an interrupted run over images in the same ``out_dir``. Of a video, keep the answers
            of the network there until the end, and use those that an interrupted run has kept.
        exist_ok: replace the outputs of an earlier run in ``out_dir``.
        anonymous: name every source and image by the first digits of its sha256; see ``name_source``.
        track: number of the video track, from 1; None reads the largest.
        hide: rectangles to fill with black in everything that shows frames: overlays, the contact sheet,
            stills and exported frames; in pixels of the first frame. The network sees what is under them.
        pause_on_poor: draw no markers on frames and images whose picture is poor; rows, masks and
            annotations keep the findings.
        deinterlace: ``"auto"`` detects whether a video is interlaced; ``"yes"`` and ``"no"`` decide it.
    Raises:
        UsageError: a value is out of range.
    """

    out_dir: Path
    point: PointOverrides = OWN_POINT
    overlay: OverlayStyle = "contour"
    alpha: float | None = None
    label: Label = "none"
    save_masks: bool = False
    save_probability: bool = False
    export: tuple[str, ...] = ()
    export_frames: bool = False
    stride: int = 1
    roi: str | Rect | None = None
    image_format: ImageFormat = "png"
    max_megapixels: float = MAX_MEGAPIXELS
    resume: bool = False
    exist_ok: bool = False
    anonymous: bool = False
    track: int | None = None
    deinterlace: Deinterlace = "auto"
    hide: tuple[Rect, ...] = ()
    pause_on_poor: bool = False

    def __post_init__(self) -> None:
        check_roi(self.roi)
        check_drawing(self.overlay, self.alpha, self.label)
        check_formats(self.export)
        check_hide(self.hide)
        if self.export_frames and not self.export:
            raise UsageError(
                "frames are exported beside annotations, and no format was given",
                hint="For instance: --export coco --export-frames",
            )
        if self.stride < 1:
            raise UsageError(f"stride is {self.stride}, expected at least 1 (every frame)")
        ReadOptions(self.track, self.deinterlace, self.max_megapixels)  # raises UsageError
        if self.image_format not in get_args(ImageFormat):
            raise UsageError(
                f"the image format {self.image_format!r} is not known",
                hint=f"Choose one of: {', '.join(get_args(ImageFormat))}",
            )

    @property
    def reading(self) -> ReadOptions:
        """Options of reading the source."""
        return ReadOptions(self.track, self.deinterlace, self.max_megapixels)


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        done: number of frames whose outputs are written.
        total: number of expected frames, None when unknown; a damaged file may end earlier.
        findings: number of frames with a finding so far.
    """

    done: int
    total: int | None
    findings: int
