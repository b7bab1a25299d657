"""INT8 for TensorRT: pairs in the half-precision file, which TensorRT-RTX's parser and builder take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.calibration.extreme_products import integer_products
from tests.export.exported_models import HEIGHT, WIDTH, exported, frames
from vmkla.calibration.artefact import open_artefact, open_half
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import equalise, find_divisors
from vmkla.calibration.ranges import measure_ranges
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.build.builder import BuildRequest, build_engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny network in float32, and its INT8 file."""
    folder = tmp_path_factory.mktemp("tensorrt")
    for name, precision in (("m.onnx", "fp32"), ("m.fp16.onnx", "fp16")):
        (folder / name).write_bytes(exported(precision))  # type: ignore[arg-type]
    single = open_artefact(folder / "m.onnx", "tensorrt", "fp32")
    half = open_half(folder / "m.fp16.onnx", single)
    assert {layer.kind for layer in half.layers} == {"MatMul", "Conv"}
    shown = frames(8, HEIGHT, WIDTH)
    channels = measure_channels(single.model, single.layers, shown, input_type="uint8", batch=None)
    divisors = find_divisors(single.model, single.layers, channels)
    model, layers = equalise(single.model, single.layers, divisors)
    assert 0 < len(divisors) < len(layers)
    (folder / "equalised.onnx").write_bytes(model.SerializeToString())
    ranges = measure_ranges(
        folder / "equalised.onnx", layers, shown, "min-max", input_type="uint8", batch=None
    )
    half.write_quantized(half.layers, ranges, folder / "m.int8.onnx", divisors=divisors)
    return single.path, folder / "m.int8.onnx"


def test_scales_are_half_and_the_network_stays_near(quantized: tuple[Path, Path]) -> None:
    single, made = quantized
    model = onnx.load(str(made))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    scales = [node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert scales and {types[name] for name in scales} == {TensorProto.FLOAT16}
    assert integer_products(model) == 0  # on a CPU nothing can saturate, so any may run it
    shown = frames(4, HEIGHT, WIDTH, seed=3)
    before, after = (
        OnnxRuntimeRunner(path, threads=1, warn_unverified=False).infer(shown) for path in (single, made)
    )
    error = np.abs(before - after)
    # Measured 7e-3.
    assert 0 < error.mean() < 2e-2


def test_tensorrt_rtx_builds_it(quantized: tuple[Path, Path], tmp_path: Path) -> None:
    request = BuildRequest(
        str(quantized[1]), tmp_path / "m.plan", "tensorrt-rtx", target_sms=(86,), skip_gates=True
    )
    report = build_engine(request, None, lambda line: None)
    assert report.path.stat().st_size > 0 and report.manifest.engine_bytes > 0
