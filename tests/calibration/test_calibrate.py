"""From a file and frames to a verified INT8 file, or to none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.calibration.small_graphs import SIDE, small_weights, write_small
from tests.data.labelled_folders import write_folder
from tests.export.exported_models import frames
from vmkla.calibration.calibrate import CalibrateReport, calibrate
from vmkla.calibration.request import CalibrateRequest
from vmkla.cpu_features import missing_for_int8
from vmkla.engines.runners.onnx_file import outline_of, read_model
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.errors import (
    ArtefactMismatchError,
    BadInputError,
    GateError,
    MissingDependencyError,
    UsageError,
)
from vmkla.metadata import ArtefactMetadata
from vmkla.segment.self_test import check_self_test

Images = Callable[..., Path]
Lines = list[str]


@pytest.fixture
def request_for(tmp_path: Path, images: Images) -> Callable[..., CalibrateRequest]:
    """A request over 60 images of noise: ``request_for(model, **changes)``."""

    def make(model: Path, **changes: object) -> CalibrateRequest:
        plain = CalibrateRequest(
            model=str(model),
            data=(str(tmp_path / "images"),),
            target="cpu",
            output=tmp_path / "made" / "m.int8.onnx",
            out=tmp_path / "out",
            frames=40,
            check_frames=20,
            threads=1,
        )
        return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]

    images(60)
    return make


def metadata_of(path: Path) -> ArtefactMetadata:
    return ArtefactMetadata.from_props(outline_of(read_model(path), path).metadata, path=str(path))


def run(request: CalibrateRequest) -> tuple[CalibrateReport, Lines]:
    lines: Lines = []
    return calibrate(request, lines.append), lines


def test_a_file_is_quantized_checked_and_says_how(
    small: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    request = request_for(small)
    report, _ = run(request)
    metadata = metadata_of(request.output)
    assert metadata.precision == "int8" and metadata.verified
    assert metadata.calibration == report.calibration
    assert metadata.calibration["data"]["frames"] == 40 and metadata.calibration["data"]["held_out"]
    assert (metadata.calibration["layers"], metadata.calibration["put_back"]) == (3, [])
    assert (metadata.calibration["target"], metadata.calibration["weight_levels"]) == ("cpu", 64)
    assert metadata.requires is None
    assert (
        metadata.calibration["source_sha256"] == OnnxRuntimeRunner(small, warn_unverified=False).spec.sha256
    )
    assert json.loads((request.out / "report.json").read_text())["sha256"] == report.sha256
    assert (request.out / "sensitivity.png").is_file()
    assert "| one | 1 |" in (request.out / "sensitivity.md").read_text()
    shown = frames(3, SIDE, SIDE, seed=9)
    before, after = (
        OnnxRuntimeRunner(path, threads=1, warn_unverified=False).infer(shown)
        for path in (small, request.output)
    )
    error = np.abs(before - after)
    assert 0 < error.mean() < 5e-3  # quantized, and right


@pytest.mark.parametrize("skip_gates", [False, True])
def test_the_file_has_a_self_test_of_its_own(
    small: Path, request_for: Callable[..., CalibrateRequest], skip_gates: bool
) -> None:
    """The float32 file's answer would need a tolerance that hides saturation."""
    other = onnx.load(str(small))
    answered = dataclasses.replace(metadata_of(small), self_test={"picture": 1, "grids": [[[[0.5]]]]})
    onnx.helper.set_model_props(other, answered.to_props())
    small.write_bytes(other.SerializeToString())
    run(request_for(small, skip_gates=skip_gates, measure_sensitivity=False))
    runner = OnnxRuntimeRunner(request_for(small).output, threads=2, warn_unverified=False)
    known = runner.spec.metadata.self_test
    assert known is not None and known["precision"] == "int8" and check_self_test(runner) == known


@pytest.mark.hardware
def test_a_file_for_vnni_has_all_eight_bits(
    small: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    if missing_for_int8() is not None:
        pytest.skip("this CPU has no VNNI")
    report, _ = run(request_for(small, target="cpu-vnni", measure_sensitivity=False))
    assert report.milliseconds is not None
    assert (report.calibration["weight_levels"], report.calibration["requires"]) == (127, "vnni")
    assert metadata_of(report.path).requires == "vnni"
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(report.path)).graph.initializer}
    assert np.abs(stored["one.w.int8"].astype(int)).max() == 127


