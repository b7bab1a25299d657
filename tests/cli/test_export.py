"""``vmkla export``: whose weights, which size, and what is left when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmkla.config import PRESETS
from vmkla.engines.verify.gates import Gates
from vmkla.runner import NO_POINT


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "made" / "model.onnx"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.telling
@pytest.mark.slow
def test_a_weights_file_becomes_a_model_that_infer_takes(
    vmkla: Any, tiny_weights: Path, output: Path, clip: Path, tmp_path: Path
) -> None:
    """The exporter wants masks to agree, so the tiny network's spread probabilities are compared for real."""
    done = vmkla("export", "--model", tiny_weights, "--output", output, "--frames", clip, "--json")
    assert done.status == 0, done.stderr
    assert done.json["gates"]["passed"] is True and done.json["gates"]["rendered"] is False
    assert [comparison["candidate"] for comparison in done.json["comparisons"]] == [
        "onnxruntime/native",
        "onnxruntime/bodies",
    ]
    facts = vmkla("inspect", output, "--json").json
    assert (facts["verified"], facts["random_weights"]) == (True, False)
    assert facts["preprocess"] == {"height": 32, "width": 64, "roi": "none"}  # as the weights were trained
    ran = vmkla("infer", "--video", clip, "--model", output, "--out", tmp_path / "out", "--json")
    assert ran.status == 0 and ran.json["warnings"] == [NO_POINT]


@pytest.mark.slow
def test_half_precision_with_planes_of_floats(
    vmkla: Any, tiny_weights: Path, output: Path, clip: Path, tmp_path: Path
) -> None:
    """The file says what it is, and ``infer`` runs it like any other."""
    done = vmkla(
        "export", "--model", tiny_weights, "--output", output, "--frames", clip, "--precision", "fp16",
        "--input", "float", "--batch", "1,2,4", "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert (done.json["precision"], done.json["input_type"], done.json["profile"]) == (
        "fp16",
        "float32",
        [1, 2, 4],
    )
    assert done.json["gates"]["range"]["passed"] is True
    facts = vmkla("inspect", output, "--json").json
    assert (facts["precision"], facts["input_type"], facts["profile"], facts["verified"]) == (
        "fp16",
        "float32",
        [1, 2, 4],
        True,
    )
    shown = vmkla("inspect", output).stdout
    assert "precision: fp16" in shown and "input_type: float32" in shown and "profile: 1, 2, 4" in shown
    ran = vmkla("infer", "--video", clip, "--model", output, "--out", tmp_path / "out", "--json")
    assert ran.status == 0 and ran.json["warnings"] == [NO_POINT]


@pytest.mark.slow
def test_a_tensor_beyond_half_is_status_5(
    vmkla: Any, tiny_weights: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit below the largest pixel: the range is really measured, and its verdict counts."""
    monkeypatch.setattr("vmkla.export.half_range.RANGE_LIMIT", 100.0)
    done = vmkla("export", "--model", tiny_weights, "--output", output, "--precision", "fp16")
    assert done.status == 5 and "allowed is 100" in done.stderr and "reaches" in done.stderr
    assert done.stdout == "" and files(output.parent) == []


@pytest.mark.slow
def test_a_failed_check_is_status_5_and_leaves_nothing(
    vmkla: Any, tiny_weights: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gates that no float32 arithmetic can hold: the check really runs, and its verdict counts."""
    gates = Gates("impossible", max_error=0.0, mean_error=0.0)
    monkeypatch.setattr("vmkla.export.checks.FP32_EXPORT", gates)
    done = vmkla("export", "--model", tiny_weights, "--output", output)
    assert done.status == 5 and "max probability error" in done.stderr and str(output) in done.stderr
    assert done.stdout == "" and files(output.parent) == []


@pytest.mark.slow
def test_skipped_gates_are_said_by_everything(
    vmkla: Any, tiny_weights: Path, output: Path, clip: Path, tmp_path: Path
) -> None:
    done = vmkla("export", "--model", tiny_weights, "--output", output, "--skip-gates", "--batch", 1)
    assert done.status == 0 and "unverified" in done.stdout
    assert vmkla("inspect", output, "--json").json["verified"] is False
    ran = vmkla("infer", "--video", clip, "--model", output, "--out", tmp_path / "out")
    assert ran.status == 0 and "unverified" in ran.stderr


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "nano"])
def test_a_preset_without_weights_names_both_ways_out(vmkla: Any, output: Path, preset: str) -> None:
    done = vmkla("export", "--model", preset, "--output", output)
    assert done.status == 2 and "--weights" in done.stderr and "--random-weights" in done.stderr
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--imgsz", "100"), 3, "128x128"),
        (("--imgsz", "big"), 2, "--imgsz"),
        (("--batch", "0"), 2, "--batch"),
        (("--batch", "many"), 2, "--batch"),
        (("--batch", "1,2"), 2, "MIN,OPT,MAX"),
        (("--batch", "4,2,1"), 2, "min <= opt <= max"),
        (("--batch", "257"), 2, "1 to 256"),
        (("--batch", "1,2,257"), 2, "1 to 256"),
        (("--batch", "9" * 5000), 2, "--batch"),
        (("--precision", "int8"), 2, "--precision"),
        (("--input", "double"), 2, "--input"),
        (("--precision", "fp16", "--half-storage"), 2, "--half-storage"),
        (("--roi", "left"), 2, "left"),
        (("--threshold", "7"), 2, "threshold"),
        (("--random-weights",), 2, "tiny.safetensors"),
        (("--weights", "w.safetensors", "--random-weights"), 2, "--random-weights"),
        (("--frames", "no_such_folder"), 3, "no_such_folder"),
        (("--max-megapixels", "0"), 2, "0 megapixels"),
    ],
)
def test_wrong_values(
    vmkla: Any, tiny_weights: Path, output: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = vmkla("export", "--model", tiny_weights, "--output", output, *arguments)
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not output.exists()


def test_weights_of_another_network_are_refused(vmkla: Any, tiny_weights: Path, output: Path) -> None:
    done = vmkla("export", "--model", "small", "--weights", tiny_weights, "--output", output)
    assert done.status == 2 and "holds a tiny-test" in done.stderr


@pytest.mark.parametrize(
    ("content", "status"), [(b"no weights", 3), (b"", 3), (b"\x80\x02}q\x00.", 3), (None, 3)]
)
def test_a_file_that_holds_no_weights(
    vmkla: Any, output: Path, tmp_path: Path, content: bytes | None, status: int
) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    done = vmkla("export", "--model", path, "--output", output)
    assert done.status == status and "w.safetensors" in done.stderr and "Traceback" not in done.stderr
    assert not output.parent.exists()
