"""Keep the best still of each lesion of a procedure as files: a crop, clean and marked."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.bounded import MalformedError, parse_json
from vmkla.files import make_folder, output_errors, read_regular, unfinished_path, write_whole
from vmkla.plain_values import from_plain
from vmkla.procedures.files import STILLS, still_names
from vmkla.procedures.quality import SmallView, still_score
from vmkla.segment.findings import Findings, Region
from vmkla.segment.overlay import draw
from vmkla.segment.preprocess import Rect, union

STILL_MAX_BYTES = 40_000
"""Largest size of a still's file."""
STILL_SIDE_PX = 320
"""Longer side of a still, px; a crop is enlarged at most four times."""

_ENLARGED = 4.0
_MARGIN = 0.25
"""What a still shows around the lesion on each side, over the longer side of its box."""
_MARGIN_LEAST_PX = 16
_HELD = 64
"""Stills that wait in memory, of 0.4 MB each; a frame has at most 32 lesions with a number."""
_HELD_S = 5.0
"""Time after which a still is written, so that a power failure loses the latest ones only, seconds."""
_QUALITIES = (88, 75, 60, 40, 20)
_INDEX, _INDEX_MAX_BYTES, _LINE_MAX_BYTES = "index.jsonl", 64 << 20, 1 << 12
_NAME = re.compile(r"\d{4,}(\.marked)?\.jpg")

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Still:
    """The best still of a lesion.

    Attributes:
        number: number of the lesion whose name the files have.
        time_s: time of the frame, seconds.
        box: box around the lesion's regions, px of the frame.
        score: what ``still_score`` returned, 0 to 1.
    """

    number: int
    time_s: float
    box: Rect
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the names of the files relative to the run's folder."""
        image, marked = still_names(self.number)
        return {
            "pts_s": self.time_s,
            "box": list(self.box),
            "score": round(self.score, 6),
            "image": image,
            "marked": marked,
        }


@dataclass(frozen=True, eq=False)
class _Crop:
    """A still in memory: (h, w, 3) pixels, and the lesion in them as one region."""

    rgb: Image
    findings: Findings


class Stills:
    """The best still of each lesion so far; memory does not grow with their pixels.

    The stills of the latest lesions are in memory, the others in files. A still that is written and
    surpassed later is written again.

    Args:
        folder: folder of the run. Stills are in a hidden folder until ``finish``, which gives ``lesions/``.
        resumable: write an index beside the files, from which another process can ``resume``.
    """

    def __init__(self, folder: Path, *, resumable: bool = False) -> None:
        self._resumable = resumable
        self._folder, self._partial = folder, unfinished_path(folder / STILLS)
        self._best: dict[int, Still] = {}
        self._crops: dict[int, _Crop] = {}  # those that are not in files yet
        self._final: dict[int, Still] = {}  # those whose files have their names

    def resume(self, origin_s: float = 0.0, among: Collection[int] | None = None) -> None:
        """Continue with the stills that another process has written into the folder.

        Args:
            origin_s: subtracted from their times, seconds.
            among: numbers of the lesions whose stills are kept; None keeps all.
        Raises:
            BadInputError: the index cannot be read. Damaged lines of it are left out.
        """
        path = self._partial / _INDEX
        if not path.is_file():
            return
        for line in read_regular(path, limit_bytes=_INDEX_MAX_BYTES).splitlines():
            try:
                stored: _Indexed = from_plain(_Indexed, parse_json(line, _LINE_MAX_BYTES), "still")
                if among is None or stored.number in among:
                    self._best[stored.number] = stored.still(origin_s)
            except (MalformedError, TypeError, KeyError):
                continue

    def offer(
        self,
        time_s: float,
        frame_rgb: Image,
        view: SmallView,
        findings: Findings,
        numbers: Sequence[int | None],
    ) -> None:
        """Keep the lesions of a frame that it shows better than the frames before.

        Args:
            time_s: time of the frame, seconds.
            frame_rgb: (H, W, 3) uint8, without markers; not kept.
            view: the small copy of its field of view.
            findings: its findings.
            numbers: lesion of each region, in their order.
        Raises:
            BadInputError: a file cannot be written.
        """
        regions_of: dict[int, list[Region]] = {}
        for number, region in zip(numbers, findings.regions, strict=True):
            if number is not None:
                regions_of.setdefault(number, []).append(region)
        for number, regions in regions_of.items():
            box = union([region.box for region in regions])
            assert box is not None  # a lesion that is listed has a region
            score = still_score(view, box)
            before = self._best.get(number)
            if before is None or score > before.score:
                self._best[number] = Still(number, time_s, box, score)
                self._crops.pop(number, None)  # the latest ones stand last
                self._crops[number] = _crop(frame_rgb, findings, regions, box)
        self.write_due(time_s)

    def write_due(self, time_s: float) -> None:
        """Write the stills that have been in memory for long, or are too many.

        Args:
            time_s: time now, on the clock of the frames, seconds.
        Raises:
            BadInputError: a file cannot be written.
        """
        spare = len(self._crops) - _HELD
        for place, number in enumerate(list(self._crops)):
            if place < spare or not 0 <= time_s - self._best[number].time_s <= _HELD_S:
                self._write(number)

    def flush(self) -> None:
        """Write all stills that are in memory.

        Raises:
            BadInputError: a file cannot be written.
        """
        for number in list(self._crops):
            self._write(number)

    def finish(self, joined: Mapping[int, int]) -> None:
        """Write all stills, and give the best one of each lesion its name in ``lesions/``.

        Args:
            joined: number of a lesion -> that of the earlier one that it was joined to.
        Raises:
            BadInputError: a file cannot be written.
        """
        self.flush()
        for still in sorted(self._best.values(), key=lambda each: each.score, reverse=True):
            final = joined.get(still.number, still.number)
            if final not in self._final:
                self._move(still, final)
        with output_errors(self._partial):
            if self._partial.is_dir():
                shutil.rmtree(self._partial)

    def of(self, number: int) -> Still | None:
        """Return the still of a lesion after ``finish``; None without one."""
        return self._final.get(number)

    def _move(self, still: Still, final: int) -> None:
        """Give the files of a still their final names."""
        for source, target in zip(still_names(still.number), still_names(final), strict=True):
            with output_errors(self._folder / target):
                make_folder(self._folder / STILLS)
                (self._partial / Path(source).name).replace(self._folder / target)
        self._final[final] = replace(still, number=final)

    def _write(self, number: int) -> None:
        crop = self._crops[number]
        marked = draw(crop.rgb, crop.findings)
        for name, image in zip(still_names(number), (crop.rgb, marked), strict=True):
            write_whole(self._partial / Path(name).name, encode_still(image), durable=False)
        if self._resumable:
            self._note(self._best[number])
        del self._crops[number]

    def _note(self, still: Still) -> None:
        """Add a still to the index; the last line of a number counts."""
        index = self._partial / _INDEX
        line = _Indexed(still.number, still.time_s, tuple(still.box), still.score)
        with output_errors(index):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(index, "wb", opener=lambda name, _: os.open(name, flags, 0o600)) as file:
                file.write(json.dumps(asdict(line)).encode() + b"\n")


