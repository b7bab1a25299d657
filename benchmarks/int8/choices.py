"""Measure INT8's choices on the shipped ``nano``; write ``benchmarks/int8/choices.md``.

    python benchmarks/int8/choices.py --data DIR:LIST --test NAME=DIR:LIST ... [--frames N] [--out FILE]

How ranges are found, whether channels are made alike, and the mean error taken back ("bias correction"): each
with everything quantized, against the masks of frames that no range was measured on. And what becomes of the
heavy tails of KAN layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.common import Table, replace_section, section
from benchmarks.cpu.run import machine
from benchmarks.int8.bits import TITLE as BITS
from vmkla import weights
from vmkla.calibration.artefact import Artefact, open_artefact
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import Divisors, equalise, find_divisors
from vmkla.calibration.insertion import LEVELS, Range
from vmkla.calibration.layers import Layer, groups_of, weight_rows
from vmkla.calibration.ranges import METHODS, Method, measure_ranges
from vmkla.calibration.reader import FrameSet, read_frames
from vmkla.calibration.search import search
from vmkla.calibration.sensitivity import measure_groups
from vmkla.data.folder import find_pairs, read_sample
from vmkla.data.sources import DataSource, Pair
from vmkla.engines.runners import custom_ops
from vmkla.engines.runners.onnx_file import with_metadata
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.verify.clinical import VerifyReport, verify_runners
from vmkla.engines.verify.frame import VerifyFrame
from vmkla.imports import require
from vmkla.runner import RunnerSpec

ort = require("onnxruntime", extra=None, purpose="this benchmark")

Values = npt.NDArray[np.float32]

THREADS = 2
CHECK_FRAMES = 256
MEAN_FRAMES = 32
"""Of the frames, for mean errors and for the tails."""
ROWS = 256
"""Of each activation and frame, for the tails."""
RESULTS = (
    "ranges", "channels", "mean error", "set", "mean drop", "worst drop", "over 0.1", "lost over 1 %",
    "false alarms", "probability error", "put back",
)  # fmt: skip
KAN = ("layer", "input: max / 99.9 %", "silu: max", "bases: max", "one scale", "two scales", "two, divided")


class Remembered:
    """A runner that computes each frame once."""

    def __init__(self, runner: OnnxRuntimeRunner) -> None:
        self.name = runner.name
        self._runner = runner
        self._known: dict[bytes, Values] = {}

    @property
    def spec(self) -> RunnerSpec:
        """The spec of the wrapped runner."""
        return self._runner.spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> Values:
        """Return the wrapped runner's output, computed once for each frame."""
        key = frames_rgb.tobytes()
        if key not in self._known:
            self._known[key] = self._runner.infer(frames_rgb)
        return self._known[key]

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """The model, frames and references that all variants share."""

    source: Artefact
    frames: FrameSet
    divisors: Divisors
    reference: Remembered
    sets: Mapping[str, Sequence[VerifyFrame]]
    folder: Path

    def measured(self, method: Method, divisors: Divisors) -> dict[str, Range]:
        """Measure the ranges over the frames."""
        model, layers = equalise(self.source.model, self.source.layers, divisors)
        path = self.folder / "equalised.onnx"
        path.write_bytes(model.SerializeToString())
        return measure_ranges(
            path, layers, self.frames.frames, method, input_type="uint8", batch=None, threads=THREADS
        )

    def quantized(
        self, divisors: Divisors, ranges: Mapping[str, Range], put_back: frozenset[str], corrected: bool
    ) -> Path:
        """Write a quantized file; ``corrected`` adds each product's mean error over some frames."""
        layers = [layer for layer in self.source.layers if layer.group not in put_back]
        path = self.folder / "int8.onnx"
        self.source.write_quantized(layers, ranges, path, divisors=divisors)
        if corrected:
            model = onnx.load_model(str(path))
            _add_means(model, self._mean_errors(divisors, ranges))
            props = {entry.key: entry.value for entry in model.metadata_props}
            path.write_bytes(with_metadata(model.SerializeToString(), props))
        return path

    def judged(self, path: Path, frames: Sequence[VerifyFrame]) -> VerifyReport:
        """Compare a file with the float32 file."""
        return verify_runners(self.reference, _open(path), frames)

    def _mean_errors(self, divisors: Divisors, ranges: Mapping[str, Range]) -> dict[str, Values]:
        """Measure the mean rounding error of each product, by the product's node name."""
        model, layers = equalise(self.source.model, self.source.layers, divisors)
        sums = dict.fromkeys((layer.key for layer in layers), 0.0)
        frames = self.frames.frames[:MEAN_FRAMES]
        for values in _watched(model, layers, frames):
            for layer in layers:
                weight, x = weight_rows(model, layer), values[layer.activation]
                x = x.reshape(-1, x.shape[-1])
                step = max(map(abs, ranges[layer.key])) / LEVELS
                error = x @ weight - _rounded(x, step) @ _rounded_weight(weight, layer.levels)
                sums[layer.key] = sums[layer.key] + error.mean(axis=0) / len(frames)
        return {model.graph.node[layer.node].name: np.float32(sums[layer.key]) for layer in layers}


