"""Every command that writes frames, masks, names or figures of patients closes them to other users."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.labelled_folders import write_folder

COMMANDS = {
    "video": ("infer", "--video", "clip.mp4", "--save-masks", "--out", "made/out")
    + ("--export", "coco,cvat,yolo", "--export-frames"),
    "images": ("infer", "--source", "set/images", "--save-masks", "--out", "made/out"),
    "live": ("infer", "--live", "--source", "sample://?seconds=2&size=96x64", "--duration-s", "1", "--record")
    + ("--out", "made/out"),
    "eval": ("eval", "--data", "set", "--split", "all", "--out", "made/out"),
    "explain": ("explain", "--source", "set/images", "--model", "WEIGHTS", "--out", "made/out"),
    "verify": ("verify", "nano", "nano", "--source", "clip.mp4", "--out", "made/out"),
    "kept": ("verify", "nano", "--source", "clip.mp4", "--save", "made/kept.npz", "--out", "made/out"),
    "pack": ("data", "pack", "--data", "set", "--out", "made/set.vmkpack", "--imgsz", "32"),
    "sample": ("sample", "made/clip.mp4", "--frames", "2", "--masks", "made/masks", "--size", "64x96"),
}


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def place(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a clip and labelled images."""
    write_folder(tmp_path / "set", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def modes(folder: Path) -> dict[str, int]:
    """Modes of a folder and all below it, by path."""
    paths = (folder, *folder.rglob("*"))
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in paths}


def run(vmkla: Any, name: str, weights: Path) -> None:
    done = vmkla(*(weights if word == "WEIGHTS" else word for word in COMMANDS[name]))
    assert done.status in ((0, 7) if name == "live" else (0,)), done.stderr


SLOW = {"explain"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in COMMANDS]
)
def test_what_is_made_is_private(name: str, vmkla: Any, place: Path, tiny_weights: Path) -> None:
    run(vmkla, name, tiny_weights)
    made = modes(place / "made")
    assert len(made) > 1
    wrong = {
        path: oct(mode)
        for path, mode in made.items()
        if mode != (0o700 if (place / "made" / path).is_dir() else 0o600)
    }
    assert not wrong


@pytest.mark.parametrize("name", ["video", "images", "live", "eval", "verify"])
def test_a_folder_that_was_there_keeps_its_mode(
    name: str, vmkla: Any, place: Path, tiny_weights: Path
) -> None:
    (place / "made" / "out").mkdir(parents=True)
    (place / "made" / "out").chmod(0o755)
    run(vmkla, name, tiny_weights)
    made = modes(place / "made" / "out")
    assert made.pop(".") == 0o755 and set(made.values()) <= {0o600, 0o700}


@pytest.mark.slow
def test_calibration_closes_its_report_and_not_the_model(vmkla: Any, place: Path) -> None:
    flags = ("--frames", "2", "--allow-few", "--no-sensitivity", "--skip-gates", "--out", "made/out")
    assert vmkla("sample", "views.mp4", "--frames", "8").status == 0
    model = ("calibrate", "nano", "--data", "views.mp4", "--target", "cpu", "--output", "models/int8.onnx")
    assert vmkla(*model, *flags).status == 0
    assert modes(place / "models") == {".": 0o777, "int8.onnx": 0o666}
    made = modes(place / "made")
    assert made.pop("out") == made.pop(".") == 0o700 and set(made.values()) <= {0o600, 0o700}


@pytest.mark.slow
def test_weights_follow_the_umask(vmkla: Any, place: Path) -> None:
    flags = ("--imgsz", "32", "--batch", "2", "--epochs", "1", "--no-curves", "--threads", "1")
    assert vmkla("train", "--data", "set", *flags, "--out", "made/out").status == 0
    made = modes(place / "made" / "out")
    assert made["best.safetensors"] == made["last.safetensors"] == 0o666 and made["."] == 0o777
    assert made["config.json"] == 0o600  # it names the data