@dataclass(frozen=True)
class _Indexed:
    """A line of the index; see ``Still``."""

    number: int
    time_s: float
    box: tuple[int, ...]
    score: float

    def still(self, origin_s: float) -> Still:
        return Still(self.number, round(self.time_s - origin_s, 6), Rect(*self.box), self.score)


def remove_stills(folder: Path) -> None:
    """Remove the stills of an earlier or killed run, and ``lesions/`` where nothing else is in it.

    Args:
        folder: folder of the run.
    Raises:
        OSError: one cannot be removed.
    """
    stills, partial = folder / STILLS, unfinished_path(folder / STILLS)
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial)
    if stills.is_symlink() or not stills.is_dir():
        return
    for file in list(stills.iterdir()):
        if _NAME.fullmatch(file.name) and not file.is_dir():
            file.unlink()
    if not any(stills.iterdir()):
        stills.rmdir()


def encode_still(rgb: Image) -> bytes:
    """Encode a JPEG file of at most ``STILL_MAX_BYTES`` without metadata.

    Args:
        rgb: (h, w, 3) uint8.
    """
    bgr: npt.NDArray[Any] = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    while True:
        for quality in _QUALITIES:
            done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            assert done, "OpenCV encodes any 8-bit image"
            if data.size <= STILL_MAX_BYTES:
                return data.tobytes()
        bgr = cv2.resize(bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _crop(frame_rgb: Image, findings: Findings, regions: Sequence[Region], box: Rect) -> _Crop:
    """Cut a lesion out of a frame with what is around it, scaled to the size of a still."""
    height_px, width_px = frame_rgb.shape[:2]
    margin = max(_MARGIN_LEAST_PX, round(_MARGIN * max(box.w, box.h)))
    left, top = max(0, box.x - margin), max(0, box.y - margin)
    right, bottom = min(width_px, box.x + box.w + margin), min(height_px, box.y + box.h + margin)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for region in regions:  # without those of other lesions
        x, y = region.box.x - left, region.box.y - top
        window = mask[y : y + region.box.h, x : x + region.box.w]
        window[findings.pixels_of(region) > 0] = region.class_index
    scale = min(_ENLARGED, STILL_SIDE_PX / max(mask.shape))
    size_wh = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    rgb = cv2.resize(frame_rgb[top:bottom, left:right], size_wh, interpolation=smooth)
    scaled = np.asarray(cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST), np.uint8)
    largest = regions[0]
    whole = Region(
        Rect(0, 0, *size_wh),
        cv2.countNonZero(scaled),
        largest.class_index,
        largest.probability,
        largest.peak,
    )
    return _Crop(np.asarray(rgb, np.uint8), Findings(scaled, (whole,)))
