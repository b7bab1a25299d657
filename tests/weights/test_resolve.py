"""Names and paths of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmkla import weights
from vmkla.errors import BadInputError


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped weights with two files in it."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in ("nano.onnx", "nano.safetensors", "small.onnx"):
        (folder / name).touch()
    monkeypatch.setattr(weights, "_FOLDER", folder)
    return folder


def test_names(shop: Path) -> None:
    assert weights.shipped() == {"nano": shop / "nano.onnx", "small": shop / "small.onnx"}
    assert weights.resolve("nano") == shop / "nano.onnx"
    assert weights.resolve("nano", ".safetensors") == shop / "nano.safetensors"


def test_paths(shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "my model.onnx"
    file.touch()
    assert weights.resolve(file) == file
    assert weights.resolve(str(file)) == file


def test_a_name_is_not_mistaken_for_a_folder(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder ``nano`` where the command runs does not hide the shipped model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    assert weights.resolve("nano") == shop / "nano.onnx"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("small", "no shipped .safetensors model 'small'"),
        ("a/b", "no model file"),
        ("x.onnx", "no model file"),
    ],
)
def test_refusals_list_what_there_is(shop: Path, what: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        weights.resolve(what, ".safetensors")
    assert caught.value.hint is not None
    assert "Shipped models: nano." in caught.value.hint
