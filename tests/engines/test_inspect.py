"""What ``vmkla inspect`` shows of a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.engines.tensorrt import stand_in_tensorrt
from tests.export.exported_models import HEIGHT, WIDTH
from vmkla.engines.inspect import describe, network_of
from vmkla.errors import ArtefactMismatchError, BadInputError


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


def test_an_engine_shows_its_manifest(tmp_path: Path, tiny_onnx: Path) -> None:
    plan = tmp_path / "tiny.plan"
    manifest = stand_in_tensorrt.write_engine(plan, tiny_onnx, profile=(1, 2, 4))
    facts = describe(plan)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["manifest"]["gpu"] == dataclasses.asdict(stand_in_tensorrt.GPU)
    assert facts["manifest"]["profile"] == {"min": 1, "opt": 2, "max": 4}
    assert facts["manifest"]["onnx"]["sha256"] == describe(tiny_onnx)["sha256"]
    assert facts["model_config"]["name"] == "tiny-test" and facts["verified"] is True
    assert facts["sha256"] == manifest.engine_sha256 and facts["unchanged"] is True
    plan.write_bytes(plan.read_bytes() + b"more")
    assert describe(plan)["unchanged"] is False
    assert network_of(plan)[1] == (HEIGHT, WIDTH)


def test_other_files(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"engine")
    with pytest.raises(ArtefactMismatchError, match="no manifest"):
        describe(plan)
    with pytest.raises(BadInputError, match="no model file"):
        describe(tmp_path / "absent.onnx")
