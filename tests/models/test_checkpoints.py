"""Weights on disk: the round trip, and every file that is not one of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from tests.tolerances import tol
from vmkla.config import ModelConfig
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError
from vmkla.models import VMKLAUNet
from vmkla.models.checkpoints import load_weights, save_weights
from vmkla.models.weights_file import CONTENT_SHA256, encode
from vmkla.segment.operating_point import OperatingPoint

CONFIG = ModelConfig(
    name="micro",
    dim=8,
    encoder_depths=(1, 1, 1, 1),
    decoder_depths=(1, 1, 1, 1),
    head_dim=8,
    d_state=2,
    kan_hidden=6,
    num_classes=3,
)
NAMES = ("background", "polyp", "instrument é")
TRAINING = {"data": ["train_PolypGen"], "epochs": 12, "best": {"dice": 0.71}}


@pytest.fixture
def model() -> VMKLAUNet:
    torch.manual_seed(33)
    return VMKLAUNet(CONFIG)


def save(model: VMKLAUNet, path: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {"training": TRAINING, "class_names": NAMES, "threshold": 0.35}
    save_weights(model, path, **(values | changes))
    return path


def rewrite(
    path: Path, header: dict[str, str] | None, tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Change a file's header or tensors, with a checksum that fits."""
    with safetensors.safe_open(path, framework="pt") as file:
        old = dict(file.metadata())
        kept = {name: file.get_tensor(name) for name in file.keys()}
    header = dict(old if header is None else header)
    header.pop(CONTENT_SHA256)
    path.write_bytes(encode(tensors or kept, header))


def test_the_operating_point_travels(tmp_path: Path, model: VMKLAUNet) -> None:
    point = OperatingPoint(0.35, peak=0.98, min_fraction=0.001)
    loaded = load_weights(save(model, tmp_path / "with.safetensors", operating_point=point))
    assert loaded.operating_point == point
    assert load_weights(save(model, tmp_path / "without.safetensors")).operating_point is None
    with pytest.raises(UsageError, match="threshold is 0.5, expected 0.35"):
        save(model, tmp_path / "other.safetensors", operating_point=OperatingPoint(0.5))


def test_round_trip_is_exact(tmp_path: Path, model: VMKLAUNet) -> None:
    loaded = load_weights(save(model, tmp_path / "micro.safetensors"))
    assert loaded.config == model.config == loaded.model.config
    assert (loaded.class_names, loaded.threshold, loaded.training) == (NAMES, 0.35, TRAINING)
    assert not loaded.model.training
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.model(x), model.eval()(x))


def test_half_storage_rounds_all_but_the_recurrence(tmp_path: Path, model: VMKLAUNet) -> None:
    whole = save(model, tmp_path / "whole.safetensors")
    half = save(model, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    loaded = load_weights(half).model
    kept = model.encoder.stages[0].blocks[0].scan
    assert torch.equal(loaded.encoder.stages[0].blocks[0].scan.A_log, kept.A_log)
    assert torch.equal(loaded.encoder.stages[0].blocks[0].scan.delta_bias, kept.delta_bias)
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value, model.state_dict()[name], **tol(("weights", "half storage"), torch.float16)
        )


def test_loading_leaves_the_random_state_alone(tmp_path: Path, model: VMKLAUNet) -> None:
    path = save(model, tmp_path / "micro.safetensors")
    torch.manual_seed(34)
    expected = torch.rand(4)
    torch.manual_seed(34)
    load_weights(path)
    assert torch.equal(torch.rand(4), expected)


def test_backend_is_the_callers_choice(tmp_path: Path, model: VMKLAUNet) -> None:
    loaded = load_weights(save(model, tmp_path / "micro.safetensors"), backend="reference")
    assert loaded.model.encoder.stages[0].blocks[0].scan.backend == "reference"


