"""NVIDIA's Polygraphy reads what vmkla exports without special care: the CPU half of what it can do.

The commands stand in docs/deepstream-and-trtexec.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.export.exported_models import HEIGHT, WIDTH, frames
from vmkla.engines import load_runner

SHAPE = f"frames:[2,{HEIGHT},{WIDTH},3]"


def polygraphy(*arguments: str | Path) -> str:
    """What a command of Polygraphy prints; it has to work."""
    done = subprocess.run(
        [Path(sys.executable).with_name("polygraphy"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_inspect(tiny_onnx: Path) -> None:
    text = polygraphy("inspect", "model", tiny_onnx, "--show", "layers")
    assert f"frames [dtype=uint8, shape=('n', {HEIGHT}, {WIDTH}, 3)]" in text
    assert "[Op: SelectiveScan2d]" in text and "[Op: BSplineBasis]" in text


def test_extract(tiny_onnx: Path, tmp_path: Path) -> None:
    """The value that the document names, for a part of the network to be looked at."""
    name = "encoder.stages.3.blocks.0.scan/SelectiveScan2d"
    polygraphy("surgeon", "extract", tiny_onnx, "--outputs", f"{name}:auto", "-o", tmp_path / "part.onnx")
    part = onnx.load(tmp_path / "part.onnx")
    assert [value.name for value in part.graph.output] == [name]
    assert 0 < len(part.graph.node) < len(onnx.load(tiny_onnx).graph.node)


@pytest.mark.slow
def test_run_gives_what_the_runner_gives(tiny_onnx: Path, tmp_path: Path) -> None:
    from polygraphy.json import load_json, save_json

    inputs, outputs = tmp_path / "inputs.json", tmp_path / "outputs.json"
    batch = frames(2)
    save_json([{"frames": batch}], str(inputs))
    polygraphy("run", tiny_onnx, "--onnxrt", "--load-inputs", inputs, "--save-outputs", outputs)
    found = load_json(str(outputs))
    (result,) = next(iter(found.values()))
    runner = load_runner(tiny_onnx)
    try:
        expected = runner.infer(batch)
    finally:
        runner.close()
    assert expected.std() > 0.01
    np.testing.assert_allclose(result["probability"], expected, atol=1e-5)  # sums in another order


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--fold-constants"]], ids=["plain", "folded"])
def test_sanitized_files_compute_the_same(tiny_onnx: Path, tmp_path: Path, flags: list[str]) -> None:
    inputs, outputs, sane = tmp_path / "inputs.json", tmp_path / "outputs.json", tmp_path / "sane.onnx"
    options = ("--val-range", "frames:[0,255]", "--input-shapes", SHAPE)
    polygraphy("run", tiny_onnx, "--onnxrt", *options, "--save-inputs", inputs, "--save-outputs", outputs)
    polygraphy("surgeon", "sanitize", tiny_onnx, *flags, "-o", sane)
    model = onnx.load(sane)
    assert {node.op_type for node in model.graph.node if node.domain == "vmkla"} == {
        "SelectiveScan2d",
        "BSplineBasis",
    }
    text = polygraphy(
        *("run", sane, "--onnxrt", "--load-inputs", inputs, "--load-outputs", outputs, "--atol", "1e-5")
    )
    assert "All outputs matched" in text
    assert json.loads(inputs.read_text())  # the comparison had inputs