def _open(path: Path) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(path, threads=THREADS, warn_unverified=False)


def _rounded_weight(weight: Values, levels: int) -> Values:
    return _rounded(weight, np.abs(weight).max(axis=0) / levels, levels)


def _rounded(values: Values, step: float | Values, levels: int = LEVELS) -> Values:
    steps = np.maximum(step, np.finfo(np.float32).tiny)
    return np.asarray(np.clip(np.rint(values / steps), -levels, levels) * steps, np.float32)


def _watched(
    model: onnx.ModelProto, layers: Sequence[Layer], frames: npt.NDArray[np.uint8], more: Sequence[str] = ()
) -> Iterator[dict[str, Values]]:
    """Yield the layers' activations, and other watched values, of each frame."""
    watched = onnx.ModelProto.FromString(model.SerializeToString())
    names = sorted({layer.activation for layer in layers} | set(more))
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, THREADS
    custom_ops.register(options)
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    for frame in frames:
        yield dict(zip(names, session.run(names, {feed: frame[None]}), strict=True))


def _add_means(model: onnx.ModelProto, means: Mapping[str, Values]) -> None:
    """Add a constant to each product with an Add node."""
    nodes = list(model.graph.node)
    del model.graph.node[:]
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    for node in nodes:
        if node.name not in means or node.input[0] not in dequantized:
            model.graph.node.append(node)
            continue
        product = node.output[0]
        node.output[0] = f"{product}/short"
        model.graph.initializer.append(onnx.numpy_helper.from_array(means[node.name], f"{product}/mean"))
        added = onnx.helper.make_node("Add", [f"{product}/short", f"{product}/mean"], [product])
        model.graph.node.extend([node, added])


