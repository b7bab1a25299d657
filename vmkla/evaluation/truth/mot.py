"""MOT text: ``gt/gt.txt`` beside the folder of frames, or beside a video."""

from __future__ import annotations

import configparser
from pathlib import Path

from vmkla.errors import BadInputError
from vmkla.evaluation.truth.records import (
    AnnotatedRecording,
    BoxShape,
    FrameTruth,
    ShapeTruth,
    TruthRules,
    check_consecutive,
    checked_box,
    stem_of,
)
from vmkla.files import read_regular
from vmkla.video.media.sources import ImageSource

_TRUTH, _INFO, _FRAMES = Path("gt/gt.txt"), "seqinfo.ini", "img1"
_TEXT_MAX_BYTES, _INFO_MAX_BYTES = 1 << 29, 1 << 16
_COLUMNS = "frame,id,left,top,width,height[,considered[,class[,visible]]]"


def find_recordings(root: Path, rules: TruthRules) -> list[AnnotatedRecording]:
    """Read the recordings of a folder that is one, or holds some; none where no folder has ``gt/gt.txt``.

    Every row is a lesion, whatever its class. Frames count from 1; pixels count from 0, as CVAT writes them.

    Raises:
        BadInputError: the text, the frames or both do not fit; see ``records``.
        UsageError: frames a second are missing, or stated twice.
    Source: Dendorfer et al., MOTChallenge, IJCV 129, 2021; CVAT's documentation, MOT format.
    """
    folders = [root, *sorted(child for child in root.iterdir() if child.is_dir())]
    return [_recording(folder, rules) for folder in folders if (folder / _TRUTH).is_file()]


def _recording(folder: Path, rules: TruthRules) -> AnnotatedRecording:
    name = folder.resolve().name
    info = _info(folder)
    image_dir = info.get("imDir") or _FRAMES
    if Path(image_dir).is_absolute() or ".." in Path(image_dir).parts:
        raise BadInputError(f"{folder / _INFO}: imDir is {image_dir!r}, which leaves the folder")
    frames = folder / image_dir
    boxes = _rows(folder / _TRUTH)
    if not frames.is_dir():
        return AnnotatedRecording(name, name, rules.video(folder), _truth(folder, boxes))
    images = rules.images(frames)
    stems = [stem_of(item.name) for item in images.items]
    _check_complete(frames, images, stems, info)
    if boxes and max(boxes) > len(stems):
        raise BadInputError(
            f"{folder / _TRUTH} has a row of frame {max(boxes)}, and {frames} holds {len(stems)} frames",
            hint="Give the frames that were annotated, all of them.",
        )
    rate = rules.rate(name, _number(folder, info, "frameRate"))
    times_s = tuple(index / rate for index in range(len(stems)))
    return AnnotatedRecording(name, name, images, _truth(folder, boxes), times_s, 1 / rate)


def _check_complete(frames: Path, images: ImageSource, stems: list[str], info: dict[str, str]) -> None:
    """Reject frames of which some are missing: rows count frames from the first one."""
    check_consecutive(str(frames), stems)
    length = _number(frames.parent, info, "seqLength")
    if length is not None and length != len(images.items):
        raise BadInputError(
            f"{frames.parent / _INFO} states {length:g} frames, and {frames} holds {len(images.items)}"
        )


def _rows(path: Path) -> dict[int, list[BoxShape]]:
    """Return the boxes by the frame's number, from 1."""
    boxes: dict[int, list[BoxShape]] = {}
    for line, text in enumerate(_text(path, _TEXT_MAX_BYTES).splitlines(), start=1):
        if not text.strip():
            continue
        row = text.split(",")
        where = f"{path}, line {line}"
        try:
            number, identity = _whole(row[0]), _whole(row[1])
            values = [float(value) for value in row[2:6]]
            considered = float(row[6]) if len(row) > 6 else 1.0
        except (ValueError, OverflowError, IndexError):
            raise BadInputError(f"{where}: not numbers, expected {_COLUMNS}") from None
        if number < 1:
            raise BadInputError(f"{where}: frame {number}, expected numbers from 1")
        if identity < 0:
            raise BadInputError(
                f"{where}: with the identity {identity} the lesion is unknown, and all such boxes would be "
                "one lesion",
                hint="Annotate with tracks: in CVAT, draw a box with Track, not with Shape.",
            )
        if considered == 0:
            raise BadInputError(
                f"{where}: the row is marked as not to be considered (0), and a region that counts as "
                "neither lesion nor alarm is not supported",
                hint="Set its seventh column to 1, or remove the row.",
            )
        boxes.setdefault(number, []).append(BoxShape(str(identity), checked_box(where, values)))
    return boxes


def _whole(text: str) -> int:
    """Read a whole number, which may be written as 7.0.

    Raises:
        ValueError, OverflowError: it is not one.
    """
    value = float(text)
    if value != int(value):
        raise ValueError(f"{text} is not whole")
    return int(value)


def _truth(folder: Path, boxes: dict[int, list[BoxShape]]) -> dict[int, FrameTruth]:
    path = folder / _TRUTH
    return {number - 1: ShapeTruth(f"{path}, frame {number}", tuple(of)) for number, of in boxes.items()}


def _info(folder: Path) -> dict[str, str]:
    path = folder / _INFO
    if not path.is_file():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys are written in mixed case
    try:
        parser.read_string(_text(path, _INFO_MAX_BYTES))
        return dict(parser["Sequence"])
    except (configparser.Error, KeyError) as error:
        raise BadInputError(f"{path} has no section [Sequence] that can be read: {error}") from error


def _number(folder: Path, info: dict[str, str], key: str) -> float | None:
    if key not in info:
        return None
    try:
        return float(info[key])
    except ValueError:
        raise BadInputError(f"{folder / _INFO}: {key} is {info[key]!r}, expected a number") from None


def _text(path: Path, limit_bytes: int) -> str:
    try:
        return read_regular(path, limit_bytes=limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not such a text: {error}") from error
