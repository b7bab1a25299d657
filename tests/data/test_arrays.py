"""Batches: the same pixels as ``infer`` sees, an order fixed by the seed, a thread that does not leak."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled_folders import write_folder
from vmkla.data.arrays import (
    LabelledArrays,
    TrainLoader,
    _made_ahead,
    cache_spec,
    in_batches,
    loader_workers,
    prepared_pair,
    stack,
)
from vmkla.data.augment import AugmentConfig
from vmkla.data.folder import iter_samples
from vmkla.data.sources import DataSource, Sample
from vmkla.errors import BadInputError
from vmkla.segment.preprocess import PreprocessSpec, field_of_view, prepare


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return list(iter_samples([DataSource(write_folder(tmp_path / "set", 10))]))


def arrays_of(samples: list[Sample], config: AugmentConfig) -> LabelledArrays:
    return stack(samples, cache_spec((32, 32), "none", config))


def loader_of(samples: list[Sample], config: AugmentConfig, seed: int = 0) -> TrainLoader:
    return TrainLoader(arrays_of(samples, config), batch_size=3, size_hw=(32, 32), config=config, seed=seed)


def same(first: LabelledArrays, second: LabelledArrays) -> bool:
    return (
        first.names == second.names
        and np.array_equal(first.images_rgb, second.images_rgb)
        and np.array_equal(first.masks, second.masks)
    )


@pytest.mark.parametrize("roi", ["none", "auto"])
def test_unaugmented_training_sees_the_pixels_that_infer_gives(samples: list[Sample], roi: str) -> None:
    framed = []
    for sample in samples:
        image = np.zeros((80, 100, 3), np.uint8)
        mask = np.zeros((80, 100), np.uint8)
        image[12:60, 20:84], mask[12:60, 20:84] = sample.image_rgb, sample.mask
        framed.append(Sample(sample.name, image, mask))
    off = AugmentConfig.off()
    arrays = stack(framed, cache_spec((32, 32), roi, off))
    loader = TrainLoader(arrays, batch_size=5, size_hw=(32, 32), config=off, seed=3)
    spec = PreprocessSpec(32, 32, roi)
    by_name = {sample.name: sample for sample in framed}
    for batch in loader.epoch(0):
        for name, image in zip(batch.names, batch.images_rgb, strict=True):
            frame = by_name[name].image_rgb
            np.testing.assert_array_equal(image, prepare(frame, spec, field_of_view(frame, roi)))


def test_a_mask_pixel_is_set_when_half_of_it_is(samples: list[Sample]) -> None:
    rng = np.random.default_rng(0)
    mask = (rng.random((64, 96)) < 0.5).astype(np.uint8)
    sample = Sample("x", np.zeros((64, 96, 3), np.uint8), mask)
    _, small = prepared_pair(sample, PreprocessSpec(16, 32))
    share = mask.reshape(16, 4, 32, 3).mean((1, 3))
    np.testing.assert_array_equal(small, share >= 0.5 - 1e-6)


def test_an_epoch_takes_each_image_once_and_epochs_differ(samples: list[Sample]) -> None:
    loader = loader_of(samples, AugmentConfig())
    names = [[name for batch in loader.epoch(epoch) for name in batch.names] for epoch in range(2)]
    for taken in names:
        assert len(taken) == len(set(taken)) == 9  # three batches of three; one image is left out
    assert names[0] != names[1]
    rows = np.concatenate(loader.rows(0))
    assert [loader.arrays.names[row] for row in rows] == names[0]


def test_going_on_in_the_middle_gives_the_batches_that_were_left(samples: list[Sample]) -> None:
    whole = list(loader_of(samples, AugmentConfig()).epoch(4))
    rest = list(loader_of(samples, AugmentConfig()).epoch(4, first_step=1))
    assert len(whole) == 3 and len(rest) == 2
    assert all(same(a, b) for a, b in zip(whole[1:], rest, strict=True))
    other = list(loader_of(samples, AugmentConfig(), seed=1).epoch(4))
    assert not same(whole[0], other[0])


def test_how_many_workers_there_are_by_default() -> None:
    assert loader_workers("cpu", 1) == 0
    assert 1 <= loader_workers("cuda", 4) <= loader_workers("cuda") <= 16


def test_leaving_an_epoch_early_ends_its_thread(samples: list[Sample]) -> None:
    batches = loader_of(samples, AugmentConfig()).epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert "vmkla-train-loader" not in [thread.name for thread in threading.enumerate()]


def test_an_error_in_the_thread_reaches_the_reader() -> None:
    def failing() -> Generator[LabelledArrays, None, None]:
        yield LabelledArrays(("a",), np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2), np.uint8))
        raise ZeroDivisionError("on purpose")

    batches = _made_ahead(failing(), 2)
    assert next(batches).names == ("a",)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        next(batches)


def test_a_quiet_share_gives_every_batch_images_without_a_lesion(samples: list[Sample]) -> None:
    """Of ten images two have none; what is drawn twice in an epoch is augmented in two ways."""
    arrays = arrays_of(samples, AugmentConfig())
    assert arrays.quiet.tolist() == [False] * 4 + [True] + [False] * 4 + [True] and arrays.windows == 0
    loader = TrainLoader(
        arrays, batch_size=4, size_hw=(32, 32), config=AugmentConfig(), seed=0, quiet_share=0.5
    )
    batches = list(loader.epoch(0))
    quiet = set(np.array(arrays.names)[arrays.quiet])
    assert [sum(name in quiet for name in batch.names) for batch in batches] == [2] * 4
    copies = [
        image
        for batch in batches
        for name, image in zip(batch.names, batch.images_rgb, strict=True)
        if name == arrays.names[4]
    ]
    assert len(copies) == 4 and len({image.tobytes() for image in copies}) == 4


def test_too_few_images_are_refused(samples: list[Sample]) -> None:
    with pytest.raises(BadInputError, match="2 images, fewer than one batch of 3"):
        loader_of(samples[:2], AugmentConfig())
    with pytest.raises(BadInputError, match="no labelled image"):
        stack([], PreprocessSpec(32, 32))


def test_validation_batches_keep_all_in_order(samples: list[Sample]) -> None:
    arrays = arrays_of(samples, AugmentConfig.off())
    batches = list(in_batches(arrays, 4))
    assert [len(batch.names) for batch in batches] == [4, 4, 2]
    assert sum((batch.names for batch in batches), ()) == arrays.names