def variant(bench: Bench, table: Table, method: Method, divisors: Divisors, *, corrected: bool) -> None:
    """Measure one combination with everything quantized, and count the layers that the search restores."""
    ranges = bench.measured(method, divisors)
    path = bench.write_quantized(divisors, ranges, frozenset(), corrected)
    reports = {name: bench.judged(path, frames) for name, frames in bench.sets.items()}
    ranked = measure_groups(
        bench.source,
        ranges,
        bench.frames.check_frames[:: CHECK_FRAMES // 16],
        reference=bench.reference,
        open_runner=_open,
        folder=bench.folder,
        divisors=divisors,
    )
    checked = _frames(bench.frames.check_pairs)
    found = search(
        lambda: [row.group for row in ranked],
        len(groups_of(bench.source.layers)),
        lambda back: bench.judged(bench.write_quantized(divisors, ranges, back, corrected), checked),
    )
    groups = str(len(found.put_back)) if found.verdict.passed else "nothing passes"
    choice = (method, "alike" if divisors else "as they are", "taken back" if corrected else "left")
    for name, report in reports.items():
        seen = report.figures
        alarms = seen["false_alarms"]
        table.add(
            *choice,
            f"{name}, {seen['frames']}",
            f"{seen['dice']['mean_drop']:.4f}",
            f"{seen['dice']['worst_drop']:.3f}",
            sum(frame.has_lesion and frame.drop > 0.1 for frame in report.each),
            sum(lesion.lost and lesion.share > 0.01 for frame in report.each for lesion in frame.lesions),
            f"{alarms['reference']} -> {alarms['candidate']} of {alarms['frames']}",
            f"{seen['probability_error']['mean']:.1e}",
            groups,
        )
    print(table.markdown().splitlines()[-1], flush=True)


def tails(bench: Bench, table: Table) -> None:
    """Measure the tails of the KAN layers' inputs, and the cost of one scale for both products."""
    model, made = bench.source.model, {n: node for node in bench.source.model.graph.node for n in node.output}
    pairs = [
        (layer, other)
        for layer in bench.source.layers
        for other in bench.source.layers
        if layer.key.replace(".base.", ".spline.") == other.key != layer.key
    ]
    inputs = {base.key: made[base.activation].input[0] for base, _ in pairs}  # silu(x) = x sigmoid(x)
    rng = np.random.default_rng(0)
    seen: dict[str, list[Values]] = {}
    frames = bench.frames.frames[:MEAN_FRAMES]
    layers = [layer for pair in pairs for layer in pair]
    for values in _watched(model, layers, frames, list(inputs.values())):
        for name, value in values.items():
            rows = value.reshape(-1, value.shape[-1])
            seen.setdefault(name, []).append(rows)
    for base, spline in pairs:
        x, silu, bases = (
            np.concatenate(seen[name]) for name in (inputs[base.key], base.activation, spline.activation)
        )
        chosen = rng.choice(len(silu), min(len(silu), ROWS * len(frames)), replace=False)
        silu, bases = silu[chosen], bases[chosen]
        of_base, of_spline = weight_rows(model, base), weight_rows(model, spline)
        expected = silu @ of_base + bases @ of_spline
        levels = base.levels
        one = _product(np.concatenate([silu, bases], axis=1), np.concatenate([of_base, of_spline]), levels)
        two = _product(silu, of_base, levels) + _product(bases, of_spline, levels)
        divisors = bench.divisors.get(base.key, np.ones(silu.shape[1], np.float32))
        divided = _product(silu / divisors, of_base * divisors[:, None], levels)
        divided = divided + _product(bases, of_spline, levels)
        errors = [np.linalg.norm(y - expected) / np.linalg.norm(expected) for y in (one, two, divided)]
        table.add(
            base.key.partition(".main.")[0].removeprefix("decoder.") + "." + base.key.split(".")[-3],
            float(np.abs(x).max() / np.quantile(np.abs(x), 0.999)),
            float(silu.max()),
            float(bases.max()),
            *(f"{100 * error:.2f} %" for error in errors),
        )


def _product(x: Values, weight: Values, levels: int) -> Values:
    """Multiply in integers: one scale for all of x, one for each column of the weight."""
    return np.asarray(_rounded(x, float(np.abs(x).max()) / LEVELS) @ _rounded_weight(weight, levels))


def _frames(pairs: Sequence[Pair]) -> list[VerifyFrame]:
    samples = [read_sample(pair) for pair in pairs]
    return [VerifyFrame(s.name, s.image_rgb, s.mask, s.prepared) for s in samples]


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR:LIST")
    parser.add_argument("--test", action="append", required=True, metavar="NAME=DIR:LIST")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("choices.md"))
    arguments = parser.parse_args()
    source = open_artefact(weights.resolve("nano", ".onnx"), "cpu", "fp32")
    frames = read_frames(
        [arguments.data], source.metadata.preprocess, count=arguments.frames, check_count=CHECK_FRAMES
    )
    channels = measure_channels(
        source.model, source.layers, frames.frames, input_type="uint8", batch=None, threads=THREADS
    )
    sets = {"held out": _frames(frames.check_pairs)}
    for test in arguments.test:
        name, _, what = test.partition("=")
        sets[name] = _frames(find_pairs([DataSource.parse(what)])[0])
    choices, kan = Table("Choices, everything quantized", RESULTS), Table("KAN layers", KAN)
    with tempfile.TemporaryDirectory() as text:
        divisors = find_divisors(source.model, source.layers, channels)
        reference = Remembered(_open(source.path))
        bench = Bench(source, frames, divisors, reference, sets, Path(text))
        tails(bench, kan)
        for method in METHODS:
            for chosen in ({}, divisors):
                variant(bench, choices, method, chosen, corrected=False)
        for chosen in ({}, divisors):
            variant(bench, choices, "percentile", chosen, corrected=True)
    choices.notes += [
        f"Ranges of {len(frames.frames)} frames, weights of {source.layers[0].levels} levels. "
        "Over 0.1: images whose Dice drops by more. Lost over 1 %: "
        "lesions larger than 1 % of the image that float32 finds and INT8 does not. Put back: groups of "
        "layers that the search leaves in float32 until every gate holds on the held-out frames.",
        "",
        "`vmkla calibrate` takes percentile, alike, left. Taking the mean error back changes the error of "
        "the probabilities by a few per cent and the worst images both ways, so it is not done.",
    ]
    kan.notes += [
        "Error of the layer's result in INT8, relative to the result: with one scale for silu(x) and the "
        "bases side by side, with a product and a scale for each, and with the channels of silu(x) made "
        "alike besides. Ranges reach to the largest value here.",
    ]
    lines = ["# What INT8's choices are worth on nano", "", *machine(THREADS)]
    lines += ["", "Written by `benchmarks/int8/choices.py`.", "", choices.markdown(), "", kan.markdown()]
    kept = section(arguments.out, BITS) if arguments.out.exists() else ""
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if kept:
        replace_section(arguments.out, BITS, kept)


if __name__ == "__main__":
    main()
