"""From what a user names to training, validation and test images: the layouts that the field uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmkla.data.folder import find_pairs
from vmkla.data.packed import open_file
from vmkla.data.pairs import pair_folders
from vmkla.data.rules import ReadRules
from vmkla.data.sources import PACK_SUFFIX, PACKED, PAIRS, SLICES, VOLUMES, DataSource, raise_problems
from vmkla.data.splits import split_off
from vmkla.errors import BadInputError, UsageError

POLYP = ("polyp",)
ORGANS = (
    "background", "aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen",
    "stomach",
)  # fmt: skip
"""Synapse's classes in the order of TransUNet's prepared files, which report them so."""
VALIDATION_SHARE = 0.1
UNNAMED = "test"
"""Name of the one test set of a layout that has no names for them."""
_SYNAPSE_LISTS = ("lists/lists_Synapse", "lists", "lists_Synapse")


@dataclass(frozen=True)
class DataSet:
    """What a layout holds.

    Attributes:
        train, val: sources of the two sets; empty where the layout has none.
        test: test sets by name; the only one may be called ``"test"``.
        class_names: one per output channel of a network.
        volumes: test samples are slices of volumes, and ``Sample.group`` names the volume.
    """

    train: tuple[DataSource, ...]
    val: tuple[DataSource, ...] = ()
    test: dict[str, tuple[DataSource, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] = POLYP
    volumes: bool = False

    @property
    def num_classes(self) -> int:
        """Output channels of a network for it; 1 for a binary set."""
        return len(self.class_names)

    def parts(self) -> dict[str, tuple[DataSource, ...]]:
        """Every set that is not empty: ``train``, ``val``, and ``test`` or ``test/<name>``."""
        named = {"train": self.train, "val": self.val}
        for name, sources in self.test.items():
            named[UNNAMED if name == UNNAMED else f"{UNNAMED}/{name}"] = sources
        return {name: sources for name, sources in named.items() if sources}

    def read_by(self, reading: ReadRules) -> DataSet:
        """The same set, its files read by these rules.

        Raises:
            UsageError: masks are declared, and a source has no mask files.
        """
        declared = ", ".join(f"--{name.replace('_', '-')}" for name in reading.of_masks)
        for sources in self.parts().values():
            if other := next((source for source in sources if declared and source.kind != PAIRS), None):
                raise UsageError(
                    f"{other} holds classes and not mask files, and {declared} is for mask files",
                    hint=f"Leave {declared} out.",
                )

        def ruled(sources: tuple[DataSource, ...]) -> tuple[DataSource, ...]:
            return tuple(dataclasses.replace(source, reading=reading) for source in sources)

        test = {name: ruled(sources) for name, sources in self.test.items()}
        return dataclasses.replace(self, train=ruled(self.train), val=ruled(self.val), test=test)

    def with_validation(self, *, seed: int, problems: list[str] | None = None) -> DataSet:
        """Split a validation set off the training set; a set that has one is left alone.

        Each source gives ``VALIDATION_SHARE``, and its sequences stay whole.

        Raises:
            BadInputError: as ``divided``.
        """
        if self.val or not self.train:
            return self
        train, val = divided(self.train, share=VALIDATION_SHARE, seed=seed, problems=problems)
        return dataclasses.replace(self, train=train, val=val)


def divided(
    sources: Sequence[DataSource], *, share: float, seed: int, problems: list[str] | None = None
) -> tuple[tuple[DataSource, ...], tuple[DataSource, ...]]:
    """Split a share of each source off, by a fixed seed, sequences whole.

    Args:
        sources: what to split.
        share: how much to set aside.
        seed: of the choice.
        problems: collects the problems of the sources; the images without a problem are split. None
            raises instead.
    Raises:
        BadInputError: files, partners or stems are missing, or a source is one sequence.
    """
    kept, aside = [], []
    for source in sources:
        pairs, found = find_pairs([source])
        if problems is None or not pairs:
            raise_problems(found)
        else:
            problems += found
        stems = list(dict.fromkeys(pair.stem for pair in pairs))
        groups = {pair.stem: pair.group for pair in pairs}
        first, second = split_off(stems, [groups[stem] for stem in stems], share=share, seed=seed)
        kept.append(dataclasses.replace(source, stems=tuple(first)))
        aside.append(dataclasses.replace(source, stems=tuple(second)))
    return tuple(kept), tuple(aside)


def open_layout(path: Path) -> DataSet:
    """Find out how a folder is laid out.

    Raises:
        BadInputError: it is none of the layouts; the message lists them.
    """
    if path.is_file() and path.suffix == PACK_SUFFIX:
        return _packed(path)
    if not path.is_dir():
        raise BadInputError(
            f"{path} does not exist" if not path.exists() else f"{path} is neither a folder nor a packed set",
            hint=f"Give a folder with images/ and masks/, or a file that `vmkla data pack` wrote "
            f"(*{PACK_SUFFIX}).",
        )
    for find in (_plain, _synapse, _pranet, _three_parts):
        if (found := find(path)) is not None:
            return found
    inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
    raise BadInputError(
        f"{path} has none of the layouts that are known; it holds: {inside}",
        hint="Expected one of:\n"
        "  images/ and masks/, files with equal stems\n"
        "  train/, val/ and test/, each with images/ and masks/ (any of the three may be missing)\n"
        "  the same with several sets, val/<SET>/ or test/<SET>/, each with images/ and masks/\n"
        "  TrainDataset/ and TestDataset/<SET>/, each with images/ and masks/\n"
        "  train_npz/, test_vol_h5/ and lists/ (Synapse)",
    )


def _packed(path: Path) -> DataSet:
    file = open_file(path)
    sources: dict[str, tuple[DataSource, ...]] = {
        part: (DataSource(path, kind=PACKED, part=part),) for part in file.parts
    }
    tests = {
        part.partition("/")[2] or UNNAMED: source
        for part, source in sources.items()
        if part.split("/")[0] == UNNAMED
    }
    return DataSet(
        train=sources.get("train", ()),
        val=sources.get("val", ()),
        test=tests,
        class_names=file.class_names,
        volumes=file.volumes,
    )


def _plain(path: Path) -> DataSet | None:
    return DataSet((DataSource(path),)) if pair_folders(path) else None


def _three_parts(path: Path) -> DataSet | None:
    """``train``, ``val`` and ``test``; the last two may hold sets.

    PraNet's copies have their tests in ``val/<SET>`` and no ``test``.
    """
    train, val, test = (_part(path / name) for name in ("train", "val", "test"))
    val_sets, test_sets = _named_sets(path / "val"), _named_sets(path / "test")
    tests = ({UNNAMED: test} if test else {}) | test_sets
    if not tests:
        tests, val_sets = val_sets, {}
    val = (*val, *(source for sources in val_sets.values() for source in sources))
    return DataSet(train, val, tests) if train or val or tests else None


def _pranet(path: Path) -> DataSet | None:
    """``TrainDataset`` and ``TestDataset/<SET>``."""
    train, tests = _part(path / "TrainDataset"), _named_sets(path / "TestDataset")
    return DataSet(train, (), tests) if train or tests else None


def _named_sets(folder: Path) -> dict[str, tuple[DataSource, ...]]:
    """Folders inside a folder that hold images and masks."""
    children = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    return {child.name: (DataSource(child),) for child in children if pair_folders(child)}


def _part(folder: Path) -> tuple[DataSource, ...]:
    return (DataSource(folder),) if pair_folders(folder) else ()


def _synapse(path: Path) -> DataSet | None:
    """``train_npz``, ``test_vol_h5`` and ``lists``, as TransUNet's prepared files come."""
    lists = next((path / name for name in _SYNAPSE_LISTS if (path / name).is_dir()), path)

    def listed(folder: str, split: str, kind: str) -> tuple[DataSource, ...]:
        file = lists / split
        if not (path / folder).is_dir():
            return ()
        return (DataSource(path / folder, file if file.is_file() else None, kind=kind),)

    train = listed("train_npz", "train.txt", SLICES)
    test = listed("test_vol_h5", "test_vol.txt", VOLUMES)
    if not train and not test:
        return None
    return DataSet(train, (), {UNNAMED: test} if test else {}, ORGANS, volumes=True)
