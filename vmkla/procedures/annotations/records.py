"""The findings of a frame as annotation formats need them: each region's own pixels as run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.plain_values import from_plain
from vmkla.segment.findings import Findings
from vmkla.segment.preprocess import Rect


@dataclass(frozen=True)
class AnnotatedRegion:
    """A finding.

    Attributes:
        class_index: class of its pixels, at least 1.
        probability: largest probability inside it, 0 to 1.
        box: bounding box, px of the frame.
        counts: lengths of the runs of its pixels in the box, row by row, alternately outside and inside it;
            the first is outside and may be 0.
        track_id: number of the lesion over time; None where lesions were not followed.
    """

    class_index: int
    probability: float
    box: Rect
    counts: tuple[int, ...]
    track_id: int | None = None

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return its pixels in the box, (box.h, box.w), 1 inside the region."""
        inside = np.arange(len(self.counts), dtype=np.uint8) % 2
        return np.repeat(inside, self.counts).reshape(self.box.h, self.box.w)


@dataclass(frozen=True)
class AnnotatedFrame:
    """A segmented frame or image with its findings; one without findings is a negative example.

    Attributes:
        index: position in the source, from 0.
        name: an image's path relative to the source; of a video's frame ``frame_000012.png``, as CVAT names
            the frames of a video.
        frame_hw: height and width, px.
        regions: the findings, largest first.
        sha256: hex digest of an image's file; None for a video's frame.
        pictured: whether the run wrote the frame into ``images``.
    """

    index: int
    name: str
    frame_hw: tuple[int, int]
    regions: tuple[AnnotatedRegion, ...]
    sha256: str | None = None
    pictured: bool = False

    @property
    def stem(self) -> str:
        """The name without its suffix, folders kept."""
        return str(PurePosixPath(self.name).with_suffix(""))

    def to_row(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "index": self.index,
            "name": self.name,
            "sha256": self.sha256,
            "frame_hw": list(self.frame_hw),
            "pictured": self.pictured,
            "regions": [
                {
                    "class": region.class_index,
                    "probability": region.probability,
                    "box": list(region.box),
                    "counts": list(region.counts),
                    "track": region.track_id,
                }
                for region in self.regions
            ],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> AnnotatedFrame:
        """Inverse of ``to_row``.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, of another type, or does not fit the others.
        """
        height_px, width_px = from_plain(tuple[int, int], row["frame_hw"], "frame_hw")
        regions = tuple(_region(values) for values in row["regions"])
        for region in regions:
            x, y, w, h = region.box
            inside = min(x, y) >= 0 and min(w, h) >= 1 and x + w <= width_px and y + h <= height_px
            if not inside or min(region.counts) < 0 or sum(region.counts) != w * h or region.class_index < 1:
                raise ValueError("a region does not lie in its frame, or its runs do not fill its box")
        name = from_plain(str, row["name"], "name")
        if not PurePosixPath(name).name or "\0" in name:
            raise ValueError("its name is not a file's")
        return cls(
            from_plain(int, row["index"], "index"),
            name,
            (height_px, width_px),
            regions,
            from_plain(str | None, row["sha256"], "sha256"),
            from_plain(bool, row["pictured"], "pictured"),
        )


def _region(values: Mapping[str, Any]) -> AnnotatedRegion:
    return AnnotatedRegion(
        from_plain(int, values["class"], "class"),
        from_plain(float, values["probability"], "probability"),
        Rect(*from_plain(tuple[int, int, int, int], values["box"], "box")),
        from_plain(tuple[int, ...], values["counts"], "counts"),
        from_plain(int | None, values["track"], "track"),
    )


def annotate(findings: Findings, lesions: Sequence[int] | None = None) -> Iterator[AnnotatedRegion]:
    """Yield each finding with its own pixels, in the order of ``findings.regions``.

    Args:
        findings: of one frame.
        lesions: number of each finding's lesion; None where lesions were not followed.
    """
    numbers: Sequence[int | None] = lesions or [None] * len(findings.regions)
    for region, track_id in zip(findings.regions, numbers, strict=True):
        counts = run_lengths(findings.pixels_of(region).ravel())
        probability = round(region.probability, 6)
        yield AnnotatedRegion(region.class_index, probability, region.box, tuple(counts), track_id)


def run_lengths(flags: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> list[int]:
    """Return the lengths of the runs of equal values, the first for 0, which may be 0 long.

    Args:
        flags: (n,) 0 or 1, n at least 1.
    """
    values = np.concatenate([[0], flags.astype(np.uint8)])
    changes = np.flatnonzero(values[1:] != values[:-1])
    lengths = np.diff(np.concatenate([[0], changes, [len(flags)]]))
    return [int(length) for length in lengths]


def label_names(class_names: tuple[str, ...]) -> dict[int, str]:
    """Return the name of each class that a finding can have.

    Args:
        class_names: name of each output channel. With one channel its findings are of class 1; with several,
            channel 0 is the background.
    """
    if len(class_names) == 1:
        return {1: class_names[0]}
    return {index: name for index, name in enumerate(class_names) if index}
