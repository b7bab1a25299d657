"""Parsing: a strongly typed network, stripped functions, and errors that name the node."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.engines.tensorrt.small_engines import HEIGHT, WIDTH, small_model
from vmkla.engines.runners.onnx_file import outline_of, read_model, without_functions
from vmkla.engines.tensorrt.api import TensorRTApi, load_api
from vmkla.engines.tensorrt.build.network import (
    PLUGIN_LAYER,
    check_custom_layers,
    check_network,
    creation_flags,
    layer_counts,
    parse_network,
)
from vmkla.errors import ArtefactMismatchError
from vmkla.export.translations import register_schemas
from vmkla.metadata import ArtefactMetadata

PATH = Path("model.onnx")


@pytest.fixture(scope="module")
def api() -> TensorRTApi:
    return load_api("tensorrt-rtx")


class Parsed:
    """A network and what must outlive it."""

    def __init__(self, api: TensorRTApi, model: onnx.ModelProto | bytes) -> None:
        self.builder = api.make_builder()
        data = model if isinstance(model, bytes) else model.SerializeToString()
        self.parsed = parse_network(api, self.builder, data, PATH)
        self.network = self.parsed.network


def refusal(api: TensorRTApi, model: onnx.ModelProto | bytes) -> ArtefactMismatchError:
    with pytest.raises(ArtefactMismatchError) as caught:
        Parsed(api, model)
    return caught.value


def metadata_of(model: onnx.ModelProto) -> ArtefactMetadata:
    props = {entry.key: entry.value for entry in model.metadata_props}
    return ArtefactMetadata.from_props(props, path="model.onnx")


def test_networks_are_strongly_typed(api: TensorRTApi) -> None:
    parsed = Parsed(api, small_model(half=True))
    assert parsed.network.get_flag(api.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    counts = layer_counts(parsed.network)
    assert counts["MATRIX_MULTIPLY HALF"] == 1 and "MATRIX_MULTIPLY FLOAT" not in counts
    assert sum(counts.values()) == parsed.network.num_layers
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_the_flag_goes_by_its_name_and_not_by_its_number(api: TensorRTApi) -> None:
    """10.x numbers it 1 and 11.x numbers it 0; a version without it is strongly typed anyhow."""

    def flags(**members: int) -> int:
        module = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(**members))
        return creation_flags(TensorRTApi("tensorrt", module, (10, 3)))

    assert flags(EXPLICIT_BATCH=0, STRONGLY_TYPED=1) == 2
    assert flags(STRONGLY_TYPED=0) == 1
    assert flags(EXPLICIT_BATCH=0) == 0
    member = api.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert creation_flags(api) == 1 << int(member)


def test_an_unknown_op_is_named_with_its_node(api: TensorRTApi) -> None:
    model = small_model()
    model.graph.node[4].op_type = "NoSuchOp"
    error = refusal(api, model)
    assert error.exit_status == 6
    assert "model.onnx" in error.message and api.version_text in error.message
    assert "node 4 'kan/MatMul' (NoSuchOp)" in error.message
    assert error.hint is not None
    assert "no operator 'NoSuchOp'" in error.hint and "vmkla export" in error.hint
    # ONNX Runtime does not know it either.
    assert "shows whether the file itself is sound" in error.hint and "runs the file" not in error.hint


def test_a_node_without_a_name_goes_by_its_number(api: TensorRTApi) -> None:
    model = small_model()
    model.graph.node[4].op_type = "NoSuchOp"
    model.graph.node[4].name = ""
    assert "node 4 (NoSuchOp, without a name)" in refusal(api, model).message


def test_an_op_inside_a_body_is_named_with_its_caller(api: TensorRTApi) -> None:
    model = small_model()
    body = model.functions[0]
    body.node[5].op_type = "NoSuchInnerOp"
    message = refusal(api, model).message
    assert "NoSuchInnerOp" in message and "in the function body of kan/BSplineBasis" in message


def test_shapes_that_do_not_fit_are_said_in_the_parsers_words(api: TensorRTApi) -> None:
    model = small_model()
    model.graph.node[4].input[1] = "grid"
    error = refusal(api, model)
    assert "node 4 'kan/MatMul' (MatMul): " in error.message
    assert error.hint is not None and "vmkla export again" in error.hint


def test_many_errors_are_counted(api: TensorRTApi) -> None:
    lost = [helper.make_node("Lost", ["frames"], [f"lost_{i}"], f"lost/{i}") for i in range(7)]
    message = refusal(api, small_model(extra_nodes=lost)).message
    assert "node 0 'lost/0' (Lost)" in message and "node 4 'lost/4' (Lost)" in message
    assert "lost/5" not in message and "and 2 more of 7 errors" in message


def test_what_is_no_model_is_said_without_a_node(api: TensorRTApi) -> None:
    message = refusal(api, b"nothing that protobuf would know" * 4).message
    assert "node" not in message.partition(":")[2].lower() and "parse" in message.lower()


def test_a_custom_node_without_body_and_plugin_is_refused(api: TensorRTApi) -> None:
    """What the parser of a TensorRT without our plugin would say of a stripped file."""
    error = refusal(api, small_model(functions=False))
    assert "'kan/BSplineBasis' (BSplineBasis)" in error.message
    assert error.hint is not None and "no plugin or function body" in error.hint


def test_stripping_takes_the_functions_alone(tmp_path: Path) -> None:
    model = small_model(scan=True)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    stripped = onnx.load_model_from_string(without_functions(path.read_bytes()))
    assert len(model.functions) == 2 and len(stripped.functions) == 0
    del model.functions[:]
    assert stripped == model
    assert without_functions(path.read_bytes()) == model.SerializeToString()
    register_schemas()  # what the plugin is to TensorRT, the schemas are to the checker
    onnx.checker.check_model(stripped, full_check=True)


def test_a_file_without_functions_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small_model(functions=False).SerializeToString())
    assert without_functions(path.read_bytes()) == path.read_bytes()
    assert outline_of(read_model(path), path).functions == ()


@pytest.mark.parametrize("half", [False, True])
def test_a_file_that_keeps_its_word_passes(api: TensorRTApi, half: bool) -> None:
    model = small_model(half=half, scan=True)
    check_network(Parsed(api, model).network, metadata_of(model), PATH)


@pytest.mark.parametrize(("half", "says"), [(False, "fp16"), (True, "fp32")])
def test_the_precision_in_the_metadata_must_be_the_files(api: TensorRTApi, half: bool, says: str) -> None:
    model = small_model(half=half, metadata={"precision": says})
    with pytest.raises(ArtefactMismatchError, match=f"has precision {says} in its metadata; "):
        check_network(Parsed(api, model).network, metadata_of(model), PATH)


def test_half_stored_weights_are_no_half_precision(api: TensorRTApi) -> None:
    """As ``vmkla export --half-storage`` writes them, the shipped models among them."""
    model = small_model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "project")
    values = onnx.numpy_helper.to_array(weight).astype("float16")
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "stored"))
    widen = helper.make_node("Cast", ["stored"], ["project"], "stored/Cast", to=TensorProto.FLOAT)
    model.graph.node.insert(0, widen)
    check_network(Parsed(api, model).network, metadata_of(model), PATH)


@pytest.mark.parametrize(
    "changed",
    [
        {"class_names": ("background", "polyp")},
        {"input_type": "float32"},
        {"vmkla.preprocess": f'{{"height": {WIDTH}, "width": {HEIGHT}, "roi": "none"}}'},
    ],
)
def test_inputs_and_outputs_must_be_what_the_metadata_say(api: TensorRTApi, changed: dict[str, Any]) -> None:
    model = small_model(metadata=changed)
    with pytest.raises(ArtefactMismatchError, match="its metadata asks for"):
        check_network(Parsed(api, model).network, metadata_of(model), PATH)


NODES = {"MatMul": 3, "vmkla.SelectiveScan2d": 2, "vmkla.BSplineBasis": 1, "vmkla.Other": 1}
"""The last has no plugin, and always its body."""


def test_plugins_are_taken_for_all_custom_nodes_or_for_none() -> None:
    library = Path("libvmkla_tensorrt.so")
    taken = {"MATRIX_MULTIPLY HALF": 3, "PLUGIN_V3 HALF": 2, "PLUGIN_V3 FLOAT": 1}
    bodies = {"MATRIX_MULTIPLY HALF": 9, "RECURRENCE FLOAT": 6}
    check_custom_layers(taken, NODES, PATH, library)
    check_custom_layers(bodies, NODES, PATH, None)
    check_custom_layers(bodies, {"MatMul": 9}, PATH, library)
    for layers in (bodies, {"PLUGIN_V3 HALF": 2}, {"PLUGIN_V3 HALF": 4}):
        with pytest.raises(ArtefactMismatchError, match="of the 3 custom nodes of model.onnx"):
            check_custom_layers(layers, NODES, PATH, library)
    with pytest.raises(ArtefactMismatchError, match="took a plugin for 3 nodes of model.onnx"):
        check_custom_layers(taken, NODES, PATH, None)


def test_plugin_layers_go_by_the_librarys_name_of_them(api: TensorRTApi) -> None:
    assert api.module.LayerType.PLUGIN_V3.name == PLUGIN_LAYER
