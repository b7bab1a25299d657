"""vmkla.data.pairs: masks lie on their images whatever the files' orientation, and only files are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.data.labelled_folders import write_folder, write_synapse
from tests.video.media.small_images import KINDS, stating, tagged, write_irregular
from vmkla.data import open_dataset
from vmkla.data.check import check
from vmkla.data.folder import iter_samples, list_pairs
from vmkla.data.packing import PackOptions, pack
from vmkla.data.rules import MaskOrientation, MaskValues, ReadRules
from vmkla.errors import BadInputError, UsageError

Array = npt.NDArray[np.uint8]


def turned_folder(
    folder: Path, orientation: int, lies: str, *, suffix: str = ".jpg", square: bool = False
) -> tuple[Path, Array]:
    """A folder with one image that is shown turned and its mask, and that mask as it is shown."""
    shown_image = np.zeros((64, 64 if square else 96, 3), np.uint8)
    shown_mask = np.zeros(shown_image.shape[:2], np.uint8)
    shown_image[8:24, 8:40], shown_mask[8:24, 8:40] = 200, 255
    shown_image[40:56, 40:48] = (200, 20, 20)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored_image, stored_mask = _turned(shown_image, back), _turned(shown_mask, back)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "images" / f"a{suffix}").write_bytes(tagged(suffix, stored_image, orientation))
    mask = stored_mask if lies == "stored" else shown_mask
    (folder / "masks" / "a.png").write_bytes(tagged(".png", mask, 1))
    return folder, (shown_mask > 0).astype(np.uint8)


def _turned(pixels: Array, orientation: int) -> Array:
    """Independent of the code under test: by NumPy's own turns."""
    made = {
        1: pixels,
        2: np.fliplr(pixels),
        3: np.rot90(pixels, 2),
        4: np.flipud(pixels),
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, 1),
    }[orientation]
    return np.ascontiguousarray(made)


def samples(folder: Path, **rules: MaskOrientation) -> list[tuple[Array, Array]]:
    data_set = open_dataset(str(folder), split_validation=False, reading=ReadRules(**rules))  # type: ignore[arg-type]
    return [(sample.image_rgb, sample.mask) for sample in iter_samples(data_set.train)]


