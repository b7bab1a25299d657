"""Layouts and recipes: which images of a miniature become training, validation and test images."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.data.labelled_folders import (
    write_folder,
    write_pranet,
    write_split_polyps,
    write_stems,
    write_synapse,
)
from vmkla.config import ModelConfig
from vmkla.data import DataSet, DataSource, iter_samples, list_pairs, open_dataset
from vmkla.data.layouts import ORGANS
from vmkla.data.recipes import RECIPES
from vmkla.errors import BadInputError, UsageError
from vmkla.training import TrainConfig, train

TINY = ModelConfig("t", dim=16, encoder_depths=(1, 1, 1, 1), decoder_depths=(1, 1, 1, 1), d_state=2)


def names(sources: tuple[DataSource, ...]) -> list[str]:
    return [pair.name for pair in list_pairs(sources)]


def counts(data_set: DataSet) -> dict[str, int]:
    return {part: len(list_pairs(sources)) for part, sources in data_set.parts().items()}


def three_parts(root: Path, **sizes: int) -> Path:
    for seed, (name, size) in enumerate(sizes.items()):
        write_folder(root / name, size, first_seed=100 * seed)
    return root


def test_a_plain_folder_and_a_list_of_stems(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 20)
    whole = open_dataset(str(folder), split_validation=False)
    assert counts(whole) == {"train": 20} and whole.class_names == ("polyp",) and whole.num_classes == 1
    divided = open_dataset(str(folder))
    assert counts(divided) == {"train": 18, "val": 2}
    assert sorted(names(divided.train) + names(divided.val)) == names(whole.train)
    assert divided == open_dataset(str(folder)) != open_dataset(str(folder), seed=1)
    (tmp_path / "few.txt").write_text("case-03\ncase-01\n", encoding="utf-8")
    listed = open_dataset(f"{folder}:{tmp_path / 'few.txt'}", split_validation=False)
    assert names(listed.train) == ["set/case-03", "set/case-01"] and not listed.val


def test_three_parts(tmp_path: Path) -> None:
    root = three_parts(tmp_path, train=6, val=3, test=2)
    assert counts(open_dataset(str(root))) == {"train": 6, "val": 3, "test": 2}
    shutil.rmtree(root / "val")
    assert counts(open_dataset(str(root))) == {"train": 5, "val": 1, "test": 2}
    shutil.rmtree(root / "train")
    assert counts(open_dataset(str(root))) == {"test": 2}


@pytest.mark.parametrize(
    ("train_name", "test_name"), [("TrainDataset", "TestDataset"), ("train", "val"), ("train", "test")]
)
def test_pranets_layout(tmp_path: Path, train_name: str, test_name: str) -> None:
    """Sets below ``val`` are tests, however the folder is called: nothing is chosen on them."""
    data_set = open_dataset(str(write_pranet(tmp_path, train=train_name, tests=test_name)))
    assert counts(data_set) == {"train": 11, "val": 1, "test/CVC-300": 2, "test/Kvasir": 2}
    assert names(data_set.test["Kvasir"]) == ["Kvasir/a", "Kvasir/b"]


def test_sets_beside_each_other_are_not_left_out(tmp_path: Path) -> None:
    root = write_pranet(tmp_path, train="train", tests="test")
    write_stems(root / "val", ["a", "b", "c"], first_seed=200)
    assert counts(open_dataset(str(root))) == {"train": 12, "val": 3, "test/CVC-300": 2, "test/Kvasir": 2}
    shutil.rmtree(root / "val")
    for number, name in enumerate(("one", "two")):  # validation sets by name, beside test sets
        write_stems(root / "val" / name, ["a", "b"], first_seed=300 + 10 * number)
    found = open_dataset(str(root))
    assert counts(found) == {"train": 12, "val": 4, "test/CVC-300": 2, "test/Kvasir": 2}
    assert names(found.val) == ["one/a", "one/b", "two/a", "two/b"]
    shutil.rmtree(root / "test")
    write_stems(root / "test", ["a"], first_seed=400)
    assert counts(open_dataset(str(root))) == {"train": 12, "val": 4, "test": 1}


def test_one_of_pranets_two_folders(tmp_path: Path) -> None:
    root = write_pranet(tmp_path)
    shutil.rmtree(root / "TrainDataset")
    assert counts(open_dataset(str(root))) == {"test/CVC-300": 2, "test/Kvasir": 2}
    shutil.rmtree(write_pranet(tmp_path / "other") / "TestDataset")
    assert counts(open_dataset(str(tmp_path / "other"))) == {"train": 11, "val": 1}


def test_other_names_of_the_two_folders(tmp_path: Path) -> None:
    for images, masks in (("image", "mask"), ("Original", "Ground Truth")):
        folder = write_folder(tmp_path / images, 2)
        (folder / "images").rename(folder / images)
        (folder / "masks").rename(folder / masks)
        assert names(open_dataset(str(folder), split_validation=False).train) == [
            f"{images}/case-00",
            f"{images}/case-01",
        ]


def test_masks_with_the_endings_of_isic_and_ph2(tmp_path: Path) -> None:
    folder = write_stems(tmp_path / "set", ["ISIC_0000001", "IMD002"])
    for stem, ending in (("ISIC_0000001", "_segmentation"), ("IMD002", "_lesion")):
        (folder / "masks" / f"{stem}.png").rename(folder / "masks" / f"{stem}{ending}.png")
    pairs = list_pairs([DataSource(folder)])
    assert [(pair.image.stem, pair.mask.stem) for pair in pairs] == [
        ("IMD002", "IMD002_lesion"),
        ("ISIC_0000001", "ISIC_0000001_segmentation"),
    ]
    shutil.copy(pairs[0].mask, folder / "masks" / "IMD002.png")
    with pytest.raises(BadInputError, match="are masks of one image"):
        list_pairs([DataSource(folder)])


def test_skin_recipes_test_on_what_the_layout_calls_val(tmp_path: Path) -> None:
    data_set = open_dataset(f"isic17={three_parts(tmp_path, train=10, val=4)}")
    assert counts(data_set) == {"train": 9, "val": 1, "test": 4} and data_set.class_names == ("lesion",)
    assert [name.split("/")[0] for name in names(data_set.test["test"])] == ["val"] * 4
    write_folder(tmp_path / "test", 2, first_seed=900)
    assert counts(open_dataset("isic18", root=tmp_path)) == {"train": 10, "val": 4, "test": 2}


@pytest.mark.parametrize(("recipe", "tests"), [("isic17", 12), ("isic18", 12), ("ph2", 20), ("polyp", 12)])
def test_a_recipe_splits_what_is_not_split(tmp_path: Path, recipe: str, tests: int) -> None:
    """7:3, PH2 1:1, by a fixed seed; then a tenth of the training images to validate on."""
    root = write_folder(tmp_path / "set", 40)
    data_set = open_dataset(f"{recipe}={root}")
    rest = 40 - tests
    assert counts(data_set) == {"train": rest - round(rest / 10), "val": round(rest / 10), "test": tests}
    parts = [set(names(sources)) for sources in data_set.parts().values()]
    assert len(set.union(*parts)) == 40
    assert data_set == open_dataset(f"{recipe}={root}", seed=0) != open_dataset(f"{recipe}={root}", seed=5)


def test_polyp_by_split_files(tmp_path: Path) -> None:
    data_set = open_dataset("polyp", root=write_split_polyps(tmp_path))
    assert counts(data_set) == {"train": 15, "val": 5, "test/Kvasir": 4, "test/CVC-ClinicDB": 4}
    clinic = [{pair.group for pair in list_pairs(part[1:])} for part in (data_set.train, data_set.val)]
    # 22-25 and 26-31 are two sequences: neither fits a tenth, and the shorter one goes whole.
    assert clinic == [{"clinicdb-02"}, {"clinicdb-01"}]
    whole = open_dataset(f"polyp={tmp_path}", split_validation=False)
    assert names(whole.train)[:2] == ["kvasir-seg/cju00", "kvasir-seg/cju01"] and not whole.val
    (tmp_path / "splits" / "test_Kvasir.txt").unlink()
    with pytest.raises(BadInputError, match="lacks: .*test_Kvasir.txt"):
        open_dataset(f"polyp={tmp_path}")


def test_polyp_from_pranets_folders_tells_clinicdb_by_its_numbers(tmp_path: Path) -> None:
    data_set = open_dataset(f"polyp={write_pranet(tmp_path, train='train', tests='val')}")
    groups = {pair.stem: pair.group for pair in list_pairs(data_set.train + data_set.val)}
    assert groups["1"] == groups["3"] == "clinicdb-01" and groups["60"] == "clinicdb-03"
    assert groups["cju00"] == ""


def test_synapse(tmp_path: Path) -> None:
    data_set = open_dataset(f"synapse={write_synapse(tmp_path)}")
    assert data_set.num_classes == 9 and data_set.class_names == ORGANS and data_set.volumes
    assert counts(data_set) == {"train": 8, "val": 4, "test": 7}  # two patients, one, and two volumes
    patients = [{pair.group for pair in list_pairs(part)} for part in (data_set.train, data_set.val)]
    assert not patients[0] & patients[1] and len(patients[1]) == 1
    assert open_dataset(str(tmp_path)) == data_set  # the layout speaks for itself
    with pytest.raises(BadInputError, match="holds images and not Synapse"):
        open_dataset(f"synapse={write_folder(tmp_path / 'other', 3)}")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("polyps={folder}", UsageError, "no recipe 'polyps'"),
        ("isic17", UsageError, "needs the folder"),
        ("{folder}/absent", BadInputError, "does not exist"),
        ("{folder}", BadInputError, "none of the layouts.*holds: other.txt"),
        ("{folder}/other.txt", BadInputError, "neither a folder nor a packed set"),
        ("{folder}/absent:{folder}/other.txt", BadInputError, "is not a folder"),
        ("polyp={folder}/absent", BadInputError, "does not exist"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    (tmp_path / "other.txt").write_text("x", encoding="utf-8")
    with pytest.raises(error, match=message):
        open_dataset(text.format(folder=tmp_path))


def test_a_recipe_that_is_misspelt_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe 'isic19'"):
        open_dataset("isic19", root=write_folder(tmp_path / "set", 3))


def test_a_split_names_what_is_wrong_instead_of_leaving_it_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 20)
    (folder / "masks" / "case-03.png").unlink()
    with pytest.raises(BadInputError, match="case-03.png has no mask"):
        open_dataset(f"ph2={folder}")
    problems: list[str] = []
    data_set = open_dataset(f"ph2={folder}", problems=problems)
    assert len(problems) == 1 and "case-03.png has no mask" in problems[0]
    assert sum(counts(data_set).values()) == 19


def test_another_choice_of_images_is_another_source(tmp_path: Path) -> None:
    """The text goes into a run's configuration, which a resumed run is compared with."""
    folder = write_folder(tmp_path / "set", 20)
    texts = {str(open_dataset(str(folder), seed=seed).train[0]) for seed in (0, 1, 0)}
    assert len(texts) == 2 and all(text.startswith(f"{folder} (18 images, ") for text in texts)


