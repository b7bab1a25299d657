"""Find the first node at which two ONNX graphs diverge, by comparing values of the same name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners import custom_ops
from vmkla.engines.runners.batches import network_input
from vmkla.engines.runners.model_file import open_model
from vmkla.engines.runners.onnxruntime_runner import INPUT, Kernels
from vmkla.errors import ArtefactMismatchError, BadInputError, first_line
from vmkla.imports import require

PROBES = 32
"""Number of values compared in one run; of a thousand values the search takes two runs, the last step a
few."""

# Largest difference of a value over its largest magnitude, by the coarser precision of the two. Measured: the
# same file by kernels and by bodies differs by at most 2.5e-5 (nano on real frames; 1.3e-5 a small network
# with every weight random). A route that is not reversed changes the output of its scan by 4e-1 in the one
# and 6e-3 in the other, which residuals then reduce to 1e-3. The rounding of half and 8 bits adds up: in
# nano's correct half file the first value beyond 5e-2 is a spline basis of the deepest decoder block.
LIMITS = {"fp32": 1e-4, "fp16": 5e-2, "int8": 2.5e-1}


@dataclass(frozen=True)
class Divergence:
    """The first node at which two graphs diverge.

    Attributes:
        node, op: name and operator of the reference's node whose inputs agree and whose output does not.
        value: name of that output.
        error: largest difference of the value over its largest magnitude.
        limit: largest error of values that agree.
        inputs: error of each of the node's inputs that both graphs have.
        compared: number of values that were compared.
        common: number of values that both graphs have.
    """

    node: str
    op: str
    value: str
    error: float
    limit: float
    inputs: dict[str, float]
    compared: int
    common: int

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON; the error is null where only one graph gives NaN or infinity."""
        return {**asdict(self), "error": self.error if math.isfinite(self.error) else None}