@pytest.mark.parametrize("lies", ["stored", "upright"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_from_orientation_5_on_the_size_tells(tmp_path: Path, orientation: int, lies: str) -> None:
    folder, wanted = turned_folder(tmp_path / "set", orientation, lies)
    ((image, mask),) = samples(folder)
    np.testing.assert_array_equal(mask, wanted)
    assert image.shape[:2] == mask.shape and image[mask > 0].mean() > 150
    assert check(open_dataset(str(folder), split_validation=False)).problems == ()


@pytest.mark.parametrize("lies", ["stored", "upright"])
@pytest.mark.parametrize(
    ("orientation", "square"),
    [(2, False), (3, False), (4, False), (2, True), (5, True), (6, True), (8, True)],
)
def test_where_the_size_does_not_tell_it_must_be_declared(
    tmp_path: Path, orientation: int, square: bool, lies: MaskOrientation
) -> None:
    """Neither training nor judging nor packing guesses, and the check lists the pair."""
    folder, wanted = turned_folder(tmp_path / "set", orientation, lies, square=square)
    with pytest.raises(BadInputError, match=f"orientation {orientation}, .*--mask-orientation stored"):
        samples(folder)
    data_set = open_dataset(str(folder), split_validation=False)
    with pytest.raises(BadInputError, match="--mask-orientation"):
        pack(data_set, tmp_path / "set.vmkpack", PackOptions((32, 32)))
    (problem,) = check(data_set).problems
    assert problem.kind == "orientation" and "set/a: the image has the EXIF" in problem.message
    ((image, mask),) = samples(folder, mask_orientation=lies)
    np.testing.assert_array_equal(mask, wanted)
    assert image[mask > 0].mean() > 150
    declared = open_dataset(str(folder), split_validation=False, reading=ReadRules(mask_orientation=lies))
    assert check(declared).problems == ()
    assert "mask_orientation" in str(declared.train[0]) and str(declared.train[0]) != str(data_set.train[0])


@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_of_image_is_turned(tmp_path: Path, suffix: str) -> None:
    folder, wanted = turned_folder(tmp_path / "set", 6, "stored", suffix=suffix)
    ((image, mask),) = samples(folder)
    np.testing.assert_array_equal(mask, wanted)
    assert image[mask > 0].mean() > 150 and image.shape == (64, 96, 3)


def test_a_masks_own_orientation_counts(tmp_path: Path) -> None:
    """Equal to the image's: both are turned. Another: nothing tells."""
    folder, wanted = turned_folder(tmp_path / "set", 3, "stored")
    stored = (255 * _turned(wanted, 3)).astype(np.uint8)
    (folder / "masks" / "a.png").write_bytes(tagged(".png", stored, 3))
    np.testing.assert_array_equal(samples(folder)[0][1], wanted)
    (folder / "masks" / "a.png").write_bytes(tagged(".png", stored, 4))
    with pytest.raises(BadInputError, match="orientation 3, its mask 4"):
        samples(folder)
    np.testing.assert_array_equal(samples(folder, mask_orientation="stored")[0][1], wanted)


def test_an_empty_mask_lies_anyhow(tmp_path: Path) -> None:
    folder, wanted = turned_folder(tmp_path / "set", 3, "stored")
    (folder / "masks" / "a.png").write_bytes(tagged(".png", 0 * wanted, 1))
    assert not samples(folder)[0][1].any()


def test_a_packed_set_keeps_what_was_declared(tmp_path: Path) -> None:
    folder, wanted = turned_folder(tmp_path / "set", 2, "stored")
    reading = ReadRules(mask_orientation="stored")
    options = PackOptions((64, 96), margin=1, quality=None)
    path = pack(
        open_dataset(str(folder), split_validation=False, reading=reading), tmp_path / "s.vmkpack", options
    ).path
    (sample,) = iter_samples(open_dataset(str(path), split_validation=False).train)
    np.testing.assert_array_equal(sample.mask, wanted)
    assert sample.image_rgb[sample.mask > 0].mean() > 150
    with pytest.raises(UsageError, match="holds classes and not mask files, and --mask-orientation"):
        open_dataset(str(path), reading=reading)


def test_declared_values_reach_every_reader(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 1)
    levels = np.zeros((48, 64), np.uint8)
    levels[5:20, 5:20], levels[30:40, 30:50] = 255, 100
    (folder / "masks" / "case-00.png").write_bytes(tagged(".png", levels, 1))
    with pytest.raises(BadInputError, match=r"third level .* 100 \(200 px\).* --mask-values 100,255"):
        list(iter_samples(open_dataset(str(folder), split_validation=False).train))
    (problem,) = check(open_dataset(str(folder), split_validation=False)).problems
    assert problem.kind == "mask" and "--mask-values 100,255" in problem.message
    for text, pixels in (("100,255", 425), ("100", 200), ("255", 225)):
        reading = ReadRules(mask_values=MaskValues.parse(text))
        data_set = open_dataset(str(folder), split_validation=False, reading=reading)
        (sample,) = iter_samples(data_set.train)
        assert sample.mask.sum() == pixels and check(data_set).problems == ()
    with pytest.raises(UsageError, match="--mask-values is for mask files"):
        open_dataset(str(write_synapse(tmp_path / "synapse")), reading=reading)


def test_what_is_not_a_regular_file_is_listed_once_and_never_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 3)
    for name in ("images", "masks"):
        irregular = write_irregular(folder / name)
    lone = folder / "images" / "case-09.png"
    lone.symlink_to("absent")
    shutil.copy(folder / "masks" / "case-00.png", folder / "masks" / "case-09.png")
    report = check(open_dataset(str(folder), split_validation=False))
    messages = [problem.message for problem in report.problems]
    assert {problem.kind for problem in report.problems} == {"layout"} and report.images == {"train": 3}
    assert len(messages) == 2 * len(irregular) + 1
    assert all("is not read: " in message for message in messages)
    assert any("images/pipe.png is not read: a named pipe" in message for message in messages)
    assert any("masks/zero.png is not read: a link to a device" in message for message in messages)
    with pytest.raises(BadInputError, match="is not read"):
        list_pairs(open_dataset(str(folder), split_validation=False).train)


def test_synapses_files_are_regular_too(tmp_path: Path) -> None:
    root = write_synapse(tmp_path / "synapse")
    first = sorted((root / "train_npz").iterdir())[0]
    first.unlink()
    first.symlink_to("/dev/zero")
    report = check(open_dataset(str(root), split_validation=False))
    assert [problem.message for problem in report.problems] == [
        f"{first} is not read: a link to a device, expected a regular file"
    ]


def test_a_list_of_stems_is_a_regular_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 2)
    (tmp_path / "list").symlink_to("/dev/zero")
    with pytest.raises(BadInputError, match="cannot be read as a list of stems: .*a link to a device"):
        list_pairs(open_dataset(f"{folder}:{tmp_path / 'list'}", split_validation=False).train)


def test_images_and_masks_beyond_the_limit_are_unreadable(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 3)
    (folder / "images" / "case-00.png").write_bytes(stating(20000, 20000, "png"))
    (folder / "masks" / "case-01.png").write_bytes(stating(20000, 20000, "png"))
    report = check(open_dataset(str(folder), split_validation=False))
    assert [problem.kind for problem in report.problems] == ["unreadable", "unreadable"]
    assert all("400 megapixels), expected at most 150" in problem.message for problem in report.problems)
    small = open_dataset(str(folder), split_validation=False, reading=ReadRules(max_megapixels=0.003))
    assert len(check(small).problems) == 6