def miniature(recipe: str, root: Path) -> Path:
    if recipe == "polyp":
        return write_split_polyps(root)
    if recipe == "synapse":
        return write_synapse(root)
    return three_parts(root, train=10, val=2) if recipe == "isic17" else write_folder(root, 14)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains(tmp_path: Path, recipe: str) -> None:
    """One epoch of the real loop on a miniature; every label arrives in range."""
    data_set = open_dataset(f"{recipe}={miniature(recipe, tmp_path / 'set')}")
    model = dataclasses.replace(TINY, num_classes=data_set.num_classes)
    config = TrainConfig(
        out_dir=tmp_path / "run", data=data_set.train, val=data_set.val, model=model, image_size_hw=(32, 32),
        class_names=data_set.class_names, epochs=1, batch_size=4, threads=1, curves=False, tensorboard=False,
    )  # fmt: skip
    result = train(config)
    assert result.finished and result.last_weights is not None and result.last_weights.is_file()
    for sources in data_set.parts().values():
        labels = {int(label) for sample in iter_samples(sources) for label in set(sample.mask.ravel())}
        assert labels <= set(range(max(2, data_set.num_classes))) and len(labels) > 1


@pytest.mark.needs_data
def test_polyp_on_the_real_images(shared_data: Path) -> None:
    """PraNet's numbers: 900 + 550 to train on, 100 and 62 to test on."""
    data_set = open_dataset(f"polyp={shared_data / 'data'}")
    found = counts(data_set)
    assert found["train"] + found["val"] == 1450 and 130 <= found["val"] <= 145
    assert found["test/Kvasir"] == 100 and found["test/CVC-ClinicDB"] == 62
    groups = [{pair.group for pair in list_pairs(part)} - {""} for part in (data_set.train, data_set.val)]
    assert groups[1] and not groups[0] & groups[1]
