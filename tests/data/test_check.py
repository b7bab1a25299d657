"""The check: every planted fault is found, at once and with its name, and a clean set is clean."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.data.labelled_folders import write_folder, write_split_polyps, write_stems, write_synapse
from vmkla.data import open_dataset
from vmkla.data.check import KINDS, CheckReport, check, mask_problem
from vmkla.data.duplicates import ALIKE_BITS, look_alikes, picture_hash
from vmkla.data.masks import read_mask
from vmkla.data.packing import PackOptions, pack
from vmkla.data.rules import ReadRules

Image = npt.NDArray[np.uint8]


def scene(seed: int, height: int = 96, width: int = 120) -> Image:
    """A picture with large forms, so that its hash means something."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def scenes(folder: Path, stems: list[str], *, first_seed: int) -> Path:
    write_stems(folder, stems)
    for number, stem in enumerate(stems):
        save(folder, stem, scene(first_seed + number))
    return folder


def save(folder: Path, stem: str, image: Image) -> None:
    cv2.imwrite(str(folder / "images" / f"{stem}.png"), image[..., ::-1])
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[10:30, 20:50] = 255
    cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask)


def checked(text: str) -> CheckReport:
    problems: list[str] = []
    return check(open_dataset(text, split_validation=False, problems=problems), problems=problems)


def kinds(report: CheckReport) -> Counter[str]:
    return Counter(problem.kind for problem in report.problems)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Three sets of different scenes."""
    for seed, (part, count) in enumerate((("train", 8), ("val", 3), ("test", 3))):
        scenes(tmp_path / "set" / part, [f"{part}{n}" for n in range(count)], first_seed=100 * seed)
    return tmp_path / "set"


def test_a_clean_set_is_clean(clean: Path) -> None:
    report = checked(str(clean))
    assert report.problems == () and report.images == {"train": 8, "val": 3, "test": 3}
    save_empty = clean / "train" / "masks" / "train0.png"
    cv2.imwrite(str(save_empty), np.zeros((96, 120), np.uint8))
    again = checked(str(clean))
    assert again.problems == () and again.without_foreground == {"train": 1, "val": 0, "test": 0}


def test_every_fault_is_named_at_once(clean: Path) -> None:
    train, test = clean / "train", clean / "test"
    (train / "images" / "train0.png").write_text("no picture", encoding="utf-8")
    (train / "masks" / "train1.png").write_text("no picture", encoding="utf-8")
    cv2.imwrite(str(train / "masks" / "train2.png"), np.zeros((96, 119), np.uint8))
    (train / "masks" / "train3.png").unlink()
    (test / "images" / "test1.png").unlink()
    grey = np.full((96, 120), 255, np.uint8)
    grey[5, 5] = 128
    cv2.imwrite(str(train / "masks" / "train4.png"), grey)
    cv2.imwrite(str(train / "masks" / "train5.png"), np.ones((96, 120), np.uint8))
    save(test, "test2", scene(6))  # the scene of train6
    done: list[tuple[int, int | None]] = []
    problems: list[str] = []
    data_set = open_dataset(str(clean), problems=problems)
    report = check(data_set, problems=problems, on_progress=lambda at, of: done.append((at, of)))
    assert done == [(number, 12) for number in range(1, 13)]
    expected = {"layout": 2, "unreadable": 2, "size": 1, "mask": 2, "duplicate": 1}
    assert kinds(report) == expected
    assert [problem.kind for problem in report.problems] == sorted(
        (problem.kind for problem in report.problems), key=list(KINDS).index
    )
    text = "\n".join(problem.message for problem in report.problems)
    for part in (
        "train0.png", "train1.png", "the image is 96x120 (height x width) and its mask 96x119",
        "train3.png has no mask", "test1.png has no image", "1 of 11520 pixels are neither 0 nor 255",
        "train5.png: the largest value is 1", "test/test2 in test looks like train/train6 in train (0 of 256",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize("quality", [40, 95])
def test_near_duplicates_are_found_after_resizing_and_jpeg(clean: Path, quality: int) -> None:
    smaller = cv2.resize(scene(2), (90, 70), interpolation=cv2.INTER_AREA)
    stored = cv2.imdecode(cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
    save(clean / "test", "test0", np.asarray(np.clip(stored.astype(int) + 9, 0, 255), np.uint8))
    report = checked(str(clean))
    assert kinds(report) == {"duplicate": 1}
    assert "test/test0 in test looks like train/train2 in train" in report.problems[0].message


def test_unrelated_scenes_are_far_apart() -> None:
    hashes = [picture_hash(scene(seed)) for seed in range(60)]
    bits = [int((a != b).sum()) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(bits) > 2 * ALIKE_BITS
    assert look_alikes(hashes[:30], hashes[30:]) == []
    assert look_alikes([], hashes) == look_alikes(hashes, []) == []
    near = hashes[3].copy()
    near[:ALIKE_BITS] ^= True
    assert [tuple(found) for found in look_alikes(hashes[:30], [near])] == [(3, 0, ALIKE_BITS)]
    near[ALIKE_BITS] ^= True
    assert look_alikes(hashes[:30], [near]) == []


def test_sequences_on_both_sides(tmp_path: Path) -> None:
    """The published split cuts through ClinicDB's sequences, and the check says so."""
    write_split_polyps(tmp_path)
    clinic = tmp_path / "cvc-clinicdb"
    (tmp_path / "splits" / "test_CVC-ClinicDB.txt").write_text("100\n31\n", encoding="utf-8")
    (tmp_path / "splits" / "train_CVC-ClinicDB.txt").write_text(
        "\n".join(map(str, [*range(22, 31), 101, 102])), encoding="utf-8"
    )
    for number, path in enumerate(sorted((clinic / "images").iterdir())):
        save(clinic, path.stem, scene(number))
    found = [p.message for p in checked(f"polyp={tmp_path}").problems if p.kind == "sequence"]
    assert len(found) == 2 and "in test/CVC-ClinicDB" in found[0] + found[1]
    assert any(message.startswith("sequence clinicdb-02 has 5 images in ") for message in found)
    assert any(message.startswith("sequence clinicdb-05 has 2 images in ") for message in found)