def test_header_is_readable_json(tmp_path: Path, model: VMKLAUNet) -> None:
    with safetensors.safe_open(save(model, tmp_path / "micro.safetensors"), framework="np") as file:
        header = file.metadata()
    assert json.loads(header["vmkla.model_config"])["dim"] == 8
    assert json.loads(header["vmkla.class_names"]) == list(NAMES)
    assert json.loads(header["vmkla.training"]) == TRAINING


def test_folder_is_made_and_an_old_file_replaced(tmp_path: Path, model: VMKLAUNet) -> None:
    path = tmp_path / "run 1" / "beste Gewichte.safetensors"
    save(model, path, threshold=0.1)
    save(model, path, threshold=0.9)
    assert load_weights(path).threshold == 0.9
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, model: VMKLAUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(model, tmp_path / "micro.safetensors")
    before = path.read_bytes()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(BadInputError, match="cannot write .*micro.safetensors: No space left"):
        save(model, path, threshold=0.9)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_folder_is_named(tmp_path: Path, model: VMKLAUNet) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    with pytest.raises(BadInputError, match="cannot write .*taken/micro.safetensors: File exists"):
        save(model, tmp_path / "taken" / "micro.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("polyp",)}, "1 class names for 3 output channels"),
        ({"threshold": 7.0}, "between 0 and 1, got 7.0"),
        ({"threshold": float("nan")}, "between 0 and 1, got nan"),
    ],
)
def test_what_does_not_fit_is_not_saved(
    tmp_path: Path, model: VMKLAUNet, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        save(model, tmp_path / "micro.safetensors", **changes)
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no weights file .*absent\.safetensors"):
        load_weights(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_file(tmp_path: Path, model: VMKLAUNet, keep: float) -> None:
    path = save(model, tmp_path / "micro.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(BadInputError, match="cannot be read as safetensors"):
        load_weights(path)


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_text("hello " * 100)
    with pytest.raises(BadInputError, match="cannot be read as safetensors"):
        load_weights(tmp_path / "notes.safetensors")


def test_foreign_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ArtefactMismatchError, match="without vmkla's header"):
        load_weights(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_pickle_is_refused_unread(tmp_path: Path, model: VMKLAUNet, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(model.state_dict(), path)
    with pytest.raises(BadInputError, match="is a pickle"):
        load_weights(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vmkla.format", "99", "layout '99', this version reads '1'"),
        ("vmkla.model_config", "{", "damaged vmkla header"),
        ("vmkla.model_config", '{"dim": 8, "colour": "red"}', "unknown fields: colour"),
        ("vmkla.threshold", '"high"', "damaged vmkla header"),
        ("vmkla.operating_point", '{"threshold": 0.5}', "damaged vmkla header"),
        ("vmkla.class_names", None, "damaged vmkla header"),
    ],
)
def test_damaged_header(tmp_path: Path, model: VMKLAUNet, key: str, value: str | None, message: str) -> None:
    path = save(model, tmp_path / "micro.safetensors")
    with safetensors.safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    header.pop(key)
    if value is not None:
        header[key] = value
    rewrite(path, header)
    with pytest.raises(ArtefactMismatchError, match=message):
        load_weights(path)


def test_tensors_that_do_not_fit_their_own_header(tmp_path: Path, model: VMKLAUNet) -> None:
    path = save(model, tmp_path / "micro.safetensors")
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    del tensors["head.norm.bias"]
    tensors["head.project.bias"] = torch.zeros(5)
    tensors["surplus"] = torch.zeros(1)
    rewrite(path, None, tensors)
    with pytest.raises(ArtefactMismatchError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert "head.norm.bias is missing" in message
    assert "surplus is unknown" in message
    assert "head.project.bias is (5,), expected (3,)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, model: VMKLAUNet, value: float) -> None:
    name, parameter = next(iter(model.named_parameters()))
    parameter.data.view(-1)[0] = value
    path = save(model, tmp_path / "micro.safetensors")
    with pytest.raises(ArtefactMismatchError, match=f"not finite, in 1 tensors: {name}") as caught:
        load_weights(path)
    assert caught.value.exit_status == 6
