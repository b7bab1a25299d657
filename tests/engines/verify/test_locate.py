"""Where two graphs part: errors are planted, and the search has to find the very node."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.export.exported_models import exported, frames, resealed, with_roots
from vmkla.engines import load_runner
from vmkla.engines.verify import locate
from vmkla.engines.verify.clinical import verify_runners
from vmkla.errors import ArtefactMismatchError, BadInputError, VmklaError

NATIVE: Literal["native"] = "native"
BODIES: Literal["bodies"] = "bodies"
FRAME = frames(1, seed=7)[0]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("right") / "tiny.onnx"
    path.write_bytes(exported())
    return path


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "wrong.onnx"
    path.write_bytes(resealed(model))
    return path


def with_forward_routes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The bodies of the scans no longer turn the inputs of the reversed routes round."""
    model = copy.deepcopy(model)
    (body,) = (function for function in model.functions if function.name == "SelectiveScan2d")
    (turn,) = (node for node in body.node if list(node.output) == ["q_back"])
    turn.op_type = "Identity"
    del turn.input[1:]
    return model


def test_a_route_that_is_not_reversed_is_caught_and_located(right: Path, tmp_path: Path) -> None:
    model = onnx.load(str(right))
    wrong = written(with_forward_routes(model), tmp_path)
    images = frames(3, seed=5)
    sound = verify_runners(load_runner(right), load_runner(right, kernels="bodies"), images)
    assert sound.passed, sound.failures
    report = verify_runners(load_runner(right), load_runner(wrong, kernels="bodies"), images)
    assert not report.passed
    divergence = locate.locate((right, NATIVE), (wrong, BODIES), report.largest_error_input)
    assert divergence is not None
    first = next(node for node in model.graph.node if node.op_type == "SelectiveScan2d")
    assert (divergence.node, divergence.op) == (first.name, "vmkla.SelectiveScan2d")
    assert divergence.error > 10 * divergence.limit
    assert set(divergence.inputs.values()) == {0.0}, "what goes into it is the same"
    assert divergence.compared < divergence.common / 2, "and not every value had to be looked at"


def test_kernels_and_bodies_do_not_part(right: Path) -> None:
    assert locate.locate((right, NATIVE), (right, BODIES), FRAME) is None


def products(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """Nodes with a weight that is theirs alone."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for name in node.input:
            users = sum(name in other.input for other in model.graph.node)
            if name in weights and users == 1 and len(weights[name].dims) >= 2:
                yield node, weights[name]


@pytest.mark.parametrize("place", [0.0, 0.4, 0.7, 1.0])
def test_a_wrong_weight_is_located_at_its_node(right: Path, tmp_path: Path, place: float) -> None:
    """Wherever it lies: on the way straight through, on a side branch, or behind a skip."""
    model = onnx.load(str(right))
    found = list(products(model))
    node, weight = found[round(place * (len(found) - 1))]
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((-values).astype(values.dtype), weight.name))
    divergence = locate.locate((right, NATIVE), (written(model, tmp_path), NATIVE), FRAME)
    assert divergence is not None and divergence.node == node.name
    assert divergence.to_dict()["inputs"] == dict.fromkeys(divergence.inputs, 0.0)


def test_an_error_on_a_branch_is_not_hidden_by_what_is_computed_after_it(tmp_path: Path) -> None:
    """Of two long branches side by side the wrong one is found, whichever comes first in the file."""
    for wrong_branch in ("left", "right"):
        sides = []
        for factor in (1.0, 1.5):
            path = tmp_path / f"{wrong_branch}{factor}.onnx"
            path.write_bytes(two_branches({wrong_branch: factor}))
            sides.append((path, NATIVE))
        divergence = locate.locate(sides[0], sides[1], np.full((4, 6, 3), 9, np.uint8))
        assert divergence is not None and divergence.node == f"{wrong_branch}_0"


def two_branches(factors: dict[str, float]) -> bytes:
    """A graph of two chains of forty products each, one after the other in the file, and their sum."""
    props = onnx.load_model_from_string(exported()).metadata_props
    nodes = [onnx.helper.make_node("Cast", ["frames"], ["x"], to=1)]
    weights = [numpy_helper.from_array(np.float32(1.0), "one")]
    ends = []
    for branch in ("left", "right"):
        weights.append(numpy_helper.from_array(np.float32(factors.get(branch, 1.0)), f"{branch}_factor"))
        value = "x"
        for step in range(40):
            factor = f"{branch}_factor" if step == 0 else "one"
            name = f"{branch}_{step}"
            nodes.append(onnx.helper.make_node("Mul", [value, factor], [name], name=name))
            value = name
        ends.append(value)
    nodes.append(onnx.helper.make_node("Add", ends, ["probability"], name="sum"))
    frames_info = onnx.helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, [1, 4, 6, 3])
    output = onnx.helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, [1, 4, 6, 3])
    graph = onnx.helper.make_graph(nodes, "branches", [frames_info], [output], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    model.metadata_props.extend(props)
    return resealed(model)


def test_a_nan_is_located_where_it_arises(right: Path, tmp_path: Path) -> None:
    model = onnx.load(str(right))
    found = list(products(model))
    node, weight = found[len(found) // 2]
    name = node.name
    wrong = written(with_roots(model, weight.name), tmp_path)
    report = verify_runners(load_runner(right), load_runner(wrong), frames(1))
    assert report.checks[0].name == "finite" and not report.checks[0].passed
    divergence = locate.locate((right, NATIVE), (wrong, NATIVE), report.largest_error_input)
    assert divergence is not None and divergence.node == name


def test_graphs_that_cannot_be_compared(right: Path, tmp_path: Path) -> None:
    model = onnx.load(str(right))
    for node in model.graph.node:
        node.input[:] = [f"other.{name}" if name != "frames" else name for name in node.input]
        node.output[:] = [f"other.{name}" if name != "probability" else name for name in node.output]
    del model.graph.node[-1]
    with pytest.raises(ArtefactMismatchError, match="no value of the same name"):
        locate.locate((right, NATIVE), (written(model, tmp_path), NATIVE), FRAME)
    branches = tmp_path / "branches.onnx"
    branches.write_bytes(
        resealed(onnx.load_model_from_string(two_branches({}).replace(b'"height": 32', b'"height": 64')))
    )
    with pytest.raises(ArtefactMismatchError, match="height"):
        locate.locate((right, NATIVE), (branches, NATIVE), FRAME)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_files_that_are_not_whole(right: Path, tmp_path: Path, share: float) -> None:
    data = right.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(VmklaError):
        locate.locate((right, NATIVE), (path, NATIVE), FRAME)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data[:1000])
    with pytest.raises(BadInputError, match="not a whole ONNX file"):
        locate.locate((right, NATIVE), (path, NATIVE), FRAME)
