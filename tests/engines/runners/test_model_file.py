"""The one way into a model: nothing in other files, nothing damaged, and what was checked is what runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engines.runners.spoilt_models import (
    Model,
    external,
    largest_weight,
    spoilt,
    weight_byte,
    with_impossible_reshape,
    with_nan,
)
from tests.export.exported_models import frames
from vmkla.calibration.artefact import open_artefact
from vmkla.engines import load_runner
from vmkla.engines.inspect import describe
from vmkla.engines.runners import onnx_tensors
from vmkla.engines.runners.model_file import UNSEALED, open_model
from vmkla.engines.runners.onnx_file import (
    CONTENT_SHA256,
    METADATA_SHA256,
    content_sha256,
    outline_of,
    read_model,
    with_metadata,
)
from vmkla.engines.runners.protobuf import encode_field
from vmkla.engines.verify.locate import OnnxSide
from vmkla.errors import ArtefactMismatchError, BadInputError, VmklaError


def whole(name: str = "here") -> TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), name)


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[9])


def body(tensor: TensorProto) -> onnx.GraphProto:
    return onnx.GraphProto(name="body", initializer=[tensor])


def node_with(**attribute: Any) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type="Scan", name="odd", output=["unused"])
    node.attribute.append(onnx.AttributeProto(name="a", **attribute))
    return node


def nested(tensor: TensorProto, levels: int) -> onnx.GraphProto:
    """A graph in a graph in a graph."""
    graph = body(tensor)
    for _ in range(levels):
        graph = onnx.GraphProto(name="outer", node=[node_with(g=graph)])
    return graph


def plain_field(tensor: TensorProto, *, location: bool) -> TensorProto:
    """With one of the two signs of external data only."""
    if location:
        del tensor.external_data[:]
    else:
        tensor.ClearField("data_location")
    return tensor


PLACES: dict[str, Callable[[Model], object]] = {
    "initializer": lambda m: m.graph.initializer.append(external()),
    "location only": lambda m: m.graph.initializer.append(plain_field(external(), location=True)),
    "entries only": lambda m: m.graph.initializer.append(plain_field(external(), location=False)),
    "sparse values": lambda m: m.graph.sparse_initializer.append(sparse(external(), whole())),
    "sparse indices": lambda m: m.graph.sparse_initializer.append(sparse(whole(), external())),
    "attribute": lambda m: m.graph.node.append(node_with(t=external())),
    "list of tensors": lambda m: m.graph.node.append(node_with(tensors=[whole(), external()])),
    "sparse attribute": lambda m: m.graph.node.append(node_with(sparse_tensor=sparse(whole(), external()))),
    "sparse list": lambda m: m.graph.node.append(node_with(sparse_tensors=[sparse(external(), whole())])),
    "body": lambda m: m.graph.node.append(node_with(g=body(external()))),
    "bodies": lambda m: m.graph.node.append(node_with(graphs=[body(whole()), body(external())])),
    "eight levels deep": lambda m: m.graph.node.append(node_with(g=nested(external(), 8))),
    "function": lambda m: m.functions[0].node.append(node_with(t=external())),
    "default of a function": lambda m: m.functions[0].attribute_proto.append(
        onnx.AttributeProto(name="a", t=external())
    ),
    "training": lambda m: m.training_info.add().initialization.initializer.append(external()),
    "training step": lambda m: m.training_info.add().algorithm.initializer.append(external()),
}


class NoSession:
    """Stands for onnxruntime's session, which must not be reached."""

    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("a session was made")


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_before_a_session(
    tiny_onnx: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(tiny_onnx, PLACES[place])
    monkeypatch.setattr(ort, "InferenceSession", NoSession)
    with pytest.raises(ArtefactMismatchError, match=r"'elsewhere'.* in another file") as caught:
        load_runner(tiny_onnx)
    assert caught.value.exit_status == 6 and "onnx.save" in (caught.value.hint or "")


def test_every_way_to_a_tensor_in_the_format_is_walked() -> None:
    """The package's own description of the format: each field that can lead to a tensor is in the table."""
    names = {
        "ModelProto": "model", "TrainingInfoProto": "training", "GraphProto": "graph", "NodeProto": "node",
        "FunctionProto": "function", "AttributeProto": "attribute", "TensorProto": "tensor",
        "SparseTensorProto": "sparse",
    }  # fmt: skip

    def leads(message: Any, seen: frozenset[str] = frozenset()) -> bool:
        if message.name == "TensorProto":
            return True
        return message.name not in seen and any(
            leads(field.message_type, seen | {message.name}) for field in message.fields if field.message_type
        )

    found: dict[str, dict[int, str]] = {}
    todo = [onnx.ModelProto.DESCRIPTOR]
    while todo:
        message = todo.pop()
        if message.name == "TensorProto" or names[message.name] in found:
            continue
        inner = [f for f in message.fields if f.message_type and leads(f.message_type)]
        found[names[message.name]] = {field.number: names[field.message_type.name] for field in inner}
        todo += [field.message_type for field in inner]
    assert found == onnx_tensors._CHILDREN


@pytest.mark.parametrize(
    "enter",
    [
        lambda path: load_runner(path),
        lambda path: describe(path),
        lambda path: OnnxSide(path, "native"),
        lambda path: open_artefact(path, "cpu", "fp32"),
        lambda path: open_model(path),
    ],
    ids=["runner", "inspect", "locate", "calibrate", "build"],
)
def test_every_entrance_has_the_same_door(tiny_onnx: Path, enter: Callable[[Path], object]) -> None:
    data = tiny_onnx.read_bytes()
    spoilt(tiny_onnx, PLACES["body"])
    with pytest.raises(ArtefactMismatchError, match="in another file"):
        enter(tiny_onnx)
    tiny_onnx.write_bytes(flipped(data, weight_byte(data), 3))
    with pytest.raises(ArtefactMismatchError, match="is damaged"):
        enter(tiny_onnx)


def test_graphs_without_end_are_refused(tiny_onnx: Path) -> None:
    graph = b""
    for _ in range(40):  # as a graph of an attribute of a node
        graph = encode_field(1, encode_field(5, encode_field(6, graph)))
    tiny_onnx.write_bytes(tiny_onnx.read_bytes() + encode_field(20, encode_field(1, graph)))
    with pytest.raises(BadInputError, match="nested deeper"):
        open_model(tiny_onnx)


def test_a_file_of_a_million_empty_fields_ends_soon(tmp_path: Path) -> None:
    path = tmp_path / "fields.onnx"
    path.write_bytes(b"\x08\x01" * 1_000_001)
    with pytest.raises(BadInputError, match="more fields than"):
        outline_of(read_model(path), path)


def test_onnxruntimes_own_format_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08\x12\x04ORTM" + bytes(64))
    with pytest.raises(BadInputError, match="own format"):
        open_model(path)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_one_flipped_bit_anywhere_is_noticed(tiny_onnx: Path) -> None:
    """In weights, nodes, bodies and metadata alike, and in the checksums themselves."""
    data = tiny_onnx.read_bytes()
    rng = random.Random(5)
    ends = (0, data.index(b"vmkla.format") - 4, data.index(CONTENT_SHA256.encode()) - 4, len(data))
    places = [rng.randrange(*part) for part in zip(ends, ends[1:], strict=False) for _ in range(40)]
    unnoticed = []
    for at in places:
        tiny_onnx.write_bytes(flipped(data, at, rng.randrange(8)))
        try:
            open_model(tiny_onnx)
        except VmklaError as error:
            assert error.exit_status in (3, 6) and error.hint
        else:
            unnoticed.append(at)
    assert unnoticed == []


def test_metadata_may_be_rewritten_and_added_to(tiny_onnx: Path) -> None:
    before = open_model(tiny_onnx)
    assert before.notes == () and before.outline.metadata[CONTENT_SHA256] == content_sha256(before.data)
    model = onnx.load(tiny_onnx)
    model.metadata_props.add(key="author", value="someone else")
    onnx.save(model, tiny_onnx)
    assert open_model(tiny_onnx).notes == ()
    tiny_onnx.write_bytes(with_metadata(before.data, {**before.outline.metadata, "vmkla.threshold": "0.25"}))
    after = open_model(tiny_onnx)
    assert after.metadata.threshold == 0.25
    assert after.outline.metadata[CONTENT_SHA256] == before.outline.metadata[CONTENT_SHA256]


def test_a_changed_threshold_is_noticed(tiny_onnx: Path) -> None:
    data = tiny_onnx.read_bytes()
    at = data.index(b"vmkla.threshold") + len(b"vmkla.threshold") + 2
    assert data[at : at + 3] == b"0.5"
    tiny_onnx.write_bytes(flipped(data, at + 2, 1))  # 0.5 becomes 0.7
    with pytest.raises(ArtefactMismatchError, match="its metadata has sha256"):
        load_runner(tiny_onnx)


def test_a_file_of_before_there_were_checksums(tiny_onnx: Path) -> None:
    model = onnx.load(tiny_onnx)
    kept = [entry for entry in model.metadata_props if entry.key not in (CONTENT_SHA256, METADATA_SHA256)]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tiny_onnx)
    runner = load_runner(tiny_onnx, threads=1)
    assert runner.spec.notes == (UNSEALED,) and describe(tiny_onnx)["notes"] == [UNSEALED]
    assert np.isfinite(runner.infer(frames(1))).all()


