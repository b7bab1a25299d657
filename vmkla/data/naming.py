"""What labelled images are called in everything that is written and printed about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmkla.data.sources import Pair
from vmkla.errors import BadInputError
from vmkla.names import Names, digest_or_none, given_names, joint_digest, pseudonyms

_PARTS = ("", "train", "val", "test")
"""Names of sets that are not a folder's own."""


@dataclass(frozen=True)
class NamedSets:
    """Labelled images by the name of their set.

    Attributes:
        sets: the images, with the names that are shown.
        label: what the data are called.
        names: for messages and reports.
        anonymous: no name of a file, folder, set or patient is shown.
    """

    sets: Mapping[str, Sequence[Pair]]
    label: str
    names: Names
    anonymous: bool


def name_sets(sets: Mapping[str, Sequence[Pair]], data: str, *, anonymous: bool) -> NamedSets:
    """Name the images of labelled data.

    Args:
        sets: the images by the name of their set.
        data: what the user called all of it.
        anonymous: call every image by the first digits of its file's sha256, a patient or sequence by its
            first image, and a set by all of its images. Each file is read once more for that.
    """
    everything = [pair for pairs in sets.values() for pair in pairs]
    if not anonymous:
        folders = {path.parent for pair in everything for path in (pair.image, pair.mask)}
        forms = {str(form) for folder in folders for form in (folder, folder.resolve())} - {"."}
        label = without_folders(data)
        shown = {**{f"{form}/": "" for form in forms}, data: label}
        return NamedSets(sets, label, Names(shown), anonymous=False)
    digests = {path: digest_or_none(path) for path in {pair.image for pair in everything}}
    ids = iter(pseudonyms([digests[pair.image] for pair in everything]))
    label = pseudonyms([joint_digest(digests.values())])[0]
    of_sets = pseudonyms([joint_digest(digests[pair.image] for pair in pairs) for pairs in sets.values()])
    shown = {data: label}
    renamed: dict[str, list[Pair]] = {}
    groups: dict[tuple[str, str], str] = {}
    for (set_name, pairs), of_set in zip(sets.items(), of_sets, strict=True):
        name_of_set = set_name if set_name in _PARTS else of_set
        shown[set_name] = name_of_set
        renamed[name_of_set] = []
        for pair in pairs:
            name = next(ids)
            group = groups.setdefault((set_name, pair.group), name) if pair.group else ""
            renamed[name_of_set].append(replace(pair, name=name, group=group))
            shown |= dict.fromkeys((pair.name, str(pair.image), str(pair.mask), pair.image.name), name)
            shown |= {f"{path.parent}/": "" for path in (pair.image, pair.mask)}
    return NamedSets(renamed, label, Names(shown), anonymous=True)


@contextlib.contextmanager
def listing(data: str, *, anonymous: bool) -> Iterator[None]:
    """Within it, errors about data that are not named yet name nothing when they must not.

    Args:
        data: what the user called them.
        anonymous: no name of a file or folder is shown.
    """
    with given_names([data], "the data").in_errors(anonymous):
        try:
            yield
        except BadInputError:
            if not anonymous:
                raise
            raise BadInputError(
                "the labelled images have problems, which are not shown since they name files",
                hint="To see them, run: vmkla data check --data DIR",
            ) from None


def without_folders(data: str) -> str:
    """``DIR``, ``DIR:FILE`` or ``NAME=DIR`` with the last part of each path only."""
    return "=".join(":".join(Path(part).name or part for part in side.split(":")) for side in data.split("="))
