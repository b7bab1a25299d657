"""Measure ranges of activations with ONNX Runtime's calibrators and vmkla's kernels, in shards of frames.

The histogram methods keep the tensors of every frame of a call until the call ends, so a call gets few
frames. What it has collected is saved after each call, so that the next run continues an interrupted one.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from vmkla.bounded import DAMAGED, parse_json
from vmkla.calibration.insertion import Range
from vmkla.calibration.layers import Layer
from vmkla.engines.runners.batches import network_input
from vmkla.engines.runners.custom_ops import cpu_session
from vmkla.errors import BadInputError
from vmkla.files import written_whole
from vmkla.imports import require
from vmkla.metadata import InputType
from vmkla.plain_values import from_plain
from vmkla.segment import steps

Method = Literal["min-max", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("min-max", "percentile", "entropy")

_NAMES_MAX_BYTES = 16 << 20
SHARD_FRAMES = 8
"""Number of frames of a call; a large network keeps about 100 MB for each."""
PERCENTILE = 99.999
"""Default percentile of the magnitudes: it cuts one value in a hundred thousand off the heavy tails of scans'
and KANs' inputs."""


class Progress(Protocol):
    """Called with the number of frames done, the number of all frames, and a short note."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


def measure_ranges(
    model: Path,
    layers: Sequence[Layer],
    frames: npt.NDArray[np.uint8],
    method: Method,
    *,
    input_type: InputType,
    batch: int | None,
    percentile: float = PERCENTILE,
    threads: int | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Range]:
    """Measure the range of each layer's activation, by ``Layer.key``.

    Args:
        model: a float32 file.
        layers: layers of its graph.
        frames: (n, height, width, 3) uint8 RGB, preprocessed.
        method: how a range follows from the values.
        input_type, batch: input type and fixed batch of the file.
        percentile: percentile of the method of that name, 0 to 100.
        threads: CPU threads; None is ONNX Runtime's own choice.
        state: file for what was collected so far with this model, these frames and this method; None saves
            nothing.
        progress: called after each shard.
    """
    names = sorted({layer.activation for layer in layers})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # The calibrator prints on stdout, which is for results.
        calibrator = _calibrator(model, Path(folder) / "watched.onnx", names, method, percentile, threads)
        done = 0 if state is None or not state.is_file() else _restore(calibrator, state, method, names)
        feed_name = calibrator.infer_session.get_inputs()[0].name
        while done < len(frames):
            shard = frames[done : done + SHARD_FRAMES]
            feeds = (
                {feed_name: network_input(steps.batch(frame[np.newaxis], batch), input_type)}
                for frame in shard
            )
            calibrator.collect_data(_Feeds(feeds))
            done += len(shard)
            if state is not None:
                _save(calibrator, state, method, done)
            if progress is not None:
                progress(done, len(frames), "measuring ranges")
        data = calibrator.compute_data()
    found = {name: data[name].range_value for name in names}
    limits = {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in found.items()}
    return {layer.key: limits[layer.activation] for layer in layers}


class _Feeds:
    """Source of frames for a calibrator."""

    def __init__(self, feeds: Any) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next frame; None after the last one."""
        return next(self._feeds, None)


def _calibrator(
    model: Path, watched: Path, names: Sequence[str], method: Method, percentile: float, threads: int | None
) -> Any:
    """Make ONNX Runtime's calibrator for a method, for these values only and with vmkla's kernels."""
    require("onnx", extra="calibrate", purpose="vmkla calibrate")
    library = require("onnxruntime.quantization.calibrate", extra="calibrate", purpose="vmkla calibrate")
    bases: dict[Method, Any] = {
        "min-max": library.MinMaxCalibrater,
        "percentile": library.PercentileCalibrater,
        "entropy": library.EntropyCalibrater,
    }
    base: Any = bases[method]
    options = {"percentile": percentile} if method == "percentile" else {}

    class Calibrator(base):  # type: ignore[misc]  # a class of an untyped package
        def select_tensors_to_calibrate(self, model: Any) -> tuple[set[str], dict[str, Any]]:
            _, values = super().select_tensors_to_calibrate(model)
            return set(names), values

        def create_inference_session(self) -> None:
            self.infer_session = cpu_session(self.augmented_model_path, threads)

    calibrator = Calibrator(str(model), augmented_model_path=str(watched), symmetric=True, **options)
    calibrator.augment_graph()
    calibrator.create_inference_session()
    return calibrator


def _save(calibrator: Any, path: Path, method: Method, done: int) -> None:
    """Save what a calibrator has collected as arrays."""
    if method == "min-max":
        collected = {name: data.range_value for name, data in calibrator.calibrate_tensors_range.items()}
    else:
        collected = calibrator.collector.get_histogram_dict()
    arrays: dict[str, Any] = {
        f"{index}.{part}": np.asarray(value)
        for index, values in enumerate(collected.values())
        for part, value in enumerate(values)
    }
    arrays |= {"names": np.array(json.dumps(list(collected))), "done": np.array(done)}
    with written_whole(path) as file:
        np.savez(file, **arrays)


def _restore(calibrator: Any, path: Path, method: Method, names: Sequence[str]) -> int:
    """Restore what ``_save`` wrote into a calibrator.

    Returns:
        Number of frames that were collected.
    """
    library = require("onnxruntime.quantization.calibrate", extra="calibrate", purpose="vmkla calibrate")
    try:
        with np.load(path, allow_pickle=False) as file:
            kept = from_plain(tuple[str, ...], parse_json(str(file["names"]), _NAMES_MAX_BYTES), "names")
            done = int(file["done"])
            collected = {name: _parts(file, index) for index, name in enumerate(kept)}
    except DAMAGED as error:
        raise BadInputError(
            f"{path} is not what a calibration leaves behind: {error}", hint=f"Run: rm {path}"
        ) from error
    if sorted(kept) != sorted(names):
        raise BadInputError(f"{path} is of another network", hint=f"Run: rm {path}")
    if method == "min-max":
        calibrator.calibrate_tensors_range = library.TensorsData(
            library.CalibrationMethod.MinMax,
            {name: (parts[0], parts[1]) for name, parts in collected.items()},
        )
        return done
    calibrator.collector = library.HistogramCollector(
        method=calibrator.method,
        symmetric=calibrator.symmetric,
        num_bins=calibrator.num_bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario=calibrator.scenario,
    )
    calibrator.collector.histogram_dict = collected
    return done


def _parts(file: Any, index: int) -> tuple[Any, ...]:
    """Return the values of one tensor, in order; scalars as numpy scalars."""
    parts: list[Any] = []
    while f"{index}.{len(parts)}" in file:
        value = file[f"{index}.{len(parts)}"]
        parts.append(value if value.ndim else value[()])
    return tuple(parts)
