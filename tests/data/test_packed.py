"""Packed sets: the same pixels as the folder gives, read without OpenCV, and damage refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch

from tests.data.labelled_folders import labelled_image, write_folder, write_split_polyps, write_synapse
from tests.tolerances import tol
from vmkla.data import AugmentConfig, DataSet, Sample, iter_samples, open_dataset
from vmkla.data.arrays import CROP_MARGIN, cache_spec, stack
from vmkla.data.packing import PackOptions, pack
from vmkla.data.sources import DataSource
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError
from vmkla.segment.preprocess import PreprocessSpec

LOSSLESS = PackOptions((32, 32), quality=None)


@pytest.fixture
def polyps(tmp_path: Path) -> DataSet:
    return open_dataset(f"polyp={write_split_polyps(tmp_path / 'polyps')}")


def samples_of(sources: tuple[DataSource, ...]) -> dict[str, Sample]:
    return {sample.name: sample for sample in iter_samples(sources)}


def test_without_loss_training_sees_the_pixels_of_the_folder(tmp_path: Path, polyps: DataSet) -> None:
    report = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS)
    packed = open_dataset(str(report.path))
    assert report.images == {"train": 15, "val": 5, "test/Kvasir": 4, "test/CVC-ClinicDB": 4}
    assert list(packed.parts()) == list(polyps.parts()) and packed.class_names == polyps.class_names
    specs = {"train": cache_spec((32, 32), "none", AugmentConfig()), "val": PreprocessSpec(32, 32)}
    for part, spec in specs.items():
        wanted, made = (stack(iter_samples(found.parts()[part]), spec) for found in (polyps, packed))
        assert wanted.names == made.names
        np.testing.assert_array_equal(made.images_rgb, wanted.images_rgb)
        np.testing.assert_array_equal(made.masks, wanted.masks)
    for part in ("test/Kvasir", "test/CVC-ClinicDB"):  # at their own size
        wanted_samples, made_samples = (samples_of(found.parts()[part]) for found in (polyps, packed))
        assert list(wanted_samples) == list(made_samples)
        for name, sample in made_samples.items():
            np.testing.assert_array_equal(sample.image_rgb, wanted_samples[name].image_rgb)
            np.testing.assert_array_equal(sample.mask, wanted_samples[name].mask)
            assert sample.group == wanted_samples[name].group and sample.prepared is None


def test_jpeg_keeps_masks_exactly_and_pixels_nearly(tmp_path: Path, polyps: DataSet) -> None:
    def smooth(folder: DataSet) -> npt.NDArray[np.float32]:
        images = stack(iter_samples(folder.train), cache_spec((32, 32), "none", AugmentConfig()))
        return np.stack([cv2.blur(image.astype(np.float32), (5, 5)) for image in images.images_rgb])

    report = pack(polyps, tmp_path / "set.vmkpack", PackOptions((32, 32)))
    packed = open_dataset(str(report.path))
    assert (
        np.abs(smooth(packed) - smooth(polyps)).mean() < tol(("packed jpeg", "folder"), torch.uint8)["atol"]
    )
    wanted, made = (stack(iter_samples(found.val), PreprocessSpec(32, 32)) for found in (polyps, packed))
    np.testing.assert_array_equal(made.masks, wanted.masks)
    small = pack(polyps, tmp_path / "small.vmkpack", PackOptions((32, 32), quality=50))
    assert small.size_bytes < report.size_bytes


def test_a_test_image_keeps_its_own_jpeg(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set" / "test", 2)
    write_folder(tmp_path / "set" / "train", 4, first_seed=9)
    (root / "images" / "case-00.png").unlink()
    image = cv2.blur(labelled_image(0, 48, 64)[0], (5, 5))
    cv2.imwrite(str(root / "images" / "case-00.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    report = pack(open_dataset(str(tmp_path / "set")), tmp_path / "set.vmkpack", PackOptions((32, 32)))
    with zipfile.ZipFile(report.path) as archive:
        stored = archive.read("test/000000.jpg")
    assert stored == (root / "images" / "case-00.jpg").read_bytes()


def test_equal_sets_give_equal_files(tmp_path: Path, polyps: DataSet) -> None:
    first, second, other = (
        pack(polyps, tmp_path / f"{name}.vmkpack", options)
        for name, options in (("a", LOSSLESS), ("b", LOSSLESS), ("c", PackOptions((64, 32))))
    )
    assert first.sha256 == second.sha256 != other.sha256
    assert str(tmp_path).encode() not in first.path.read_bytes()


def test_synapse_keeps_its_classes_and_volumes(tmp_path: Path) -> None:
    source = open_dataset(f"synapse={write_synapse(tmp_path / 'set')}")
    packed = open_dataset(str(pack(source, tmp_path / "set.vmkpack", LOSSLESS).path))
    assert packed.volumes and packed.class_names == source.class_names
    wanted, made = samples_of(source.test["test"]), samples_of(packed.test["test"])
    assert list(wanted) == list(made)
    for name, sample in made.items():
        np.testing.assert_array_equal(sample.mask, wanted[name].mask)
        np.testing.assert_array_equal(sample.image_rgb, wanted[name].image_rgb)
        assert sample.group == wanted[name].group
    assert {int(label) for sample in made.values() for label in np.unique(sample.mask)} == {0, 1, 5, 8}


def test_another_size_or_field_of_view_is_refused(tmp_path: Path, polyps: DataSet) -> None:
    packed = open_dataset(str(pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path))
    train = list(iter_samples(packed.train))
    for spec in (
        cache_spec((64, 64), "none", AugmentConfig()),
        cache_spec((32, 32), "auto", AugmentConfig()),
    ):
        with pytest.raises(BadInputError, match="packed at 40x40 .*, roi none, and is wanted at"):
            stack(train, spec)
    assert len(stack(train, cache_spec((32, 32), "none", AugmentConfig()))) == 15


def test_problems_of_the_folder_leave_no_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 6)
    (folder / "images" / "case-02.png").write_text("not a picture", encoding="utf-8")
    (folder / "masks" / "case-04.png").write_text("not a picture", encoding="utf-8")
    with pytest.raises(BadInputError, match="2 problems"):
        pack(open_dataset(str(folder)), tmp_path / "set.vmkpack", LOSSLESS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    with pytest.raises(UsageError, match="does not end in .vmkpack"):
        pack(open_dataset(str(folder)), tmp_path / "set.zip", LOSSLESS)


def test_damage_is_refused(tmp_path: Path, polyps: DataSet) -> None:
    path = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match="damaged or cut off"):
        open_dataset(str(path))
    middle = len(whole) // 3  # inside an image
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :])
    with pytest.raises(BadInputError, match="000"):
        for sources in open_dataset(str(path)).parts().values():
            list(iter_samples(sources))
    path.write_bytes(b"PK but nothing else")
    with pytest.raises(BadInputError, match="damaged or cut off"):
        open_dataset(str(path))


def rewritten(path: Path, change: object) -> Path:
    """The same archive with another manifest, every checksum of the ZIP right."""
    made = path.with_name("changed.vmkpack")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(data)
                change(manifest)  # type: ignore[operator]
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return made


def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, polyps: DataSet) -> None:
    path = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path

    def first(manifest: dict[str, object]) -> dict[str, str]:
        return manifest["parts"]["train"]["images"][0]  # type: ignore[index,no-any-return]

    swapped = rewritten(path, lambda m: first(m).update(image_sha256="0" * 64))
    with pytest.raises(BadInputError, match="train/000000.png is damaged"):
        list(iter_samples(open_dataset(str(swapped)).train))
    with pytest.raises(BadInputError, match="lacks 1 of its images"):
        open_dataset(str(rewritten(path, lambda m: first(m).update(image="train/none.png"))))
    with pytest.raises(ArtefactMismatchError, match="layout 99"):  # which may hold other things elsewhere
        open_dataset(str(rewritten(path, lambda m: (m.update(format=99), m.pop("parts")))))
    with pytest.raises(BadInputError, match="no manifest"):
        open_dataset(str(rewritten(path, lambda m: m.pop("parts"))))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["parts"]["train"].update(images=3),
        lambda m: m["parts"].update(train=[]),
        lambda m: m.update(parts=[]),
        lambda m: m.update(parts={"train": {"preprocess": None, "images": [7]}}),
        lambda m: m["parts"]["train"]["images"][0].update(name=None),
        lambda m: m["parts"]["train"]["images"][0].update(image=["a"]),
        lambda m: m["parts"]["train"]["preprocess"].update(height="40"),
        lambda m: m["parts"]["train"]["preprocess"].update(height=10**12),
        lambda m: m["parts"]["train"].update(preprocess={"height": 4}),
        lambda m: m.update(class_names=7),
        lambda m: m.update(class_names=[float("inf")]),
        lambda m: m.update(volumes="no"),
    ],
)
def test_a_manifest_of_other_types_is_refused(tmp_path: Path, polyps: DataSet, change: object) -> None:
    path = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path
    with pytest.raises(BadInputError, match="no manifest that can be read") as caught:
        open_dataset(str(rewritten(path, change)))
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, "deep", "huge", "encrypted"])
def test_archives_that_others_made_are_refused(tmp_path: Path, polyps: DataSet, kind: int | str) -> None:
    path = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path
    with zipfile.ZipFile(path) as old:
        manifest = old.read("manifest.json")
    text = {"deep": b"[" * 1_000_000, "huge": b" " * (65 << 20)}.get(str(kind), manifest)
    with zipfile.ZipFile(path, "w", kind if isinstance(kind, int) else zipfile.ZIP_DEFLATED) as new:
        new.writestr("manifest.json", text)
    if kind == "encrypted":
        data = path.read_bytes()
        entry = data.index(b"PK\x01\x02") + 8
        path.write_bytes(data[:entry] + b"\x01" + data[entry + 1 :])
    with pytest.raises(BadInputError) as caught:
        open_dataset(str(path))
    assert caught.value.exit_status == 3


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, polyps: DataSet) -> None:
    """Its size is read before it is decoded."""
    path = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(parts["manifest.json"])
    entry = manifest["parts"]["train"]["images"][0]
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    parts[entry["image"]] = bomb
    entry["image_sha256"] = hashlib.sha256(bomb).hexdigest()
    parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(BadInputError, match="30000x30000 .*at most 150 megapixels"):
        list(iter_samples(open_dataset(str(path)).train))


def test_the_limit_is_the_caller_s_and_not_pillow_s(
    tmp_path: Path, polyps: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own is 179 megapixels, whatever ``--max-megapixels`` allows."""
    path = pack(polyps, tmp_path / "set.vmkpack", LOSSLESS).path
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    assert len(list(iter_samples(open_dataset(str(path)).train))) == len(list(iter_samples(polyps.train)))
    assert PIL.Image.MAX_IMAGE_PIXELS == 100


