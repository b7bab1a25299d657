"""``--data``: a folder in any layout, a list of stems, a packed file, or a recipe of the paper by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from vmkla.data.layouts import UNNAMED, DataSet, divided, open_layout
from vmkla.data.pairs import pair_folders
from vmkla.data.rules import ReadRules
from vmkla.data.sequences import CLINICDB
from vmkla.data.sources import DataSource
from vmkla.errors import BadInputError, UsageError

POLYP_SETS = ("Kvasir", "CVC-ClinicDB")
"""What the polyp literature trains on, as in the split files ``train_<name>.txt`` and ``test_<name>.txt``."""

Recipe = Callable[[Path, int, list[str] | None], DataSet]
"""Folder, seed, and what takes the problems of a split, to sets."""


def open_dataset(
    text: str,
    *,
    root: Path | None = None,
    seed: int = 0,
    split_validation: bool = True,
    problems: list[str] | None = None,
    reading: ReadRules = ReadRules(),  # noqa: B008 (frozen)
) -> DataSet:
    """Find the images that a user means.

    Args:
        text: a folder in one of the layouts, ``DIR:SPLITFILE``, a packed file, or a recipe: ``NAME=DIR``,
            or ``NAME`` with ``root``.
        root: folder of a recipe that is given by its name alone.
        seed: of the splits, where the set has none.
        split_validation: split a validation set off the training set where there is none.
        problems: collects the problems of sets that are split; None raises instead.
        reading: how its files are read.
    Returns:
        Its sets. No image is read: a problem of one shows when it is.
    Raises:
        UsageError: the recipe is unknown, or has no folder, or masks are declared where there are no mask
            files.
        BadInputError: the folder or file is not there, or has another layout.
    """
    data_set = _open(text, root, seed, problems).read_by(reading)
    return data_set.with_validation(seed=seed, problems=problems) if split_validation else data_set


def _open(text: str, root: Path | None, seed: int, problems: list[str] | None) -> DataSet:
    name, equals, folder = text.partition("=")
    if equals and not Path(text).exists():
        if name not in RECIPES:
            raise UsageError(f"there is no recipe {name!r}", hint=f"Choose one of: {', '.join(RECIPES)}")
        return RECIPES[name](Path(folder), seed, problems)
    if text in RECIPES and (root is not None or not Path(text).exists()):
        if root is None:
            raise UsageError(
                f"the recipe {text!r} needs the folder of its images", hint=f"Give --data {text}=DIR"
            )
        return RECIPES[text](root, seed, problems)
    source = DataSource.parse(text)
    if root is not None and not source.folder.exists():
        raise UsageError(f"there is no recipe {text!r}", hint=f"Choose one of: {', '.join(RECIPES)}")
    if source.split is None:
        return open_layout(source.folder)
    if not source.folder.is_dir():
        raise BadInputError(f"{source.folder} is not a folder")
    return DataSet((source,))


def _skin(test_share: float) -> Recipe:
    """ISIC 2017 and 2018, PH2: VM-UNet's ``{train,val}/{images,masks}``, or one folder to split."""

    def recipe(root: Path, seed: int, problems: list[str] | None) -> DataSet:
        found = dataclasses.replace(open_layout(root), class_names=("lesion",))
        if found.test:
            return found
        if found.val:  # what VM-UNet's layout calls val is what it reports on
            return dataclasses.replace(found, val=(), test={UNNAMED: found.val})
        train, test = divided(found.train, share=test_share, seed=seed, problems=problems)
        return dataclasses.replace(found, train=train, test={UNNAMED: test})

    return recipe


def _polyp(root: Path, seed: int, problems: list[str] | None) -> DataSet:
    """PraNet's protocol: trains on 900 images of Kvasir-SEG and 550 of CVC-ClinicDB, tests on the rest."""
    if (root / "splits").is_dir():
        return _polyp_by_lists(root)
    found = open_layout(root)
    train = tuple(dataclasses.replace(source, rule=CLINICDB) for source in found.train)
    if found.test:
        return dataclasses.replace(found, train=train)
    if found.val:
        return dataclasses.replace(found, train=train, val=(), test={UNNAMED: found.val})
    train, test = divided(train, share=0.3, seed=seed, problems=problems)
    return dataclasses.replace(found, train=train, test={UNNAMED: test})


def _polyp_by_lists(root: Path) -> DataSet:
    """One folder a data set beside ``splits/``, which lists stems."""
    folders = {
        re.sub("[^a-z0-9]", "", child.name.lower()): child
        for child in sorted(root.iterdir())
        if child.is_dir() and pair_folders(child)
    }
    train: list[DataSource] = []
    test: dict[str, tuple[DataSource, ...]] = {}
    missing: list[str] = []
    for name in POLYP_SETS:
        key = re.sub("[^a-z0-9]", "", name.lower())
        folder = next((path for have, path in folders.items() if have.startswith(key)), None)
        lists = [root / "splits" / f"{side}_{name}.txt" for side in ("train", "test")]
        missing += [str(file) for file in lists if not file.is_file()]
        if folder is None:
            missing.append(f"{root}/{name}*/images and masks")
        else:
            train.append(DataSource(folder, lists[0]))
            test[name] = (DataSource(folder, lists[1]),)
    if missing:
        raise BadInputError(
            f"{root} has a folder splits/, and lacks: {', '.join(missing)}",
            hint="Expected kvasir-seg/, cvc-clinicdb/ and splits/{train,test}_{Kvasir,CVC-ClinicDB}.txt, or "
            "PraNet's TrainDataset/ and TestDataset/.",
        )
    return DataSet(tuple(train), (), test)


def _synapse(root: Path, seed: int, problems: list[str] | None) -> DataSet:
    """TransUNet's prepared slices and volumes: 18 patients to train, 12 to test."""
    found = open_layout(root)
    if not found.volumes:
        raise BadInputError(
            f"{root} holds images and not Synapse's files", hint="Expected train_npz/, test_vol_h5/, lists/"
        )
    return found


RECIPES: dict[str, Recipe] = {
    "isic17": _skin(0.3),
    "isic18": _skin(0.3),
    "ph2": _skin(0.5),
    "polyp": _polyp,
    "synapse": _synapse,
}
"""The paper's protocols by name."""