def test_a_cpu_without_vnni_cannot_check_a_file_for_it(
    small: Path, request_for: Callable[..., CalibrateRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmkla.calibration.request.missing_for_int8", lambda: "vnni")
    request = request_for(small, target="cpu-vnni")
    with pytest.raises(MissingDependencyError, match="this CPU has no VNNI") as caught:
        run(request)
    assert "--target cpu," in str(caught.value) and not request.out.exists()
    run(request_for(small, skip_gates=True, measure_sensitivity=False))  # for every CPU


def test_the_outlier_layer_is_put_back(tmp_path: Path, request_for: Callable[..., CalibrateRequest]) -> None:
    model = write_small(tmp_path / "m.onnx", small_weights(outlier="two"))
    request = request_for(model, method="min-max")
    report, lines = run(request)
    (back,) = report.calibration["put_back"]
    assert back["group"] == "two" and "Dice drop" in back["because"][0]
    assert lines[-1] == "with 1 groups in higher precision: passed"
    made = onnx.load(str(request.output))
    stored = {tensor.name for tensor in made.graph.initializer}
    assert "two.w" in stored and "one.w" not in stored and "one.w.int8" in stored


def test_a_large_channel_is_taken_back(tmp_path: Path, request_for: Callable[..., CalibrateRequest]) -> None:
    """The scale of one channel would leave nothing of the others: it is divided, and nothing is put back."""
    model = write_small(tmp_path / "m.onnx", small_weights(large_channel="two"))
    report, _ = run(request_for(model, method="min-max", measure_sensitivity=False))
    assert report.calibration["put_back"] == [] and report.calibration["equalised"] == 1


def test_nothing_is_written_when_nothing_passes(
    tmp_path: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    """Outliers everywhere: the last group alone is as bad."""
    weights = small_weights()
    for name in ("one", "two", "three"):
        weights |= {n: v for n, v in small_weights(outlier=name).items() if n.startswith(f"{name}.")}
    request = request_for(write_small(tmp_path / "m.onnx", weights), method="min-max")
    with pytest.raises(GateError, match="no choice of layers") as caught:
        run(request)
    assert "Dice drop" in str(caught.value)
    assert not request.output.exists() and not request.output.parent.exists()


def test_a_tighter_limit_is_kept_or_refused(
    small: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    with pytest.raises(GateError, match="Dice drop"):
        run(request_for(small, max_dice_drop=0.0, measure_sensitivity=False))
    with pytest.raises(BadInputError, match="looser"):
        run(request_for(small, max_dice_drop=0.5))


def test_skipped_gates_are_marked(small: Path, request_for: Callable[..., CalibrateRequest]) -> None:
    request = request_for(small, skip_gates=True, measure_sensitivity=False)
    report, _ = run(request)
    assert report.verified is None and not metadata_of(request.output).verified
    assert metadata_of(request.output).gates == {"skipped": True}


def test_ranges_are_measured_once(small: Path, request_for: Callable[..., CalibrateRequest]) -> None:
    request = request_for(small, measure_sensitivity=False)
    first, lines = run(request)
    assert not any("measured before" in line for line in lines)
    again, lines = run(request)
    assert any("measured before" in line for line in lines) and again.sha256 == first.sha256
    _, lines = run(dataclasses.replace(request, method="min-max"))
    assert not any("measured before" in line for line in lines)
    other = write_small(small.with_name("other.onnx"), small_weights(1))
    _, lines = run(dataclasses.replace(request, model=str(other)))
    assert not any("measured before" in line for line in lines)


def test_a_calibration_that_is_cut_off_goes_on(
    small: Path, tmp_path: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    """Cut off between two shards: the next run measures what is left, and writes the same file."""
    request = request_for(small, measure_sensitivity=False)
    steps: list[tuple[str, int]] = []

    def cut_off(done: int, total: int | None, note: str = "") -> None:
        steps.append((note, done))
        if len(steps) > 1 and steps[-2] == ("measuring ranges", 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(request, lambda line: None, cut_off)
    assert steps[-1] == ("measuring ranges", 16) and not request.output.exists()
    steps.clear()
    lines: Lines = []
    made = calibrate(request, lines.append, cut_off)
    assert any(line.startswith("continuing from") for line in lines)
    measured = [done for note, done in steps if note == "measuring ranges"]
    assert (measured[0], measured[-1]) == (24, 40)
    whole, _ = run(dataclasses.replace(request, out=tmp_path / "again", output=tmp_path / "again.onnx"))
    assert whole.sha256 == made.sha256


def test_labelled_data_are_checked_against_their_masks(
    small: Path, tmp_path: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    folder = write_folder(tmp_path / "labelled", 12)
    request = request_for(small, check=(str(folder),), measure_sensitivity=False, skip_gates=False)
    report, _ = run(request)
    # Two of the twelve are noise alone, and so one view.
    assert report.verified is not None and report.verified["frames"] == 11
    (check,) = report.verified["checks"]
    assert check["measured"]["labelled"] is True and check["gates"]["max_lost_lesion"] == 0.01


def test_a_model_that_gives_nan_is_refused(
    tmp_path: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    weights = small_weights()
    weights["two.gain"][5:7] = 3e38  # the twins, beyond float32 with opposite signs
    weights["two.w"][5], weights["two.w"][6] = 100.0, -100.0
    request = request_for(write_small(tmp_path / "m.onnx", weights), measure_sensitivity=False)
    with pytest.raises(GateError, match="not finite, first for"):
        run(request)
    assert not request.output.exists()


def test_wrong_files(tmp_path: Path, small: Path, request_for: Callable[..., CalibrateRequest]) -> None:
    data = small.read_bytes()
    for name, content in {
        "cut.onnx": data[: len(data) // 2],
        "text.onnx": b"not a model",
        "empty.onnx": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=name):
            run(request_for(tmp_path / name))
    foreign = onnx.load(str(small))
    del foreign.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    with pytest.raises(ArtefactMismatchError, match="no vmkla metadata"):
        run(request_for(tmp_path / "foreign.onnx"))
    done, _ = run(request_for(small, skip_gates=True, measure_sensitivity=False))
    with pytest.raises(ArtefactMismatchError, match="is int8, expected fp32"):
        run(request_for(done.path, output=tmp_path / "twice.onnx"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ()}, "no data"),
        ({"frames": 5}, "at least 32"),
        ({"percentile": 0.0}, "percentile"),
        ({"half": Path("x")}, "tensorrt"),
    ],
)
def test_wrong_requests(
    small: Path, request_for: Callable[..., CalibrateRequest], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(request_for(small, **changes))


def test_tensorrt_wants_the_half_precision_file(
    small: Path, request_for: Callable[..., CalibrateRequest]
) -> None:
    with pytest.raises(BadInputError, match=r"small\.fp16\.onnx") as caught:
        run(request_for(small, target="tensorrt"))
    assert "--precision fp16" in str(caught.value)
    with pytest.raises(ArtefactMismatchError, match="expected fp16"):
        run(request_for(small, target="tensorrt", half=small))
