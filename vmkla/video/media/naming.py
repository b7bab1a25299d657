"""Name a source in everything that a run writes and prints."""

from __future__ import annotations

from dataclasses import dataclass

from vmkla.names import Names, digest_or_none, joint_digest, pseudonyms, without_folder
from vmkla.video.media.frames import Problem, Source
from vmkla.video.media.sources import ImageItem, ImageSource


@dataclass(frozen=True)
class NamedSource:
    """A source and its names.

    Attributes:
        source: the source; its images have the names that are shown.
        label: name of the source.
        place: identity of the source on this machine, for continuing a run.
        sha256: hex digest of a single file, when already known.
        names: names to replace in messages and reports.
        anonymous: whether names of files and folders are hidden.
    """

    source: Source
    label: str
    place: str
    sha256: str | None
    names: Names
    anonymous: bool


def name_source(source: Source, *, anonymous: bool, sha256: str | None = None) -> NamedSource:
    """Name a source.

    Args:
        source: source that ``open_source`` returned.
        anonymous: name every file by the first digits of its sha256, and a folder by those of all its files,
            for which each file is read once more.
        sha256: hex digest of a video file, when it is already known.
    """
    path = source.path
    plain = without_folder(path)
    if not anonymous:
        label = path.name or path.resolve().name
        return NamedSource(source, label, str(path.resolve()), sha256, plain, anonymous=False)
    place = f"inode {path.stat().st_ino}"  # a path may name a patient
    if not isinstance(source, ImageSource):
        digest = sha256 or digest_or_none(path)
        label = pseudonyms([digest])[0]
        shown = dict.fromkeys((str(path), str(path.resolve()), path.name), label)
        return NamedSource(source, label, place, digest, Names(shown), anonymous=True)
    digests = [digest_or_none(item.path) for item in source.items]
    names = pseudonyms(digests)
    single = path.is_file()
    label = names[0] if single else pseudonyms([joint_digest(digests)])[0]
    shown = {}
    for item, name in zip(source.items, names, strict=True):
        shown |= dict.fromkeys((str(item.path), str(item.path.resolve()), item.name), name)
    shown |= dict.fromkeys((str(path), str(path.resolve())), label)
    left_out = [
        Problem(f"not a file {number}", problem.what) for number, problem in enumerate(source.left_out, 1)
    ]
    renamed = ImageSource(path, (), left_out=left_out, max_megapixels=source.max_megapixels)
    renamed.items = tuple(
        ImageItem(item.path, name) for item, name in zip(source.items, names, strict=True)
    )  # in the order of their own names
    return NamedSource(renamed, label, place, digests[0] if single else None, Names(shown), anonymous=True)
