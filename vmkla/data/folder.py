"""Labelled images on disk: ``images/<stem>.*`` beside ``masks/<stem>.*``, and files that list stems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.video.images import IMAGE_SUFFIXES, read_image

SHOWN_PROBLEMS = 20
"""A message lists so many problems and counts the rest."""


@dataclass(frozen=True)
class DataSource:
    """A folder of labelled images and, when only some of them are meant, the file that lists them.

    Attributes:
        folder: holds ``images/`` and ``masks/``.
        split: text file with one stem a line; None takes every image.
    """

    folder: Path
    split: Path | None = None

    @classmethod
    def parse(cls, text: str) -> DataSource:
        """Read ``DIR`` or ``DIR:SPLITFILE``. A folder whose own name holds a colon is taken as it is."""
        if ":" in text and not Path(text).is_dir():
            folder, split = text.rsplit(":", 1)
            return cls(Path(folder), Path(split))
        return cls(Path(text))

    def __str__(self) -> str:
        return str(self.folder) if self.split is None else f"{self.folder}:{self.split}"


@dataclass(frozen=True)
class Pair:
    """One labelled image on disk.

    Attributes:
        name: folder and stem, for messages and reports.
        image, mask: the two files.
    """

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Sample:
    """One labelled image in memory.

    Attributes:
        name: folder and stem, for messages and reports.
        image_rgb: (H, W, 3) uint8.
        mask: (H, W) bool, true on polyps.
    """

    name: str
    image_rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def list_pairs(sources: Sequence[DataSource]) -> list[Pair]:
    """Every labelled image of the sources, in order, sorted by stem within each.

    Raises:
        BadInputError: folders, files, partners or stems are missing or doubled; all are named at once.
    """
    pairs: list[Pair] = []
    problems: list[str] = []
    for source in sources:
        pairs.extend(_pairs_of(source, problems))
    problems.extend(
        f"{path} is given {count} times"
        for path, count in Counter(p.image for p in pairs).items()
        if count > 1
    )
    _raise_problems(problems)
    return pairs


def read_sample(pair: Pair) -> Sample:
    """Decode one pair.

    Raises:
        BadInputError: a file cannot be read, the sizes differ, or the mask is not 0 and 255.
    """
    image = read_image(pair.image)
    mask = np.asarray(cv2.cvtColor(read_image(pair.mask), cv2.COLOR_RGB2GRAY))  # (H, W) uint8
    if image.shape[:2] != mask.shape:
        raise BadInputError(
            f"{pair.name}: the image is {image.shape[0]}x{image.shape[1]} (height x width) and its mask "
            f"{mask.shape[0]}x{mask.shape[1]}; they must be equal"
        )
    top = int(mask.max(initial=0))
    if 0 < top < 128:
        raise BadInputError(f"{pair.mask}: the largest value is {top}; a mask holds 0 and 255")
    return Sample(pair.name, image, mask > 127)


def iter_samples(sources: Sequence[DataSource], *, threads: int = 2) -> Iterator[Sample]:
    """Decode the sources' images one after the other, a few ahead.

    Args:
        sources: where to read.
        threads: decoding threads.
    Raises:
        BadInputError: the layout is wrong (before the first sample), or files are; the files' problems
            are gathered to the end, so that one message names them all.
    """
    pairs = list_pairs(sources)
    problems: list[str] = []
    for result in _map_ahead(pairs, threads):
        if isinstance(result, BadInputError):
            problems.append(result.message)
        elif not problems:
            yield result
    _raise_problems(problems)


def _map_ahead(pairs: Sequence[Pair], threads: int) -> Iterator[Sample | BadInputError]:
    """``read_sample`` over the pairs in order; holds at most a few decoded images."""

    def read(pair: Pair) -> Sample | BadInputError:
        try:
            return read_sample(pair)
        except BadInputError as error:
            return error

    ahead = 4 * threads
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pairs), ahead):
            yield from pool.map(read, pairs[start : start + ahead])


def _pairs_of(source: DataSource, problems: list[str]) -> Iterator[Pair]:
    folders = [source.folder / "images", source.folder / "masks"]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        problems.extend(f"{folder} is not a folder" for folder in missing)
        return
    images, masks = (_by_stem(folder, problems) for folder in folders)
    stems: Iterable[str] = sorted(images)
    if source.split is not None:
        stems = _read_split(source.split, problems)
    elif not images:
        problems.append(f"{folders[0]} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    else:
        problems.extend(
            f"{masks[stem]} has no image of that stem" for stem in sorted(set(masks) - set(images))
        )
    for stem in stems:
        if stem not in images:
            problems.append(f"{source.split} lists {stem!r}, and {folders[0]} has no image of that stem")
        elif stem not in masks:
            problems.append(f"{images[stem]} has no mask of that stem in {folders[1]}")
        else:
            yield Pair(f"{source.folder.name}/{stem}", images[stem], masks[stem])


def _by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            problems.append(f"{found[path.stem]} and {path.name} have the same stem")
        found[path.stem] = path
    return found


def _read_split(path: Path, problems: list[str]) -> list[str]:
    try:
        stems = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path} cannot be read as a list of stems: {error}")
        return []
    if not stems:
        problems.append(f"{path} lists no stem")
    doubled = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    problems.extend(f"{path} lists {stem!r} more than once" for stem in doubled)
    return list(dict.fromkeys(stems))


def _raise_problems(problems: Sequence[str]) -> None:
    if not problems:
        return
    shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])
    rest = len(problems) - SHOWN_PROBLEMS
    more = f"\n  and {rest} more" if rest > 0 else ""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise BadInputError(
        f"the labelled images have {count}:\n{shown}{more}",
        hint="Expected: DIR/images/<stem>.jpg with DIR/masks/<stem>.png of the same size, 0 and 255.",
    )
