"""Synapse: how slices enter, whole volumes in order, and files that are not what they must be."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.data.labelled_folders import synapse_slice, write_synapse
from vmkla.data.folder import iter_samples, list_pairs
from vmkla.data.rules import ReadRules
from vmkla.data.sources import SLICES, VOLUMES, DataSource
from vmkla.errors import BadInputError


def test_a_slice_enters_as_255_times_its_values(tmp_path: Path) -> None:
    write_synapse(tmp_path)
    samples = list(iter_samples([DataSource(tmp_path / "train_npz", kind=SLICES)]))
    assert len(samples) == 12 and samples[5].name == "train_npz/case0006_slice001"
    assert samples[5].group == "case0006"
    for seed, sample in enumerate(samples):
        image, label = synapse_slice(seed)
        assert sample.image_rgb.dtype == sample.mask.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(sample.image_rgb[..., channel], np.round(255 * image))
        np.testing.assert_array_equal(sample.mask, label)


def test_a_volume_comes_slice_after_slice(tmp_path: Path) -> None:
    write_synapse(tmp_path)
    (tmp_path / "one.txt").write_text("case0002\n", encoding="utf-8")
    source = DataSource(tmp_path / "test_vol_h5", tmp_path / "one.txt", kind=VOLUMES)
    samples = list(iter_samples([source]))
    assert [sample.name for sample in samples] == [f"test_vol_h5/case0002/{d:03d}" for d in range(4)]
    assert {sample.group for sample in samples} == {"case0002"}
    for depth, sample in enumerate(samples):
        image, label = synapse_slice(1010 + depth)
        np.testing.assert_array_equal(sample.image_rgb[..., 0], np.round(255 * image))
        np.testing.assert_array_equal(sample.mask, label)


def test_lists_name_what_is_missing(tmp_path: Path) -> None:
    write_synapse(tmp_path)
    (tmp_path / "list.txt").write_text("case0005_slice000\ncase0099_slice000\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="lists 'case0099_slice000'"):
        list_pairs([DataSource(tmp_path / "train_npz", tmp_path / "list.txt", kind=SLICES)])
    with pytest.raises(BadInputError, match=r"holds no file \*.npy.h5"):
        list_pairs([DataSource(tmp_path / "train_npz", kind=VOLUMES)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image, label: (image * 300, label), "the values run from 0.02.* to 263"),
        (lambda image, label: (image - 1, label), "the values run from -0.99"),
        (lambda image, label: (np.full_like(image, np.nan), label), "the values run from nan"),
        (lambda image, label: (image, label + 1), "the label holds .*9"),
        (lambda image, label: (image, label - 1), "the label holds -1"),
        (lambda image, label: (image, label / 2), "the label holds .*0.5"),
        (lambda image, label: (image[1:], label), "expected one shape"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, change: object, message: str) -> None:
    write_synapse(tmp_path)
    image, label = change(*synapse_slice(0))  # type: ignore[operator]
    np.savez(tmp_path / "train_npz" / "case0005_slice000.npz", image=image, label=label)
    with pytest.raises(BadInputError, match=message):
        list(iter_samples([DataSource(tmp_path / "train_npz", kind=SLICES)]))


def test_all_damaged_files_in_one_message(tmp_path: Path) -> None:
    write_synapse(tmp_path)
    slices = sorted((tmp_path / "train_npz").iterdir())
    slices[0].write_bytes(slices[0].read_bytes()[:500])
    slices[1].write_text("nothing", encoding="utf-8")
    np.savez(slices[2], image=synapse_slice(0)[0])
    with slices[3].open("wb") as file:
        np.save(file, synapse_slice(0)[0])  # an array under the name of an archive
    with pytest.raises(BadInputError) as caught:
        list(iter_samples([DataSource(tmp_path / "train_npz", kind=SLICES)]))
    assert "4 problems" in str(caught.value)
    assert all(path.name in str(caught.value) for path in slices[:4])
    volumes = sorted((tmp_path / "test_vol_h5").iterdir())
    volumes[0].write_bytes(volumes[0].read_bytes()[:400])
    with h5py.File(volumes[1], "w") as file:
        file["image"] = np.zeros((2, 8, 8), np.float32)
    with pytest.raises(BadInputError) as caught:
        list_pairs([DataSource(tmp_path / "test_vol_h5", kind=VOLUMES)])
    assert "2 problems" in str(caught.value) and "expected image and label" in str(caught.value)
    with h5py.File(volumes[1], "w") as file:
        file.create_group("image")
        file["label"] = np.zeros((2, 8, 8), np.float32)
    with pytest.raises(BadInputError, match="expected image and label"):
        list_pairs([DataSource(tmp_path / "test_vol_h5", kind=VOLUMES)])


def test_a_volume_with_damaged_names_is_refused(tmp_path: Path) -> None:
    write_synapse(tmp_path)
    path = next((tmp_path / "test_vol_h5").glob("*.npy.h5"))
    data = path.read_bytes()
    assert b"HEAP" in data  # of the names in the file
    path.write_bytes(data.replace(b"HEAP", b"HOPE"))
    with pytest.raises(BadInputError, match=f"{path.name} is damaged"):
        list_pairs([DataSource(tmp_path / "test_vol_h5", kind=VOLUMES)])


@pytest.mark.parametrize(
    "header",
    [b"{'descr': '<f4", b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }"],
    ids=["cut off", "too large"],
)
def test_a_slice_with_a_damaged_header_is_refused(tmp_path: Path, header: bytes) -> None:
    """Python's tokenizer reads the header, with an exception of its own."""
    path = tmp_path / "case0001_slice000.npz"
    head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", head + header)
        archive.writestr("label.npy", head + header)
    with pytest.raises(BadInputError, match="cannot be read as a slice|a slice of .* megapixels, expected"):
        list(iter_samples([DataSource(tmp_path, kind=SLICES)]))


@pytest.mark.parametrize(("folder", "kind"), [("train_npz", SLICES), ("test_vol_h5", VOLUMES)])
def test_slices_that_are_too_large_are_refused(tmp_path: Path, folder: str, kind: Any) -> None:
    """Before they are read: the limit is that of images."""
    write_synapse(tmp_path)
    source = DataSource(tmp_path / folder, kind=kind, reading=ReadRules(max_megapixels=0.0001))
    with pytest.raises(BadInputError, match="megapixels, expected at most 0.0001 megapixels"):
        list(iter_samples([source]))


def test_a_slice_that_states_more_than_it_has_takes_no_memory(tmp_path: Path) -> None:
    """NumPy takes the memory that the header states before it reads: 144 megapixels of 8 bytes."""
    write_synapse(tmp_path)
    path = sorted((tmp_path / "train_npz").glob("*.npz"))[0]
    header = {"descr": "<f8", "fortran_order": False, "shape": (12000, 12000)}
    stated = io.BytesIO()
    np.lib.format.write_array_header_1_0(stated, header)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("image", "label"):
            archive.writestr(f"{name}.npy", stated.getvalue() + bytes(100))
    tracemalloc.start()
    with pytest.raises(BadInputError, match=r"too few for \(12000, 12000\) of float64"):
        list(iter_samples([DataSource(tmp_path / "train_npz", kind=SLICES)]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
