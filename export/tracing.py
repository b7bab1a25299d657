"""Trace a network to an ONNX graph, tidy it, and add the bodies of its custom nodes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmkla import __version__
from vmkla.errors import UsageError
from vmkla.export import bodies, graph
from vmkla.export.form import DYNAMIC_BATCH, GraphForm
from vmkla.export.translations import BSPLINE, SCAN, translation_table
from vmkla.imports import require

if TYPE_CHECKING:
    import onnx

    from vmkla.models.vmkla_unet import VMKLAUNet


def build_onnx(model: VMKLAUNet, form: GraphForm) -> onnx.ModelProto:
    """Build the graph of the file with its function bodies, without metadata.

    Args:
        model: the network in evaluation mode, float32, on the CPU.
        form: form of the graph.
    """
    proto = trace(model, form)
    append_functions(proto)
    return proto


def trace(model: VMKLAUNet, form: GraphForm) -> onnx.ModelProto:
    """Trace ``ExportModule`` and tidy the graph, without bodies of its custom nodes; see ``build_onnx``."""
    torch = require("torch", extra="export", purpose="vmkla export")
    require("onnxscript", extra="export", purpose="vmkla export")
    from vmkla.export import wrapper

    batch = form.fixed_batch
    example = wrapper.example_frames(batch or DYNAMIC_BATCH, form.height, form.width, form.input_type)
    with torch.no_grad(), _without_notes():
        program = torch.onnx.export(
            wrapper.ExportModule(model, form),
            (example,),
            dynamo=True,
            custom_translation_table=translation_table(),
            opset_version=bodies.OPSET,
            input_names=[wrapper.INPUT],
            output_names=[wrapper.OUTPUT],
            dynamic_shapes=None if batch else {"frames": {0: torch.export.Dim("n")}},
            external_data=False,
            verbose=False,
        )
    graph.fold_constants(program.model)
    proto: onnx.ModelProto = program.model_proto
    graph.expand_elu(proto)
    graph.name_after_modules(proto)
    proto.producer_name = "vmkla"
    proto.producer_version = __version__
    return proto


def append_functions(proto: onnx.ModelProto) -> None:
    """Add the bodies of the graph's custom nodes."""
    onnx = require("onnx", extra="export", purpose="vmkla export")
    used = {node.op_type for node in proto.graph.node if node.domain == bodies.DOMAIN}
    if SCAN in used:
        proto.functions.append(bodies.scan_body())
    if BSPLINE in used:
        attributes = [
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            for node in proto.graph.node
            if node.op_type == BSPLINE
        ]
        orders = {values["order"] for values in attributes}
        if len(orders) != 1:
            raise UsageError(f"splines of orders {sorted(orders)} in one network; one order is expected")
        uniform = all(values["uniform"] for values in attributes)
        proto.functions.append(bodies.bspline_body(orders.pop(), uniform=uniform))


@contextmanager
def _without_notes() -> Iterator[None]:
    """Keep the exporter's notes to developers (missing torchvision, own deprecations) off stderr."""
    noisy = logging.getLogger("torch.onnx._internal.exporter")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(before)