def test_an_image_that_could_not_be_read_back_is_not_packed(
    tmp_path: Path, polyps: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmkla.data.packing.IMAGE_MAX_BYTES", 100)
    with pytest.raises(BadInputError, match="train/000000.png takes .* encoded, expected at most 100"):
        pack(polyps, tmp_path / "set.vmkpack", LOSSLESS)
    assert not (tmp_path / "set.vmkpack").exists()


def test_options_out_of_range_are_refused() -> None:
    assert PackOptions().margin == CROP_MARGIN
    for change in ({"quality": 0}, {"quality": 101}, {"margin": 0.5}, {"margin": 9.0}, {"roi": "1,2,3,4"}):
        with pytest.raises(UsageError):
            dataclasses.replace(PackOptions(), **change)  # type: ignore[arg-type]


def test_names_that_are_no_valid_unicode_come_back(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 12)
    for kind in ("images", "masks"):
        (folder / kind / "case-00.png").rename(os.fsdecode(os.fsencode(folder / kind) + b"/\xe4.png"))
    source = open_dataset(str(folder))
    packed = open_dataset(str(pack(source, tmp_path / "set.vmkpack", LOSSLESS).path))
    wanted = [name for sources in source.parts().values() for name in samples_of(sources)]
    assert [name for sources in packed.parts().values() for name in samples_of(sources)] == wanted
    assert os.fsdecode(b"set/\xe4") in wanted


TRAIN_WITHOUT = """
import sys
BLOCKED = ("cv2", "av", "onnxruntime", "typer", "rich", "h5py", "imagehash")
class Hiding:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in BLOCKED else self.finder.find_spec(name, *rest)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
from pathlib import Path
from vmkla.config import ModelConfig
from vmkla.data import AugmentConfig, open_dataset
from vmkla.training import TrainConfig, train
found = open_dataset(sys.argv[1])
model = ModelConfig("t", dim=16, encoder_depths=(1,) * 4, decoder_depths=(1,) * 4, d_state=2)
result = train(TrainConfig(out_dir=Path(sys.argv[2]), data=found.train, val=found.val, model=model,
    image_size_hw=(32, 32), epochs=1, batch_size=4, threads=1, curves=False, tensorboard=False,
    augment=AugmentConfig(blur=1.0, noise=1.0, glare=1.0, border=1.0, patch=1.0)), on_message=print)
loaded = sorted(set(BLOCKED) & set(sys.modules))
sys.exit(f"loaded {loaded}" if loaded or not result.finished else 0)
"""


def test_training_on_a_packed_set_needs_torch_and_pillow_alone(tmp_path: Path, polyps: DataSet) -> None:
    path = pack(polyps, tmp_path / "set.vmkpack", PackOptions((32, 32))).path
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_WITHOUT, str(path), str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OpenCV is not installed" in done.stdout and (tmp_path / "run" / "last.safetensors").is_file()