class OnnxSide:
    """One of the two graphs, which can compute any of its values.

    Args:
        path: path of the file.
        kernels: kernels that run its custom nodes.
    Raises:
        MissingDependencyError: the package onnx is missing.
        BadInputError, ArtefactMismatchError: the file is not vmkla's or is damaged, see ``open_model``.
    """

    def __init__(self, path: Path, kernels: Kernels) -> None:
        onnx = require("onnx", extra="export", purpose="finding the node where two graphs diverge")
        self._onnx = onnx
        self.path = path
        self._kernels = kernels
        model = open_model(path)
        try:
            self._model = onnx.load_model_from_string(model.data)
        except Exception as error:  # protobuf's DecodeError, whose module differs between versions
            raise BadInputError(f"{path} is not a whole ONNX file: {error}") from error
        self.metadata = model.metadata
        graph = self._model.graph
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self._outputs = [value.name for value in graph.output]

    def values(self) -> list[str]:
        """Return the names of the nodes' outputs, in the order of computation."""
        return list(self.producers)

    def run(self, frames_rgb: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Compute some values.

        Args:
            frames_rgb: (n, height, width, 3) uint8.
            names: names of the values.
        """
        ort = require("onnxruntime", extra=None, purpose="finding the node where two graphs diverge")
        graph = self._model.graph
        kept = len(graph.output)
        graph.output.extend(
            self._onnx.ValueInfoProto(name=name) for name in names if name not in self._outputs
        )
        data = self._model.SerializeToString()
        del graph.output[kept:]
        options = custom_ops.cpu_options(None, native=self._kernels == "native")
        try:
            session = ort.InferenceSession(data, options, providers=[custom_ops.PROVIDER])
            feed = network_input(frames_rgb, self.metadata.input_type)
            found = session.run(list(names), {INPUT: feed})
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ArtefactMismatchError(
                f"onnxruntime {ort.__version__} cannot compute values of {self.path}: {first_line(error)}"
            ) from error
        return dict(zip(names, found, strict=True))


def locate(
    reference: tuple[Path, Kernels], candidate: tuple[Path, Kernels], frame_rgb: npt.NDArray[np.uint8]
) -> Divergence | None:
    """Find the first node at which two ONNX files diverge.

    A search over the values that both have finds one that differs. From there the search follows the node's
    inputs as long as one of them differs too, so that branches cannot hide the origin.

    Args:
        reference, candidate: path of the file, and the kernels that run its custom nodes.
        frame_rgb: (height, width, 3) uint8, preprocessed: the input of both.
    Returns:
        The first node that differs; None where no compared value differs.
    Raises:
        ArtefactMismatchError: the two have no value in common, or take frames of different sizes.
    """
    a, b = OnnxSide(*reference), OnnxSide(*candidate)
    sizes = [(side.metadata.preprocess.height, side.metadata.preprocess.width) for side in (a, b)]
    if sizes[0] != sizes[1]:
        raise ArtefactMismatchError(
            f"{a.path} takes frames of {sizes[0]}, {b.path} of {sizes[1]} (height, width)"
        )
    order = [name for name in a.values() if name in b.producers]
    if not order:
        raise ArtefactMismatchError(
            f"{a.path} and {b.path} have no value of the same name, so their graphs cannot be compared",
            hint="Use files that were exported from one network.",
        )
    limit = max(LIMITS.get(side.metadata.precision, LIMITS["int8"]) for side in (a, b))
    errors = _Errors(a, b, frame_rgb[None])
    value = _search(order, errors, limit)
    if value is None:
        return None
    place = {name: index for index, name in enumerate(order)}
    while True:
        inputs = errors.of(_sources(a.producers, value, place))
        different = [name for name, error in inputs.items() if error > limit]
        if not different:
            break
        value = min(different, key=place.__getitem__)
    node = a.producers[value]
    return Divergence(
        node=node.name,
        op=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        value=value,
        error=errors.of([value])[value],
        limit=limit,
        inputs={name: error for name, error in inputs.items() if not math.isnan(error)},
        compared=errors.compared,
        common=len(order),
    )


def _search(order: Sequence[str], errors: _Errors, limit: float) -> str | None:
    """Return a value that differs, whose predecessor in the order agrees; None where no probe differs."""
    agreed, different = -1, len(order)
    while different - agreed > 1:
        last = min(different, len(order) - 1)
        probes = sorted({int(index) for index in np.linspace(agreed + 1, last, PROBES)})
        found = errors.of([order[index] for index in probes])
        first = next((index for index in probes if found[order[index]] > limit), None)
        if first is None:
            return None
        agreed = max((index for index in probes if index < first), default=agreed)
        different = first
    return order[different]


def _sources(producers: Mapping[str, Any], value: str, common: Iterable[str]) -> list[str]:
    """Return the nearest values of both graphs that a value is computed from."""
    known, found, seen = set(common), list[str](), set[str]()
    stack = list(producers[value].input)
    while stack:
        name = stack.pop()
        if name in seen or name not in producers:  # a weight, or the frames
            continue
        seen.add(name)
        if name in known:
            found.append(name)
        else:
            stack.extend(producers[name].input)
    return sorted(found)


class _Errors:
    """Relative errors of values, each computed once."""

    def __init__(self, a: OnnxSide, b: OnnxSide, frames_rgb: npt.NDArray[np.uint8]) -> None:
        self._sides = a, b
        self._frames = frames_rgb
        self._known: dict[str, float] = {}

    @property
    def compared(self) -> int:
        return len(self._known)

    def of(self, names: Sequence[str]) -> dict[str, float]:
        wanted = [name for name in names if name not in self._known]
        if wanted:
            left, right = (side.run(self._frames, wanted) for side in self._sides)
            self._known.update({name: _relative_error(left[name], right[name]) for name in wanted})
        return {name: self._known[name] for name in names}


def _relative_error(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the largest difference over the largest magnitude of ``a``.

    It is infinite where only one of the two is finite, and NaN, which counts as agreement, where the shapes
    differ: then the two values only share a name.
    """
    if a.shape != b.shape:
        return float("nan")
    if a.size == 0:
        return 0.0
    left, right = a.astype(np.float64), b.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if same.all():
        return 0.0
    if not (np.isfinite(left[~same]).all() and np.isfinite(right[~same]).all()):
        return float("inf")
    scale = np.abs(left[np.isfinite(left)]).max(initial=0.0)
    difference = np.abs(left[~same] - right[~same]).max()
    return float(difference / scale) if scale > 0 else float("inf")
