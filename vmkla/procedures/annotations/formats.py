"""The formats that findings are exported to, by name: choose, check and write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vmkla.errors import BadInputError, UsageError
from vmkla.files import make_folder, output_errors
from vmkla.procedures.annotations.coco import write_coco
from vmkla.procedures.annotations.cvat import fits_xml, write_cvat
from vmkla.procedures.annotations.cvat_tracks import write_cvat_tracks
from vmkla.procedures.annotations.records import AnnotatedFrame
from vmkla.procedures.annotations.yolo import DATA, IMAGES, write_yolo

FORMATS = ("coco", "cvat", "yolo")
FILES = {"coco": "annotations/instances_default.json", "cvat": "annotations.xml", "yolo": DATA}
_TRACKS = "tracks.xml"
WRITTEN = (*FILES.values(), _TRACKS)
"""Every file of a format with a name of its own."""
"""The file of each format in the folder, where its tools look for it; YOLO has one more for each frame."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Read formats as a user writes them, such as ``coco,cvat``; each once, in the order of ``FORMATS``.

    Raises:
        UsageError: one is not known, or there is none.
    """
    given = [part.strip() for part in text.split(",") if part.strip()]
    check_formats(given)
    if not given:
        raise UsageError("no annotation format was given", hint=f"Choose from: {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in given)


def check_formats(names: Iterable[str]) -> None:
    """Check that formats are known.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        if name not in FORMATS:
            raise UsageError(
                f"the annotation format {name!r} is not known", hint=f"Choose from: {', '.join(FORMATS)}"
            )


def check_fits(formats: Sequence[str], names: Iterable[str], labels: Mapping[int, str]) -> None:
    """Check before a run that the formats can hold its names.

    Args:
        formats: names of formats.
        names: names of the images and of the source.
        labels: name of each class.
    Raises:
        BadInputError: a name has characters that CVAT's XML cannot hold, or two classes have one name, by
            which CVAT and YOLO know them.
    """
    if "cvat" in formats:
        for name in (*names, *labels.values()):
            if not fits_xml(name):
                raise BadInputError(
                    f"CVAT's format is XML, which cannot hold the name {name!r}",
                    hint="Rename it, add --anonymous, or leave cvat out of --export.",
                )
    if formats != ("coco",) and formats and len(set(labels.values())) < len(labels):
        raise BadInputError(
            f"two classes of the model have one name ({', '.join(labels.values())}), and CVAT and YOLO know "
            "classes by their names",
            hint="Use: --export coco",
        )


def write_annotations(
    folder: Path,
    formats: Sequence[str],
    frames: Callable[[], Iterator[AnnotatedFrame]],
    labels: Mapping[int, str],
    *,
    name: str,
    count: int,
    length: int | None,
) -> None:
    """Write the findings of a run in each format, in one or two passes over its frames.

    The folder is one data set for all of its formats. Its ``images`` is for the pictures, and empty:
    Datumaro reads COCO only where it exists.

    Args:
        folder: the folder of the files.
        formats: names of formats.
        frames: called for each pass; yields the segmented frames in order.
        labels: name of each class.
        name: name of the source.
        count: number of segmented frames.
        length: number of a video's frames, as far as it is known; None for images, which have no tracks.
    Raises:
        BadInputError: a file cannot be written.
    """
    if "coco" in formats:
        write_coco(folder / FILES["coco"], frames, labels, name)
    if "cvat" in formats:
        write_cvat(folder / FILES["cvat"], frames(), labels, name, count)
        if length is not None:
            write_cvat_tracks(folder / _TRACKS, frames(), labels, name, length)
    if "yolo" in formats:
        write_yolo(folder, frames(), labels)
    with output_errors(folder):
        make_folder(folder / IMAGES)
