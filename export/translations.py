"""Translate the two custom ops to ONNX nodes of domain ``vmkla``, with their schemas."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vmkla.export.bodies import DOMAIN
from vmkla.imports import require

PLUGIN_VERSION = "1"
SCAN = "SelectiveScan2d"
BSPLINE = "BSplineBasis"

_FLOATS = ["tensor(float)", "tensor(float16)"]
_FLOAT = ["tensor(float)"]


@functools.cache
def register_schemas() -> tuple[Any, Any]:
    """Register both ops with the onnx package, once per process: the exporter rejects nodes without a schema.

    Returns:
        Schemas of ``SelectiveScan2d`` and ``BSplineBasis``.
    """
    defs = require("onnx.defs", extra="export", purpose="writing an ONNX file")
    Schema = defs.OpSchema
    of_u = [("u", "T"), ("p", "T"), ("dt_weight", "T"), ("A", "T32"), ("D", "T32"), ("delta_bias", "T32")]
    plugin = [
        Schema.Attribute("plugin_namespace", Schema.AttrType.STRING, "TensorRT: namespace of the plugin"),
        Schema.Attribute("plugin_version", Schema.AttrType.STRING, "TensorRT: version of the plugin"),
    ]
    constraints = [("T", _FLOATS, "element type"), ("T32", _FLOAT, "always float32")]
    scan = Schema(
        SCAN,
        DOMAIN,
        1,
        doc="Sum of four selective scans over an image, one per route.",
        inputs=[Schema.FormalParameter(name, kind) for name, kind in of_u],
        outputs=[Schema.FormalParameter("y", "T")],
        type_constraints=constraints,
        attributes=plugin,
    )
    bspline = Schema(
        BSPLINE,
        DOMAIN,
        1,
        doc="B-spline bases of every value.",
        inputs=[Schema.FormalParameter("x", "T"), Schema.FormalParameter("grid", "T32")],
        outputs=[Schema.FormalParameter("bases", "T")],
        type_constraints=constraints,
        attributes=[
            Schema.Attribute("order", Schema.AttrType.INT, "order k of the splines"),
            Schema.Attribute("uniform", Schema.AttrType.INT, "1: knots are grid_min + i grid_step"),
            Schema.Attribute("grid_min", Schema.AttrType.FLOAT, "first knot of a uniform grid"),
            Schema.Attribute("grid_step", Schema.AttrType.FLOAT, "distance of a uniform grid's knots"),
            *plugin,
        ],
    )
    for schema in (scan, bspline):
        if not defs.has(schema.name, DOMAIN):
            defs.register_schema(schema)
    return scan, bspline


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return the function that writes the node of each torch op, for ``custom_translation_table``."""
    torch = require("torch", extra="export", purpose="vmkla export")
    values = require("onnxscript.values", extra="export", purpose="vmkla export")
    import vmkla.ops  # noqa: F401   it registers the ops with torch

    scan_schema, bspline_schema = register_schemas()
    opset = values.Opset(DOMAIN, 1)
    scan_op = values.Op(opset, SCAN, scan_schema)
    bspline_op = values.Op(opset, BSPLINE, bspline_schema)
    plugin = {"plugin_namespace": DOMAIN, "plugin_version": PLUGIN_VERSION}

    def scan(u: Any, p: Any, dt_weight: Any, A: Any, D: Any, delta_bias: Any, backend: str) -> Any:
        return scan_op(u, p, dt_weight, A, D, delta_bias, **plugin)

    def bspline(x: Any, grid: Any, order: int, grid_min: float, grid_step: float, backend: str) -> Any:
        knots = {"grid_min": grid_min, "grid_step": grid_step, "uniform": int(grid_step > 0)}
        return bspline_op(x, grid, order=order, **knots, **plugin)

    return {
        torch.ops.vmkla.selective_scan2d.default: scan,
        torch.ops.vmkla.bspline_basis.default: bspline,
    }