def test_what_was_checked_runs_whatever_becomes_of_the_file(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is exchanged when the session is about to be made."""
    expected = load_runner(tiny_onnx, threads=1).infer(frames(1))
    made = ort.InferenceSession

    def exchange(*arguments: Any, **keywords: Any) -> Any:
        model = onnx.load(tiny_onnx)
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                tensor.raw_data = bytes(len(tensor.raw_data))
        onnx.save(model, tiny_onnx)
        return made(*arguments, **keywords)

    before = load_runner(tiny_onnx, threads=1).spec.sha256
    monkeypatch.setattr(ort, "InferenceSession", exchange)
    runner = load_runner(tiny_onnx, threads=1)
    np.testing.assert_array_equal(runner.infer(frames(1)), expected)
    assert runner.spec.sha256 == before


def with_value(tensor: TensorProto, value: float, *, typed: bool = False) -> None:
    array = numpy_helper.to_array(tensor).copy()
    array.flat[array.size // 2] = value
    if typed:
        tensor.CopyFrom(
            helper.make_tensor(tensor.name, tensor.data_type, array.shape, array.ravel().tolist(), raw=False)
        )
    else:
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("element", [np.float32, np.float16, np.float64])
def test_weights_that_are_not_finite_are_refused(
    tiny_onnx: Path, value: float, element: type[np.floating[Any]], typed: bool
) -> None:
    def change(model: Model) -> None:
        array = np.linspace(-6e4, 6e4, 50).astype(element)
        tensor = numpy_helper.from_array(array, "odd weight")
        with_value(tensor, value, typed=typed)
        model.graph.initializer.append(tensor)

    spoilt(tiny_onnx, change)
    with pytest.raises(ArtefactMismatchError, match="not finite in its tensor 'odd weight'") as caught:
        load_runner(tiny_onnx)
    assert caught.value.exit_status == 6


def test_a_weight_of_the_network_that_became_nan(tiny_onnx: Path) -> None:
    name = largest_weight(onnx.load(tiny_onnx)).name
    spoilt(tiny_onnx, with_nan)
    with pytest.raises(ArtefactMismatchError, match="not finite") as caught:
        load_runner(tiny_onnx)
    assert name in caught.value.message


def test_a_lone_infinity_is_a_limit_and_a_lone_nan_is_not(tiny_onnx: Path) -> None:
    def add(value: float) -> Callable[[Model], object]:
        tensor = numpy_helper.from_array(np.array(value, np.float32), "limit")
        return lambda model: model.graph.initializer.append(tensor)

    data = tiny_onnx.read_bytes()
    spoilt(tiny_onnx, add(float("-inf")))
    open_model(tiny_onnx)
    tiny_onnx.write_bytes(data)
    spoilt(tiny_onnx, add(float("nan")))
    with pytest.raises(ArtefactMismatchError, match="'limit'"):
        open_model(tiny_onnx)


def test_a_node_that_fails_when_it_runs_is_the_files_fault(tiny_onnx: Path) -> None:
    """A reshape whose target comes out of the graph: no loader can know that it is impossible."""

    spoilt(tiny_onnx, with_impossible_reshape)
    runner = load_runner(tiny_onnx, threads=1)
    with pytest.raises(ArtefactMismatchError, match="cannot run .*Reshape") as caught:
        runner.infer(frames(1))
    assert caught.value.exit_status == 6 and "vmkla export" in (caught.value.hint or "")
