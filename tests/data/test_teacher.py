"""A teacher's soft masks: written, read, mixed in, augmented with the image; and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled_folders import labelled_image, write_folder
from vmkla.data.arrays import LabelledArrays, TrainLoader, stack
from vmkla.data.augment import AugmentConfig
from vmkla.data.folder import iter_samples
from vmkla.data.layouts import DataSet
from vmkla.data.packing import PackOptions, pack, pack_teacher, soft_mask
from vmkla.data.sources import DataSource, Sample
from vmkla.data.teacher import as_soft, read_teacher, with_teacher
from vmkla.data.windows import WINDOW
from vmkla.errors import BadInputError, UsageError
from vmkla.segment.preprocess import PreprocessSpec

SPEC = PreprocessSpec(40, 60)
POLYP = ("polyp",)


def images(count: int = 5) -> LabelledArrays:
    made = [labelled_image(seed, 40, 60) for seed in range(count)]
    return LabelledArrays(
        tuple(f"set/{n}" for n in range(count)), *(np.stack(kind) for kind in zip(*made, strict=True))
    )


def soft_of(row: int) -> np.ndarray:  # type: ignore[type-arg]
    """A probability that differs from image to image and from pixel to pixel, 0 to 1."""
    return np.random.default_rng(row).random((40, 60))


def taught(arrays: LabelledArrays) -> list[Sample]:
    return [
        Sample(name, arrays.images_rgb[row], soft_mask(soft_of(row)), prepared=SPEC)
        for row, name in enumerate(arrays.names)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "teacher.vmkpack"
    assert pack_teacher(taught(images()), made, SPEC, made_by={"epoch": 3}) == 5
    return made


def test_masks_come_back_as_they_were_written(path: Path) -> None:
    read = read_teacher(path, class_names=POLYP, spec=SPEC)
    assert list(read) == [f"set/{n}" for n in range(5)]
    for row, sample in enumerate(read.values()):
        assert np.abs(sample.mask / 255 - soft_of(row)).max() <= 0.5 / 255 + 1e-9
        assert sample.mask.dtype == np.uint8 and len(np.unique(sample.mask)) > 200


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_masks_are_mixed_by_their_weight(path: Path, weight: float) -> None:
    arrays = images()
    mixed = with_teacher(arrays, read_teacher(path, class_names=POLYP, spec=SPEC), weight=weight)
    assert mixed.soft and mixed.names == arrays.names and np.array_equal(mixed.images_rgb, arrays.images_rgb)
    for row in range(5):
        expected = 255 * (weight * soft_of(row) + (1 - weight) * arrays.masks[row])
        assert np.abs(mixed.masks[row] - expected).max() <= 1.01


def test_windows_stay_empty_and_images_without_a_true_mask_are_added(path: Path) -> None:
    arrays = images(4)
    masks = np.concatenate([arrays.masks[:3], np.zeros((1, 40, 60), np.uint8)])
    arrays = replace(arrays, names=(*arrays.names[:3], "set/0" + WINDOW), masks=masks)
    mixed = with_teacher(arrays, read_teacher(path, class_names=POLYP, spec=SPEC), weight=0.5)
    assert mixed.names == (*arrays.names, "set/3", "set/4")
    assert not mixed.masks[3].any() and mixed.quiet[3]
    assert np.array_equal(mixed.masks[5], soft_mask(soft_of(4)))


def test_a_soft_mask_follows_its_image() -> None:
    """An image whose red channel is its own mask stays so through every warp, flip and crop."""
    mask = np.zeros((2, 40, 40), np.uint8)
    mask[:, 8:30, 12:33] = np.linspace(0, 255, 21).astype(np.uint8)
    arrays = LabelledArrays(("a", "b"), np.repeat(mask[..., None], 3, axis=3), mask, soft=True)
    for config in (AugmentConfig.paper(), replace(AugmentConfig.off(), flip=0.5)):
        size_hw = (32, 32) if config.geometric else (40, 40)
        for workers in (0, 1):
            loader = TrainLoader(
                arrays, batch_size=2, size_hw=size_hw, config=config, seed=1, workers=workers
            )
            for epoch in range(3):
                (batch,) = loader.epoch(epoch)
                assert batch.soft and len(np.unique(batch.masks)) > 15
                assert np.abs(batch.masks.astype(int) - batch.images_rgb[..., 0]).max() <= 1
            loader.close()


def test_true_masks_become_certain_probabilities() -> None:
    arrays = images()
    soft = as_soft(arrays)
    assert soft.soft and np.array_equal(soft.masks, 255 * arrays.masks) and as_soft(soft) is soft
    assert soft.quiet.tolist() == arrays.quiet.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01])
def test_what_is_no_probability_is_not_written(bad: float) -> None:
    probability = soft_of(0)
    probability[3, 4] = bad
    with pytest.raises(BadInputError, match="1 of 2400 values of a teacher's mask are not a number"):
        soft_mask(probability)


def test_a_pack_of_other_classes_size_or_field_is_refused(path: Path) -> None:
    with pytest.raises(BadInputError, match="soft masks of polyp, and the network learns background, liver"):
        read_teacher(path, class_names=("background", "liver"), spec=SPEC)
    for other in (PreprocessSpec(40, 64), PreprocessSpec(40, 60, "auto")):
        with pytest.raises(BadInputError, match="soft masks prepared by .*, and the images are prepared by"):
            read_teacher(path, class_names=POLYP, spec=other)


def test_a_pack_whose_masks_have_another_size_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.vmkpack"
    sample = taught(images(1))[0]
    pack_teacher([replace(sample, mask=sample.mask[:39])], path, SPEC, made_by={})
    with pytest.raises(BadInputError, match=r"soft mask of set/0 is \(39, 60\), expected \(40, 60\)"):
        read_teacher(path, class_names=POLYP, spec=SPEC)


def test_a_pack_that_does_not_fit_its_images_is_refused(path: Path) -> None:
    teacher = read_teacher(path, class_names=POLYP, spec=SPEC)
    with pytest.raises(BadInputError, match="lacks 1 of the training images: set/5"):
        with_teacher(images(6), teacher, weight=0.5)
    arrays = images()
    swapped = replace(arrays, images_rgb=arrays.images_rgb[:, :, ::-1].copy())
    with pytest.raises(BadInputError, match="holds other pictures of 5 of the training images: set/0, set/1"):
        with_teacher(swapped, teacher, weight=0.5)


def test_soft_masks_are_no_labels_and_labels_are_no_soft_masks(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds a teacher's soft masks and no labels"):
        list(iter_samples([DataSource(path)]))
    source = DataSource(write_folder(tmp_path / "set", 3, height=40, width=60))
    labels = tmp_path / "labels.vmkpack"
    pack(DataSet((source,), (), {}), labels, PackOptions((40, 60), margin=1.0))
    with pytest.raises(BadInputError, match="holds labels and no teacher's soft masks"):
        read_teacher(labels, class_names=POLYP, spec=SPEC)
    with pytest.raises(UsageError, match="does not end in .vmkpack"):
        pack_teacher([], tmp_path / "teacher.zip", SPEC, made_by={})
    assert len(stack(iter_samples([DataSource(labels)]), SPEC)) == 3
