"""The outline reader against the onnx package, and on files that are not whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmkla.engines.runners.onnx_file import outline_of, read_model
from vmkla.errors import BadInputError


def test_outline_is_what_onnx_reads(tiny_onnx: Path) -> None:
    outline = outline_of(read_model(tiny_onnx), tiny_onnx)
    model = onnx.load(tiny_onnx)
    assert outline.ir_version == model.ir_version
    assert outline.opsets == {entry.domain: entry.version for entry in model.opset_import}
    assert outline.producer == model.producer_name == "vmkla"
    assert outline.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert outline.functions == tuple(f"{f.domain}.{f.name}" for f in model.functions)
    nodes = Counter(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.node)
    assert outline.nodes == nodes
    floating = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert outline.parameters == sum(int(np.prod(t.dims)) for t in floating)
    assert outline.size_bytes == tiny_onnx.stat().st_size
    assert [(v.name, v.element, v.shape) for v in outline.inputs] == [("frames", "uint8", ("n", 32, 64, 3))]
    assert [(v.name, v.element, v.shape) for v in outline.outputs] == [
        ("probability", "float32", ("n", 1, 32, 64))
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0.0, 0.999))
def test_a_cut_off_file_is_refused(tiny_onnx: Path, part: float) -> None:
    """Wherever it is cut: between the model's fields something is missing, inside one it ends too early."""
    data = tiny_onnx.read_bytes()
    cut = tiny_onnx.with_name("cut.onnx")
    cut.write_bytes(data[: int(part * len(data))])
    try:
        outline = outline_of(read_model(cut), cut)
    except BadInputError:
        return
    # A cut right behind a whole field leaves a valid message; then what stands behind it is gone.
    assert "vmkla.format" not in outline.metadata or not outline.functions


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_noise_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInputError):
        outline_of(read_model(path), path)


def test_text_folder_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(BadInputError, match="there is no file"):
        outline_of(read_model(path), path)
    path.write_text("this is not a model\n" * 50)
    with pytest.raises(BadInputError, match="not a whole ONNX file"):
        outline_of(read_model(path), path)
    path.write_bytes(b"")
    with pytest.raises(BadInputError, match="empty"):
        outline_of(read_model(path), path)
    with pytest.raises(BadInputError, match="folder"):
        outline_of(read_model(tmp_path), tmp_path)
