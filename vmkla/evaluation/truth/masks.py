"""Masks beside frames: in each mask every lesion has a value of its own, its identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.evaluation.truth.records import (
    AnnotatedRecording,
    FrameTruth,
    Mark,
    Size,
    TruthRules,
    check_consecutive,
    check_frames,
    frame_numbers,
    stem_of,
    videos_in,
)
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.segment.preprocess import Rect
from vmkla.video.media.headers import JPEG, image_header
from vmkla.video.media.images import decode_unchanged, read_bytes

FRAMES, MASKS = ("frames", "images", "image"), ("masks", "mask", "instances")
"""Names of the two folders of a recording."""
_MOST_LESIONS = 32


@dataclass(frozen=True)
class MaskTruth:
    """The mask of one frame; 0 is background.

    Attributes:
        path: the file.
        lesion: the only lesion that it shows, whose pixels are brighter than half; None where each grey
            value, or each colour of a coloured file, is a lesion of its own.
        max_megapixels: larger masks are not decoded.
    """

    path: Path
    lesion: str | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    def marks(self, frame_hw: Size) -> tuple[Mark, ...]:
        """Return the visible lesions; see ``FrameTruth``."""
        data = read_bytes(self.path, max_megapixels=self.max_megapixels)
        header = image_header(data, name=str(self.path), max_megapixels=self.max_megapixels)
        values = decode_unchanged(data, header, name=str(self.path))
        if values.shape[:2] != frame_hw:
            raise BadInputError(
                f"{self.path}: the mask is {values.shape[:2]} and its frame {frame_hw} (height, width); they "
                "must be equal"
            )
        if values.dtype != np.uint8 and (values.dtype != np.uint16 or values.ndim == 3):
            raise BadInputError(f"{self.path}: expected grey of 8 or 16 bits, or colours of 8 bits")
        if values.ndim == 3 and values.shape[2] != 3:
            raise BadInputError(f"{self.path}: the mask has an alpha channel, whose meaning is unknown")
        if self.lesion is not None:
            bright = _bright(values)
            return (mark_of(self.lesion, bright),) if bright.any() else ()
        if data.startswith(JPEG):
            raise BadInputError(
                f"{self.path} is a JPEG, which changes values, and each value is a lesion of its own",
                hint="Write masks without loss, such as PNG.",
            )
        codes = values.astype(np.int64)
        if values.ndim == 3:
            codes = codes[..., 0] << 16 | codes[..., 1] << 8 | codes[..., 2]
        present = [int(code) for code in np.unique(codes) if code]
        if len(present) > _MOST_LESIONS:
            raise BadInputError(
                f"{self.path}: the mask holds {len(present)} values beside 0, expected one for each lesion",
                hint="Write masks without loss, such as PNG, and without smoothing.",
            )
        name = "{}" if values.ndim == 2 else "{:06x}"
        return tuple(mark_of(name.format(code), codes == code) for code in present)


def find_recordings(root: Path, rules: TruthRules) -> list[AnnotatedRecording]:
    """Read the recordings of a folder that is one, or holds some: ``frames`` or a video, and ``masks``.

    Frames are numbered by their names; a video's masks follow its frames in order.

    Raises:
        BadInputError: a frame has no mask, a mask no frame, or the numbers of the frames do not rise.
        UsageError: frames a second are missing, or given for a video.
    """
    folders = [root, *sorted(child for child in root.iterdir() if child.is_dir())]
    found = [(folder, masks) for folder in folders if (masks := _inside(folder, MASKS)) is not None]
    return [
        _recording(folder, masks, rules)
        for folder, masks in found
        if _inside(folder, FRAMES) is not None or videos_in(folder)
    ]


def _recording(folder: Path, masks: Path, rules: TruthRules) -> AnnotatedRecording:
    name, frames = folder.resolve().name, _inside(folder, FRAMES)
    if frames is None:
        items = rules.images(masks).items
        check_consecutive(str(masks), [stem_of(item.name) for item in items])
        of_video = {at: MaskTruth(item.path, None, rules.max_megapixels) for at, item in enumerate(items)}
        return AnnotatedRecording(name, name, rules.video(folder), of_video, complete=True)
    source = rules.images(frames)
    stems = [stem_of(item.name) for item in source.items]
    rate = rules.rate(name)
    numbers = frame_numbers(str(frames), stems)
    times_s = tuple((number - numbers[0]) / rate for number in numbers)
    truth = masks_of(stems, frames, masks, rules)
    return AnnotatedRecording(name, name, source, truth, times_s, 1 / rate)


def masks_of(
    stems: list[str], frames: Path, masks: Path, rules: TruthRules, lesion: str | None = None
) -> dict[int, FrameTruth]:
    """Return the mask of every frame by its index.

    Args:
        stems: names of the frames without suffix, in order.
        frames, masks: the two folders.
        rules: limits.
        lesion: see ``MaskTruth``.
    Raises:
        BadInputError: a frame has no mask, or a mask no frame.
    """
    items = rules.images(masks).items
    files = {stem_of(item.name): item.path for item in items}
    if len(files) < len(items) or len(set(stems)) < len(stems):
        raise BadInputError(f"{frames} and {masks}: two files of one folder differ in their suffix only")
    check_frames(str(frames), files, stems, every=True)
    return {index: MaskTruth(files[stem], lesion, rules.max_megapixels) for index, stem in enumerate(stems)}


def _inside(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _bright(values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    bright = values > np.iinfo(values.dtype).max // 2
    return np.asarray(bright if bright.ndim == 2 else bright.any(axis=2))


def mark_of(lesion: str, pixels: npt.NDArray[np.bool_]) -> Mark:
    """Return a lesion of at least one pixel, (H, W)."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = Rect(left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)
    return Mark(lesion, box, pixels[box.y : box.y + box.h, box.x : box.x + box.w])
