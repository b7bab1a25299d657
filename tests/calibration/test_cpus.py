"""INT8 files on every kind of x86-64 CPU: the integers are exact, and what would saturate is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests import other_cpus
from tests.calibration.small_graphs import small_weights, write_small
from tests.video.small_videos import write_video
from vmkla.calibration.artefact import open_artefact
from vmkla.calibration.layers import Target
from vmkla.engines.runners import onnxruntime_runner
from vmkla.errors import ArtefactMismatchError
from vmkla.metadata import ArtefactMetadata
from vmkla.segment.self_test import INT8_MEAN

HERE = Path(__file__).parent
CLI = "import sys; from vmkla.cli.main import run; sys.argv[0] = 'vmkla'; run()"


def answer(profile: str, folder: Path, *arguments: str | Path) -> Any:
    """What a program prints as JSON when it runs as another CPU."""
    other_cpus.require(profile)
    done = other_cpus.run(profile, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def quantized(folder: Path, target: Target) -> Path:
    """The small graph for a target."""
    source = open_artefact(write_small(folder / "small.onnx", small_weights()), target, "fp32")
    path = folder / f"small.{target}.onnx"
    source.write_quantized(source.layers, {layer.key: (-1.0, 1.0) for layer in source.layers}, path)
    return path


@pytest.mark.hardware
@pytest.mark.parametrize("profile", ["avx2", "avx512", "vnni"])
def test_the_largest_integers_are_multiplied_exactly(other_cpus_folder: Path, profile: str) -> None:
    """Activations of -128, -127 and 127 and weights at their limits, up to 6144 summands, against int32."""
    program = HERE / "extreme_products.py"
    seen = answer(profile, other_cpus_folder, program, "cpu", "cpu-vnni")
    difference, in_integers = seen["cpu"]
    assert difference == 0 and in_integers == 4  # each of the shapes is multiplied in integers
    difference, _ = seen["cpu-vnni"]
    assert (difference == 0) == (profile == "vnni")  # 8 bits saturate, and the test would see it


@pytest.mark.hardware
@pytest.mark.parametrize("profile", ["avx2", "avx512"])
def test_a_session_that_saturates_fails_the_self_test(
    other_cpus_folder: Path, tmp_path: Path, profile: str
) -> None:
    seen = answer(profile, other_cpus_folder, HERE / "saturating_session.py", tmp_path)
    assert "is an INT8 file for CPUs with VNNI" in seen["refused"]
    assert seen["exact"] == "True"
    assert "8-bit products may saturate" in seen["by default"] or "off by 0." in seen["by default"]
    assert seen["mean"] > 2 * INT8_MEAN


@pytest.mark.parametrize(
    ("facts", "refused"),
    [
        ({"requires": None}, False),
        ({"requires": "vnni"}, True),
        ({"requires": "amx9"}, True),  # of a later version
        ({"target": "cpu"}, True),  # of before there was a choice: 8 bits
        ({"target": "tensorrt"}, False),  # multiplies in float32 on a CPU
        ({}, True),
    ],
)
def test_which_files_need_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], refused: bool
) -> None:
    model = onnx.load(str(quantized(tmp_path, "cpu")))
    metadata = ArtefactMetadata.from_props({p.key: p.value for p in model.metadata_props}, path="")
    path = tmp_path / "changed.onnx"
    onnx.helper.set_model_props(model, dataclasses.replace(metadata, calibration=facts).to_props())
    path.write_bytes(model.SerializeToString())
    monkeypatch.setattr(onnxruntime_runner, "missing_for_int8", lambda: "vnni")
    if not refused:
        onnxruntime_runner.OnnxRuntimeRunner(path, threads=1, warn_unverified=False).close()
        return
    with pytest.raises(ArtefactMismatchError, match="this CPU lacks") as caught:
        onnxruntime_runner.OnnxRuntimeRunner(path, threads=1)
    assert "--target cpu " in str(caught.value)


@pytest.mark.hardware
def test_a_cpu_without_vnni_refuses_the_file(other_cpus_folder: Path, tmp_path: Path) -> None:
    other_cpus.require("avx2")
    clip = write_video(tmp_path / "clip.mp4")
    seen = {}
    for target in ("cpu", "cpu-vnni"):
        model = quantized(tmp_path, target)  # type: ignore[arg-type]
        command = ["infer", "--video", clip, "--model", model, "--out", tmp_path / target, "--quiet"]
        seen[target] = other_cpus.run("avx2", other_cpus_folder, "-c", CLI, *command)
    assert seen["cpu"].returncode == 0, seen["cpu"].stderr
    refused = seen["cpu-vnni"]
    assert refused.returncode == 6 and "CPUs with VNNI, which this CPU lacks" in refused.stderr
    assert "vmkla calibrate MODEL.onnx --data DIR --target cpu --output small.cpu-vnni.onnx" in refused.stderr
    assert not (tmp_path / "cpu-vnni").exists()
