"""What ``vmkla inspect`` shows of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exported_models import HEIGHT, WIDTH

from vmkla.engines.inspect import describe
from vmkla.errors import BadInputError, MissingDependencyError


def test_description(tiny_onnx: Path) -> None:
    facts = describe(tiny_onnx)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["verified"] is True
    assert facts["size_bytes"] == tiny_onnx.stat().st_size
    assert facts["inputs"] == [{"name": "frames", "element": "uint8", "shape": ["n", HEIGHT, WIDTH, 3]}]
    assert facts["nodes"]["vmkla.SelectiveScan2d"] == 4
    assert facts["nodes"]["vmkla.BSplineBasis"] == 8
    assert facts["gates"]["passed"] is True
    assert facts["model_config"]["name"] == "tiny-test"


def test_other_files(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"engine")
    with pytest.raises(MissingDependencyError, match="TensorRT engine"):
        describe(plan)
    with pytest.raises(BadInputError, match="no model file"):
        describe(tmp_path / "absent.onnx")
