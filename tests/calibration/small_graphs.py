"""Small graphs whose every value numpy can compute, and folders of frames, for the tests of calibration."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.export.exported_models import frames
from vmkla.metadata import ArtefactMetadata
from vmkla.segment.preprocess import PreprocessSpec

SIDE = 32
Weights = dict[str, npt.NDArray[np.float32]]


def small_weights(seed: int = 0, *, outlier: str = "", large_channel: str = "") -> Weights:
    """Three products of 64 values and a head. Channels 5 and 6 are twins: they hold the same values.

    Args:
        seed: of the weights.
        outlier: a product in which the twins are two thousand times the others, with opposite weights: in
            floats the two cancel, and neither the activation's one scale nor, when its channels are made
            alike, the weight's leaves anything of the others.
        large_channel: a product in which one channel is two thousand times the others and its weights as
            much less: making its channels alike takes that back.
    """
    rng = np.random.default_rng(seed)
    weights = {"first.w": rng.normal(0, 1 / np.sqrt(12), (12, 64)).astype(np.float32)}
    weights["first.w"][:, 6] = weights["first.w"][:, 5]
    for name in ("one", "two", "three"):
        weights[f"{name}.w"] = rng.normal(0, 1 / 8, (64, 64)).astype(np.float32)
        weights[f"{name}.gain"] = np.ones(64, np.float32)
        if name == outlier:
            weights[f"{name}.gain"][5:7] = 2000.0
            weights[f"{name}.w"][6] = -weights[f"{name}.w"][5]
        if name == large_channel:
            weights[f"{name}.gain"][7] = 2000.0
            weights[f"{name}.w"][7] /= 2000.0
        weights[f"{name}.w"][:, 6] = weights[f"{name}.w"][:, 5]
    weights["head.w"] = rng.normal(0, 0.5, (64, 16)).astype(np.float32)
    return weights


def small_graph(weights: Weights, *, half_stored: str = "") -> onnx.ModelProto:
    """uint8 frames -> patches of 2x2 -> products, each scaled, squashed and added to what went in -> sigmoid.

    Args:
        half_stored: a weight that is stored as float16 behind a Cast.
    """
    node, value = helper.make_node, helper.make_tensor_value_info
    rows = (SIDE // 2) ** 2
    constants = {
        "mean": np.float32(127.5).reshape(1),
        "to_patches": np.array([0, SIDE // 2, 2, SIDE // 2, 6], np.int64),
        "rows": np.array([0, rows, 12], np.int64),
        "last": np.array([2], np.int64),
        "small": np.array([0, 1, SIDE // 2, SIDE // 2], np.int64),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        node("Cast", ["frames"], ["wide"], name="input/Cast", to=TensorProto.FLOAT),
        node("Sub", ["wide", "mean"], ["centred"], name="input/Sub"),
        node("Div", ["centred", "mean"], ["scaled"], name="input/Div"),
        node("Reshape", ["scaled", "to_patches"], ["patches"], name="input/Reshape"),
        node("Transpose", ["patches"], ["gathered"], name="input/Transpose", perm=[0, 1, 3, 2, 4]),
        node("Reshape", ["gathered", "rows"], ["flat"], name="input/Reshape_2"),
        node("MatMul", ["flat", "first.w"], ["x0"], name="first/MatMul"),
    ]
    infos = [
        value("x0", TensorProto.FLOAT, ["n", rows, 64]),
        value("flat", TensorProto.FLOAT, ["n", rows, 12]),
    ]
    before = "x0"
    for name in ("one", "two", "three"):
        names = [f"{name}.{part}" for part in ("squashed", "scaled", "product")]
        nodes += [
            node("Tanh", [before], [names[0]], name=f"{name}/Tanh"),
            node("Mul", [names[0], f"{name}.gain"], [names[1]], name=f"{name}/Mul"),
            node("MatMul", [names[1], f"{name}.w"], [names[2]], name=f"{name}/MatMul"),
            node("Add", [before, names[2]], [f"{name}.sum"], name=f"{name}/Add"),
        ]
        infos += [value(n, TensorProto.FLOAT, ["n", rows, 64]) for n in (*names, f"{name}.sum")]
        before = f"{name}.sum"
    nodes += [
        node("MatMul", [before, "head.w"], ["spread"], name="head/MatMul"),
        node("ReduceMean", ["spread", "last"], ["logits"], name="head/ReduceMean", keepdims=1),
        node("Reshape", ["logits", "small"], ["small_image"], name="head/Reshape"),
        node("Resize", ["small_image", "", "scales"], ["large"], name="head/Resize", mode="nearest"),
        node("Sigmoid", ["large"], ["probability"], name="Sigmoid"),
    ]
    stored: list[onnx.TensorProto] = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    for name, values in weights.items():
        if name == half_stored:
            stored.append(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            cast = node("Cast", [f"{name}.half"], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
            nodes.insert(0, cast)
        else:
            stored.append(numpy_helper.from_array(values, name))
    graph = helper.make_graph(
        nodes,
        "small",
        [value("frames", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [value("probability", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        stored,
        value_info=infos,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write_small(path: Path, weights: Weights, *, threshold: float = 0.5, half_stored: str = "") -> Path:
    """Write the small graph as a file with vmkla's metadata."""
    model = small_graph(weights, half_stored=half_stored)
    metadata = ArtefactMetadata(
        model_config={"name": "small-test"},
        class_names=("polyp",),
        threshold=threshold,
        preprocess=PreprocessSpec(SIDE, SIDE),
        weights_sha256="0" * 64,
    )
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_images(folder: Path, count: int, *, seed: int = 0, suffix: str = ".png") -> Path:
    """Write images of blurred noise, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames(count, SIDE, SIDE, seed=seed)):
        (folder / f"{number:03d}{suffix}").write_bytes(cv2.imencode(suffix, frame[..., ::-1])[1].tobytes())
    return folder
