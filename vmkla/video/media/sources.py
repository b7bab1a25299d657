"""Open a source: a video, an image, a folder of images, or a glob of images."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from vmkla.errors import BadInputError, UsageError
from vmkla.files import why_not_regular
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.safe_text import redact
from vmkla.video.media.address import is_address, is_live_address, parse_address
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.frames import Frame, Problem, Source, VideoTraits
from vmkla.video.media.images import IMAGE_SUFFIXES, decode_image, looks_like_image, read_bytes
from vmkla.video.media.options import ReadOptions

__all__ = [
    "Frame",
    "ImageItem",
    "ImageSource",
    "Problem",
    "Source",
    "VideoSource",
    "VideoTraits",
    "open_source",
]

_MOTION_JPEG_SUFFIXES = (".mjpg", ".mjpeg")  # videos that begin like a JPEG


@dataclass(frozen=True)
class ImageItem:
    """An image of a source.

    Attributes:
        path: the file.
        name: path relative to the source, with forward slashes.
    """

    path: Path
    name: str

    def output_name(self, suffix: str = ".png") -> str:
        """Return the name with another suffix: ``a/b.jpg`` becomes ``a/b.png``."""
        return str(PurePosixPath(self.name).with_suffix(suffix))


class ImageSource:
    """Images in natural order (``frame9`` before ``frame10``).

    An image that cannot be read is skipped and listed in ``problems``, unless it is the only one.

    Args:
        path: the file, or the folder that names are relative to.
        items: the images.
        left_out: names of images that are not regular files.
        max_megapixels: size of the largest image that is decoded, megapixels.
    """

    kind: Literal["images"] = "images"

    def __init__(
        self,
        path: Path,
        items: Iterable[ImageItem],
        *,
        left_out: Iterable[Problem] = (),
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        self.path = path
        self.items = tuple(sorted(items, key=lambda item: _natural_key(item.name)))
        self.left_out = tuple(sorted(left_out, key=lambda problem: _natural_key(problem.where)))
        self.max_megapixels = max_megapixels
        self._problems = list(self.left_out)

    @property
    def total(self) -> int | None:
        """Number of images."""
        return len(self.items)

    @property
    def named(self) -> int:
        """Number of names of images, including those that are not regular files."""
        return len(self.items) + len(self.left_out)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Names that are not regular files, and images that the last pass could not read."""
        return tuple(self._problems)

    def notes(self) -> list[str]:
        """Return no notes; see ``Source``."""
        return []

    def frames(
        self, skip: Callable[[int, ImageItem, str], bool] | None = None
    ) -> Generator[Frame, None, None]:
        """Read the images one by one.

        Args:
            skip: called with an image's index, the image and the sha256 of its file; True skips the image.
        Raises:
            BadInputError: the only image, or every one of them, cannot be read.
        """
        self._problems = list(self.left_out)
        read = 0
        for index, item in enumerate(self.items):
            try:
                data = read_bytes(item.path, max_megapixels=self.max_megapixels)
                sha256 = hashlib.sha256(data).hexdigest()
                if skip is not None and skip(index, item, sha256):
                    read += 1
                    continue
                rgb = decode_image(data, name=str(item.path), max_megapixels=self.max_megapixels)
            except BadInputError as error:
                if len(self.items) == 1 and not self.left_out:
                    raise
                self._problems.append(Problem(item.name, error.message))
                continue
            read += 1
            yield Frame(index=index, rgb=rgb, name=item.name, sha256=sha256)
        if not read:
            raise BadInputError(
                f"none of the {len(self._problems)} images of {self.path} can be read; the first: "
                f"{self._problems[0].what}"
            )


def open_source(
    spec: str | Path,
    reading: ReadOptions | None = None,
    *,
    exclude: Collection[Path] = (),
    deeper: bool = True,
) -> Source:
    """Open the source that a path or pattern names.

    An existing path is used as it is, even when it holds ``*`` or ``[``. The first bytes of a single file
    decide whether it is an image, whatever its name; anything else must be a video.

    Args:
        spec: a video, an image, a folder (searched recursively by file suffix; hidden files and folders
            are left out) or a glob of images (``**`` crosses folders).
        reading: options of reading; None uses the defaults.
        exclude: folders that are left out of a search, such as the run's own output.
        deeper: whether the folders in a folder are searched too.
    Raises:
        UsageError: the source is live or another address, or a video track of images is asked for.
        BadInputError: the source is missing, unreadable (a folder: any part of it), or holds no image.
    """
    text = str(spec)
    reading = reading or ReadOptions()
    source = _open(text, reading, exclude, deeper)
    if reading.track is not None and isinstance(source, ImageSource):
        raise UsageError(f"video track {reading.track} was asked for, but {text} is images, not a video")
    return source