def test_a_split_recipe_is_checked_whole(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "set", [f"s{n:02d}" for n in range(20)], first_seed=0)
    (folder / "masks" / "s03.png").unlink()
    (folder / "images" / "s07.png").write_text("no picture", encoding="utf-8")
    report = checked(f"ph2={folder}")
    assert kinds(report) == {"layout": 1, "unreadable": 1}
    assert sum(report.images.values()) == 19


def test_packed_sets_and_synapse(tmp_path: Path, clean: Path) -> None:
    save(clean / "test", "test2", scene(6))
    path = pack(open_dataset(str(clean)), tmp_path / "set.vmkpack", PackOptions((64, 64))).path
    assert kinds(checked(str(path))) == {"duplicate": 1}
    root = write_synapse(tmp_path / "synapse")
    assert checked(str(root)).problems == ()
    sorted((root / "train_npz").iterdir())[0].write_text("nothing", encoding="utf-8")
    (root / "test_vol_h5" / "case0002.npy.h5").unlink()
    assert kinds(checked(str(root))) == {"layout": 1, "unreadable": 1}


def test_a_jpeg_mask_may_ring_and_no_more(tmp_path: Path) -> None:
    mask = np.zeros((100, 100), np.uint8)
    cv2.circle(mask, (50, 50), 30, 255, -1)
    cv2.imwrite(str(tmp_path / "m.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 95])
    rung = np.asarray(cv2.imread(str(tmp_path / "m.jpg"), cv2.IMREAD_GRAYSCALE), np.uint8)
    assert len(np.unique(rung)) > 2

    def problem(name: str) -> str:
        return mask_problem(read_mask(tmp_path / name, ReadRules()))

    assert problem("m.jpg") == ""
    cv2.imwrite(str(tmp_path / "m.png"), rung)
    assert "pixels are neither 0 nor 255 (values from 1 to" in problem("m.png")
    rung[:, :20] = 120
    cv2.imwrite(str(tmp_path / "m.jpg"), rung, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert "m.jpg: 2" in problem("m.jpg")
    for binary in (mask, 0 * mask):
        cv2.imwrite(str(tmp_path / "m.png"), binary)
        assert problem("m.png") == ""


@pytest.mark.slow
@pytest.mark.needs_data
def test_the_published_polyp_split_cuts_through_sequences(shared_data: Path) -> None:
    """Known of PraNet's split; Kvasir's test images have no double in the training set."""
    report = checked(f"polyp={shared_data / 'data'}")
    assert set(kinds(report)) == {"duplicate", "sequence"} and kinds(report)["sequence"] == 26
    messages = [problem.message for problem in report.problems if problem.kind == "duplicate"]
    assert 5 <= len(messages) <= 30
    assert not [message for message in messages if message.startswith("kvasir-seg") and "in test/" in message]


def test_polypgen_like_folder_without_faults(tmp_path: Path) -> None:
    """A folder of rendered discs on noise: hashes of noise do not collide."""
    assert kinds(checked(str(write_folder(tmp_path / "set", 12)))) == {}
