"""Every command that takes a model: what is spoilt in its file is status 3 or 6, with one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.labelled_folders import write_folder
from tests.engines.runners.spoilt_models import (
    flip_weight,
    spoilt,
    with_external_data,
    with_impossible_reshape,
    with_nan,
)

Spoil = Callable[[Path], object]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images with masks."""
    return write_folder(tmp_path / "set", 2)


def filled(command: str, **names: Path) -> list[str]:
    """The words of a command, with paths in the place of names."""
    words = []
    for word in command.split():
        for name, path in names.items():
            word = word.replace(name, str(path))
        words.append(word)
    return words


LOADED: dict[str, tuple[Spoil, str]] = {
    "external data": (lambda path: spoilt(path, with_external_data), "in another file"),
    "flipped bit": (flip_weight, "is damaged"),
    "nan": (lambda path: spoilt(path, with_nan), "not finite"),
}


@pytest.mark.parametrize("fault", LOADED)
@pytest.mark.parametrize(
    "command",
    [
        "infer --model MODEL --video CLIP --out OUT",
        "bench --model MODEL --iterations 1 --warmup 0",
        "inspect MODEL",
        "verify MODEL MODEL --source CLIP --out OUT",
        "eval --model MODEL --data DATA --out OUT",
        "calibrate MODEL --data CLIP --target cpu --output OUT.onnx --allow-few",
        "build MODEL --output OUT.plan --runtime tensorrt-rtx",
    ],
    ids=lambda command: command.split()[0],
)
def test_a_spoilt_model_is_status_6(
    vmkla: Any, tiny_onnx: Path, clip: Path, data: Path, tmp_path: Path, command: str, fault: str
) -> None:
    spoil, said = LOADED[fault]
    spoil(tiny_onnx)
    words = filled(command, MODEL=tiny_onnx, CLIP=clip, DATA=data, OUT=tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    done = vmkla(*words)
    assert done.status == 6, done.stderr
    assert said in done.stderr and str(tiny_onnx) in done.stderr and "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "command",
    ["infer --model MODEL --video CLIP --out OUT", "bench --model MODEL --iterations 1 --warmup 0"],
    ids=lambda command: command.split()[0],
)
def test_a_node_that_cannot_run_is_status_6(
    vmkla: Any, tiny_onnx: Path, clip: Path, tmp_path: Path, command: str
) -> None:
    spoilt(tiny_onnx, with_impossible_reshape)
    done = vmkla(*filled(command, MODEL=tiny_onnx, CLIP=clip, OUT=tmp_path / "out"))
    assert done.status == 6, done.stderr
    assert "cannot run" in done.stderr and "Reshape" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "eval --model WEIGHTS --data DATA --out OUT",
        "export --model WEIGHTS --output OUT.onnx",
        "inspect WEIGHTS --complexity",
        "explain --model WEIGHTS --source DATA/images --out OUT",
    ],
    ids=lambda command: command.split()[0],
)
def test_spoilt_weights_are_status_6(
    vmkla: Any, tiny_weights: Path, data: Path, tmp_path: Path, command: str
) -> None:
    weights = tmp_path / "tiny.safetensors"
    content = tiny_weights.read_bytes()
    weights.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    done = vmkla(*filled(command, WEIGHTS=weights, DATA=data, OUT=tmp_path / "out"))
    assert done.status == 6, done.stderr
    assert "is damaged" in done.stderr and str(weights) in done.stderr and "Traceback" not in done.stderr
