"""Run vmkla's sanitized kernels in ONNX Runtime on senseless nodes, in a process of its own.

    python sanitized_ops.py LIBRARY COUNT

Each node is computed or refused, which says nothing: what counts is that the sanitizers stay silent. Prints
how many were computed and refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import numpy as np
import onnxruntime

from tests.engines.runners.custom_op_models import Array, call_model, scan_inputs
from vmkla.engines.runners.custom_ops import register

NUMBERS = (-(2**63), -1, 0, 1, 3, 16, 2**31 - 1, 2**31, 2**62 - 1, 2**62, 2**63 - 1)
FLOATS = (0.0, -1.0, 1e-45, 0.25, 1.0, 3e38, float("inf"), float("-inf"), float("nan"))
EXTENTS = (0, 0, 1, 2, 3, 5, 8, 17, 33)


def spoil(inputs: dict[str, Array], rng: np.random.Generator) -> None:
    """Change the shape or the values of one input, or nothing."""
    name = str(rng.choice(list(inputs)))
    kind = rng.integers(4)
    if kind == 0:
        shape = list(inputs[name].shape)
        if shape:
            shape[rng.integers(len(shape))] = int(rng.choice(EXTENTS))
        inputs[name] = rng.standard_normal(shape).astype(inputs[name].dtype)
    elif kind == 1 and inputs[name].size:
        inputs[name] = inputs[name].copy()
        inputs[name].flat[rng.integers(inputs[name].size)] = rng.choice(FLOATS)
    elif kind == 2:
        shape = [1] * max(1, inputs[name].ndim)
        shape[rng.integers(len(shape))] = 2**40
        shape[rng.integers(len(shape))] = 0  # without an element, the others cost nothing
        inputs[name] = np.empty(shape, inputs[name].dtype)


def scan(rng: np.random.Generator, dtype: Any) -> tuple[bytes, dict[str, Array]]:
    """Make a scan of any extents."""
    extents = [int(rng.choice(EXTENTS)) for _ in range(6)]
    inputs = scan_inputs(rng, *extents[:5], max(1, extents[5]), dtype)
    spoil(inputs, rng)
    return call_model("SelectiveScan2d", inputs, dtype), inputs


def basis(rng: np.random.Generator, dtype: Any) -> tuple[bytes, dict[str, Array]]:
    """Make bases of any order on any knots."""
    order = int(rng.choice(NUMBERS)) if rng.random() < 0.3 else int(rng.integers(1, 6))
    knots, width = int(rng.integers(0, 40)), int(rng.choice(EXTENTS))
    grid = np.linspace(-2, 3, knots) if rng.random() < 0.7 else rng.standard_normal((width, knots))
    inputs = {"x": rng.uniform(-3, 4, (3, width)).astype(dtype), "grid": grid.astype(np.float32)}
    step = 5 / max(1, knots - 1)
    attributes: dict[str, Any] = {"order": order, "uniform": 0, "grid_min": 0.0, "grid_step": 0.0}
    if rng.random() < 0.5:
        attributes |= {"uniform": 1, "grid_min": -2.0, "grid_step": step}
    if rng.random() < 0.2:
        attributes[str(rng.choice(("grid_min", "grid_step")))] = float(rng.choice(FLOATS))
    spoil(inputs, rng)
    return call_model("BSplineBasis", inputs, dtype, **attributes), inputs


def main(library: Path, count: int) -> None:
    """Compute ``count`` nodes of each op, each as it should be or not."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    # Every tensor in memory of its own: what lies beyond one is seen.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    register(options, library)
    verdicts: Counter[str] = Counter()
    for number in range(count):
        for make in (scan, basis):
            rng = np.random.default_rng([number, make is basis])
            model, inputs = make(rng, (np.float32, np.float16)[number % 2])
            print(f"{make.__name__} {number}", file=sys.stderr, flush=True)
            try:
                session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
                session.run(None, inputs)
                verdicts["computed"] += 1
            except Exception as error:  # onnxruntime's exceptions have no base of their own
                assert "vmkla" in str(error), error
                verdicts["refused"] += 1
    print(f"{verdicts['computed']} computed, {verdicts['refused']} refused")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