def _open(text: str, reading: ReadOptions, exclude: Collection[Path], deeper: bool) -> Source:
    if is_live_address(text):
        shown = parse_address(text).shown
        raise UsageError(
            f"{shown} is a live source, and without --live only files are read",
            hint=f"Run: vmkla infer --source '{shown}' --live",
        )
    if is_address(text):
        raise UsageError(
            f"{redact(text)} is an address, and only local files are read",
            hint="Fetch it first, then: vmkla infer --video FILE",
        )
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if glob.has_magic(text):
            return _open_glob(text, exclude, reading.max_megapixels)
        if isinstance(error, FileNotFoundError):
            raise BadInputError(
                f"there is no file or folder {text}", hint=f"Looked from {Path.cwd()}; check the name."
            ) from error
        raise BadInputError(f"{text!r} cannot be read: {error}") from error
    if stat.S_ISDIR(mode):
        return _open_folder(path, exclude, reading.max_megapixels, deeper)
    if stat.S_ISCHR(mode):
        raise UsageError(f"{text} is a device, but not a camera (/dev/video0 and on)")
    if stat.S_ISFIFO(mode):
        raise UsageError(
            f"{text} is a named pipe, and without --live only files are read",
            hint=f"Run: vmkla infer --source {text} --live",
        )
    if not stat.S_ISREG(mode):
        raise BadInputError(f"{text} is neither a file nor a folder")
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise BadInputError(f"{text} cannot be read: {error.strerror or error}") from error
    suffix = path.suffix.lower()
    if suffix not in _MOTION_JPEG_SUFFIXES and (looks_like_image(head) or suffix in IMAGE_SUFFIXES):
        return ImageSource(path, [ImageItem(path, path.name)], max_megapixels=reading.max_megapixels)
    return VideoSource(path, **vars(reading))


def _open_folder(folder: Path, exclude: Collection[Path], max_megapixels: float, deeper: bool) -> ImageSource:
    excluded = {path.resolve() for path in exclude}
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if deeper and not name.startswith(".")]
        if Path(parent).resolve() in excluded:
            folders.clear()
            continue
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES:
                found.append(ImageItem(path, path.relative_to(folder).as_posix()))
    if not found:
        raise BadInputError(
            f"the folder {folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})",
            hint="For a video, give the file itself: vmkla infer --video FILE",
        )
    return _regular(folder, found, max_megapixels)


def _regular(base: Path, found: Iterable[ImageItem], max_megapixels: float) -> ImageSource:
    """Keep the regular files among some paths, and list the others.

    Raises:
        BadInputError: there is no regular file.
    """
    items, left_out = [], []
    for item in found:
        if reason := why_not_regular(item.path):
            left_out.append(Problem(item.name, f"not read: {reason}"))
        else:
            items.append(item)
    if not items:
        raise BadInputError(
            f"{base} holds {len(left_out)} names of images, none of them a regular file; the first: "
            f"{left_out[0]}"
        )
    return ImageSource(base, items, left_out=left_out, max_megapixels=max_megapixels)


def _refuse_folder(error: OSError) -> None:
    # By default a folder that cannot be read counts as empty, and its images would be missing silently.
    raise BadInputError(
        f"the folder {error.filename} cannot be read: {error.strerror or error}",
        hint="Make it readable, or name the images by a pattern.",
    ) from error


def _open_glob(pattern: str, exclude: Collection[Path], max_megapixels: float) -> ImageSource:
    base = Path(pattern)
    if ".." in pattern[min(pattern.index(sign) for sign in "*?[" if sign in pattern) :]:
        raise UsageError(
            f"the pattern {pattern} goes up (..) after a wildcard, so its matches have no common folder"
        )
    while glob.has_magic(str(base)):
        base = base.parent
    excluded = {path.resolve() for path in exclude}
    matches = [path for path in _matches(Path(pattern)) if not path.is_dir()]
    found = [
        ImageItem(path, path.relative_to(base).as_posix())
        for path in matches
        if path.suffix.lower() in IMAGE_SUFFIXES and excluded.isdisjoint(_folders_above(path))
    ]
    if not found:
        seen = "matches nothing" if not matches else f"matches {len(matches)} files, none of them an image"
        raise BadInputError(
            f"the pattern {pattern} {seen}", hint="For a video, give the file: vmkla infer --video FILE"
        )
    return _regular(base, found, max_megapixels)


def _matches(pattern: Path) -> list[Path]:
    """Match like ``glob.glob``, but ``**`` follows no link, since links may form a cycle."""
    if "**" not in pattern.parts:
        return [Path(match) for match in glob.glob(str(pattern))]
    at = pattern.parts.index("**")
    above, below = Path(*pattern.parts[:at]), pattern.parts[at + 1 :] or ("*",)
    found: dict[Path, None] = {}
    for top in glob.glob(str(above)):
        for folder, names, _ in os.walk(top):
            names[:] = [name for name in names if not name.startswith(".")]
            found.update(dict.fromkeys(_matches(Path(glob.escape(folder), *below))))
    return list(found)


def _folders_above(path: Path) -> tuple[Path, ...]:
    """Return the resolved folders above a path; the path itself may be a link to itself."""
    parent = path.parent.resolve()
    return (parent, *parent.parents)


def _natural_key(name: str) -> list[list[tuple[int, int, str]]]:
    """Return a sorting key: folders by their own names, digits by their value, ties by the whole name."""
    parts = [re.split(r"([0-9]+)", part) for part in name.split("/")]
    return [
        [(0, int(piece), "") if piece.isdigit() else (1, 0, piece.casefold()) for piece in pieces if piece]
        for pieces in parts
    ] + [[(1, 0, name)]]
