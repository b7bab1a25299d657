"""``vmkla calibrate``: what it prints, its statuses, and what is left when it fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.calibration.small_graphs import small_weights, write_images, write_small
from vmkla.runner import NO_POINT


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_images(tmp_path / "data", 60)
    return write_small(tmp_path / "small.onnx", small_weights())


def arguments(model: Path, *more: object) -> tuple[object, ...]:
    folder = model.parent
    return (
        "calibrate", model, "--data", folder / "data", "--target", "cpu", "--output", folder / "m.int8.onnx",
        "--out", folder / "out", "--threads", 1, *more,
    )  # fmt: skip


def test_the_result_is_taken_by_inspect_and_infer(
    vmkla: Any, small: Path, clip: Path, tmp_path: Path
) -> None:
    done = vmkla(*arguments(small, "--json"))
    assert done.status == 0, done.stderr
    assert done.json["gates"]["passed"] is True and done.json["calibration"]["layers"] == 3
    assert set(done.json["latency_ms"]) == {"before", "after"} and len(done.json["sensitivity"]) == 3
    facts = vmkla("inspect", done.json["path"], "--json").json
    assert (facts["precision"], facts["verified"], facts["requires"]) == ("int8", True, None)
    ran = vmkla("infer", "--video", clip, "--model", done.json["path"], "--out", tmp_path / "ran", "--json")
    assert ran.status == 0, ran.stderr
    assert ran.json["warnings"] == [NO_POINT]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["sha256"] == done.json["sha256"]


def test_what_people_read(vmkla: Any, tmp_path: Path, small: Path) -> None:
    write_small(small, small_weights(outlier="two"))
    done = vmkla(*arguments(small, "--method", "min-max"))
    assert done.status == 0, done.stderr
    assert "layers: 2 of 3 in int8" in done.stdout and "check: passed" in done.stdout
    assert "in higher precision: two, because of" in done.stdout
    assert "held" not in done.stdout and "frames to calibrate with" in done.stderr


def test_progress_of_every_phase(vmkla: Any, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int | None, str]] = []

    @contextlib.contextmanager
    def bar(*_: Any, **__: Any) -> Iterator[Any]:
        yield lambda done, total, note="": seen.append((done, total, note))

    monkeypatch.setattr("vmkla.cli.calibrate.progress_bar", bar)
    assert vmkla(*arguments(small)).status == 0
    for phase in ("measuring channels", "measuring ranges", "checking"):
        steps = [(done, total) for done, total, note in seen if note == phase]
        assert steps and steps[-1][0] == steps[-1][1], phase
    assert len([1 for _, _, note in seen if note == "checking"]) > 10


def test_no_gate_passes(vmkla: Any, small: Path) -> None:
    weights = small_weights()
    for name in ("one", "two", "three"):
        weights |= {n: v for n, v in small_weights(outlier=name).items() if n.startswith(f"{name}.")}
    write_small(small, weights)
    done = vmkla(*arguments(small, "--method", "min-max", "--no-sensitivity"))
    assert done.status == 5 and "no choice of layers" in done.stderr and done.stdout == ""
    assert not (small.parent / "m.int8.onnx").exists()


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--method", "guess"), 2, "--method"),
        (("--target", "gpu"), 2, "--target"),
        (("--frames", "0"), 2, "--frames"),
        (("--frames", "8"), 2, "--allow-few"),
        (("--max-dice-drop", "0.2"), 3, "looser"),
        (("--check", "no_such_folder"), 3, "no_such_folder"),
        (("--data", "no_such_folder"), 3, "no_such_folder"),
        (("--gates", "no_such.json"), 3, "no_such.json"),
        (("--target", "tensorrt"), 3, "small.fp16.onnx"),
    ],
)
def test_wrong_values(vmkla: Any, small: Path, more: tuple[str, ...], status: int, message: str) -> None:
    done = vmkla(*arguments(small, *more))
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not (small.parent / "m.int8.onnx").exists()


def test_data_must_be_given(vmkla: Any, small: Path) -> None:
    done = vmkla("calibrate", small, "--target", "cpu", "--output", small.with_suffix(".int8.onnx"))
    assert done.status == 2 and "--data" in done.stderr
