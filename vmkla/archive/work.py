"""Find the work of a batch: videos and folders of images, or the rows of a manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vmkla.archive.layout import is_batch
from vmkla.errors import BadInputError
from vmkla.files import read_regular
from vmkla.procedures.files import REPORT, ROWS
from vmkla.video.media.images import IMAGE_SUFFIXES
from vmkla.video.media.suffixes import VIDEO_SUFFIXES

_MANIFEST_MAX_BYTES = 256 << 20
_LISTED = 50


@dataclass(frozen=True)
class Entry:
    """A source that a batch was given; two of them can be the same piece.

    Attributes:
        id: name of the source, as the manifest or its place in the archive gives it.
        path: the file or folder.
        kind: a video; a folder of images, or one image.
        deeper: whether the images of folders in the folder belong to it.
    """

    id: str
    path: Path
    kind: Literal["video", "images"]
    deeper: bool = False

    @property
    def claim_key(self) -> str:
        """Key of the claim under which the source is hashed."""
        return "source-" + hashlib.sha256(os.fsencode(os.path.abspath(self.path))).hexdigest()[:20]


@dataclass
class Work:
    """The work of a batch.

    Attributes:
        entries: sources in the order in which they are worked on.
        notes: what the user should know of the search.
    """

    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_work(sources: Sequence[Path], out_dir: Path) -> Work:
    """Find all videos and folders of images in files and folders.

    The images that lie directly in one folder are one source. Hidden files and folders, the batch's own
    folder and outputs of earlier runs are left out. Links to folders are not followed.

    Args:
        sources: files and folders.
        out_dir: folder of the batch.
    Raises:
        BadInputError: a source is missing, a folder cannot be read, or there is no video and no image.
    """
    missing = [str(path) for path in sources if not path.exists()]
    if missing:
        raise BadInputError(f"there is no file or folder {_listed(missing)}", hint="Check the names.")
    work, left_out = Work(), _LeftOut()
    for source in sources:
        prefix = f"{source.resolve().name}/" if len(sources) > 1 else ""
        if source.is_dir():
            work.entries += _walk(source, prefix, out_dir.resolve(), left_out)
        else:
            work.entries.append(_entry(source.name, source))
    work.notes += left_out.notes()
    if not work.entries:
        raise BadInputError(
            f"{_listed([str(path) for path in sources])} holds no video ({_suffixes(VIDEO_SUFFIXES)}) and no "
            f"image ({_suffixes(IMAGE_SUFFIXES)})",
            hint="Files of other names can be given in a manifest: --manifest FILE.csv",
        )
    return _without_repeats(work)


def read_manifest(path: Path, *, anonymous: bool = False) -> Work:
    """Read a CSV file with the column ``source`` and optionally ``id``; other columns are ignored.

    Relative sources are relative to the manifest's folder. A folder counts with all images in and below it.

    Args:
        path: the file.
        anonymous: messages name lines only, no sources and no ids.
    Raises:
        BadInputError: a column, a file or a name is missing, an id is used twice, or the file is not CSV. All
            problems are listed at once.
    """
    try:
        text = read_regular(path, limit_bytes=_MANIFEST_MAX_BYTES).decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = [name.strip() for name in table.fieldnames or ()]
        if "source" not in columns:
            raise BadInputError(
                f"{path} has no column 'source'; its columns are: {', '.join(columns) or 'none'}",
                hint="The first line names the columns: source or source,id",
            )
        table.fieldnames = columns
        rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(
            f"{path} is not a CSV file in UTF-8: {error}", hint="Save it again as CSV, UTF-8."
        ) from error
    work, problems = Work(), []
    first: dict[str, tuple[int, Path]] = {}
    for line, row in rows:
        text = (row.get("source") or "").strip()
        name = (row.get("id") or "").strip() or text
        if not text:
            problems.append(f"line {line}: the source is empty")
            continue
        place = path.parent / text
        if "\0" in text or not place.exists():
            problems.append(
                f"line {line}: there is no file or folder {'of that name' if anonymous else text}"
            )
        earlier = first.setdefault(name, (line, place))
        if earlier[0] != line and name != text:
            problems.append(
                f"line {line}: the id {'' if anonymous else name + ' '}is that of line {earlier[0]} too"
            )
        else:
            work.entries.append(_entry(name, place, deeper=True))
    if problems:
        raise BadInputError(
            f"{path} has {len(problems)} problems:\n" + _lines(problems),
            hint="Correct these lines of the file.",
        )
    if not work.entries:
        raise BadInputError(f"{path} has no row", hint="Add one line per source below the column names.")
    return _without_repeats(work)


def _entry(name: str, path: Path, *, deeper: bool = False) -> Entry:
    images = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
    return Entry(name, path, "images" if images else "video", deeper and path.is_dir())


@dataclass
class _LeftOut:
    """Counts what a search leaves out."""

    files: int = 0
    links: int = 0
    outputs: int = 0

    def notes(self) -> list[str]:
        """Return a sentence for each kind."""
        counted = (
            (self.files, "files that are neither videos nor images"),
            (self.links, "links to folders"),
            (self.outputs, "folders with outputs of earlier runs"),
        )
        return [f"left out: {count} {what}" for count, what in counted if count]


def _walk(source: Path, prefix: str, out_dir: Path, left_out: _LeftOut) -> Iterator[Entry]:
    for parent, folders, names in os.walk(source, onerror=_refuse_folder):
        here = Path(parent)
        if here.resolve() == out_dir or is_batch(here) or {REPORT, ROWS} <= set(names):
            left_out.outputs += here.resolve() != out_dir
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        left_out.links += sum((here / name).is_symlink() for name in folders)
        relative = prefix + ("" if here == source else f"{here.relative_to(source).as_posix()}/")
        images = 0
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in VIDEO_SUFFIXES:
                yield Entry(relative + name, here / name, "video")
            elif suffix in IMAGE_SUFFIXES:
                images += 1
            else:
                left_out.files += 1
        if images:
            yield Entry(relative.rstrip("/") or source.resolve().name, here, "images")


def _refuse_folder(error: OSError) -> None:
    # By default a folder that cannot be read counts as empty, and its sources would be missing silently.
    raise BadInputError(
        f"the folder {error.filename} cannot be read: {error.strerror or error}", hint="Make it readable."
    ) from error


def _without_repeats(work: Work) -> Work:
    """Count each place once, and give entries of one name the names of their places."""
    places: dict[str, Entry] = {}
    for entry in work.entries:
        places.setdefault(f"{entry.kind} {os.path.realpath(entry.path)}", entry)
    if repeats := len(work.entries) - len(places):
        work.notes.append(f"{repeats} sources were given twice, and count once")
    names: dict[str, int] = {}
    for entry in places.values():
        names[entry.id] = names.get(entry.id, 0) + 1
    work.entries = [
        entry if names[entry.id] == 1 else Entry(str(entry.path), entry.path, entry.kind, entry.deeper)
        for entry in places.values()
    ]
    return work


def _suffixes(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _lines(problems: Sequence[str]) -> str:
    return "\n".join(f"  {problem}" for problem in problems)
