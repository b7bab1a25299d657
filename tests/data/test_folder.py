"""Labelled folders: what is read, and every problem named at once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.data.labelled_folders import labelled_image, write_folder
from vmkla.data import DataSet
from vmkla.data.check import check
from vmkla.data.folder import iter_samples, list_pairs, read_sample
from vmkla.data.sources import DataSource
from vmkla.errors import BadInputError


def test_samples_are_what_was_written_in_order(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 11)
    samples = list(iter_samples([DataSource(folder)]))
    assert [sample.name for sample in samples] == [f"set/case-{number:02d}" for number in range(11)]
    for seed, sample in enumerate(samples):
        image, mask = labelled_image(seed, 48, 64)
        np.testing.assert_array_equal(sample.image_rgb, image)
        assert sample.mask.dtype == np.uint8
        np.testing.assert_array_equal(sample.mask, mask)


def test_a_split_file_chooses_and_orders(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 4)
    split = tmp_path / "val.txt"
    split.write_text("\ufeffcase-02\n\n case-00 \n", encoding="utf-8")  # as some editors save it
    source = DataSource.parse(f"{folder}:{split}")
    assert source == DataSource(folder, split) and DataSource.parse(str(source)) == source
    assert [pair.image.stem for pair in list_pairs([source])] == ["case-02", "case-00"]


def test_a_folder_with_a_colon_in_its_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a:b", 1)
    assert DataSource.parse(str(folder)) == DataSource(folder)


def test_image_and_mask_may_differ_in_suffix_and_jpeg_masks_are_cut(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 1)
    image, mask = labelled_image(0, 48, 64)
    (folder / "images" / "case-00.png").unlink()
    (folder / "masks" / "case-00.png").unlink()
    cv2.imwrite(str(folder / "images" / "case-00.JPG"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    cv2.imwrite(str(folder / "masks" / "case-00.jpg"), 255 * mask, [cv2.IMWRITE_JPEG_QUALITY, 80])
    sample = next(iter_samples([DataSource(folder)]))
    smooth = [cv2.blur(picture.astype(np.float32), (8, 8)) for picture in (sample.image_rgb, image)]
    assert np.abs(smooth[0] - smooth[1]).mean() < 3  # JPEG blurs this noise's colour; red for blue is 60 off
    assert np.count_nonzero(sample.mask != mask) < 0.02 * mask.size


def test_all_layout_problems_in_one_message(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 4)
    (folder / "masks" / "case-01.png").unlink()
    (folder / "images" / "case-02.png").unlink()
    (folder / "images" / "case-03.bmp").write_bytes((folder / "images" / "case-03.png").read_bytes())
    split = tmp_path / "split.txt"
    split.write_text("case-00\ncase-00\ncase-77\n", encoding="utf-8")
    with pytest.raises(BadInputError) as caught:
        list_pairs([DataSource(folder), DataSource(folder, split), DataSource(tmp_path / "absent")])
    message = str(caught.value)
    for part in (
        "case-01.png has no mask",
        "case-02.png has no image",
        "case-03.bmp and case-03.png have the same stem",
        "lists 'case-00' more than once",
        "lists 'case-77'",
        "case-00.png is given 2 times",
        f"{tmp_path / 'absent' / 'images'} is not a folder",
        f"{tmp_path / 'absent' / 'masks'} is not a folder",
    ):
        assert part in message, part


def test_all_file_problems_in_one_message_and_nothing_after_the_first(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 6)
    cv2.imwrite(str(folder / "masks" / "case-01.png"), np.zeros((48, 63), np.uint8))
    (folder / "images" / "case-02.png").write_text("not a picture")
    (folder / "masks" / "case-03.png").write_text("not a picture")
    cv2.imwrite(str(folder / "masks" / "case-04.png"), np.ones((48, 64), np.uint8))
    # OpenCV alone reads a JPEG that is cut off, and fills what is missing with 128: half of it polyp.
    (folder / "masks" / "case-05.png").unlink()
    noise = np.random.default_rng(0).integers(0, 2, (48, 64), np.uint8) * np.uint8(255)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    (folder / "masks" / "case-05.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    seen = []
    with pytest.raises(BadInputError) as caught:
        for sample in iter_samples([DataSource(folder)]):
            seen.append(sample.name)
    assert seen == ["set/case-00"]
    message = str(caught.value)
    assert "5 problems" in message
    assert "the image is 48x64 (height x width) and its mask 48x63" in message
    for name in ("images/case-02.png", "masks/case-03.png", "masks/case-05.jpg"):
        assert name in message
    assert "the largest value is 1" in message


def _stored(kind: str, mask: npt.NDArray[np.uint8]) -> Image.Image:
    """A mask of 0 and 1 as one of the kinds of PNG that tools write."""
    white, black = 255 * mask, 0 * mask
    if kind == "one bit":
        return Image.fromarray(white).convert("1")
    if kind.startswith("palette"):
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette([0, 0, 0, *((255, 255, 255) if kind == "palette, white" else (128, 0, 0))])
        return picture
    if kind.startswith("16 bits"):
        return Image.fromarray(mask.astype(np.uint16) * np.uint16(kind.split()[-1]))
    colours = {"alpha": [white] * 3, "alpha alone": [black] * 3, "alpha on white": [black + 255] * 3}
    return Image.fromarray(np.dstack([*colours[kind], white]))


@pytest.mark.parametrize("kind", ["one bit", "palette, white", "16 bits 65535", "alpha"])
def test_other_kinds_of_png_hold_masks_too(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "set", 1)
    mask = labelled_image(0, 48, 64)[1]
    _stored(kind, mask).save(folder / "masks" / "case-00.png")
    np.testing.assert_array_equal(next(iter_samples([DataSource(folder)])).mask, mask)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("16 bits 1", "largest value is 1 in a file of 16 bits"),
        ("16 bits 255", "largest value is 255 in a file of 16 bits"),
        ("16 bits 20000", "largest value is 20000"),
        ("palette, dark", "--mask-values 800000"),
        ("alpha alone", "alpha channel"),
        ("alpha on white", "alpha channel"),
    ],
)
def test_a_mask_that_would_be_read_as_empty_or_full_is_refused(
    tmp_path: Path, kind: str, message: str
) -> None:
    folder = write_folder(tmp_path / "set", 1)
    _stored(kind, labelled_image(0, 48, 64)[1]).save(folder / "masks" / "case-00.png")
    with pytest.raises(BadInputError, match=message):
        list(iter_samples([DataSource(folder)]))
    report = check(DataSet((DataSource(folder),)))
    assert len(report.problems) == 1 and message in report.problems[0].message


def test_an_empty_and_a_full_mask_of_any_depth_are_masks(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 1)
    for depth, value in ((np.uint8, 0), (np.uint8, 255), (np.uint16, 0), (np.uint16, 65535)):
        cv2.imwrite(str(folder / "masks" / "case-00.png"), np.full((48, 64), value, depth))
        assert (next(iter_samples([DataSource(folder)])).mask == (value > 0)).all()


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 1)
    split = tmp_path / "split.txt"
    split.write_text("\n".join(f"absent-{number}" for number in range(50)), encoding="utf-8")
    with pytest.raises(BadInputError, match="and 30 more"):
        list_pairs([DataSource(folder, split)])


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_split_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "set", 1)
    split = tmp_path / "split.txt"
    split.write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match="lists no stem"):
        list_pairs([DataSource(folder, split)])


def test_an_empty_folder_and_an_absent_split_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 0)
    with pytest.raises(BadInputError, match="holds no image"):
        list_pairs([DataSource(folder)])
    with pytest.raises(BadInputError, match="cannot be read as a list of stems"):
        list_pairs([DataSource(folder, tmp_path / "absent.txt")])


@pytest.mark.needs_data
@pytest.mark.parametrize(("name", "count"), [("train_PolypGen", 1220), ("val_PolypGen", 167)])
def test_real_splits(shared_data: Path, name: str, count: int) -> None:
    data = shared_data / "data"
    pairs = list_pairs([DataSource(data / "polypgen", data / "splits" / f"{name}.txt")])
    assert len(pairs) == count
    sample = read_sample(pairs[0])
    assert sample.image_rgb.shape[:2] == sample.mask.shape
