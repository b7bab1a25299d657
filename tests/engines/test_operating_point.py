"""A model file with another operating point: what changes in it is the point, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from tests.calibration.small_graphs import write_images
from tests.engines.tensorrt import stand_in_tensorrt
from tests.export.exported_models import exported, frames
from vmkla.calibration.calibrate import calibrate
from vmkla.calibration.request import CalibrateRequest
from vmkla.engines import load_runner
from vmkla.engines.operating_point import check_output, write_tuned
from vmkla.engines.runners.model_file import open_model
from vmkla.engines.runners.onnx_file import METADATA_SHA256, content_sha256, metadata_sha256
from vmkla.engines.tensorrt.manifest import manifest_path, read_manifest
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError
from vmkla.files import file_sha256
from vmkla.metadata import ArtefactMetadata
from vmkla.segment.operating_point import OperatingPoint

POINT = OperatingPoint(0.5, 0.93, 0.002)
RECORD = {"request": {"alarms_per_minute": 1.0}, "new": POINT.to_dict()}
CHANGED = {"vmkla.operating_point", "vmkla.tuning", METADATA_SHA256}


def rewrite(model: Path, output: Path, metadata: ArtefactMetadata, **changed: Any) -> None:
    arguments = {"sha256": file_sha256(model), **changed}
    write_tuned(model, output, POINT, (*metadata.tuning, RECORD), **arguments)


def int8_file(folder: Path, fp32: Path) -> Path:
    """The tiny network in INT8, unchecked: its answers are not the point here."""
    write_images(folder / "images", 4)
    output = folder / "m.int8.onnx"
    calibrate(
        CalibrateRequest(
            model=str(fp32),
            data=(str(folder / "images"),),
            target="cpu",
            output=output,
            out=folder / "out",
            frames=4,
            check_frames=1,
            allow_few=True,
            skip_gates=True,
            measure_sensitivity=False,
            threads=1,
        ),
        lambda line: None,
    )
    return output


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_onnx_file_keeps_graph_and_weights(tmp_path: Path, tiny_onnx: Path, precision: str) -> None:
    model = tmp_path / "m.onnx"
    if precision == "int8":
        model = int8_file(tmp_path, tiny_onnx)
    else:
        model.write_bytes(exported("fp16" if precision == "fp16" else "fp32"))
    old = open_model(model)
    output = tmp_path / "new" / "m-tuned.onnx"
    rewrite(model, output, old.metadata)
    new = open_model(output)
    # The content is the same bytes in the same order, and what follows is metadata.
    content = old.data[: old.data.index(b"vmkla.format") - len(b"vmkla.format")]
    assert len(content) > 0.9 * len(old.data) and new.data.startswith(content)
    assert content_sha256(new.data) == content_sha256(old.data)
    before, after = onnx.load_from_string(old.data), onnx.load_from_string(new.data)
    for graphs in (before, after):
        assert len(graphs.graph.node) > 10 and len(graphs.graph.initializer) > 5
    for field in ("node", "initializer", "input", "output", "value_info"):
        pairs = zip(getattr(before.graph, field), getattr(after.graph, field), strict=True)
        assert all(a.SerializeToString() == b.SerializeToString() for a, b in pairs)
    assert [f.SerializeToString() for f in before.functions] == [
        f.SerializeToString() for f in after.functions
    ]
    onnx.checker.check_model(after, full_check=False)
    props = [{entry.key: entry.value for entry in each.metadata_props} for each in (before, after)]
    assert {key for key in props[1] if props[0].get(key) != props[1][key]} == CHANGED
    assert new.metadata.operating_point == POINT and new.metadata.tuning == (RECORD,)
    assert new.metadata.weights_sha256 == old.metadata.weights_sha256
    assert new.metadata.gates == old.metadata.gates and new.metadata.verified == old.metadata.verified
    shown = frames(2)
    answers = []
    for path in (model, output):
        with load_runner(path, threads=1) as runner:
            answers.append(runner.infer(shown))
            point = runner.spec.operating_point
    np.testing.assert_array_equal(answers[0], answers[1])
    assert point == POINT
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["vmkla.tuning"] == json.dumps([RECORD])


def test_a_second_tuning_is_added(tmp_path: Path, tiny_onnx: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    rewrite(tiny_onnx, first, open_model(tiny_onnx).metadata)
    rewrite(first, second, open_model(first).metadata)
    assert open_model(second).metadata.tuning == (RECORD, RECORD)


def test_entries_of_other_programs_stay(tmp_path: Path, tiny_onnx: Path) -> None:
    model = onnx.load(str(tiny_onnx))
    model.metadata_props.add(key="site", value="hospital 7")
    tiny_onnx.write_bytes(model.SerializeToString())
    rewrite(tiny_onnx, tmp_path / "new.onnx", open_model(tiny_onnx).metadata)
    assert open_model(tmp_path / "new.onnx").outline.metadata["site"] == "hospital 7"


def test_a_checkpoint_keeps_its_tensors(tmp_path: Path, tiny_weights: Path) -> None:
    output = tmp_path / "new.safetensors"
    with load_runner(tiny_weights, threads=1) as runner:
        old, answer = runner.spec, runner.infer(frames(2))
    rewrite(tiny_weights, output, old.metadata)
    with load_runner(output, threads=1) as runner:
        new = runner.spec
        np.testing.assert_array_equal(runner.infer(frames(2)), answer)
    assert new.operating_point == POINT and new.metadata.tuning == (RECORD,)
    assert new.metadata.weights_sha256 == old.metadata.weights_sha256 and not new.notes
    before, after = (path.read_bytes() for path in (tiny_weights, output))
    size = len(before) - 8 - int.from_bytes(before[:8], "little")
    assert before[-size:] == after[-size:] and (8 + int.from_bytes(after[:8], "little")) % 8 == 0
    tensors = safetensors.numpy.load(after)
    assert tensors.keys() == safetensors.numpy.load(before).keys()
    heads = [json.loads(data[8 : len(data) - size]) for data in (before, after)]
    about = [head.pop("__metadata__") for head in heads]
    assert heads[0] == heads[1]
    different = {key for key in about[1] if about[0].get(key) != about[1][key]}
    assert different == {"vmkla.operating_point", "vmkla.tuning", "vmkla.content_sha256"}


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_gets_another_manifest(tmp_path: Path, tiny_onnx: Path, runtime: str) -> None:
    plan, output = tmp_path / "m.plan", tmp_path / "m-tuned.plan"
    old = stand_in_tensorrt.write_engine(plan, tiny_onnx, runtime=runtime)
    rewrite(plan, output, old.artefact(plan))
    new = read_manifest(output)
    assert output.read_bytes() == plan.read_bytes()
    metadata = new.artefact(output)
    assert metadata.operating_point == POINT and metadata.tuning == (RECORD,)
    assert new.metadata[METADATA_SHA256] == metadata_sha256(new.metadata)
    values = [manifest.to_dict() for manifest in (old, new)]
    props = [value.pop("metadata") for value in values]
    assert {key for key in props[1] if props[0].get(key) != props[1][key]} == CHANGED
    assert [value.pop("manifest_sha256") for value in values][0] != new.to_dict()["manifest_sha256"]
    assert values[0] == values[1]


def test_the_model_is_never_replaced(tmp_path: Path, tiny_onnx: Path) -> None:
    metadata, before = open_model(tiny_onnx).metadata, tiny_onnx.read_bytes()
    link, hard = tmp_path / "link.onnx", tmp_path / "hard.onnx"
    link.symlink_to(tiny_onnx)
    os.link(tiny_onnx, hard)
    for output in (tiny_onnx, link, hard, tmp_path / "deeper" / ".." / tiny_onnx.name):
        with pytest.raises(UsageError, match="would replace the model"):
            rewrite(tiny_onnx, output, metadata)
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        check_output(tiny_onnx, tmp_path / "new.plan")
    assert tiny_onnx.read_bytes() == before


def test_what_changed_meanwhile_is_refused(tmp_path: Path, tiny_onnx: Path, tiny_weights: Path) -> None:
    plan = tmp_path / "m.plan"
    manifest = stand_in_tensorrt.write_engine(plan, tiny_onnx)
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_weights.read_bytes())
    metadata = open_model(tiny_onnx).metadata
    for model in (plan, other, tiny_onnx):
        output = tmp_path / f"new{model.suffix}"
        with pytest.raises(ArtefactMismatchError, match="changed since"):
            rewrite(model, output, metadata, sha256="0" * 64)
        assert not output.exists() and not manifest_path(output).exists()
    plan.write_bytes(plan.read_bytes() + b"more")
    with pytest.raises(ArtefactMismatchError, match="changed since"):
        rewrite(plan, tmp_path / "new.plan", manifest.artefact(plan))


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "plan"])
def test_a_disk_that_fails_leaves_no_file(
    tmp_path: Path, tiny_onnx: Path, tiny_weights: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"onnx": tiny_onnx, "safetensors": tiny_weights, "plan": tmp_path / "m.plan"}
    stand_in_tensorrt.write_engine(models["plan"], tiny_onnx)
    full: Callable[[int], None] = _no_space
    monkeypatch.setattr(os, "fsync", full)
    folder = tmp_path / "new"
    with pytest.raises(BadInputError, match="No space left"):
        rewrite(models[kind], folder / f"m.{kind}", open_model(tiny_onnx).metadata)
    assert list(folder.iterdir()) == []


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")
