"""Small networks and their ONNX files for the tests of export and engines; traced once in a test run."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from tests.built_once import built_once
from vmkla.config import ModelConfig
from vmkla.engines.runners.onnx_file import with_metadata
from vmkla.export.exporter import export_onnx
from vmkla.export.form import Batch, GraphForm
from vmkla.export.tracing import trace
from vmkla.metadata import InputType, Precision
from vmkla.models.vmkla_unet import VMKLAUNet, build_model
from vmkla.segment.preprocess import PreprocessSpec

TINY = ModelConfig(
    "tiny-test",
    dim=16,  # 4 channels a pixel in the head: a norm over 2 would be a sign, steep beyond use
    encoder_depths=(1, 1, 1, 1),
    decoder_depths=(1, 1, 1, 1),
    d_state=4,
    head_dim=16,
    kan_hidden=8,
)
HEIGHT, WIDTH = 32, 64
"""Not square, so that swapped axes show."""


@functools.cache
def network(config: ModelConfig = TINY) -> VMKLAUNet:
    """Build a network with random weights only, so that no weight is zero or one."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise * parameter.abs().mean().clamp(min=0.05))
        model.head.project.weight.mul_(4.0)  # so that probabilities spread over 0 to 1
    return model


def frames(count: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(count, height, width, 3) uint8: blurred noise, each frame its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, height // 8, width // 8, 3))
    fine = rng.integers(-20, 21, (count, height, width, 3))
    return np.clip(coarse.repeat(8, axis=1).repeat(8, axis=2) + fine, 0, 255).astype(np.uint8)


def resealed(model: onnx.ModelProto) -> bytes:
    """Return a changed model with matching checksums."""
    props = {entry.key: entry.value for entry in model.metadata_props}
    return with_metadata(model.SerializeToString(), props)


def with_roots(model: onnx.ModelProto, weight: str) -> onnx.ModelProto:
    """Replace a weight by its square roots, which are NaN where it is negative."""
    for node in model.graph.node:
        node.input[:] = [f"{weight}.root" if name == weight else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Sqrt", [weight], [f"{weight}.root"]))
    return model


def exported(
    precision: Precision = "fp32", input_type: InputType = "uint8", batch: Batch = "dynamic"
) -> bytes:
    """Return the complete, verified file of the tiny network, with a dynamic batch by default."""

    def export(path: Path) -> None:
        export_onnx(
            network(),
            spec=PreprocessSpec(HEIGHT, WIDTH),
            output=path,
            precision=precision,
            input_type=input_type,
            batch=batch,
            frames=frames(3),
            random_weights=True,
        )

    return built_once(f"tiny-{precision}-{input_type}-{batch}.onnx", export).read_bytes()


@functools.cache
def _traced(config: ModelConfig, form: GraphForm) -> bytes:
    if config == TINY and form.fixed_batch is None and not form.wide_scans:
        proto = onnx.load_model_from_string(exported(form.precision, form.input_type))
        del proto.functions[:]
        del proto.metadata_props[:]
        return bytes(proto.SerializeToString())
    name = f"traced-{hashlib.sha256(repr((config, form)).encode()).hexdigest()[:16]}.onnx"
    made = built_once(name, lambda path: path.write_bytes(trace(network(config), form).SerializeToString()))
    return made.read_bytes()


def traced(config: ModelConfig = TINY, form: GraphForm | None = None) -> onnx.ModelProto:
    """Return a copy of the exporter's graph, without bodies and metadata."""
    return onnx.load_model_from_string(_traced(config, form or GraphForm(HEIGHT, WIDTH)))
