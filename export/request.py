"""Export what a user requests: find the network and the frames to check it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmkla import weights
from vmkla.config import PRESETS, get_preset
from vmkla.engines.verify.gate_frames import load_gate_frames
from vmkla.errors import UsageError
from vmkla.export.checks import OnStep
from vmkla.export.exporter import ExportReport, export_onnx
from vmkla.export.form import Batch
from vmkla.imports import require
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.metadata import InputType, Precision
from vmkla.segment.operating_point import OWN_POINT, OperatingPoint, PointOverrides
from vmkla.segment.preprocess import PreprocessSpec, Rect

if TYPE_CHECKING:
    from vmkla.models.checkpoints import LoadedWeights


@dataclass(frozen=True)
class ExportRequest:
    """Options of an export.

    Attributes:
        model: name of shipped weights, a weights file, or a preset.
        output: the ONNX file to write.
        size_hw: height and width of the input, px; None takes those of the training, or 256x256 where these
            are unknown.
        weights: weights file of a preset.
        random_weights: draw random weights for a preset, for benchmarks.
        batch: ``"dynamic"``, a fixed number of frames, or (min, opt, max) of a dynamic one.
        precision: ``fp32``, or ``fp16`` for a strongly typed half-precision graph.
        input_type: ``uint8`` frames (n, H, W, 3), or ``float32`` (n, 3, H, W).
        roi: field of view; None takes that of the training.
        point: values of the operating point in the place of those that the weights state.
        frames: a video, image, folder or pattern to check with; None renders some.
        max_megapixels: largest image or frame of these that is decoded.
        skip_gates: do not check.
        half_storage: store the weights of a float32 graph as float16.
        seed: seed of random weights.
    """

    model: str
    output: Path
    size_hw: tuple[int, int] | None = None
    weights: Path | None = None
    random_weights: bool = False
    batch: Batch = "dynamic"
    precision: Precision = "fp32"
    input_type: InputType = "uint8"
    roi: str | Rect | None = None
    point: PointOverrides = OWN_POINT
    frames: str | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    skip_gates: bool = False
    half_storage: bool = False
    seed: int = 0


def export_request(
    request: ExportRequest,
    progress: Callable[[str], None] | None = None,
    on_step: OnStep | None = None,
) -> ExportReport:
    """Find the weights, read the frames, and export.

    Raises:
        UsageError: a preset without weights, or weights named twice.
        VmklaError: whatever ``export_onnx`` and ``load_weights`` raise.
    """
    loaded = _load(request)
    training = loaded.training
    trained = loaded.preprocess or PreprocessSpec(256, 256)
    height, width = request.size_hw or (trained.height, trained.width)
    loaded.config.check_input(height, width)
    spec = PreprocessSpec(height, width, request.roi or trained.roi)
    frames = None
    if request.frames is not None:
        frames = load_gate_frames(
            request.frames, spec, max_megapixels=request.max_megapixels, say=progress or (lambda _: None)
        )
    threshold, point = _point(loaded, request.point)
    return export_onnx(
        loaded.model,
        spec=spec,
        output=request.output,
        batch=request.batch,
        precision=request.precision,
        input_type=request.input_type,
        class_names=loaded.class_names,
        threshold=threshold,
        operating_point=point,
        training=training,
        random_weights=request.random_weights,
        frames=frames,
        skip_gates=request.skip_gates,
        half_storage=request.half_storage,
        progress=progress,
        on_step=on_step,
    )


def _point(loaded: LoadedWeights, overrides: PointOverrides) -> tuple[float, OperatingPoint | None]:
    """Return threshold and operating point for the file; None where neither weights nor user state one."""
    point = overrides.on(loaded.operating_point or OperatingPoint(loaded.threshold))
    stated = (loaded.operating_point, overrides.peak, overrides.min_fraction) != (None, None, None)
    return point.threshold, point if stated else None


def _load(request: ExportRequest) -> LoadedWeights:
    """Load the requested network, and never another one."""
    require("torch", extra="export", purpose="vmkla export")
    from vmkla.models.checkpoints import load_weights

    name, shipped = request.model, weights.shipped(".safetensors")
    if request.weights is not None and request.random_weights:
        raise UsageError("--weights and --random-weights are both given; choose one")
    if request.random_weights:
        return _random(request)
    if request.weights is not None:
        loaded = load_weights(request.weights)
        if name in PRESETS and loaded.config.name != name:
            raise UsageError(
                f"--model is {name}, but {request.weights} holds a {loaded.config.name}",
                hint=f"Run: vmkla export --model {request.weights}",
            )
        return loaded
    if name in PRESETS and name not in shipped and not Path(name).is_file():
        raise UsageError(
            f"the preset {name!r} has no shipped weights",
            hint="Add --weights FILE, or --random-weights for a benchmark of an untrained network.",
        )
    return load_weights(weights.resolve(name, ".safetensors"))


def _random(request: ExportRequest) -> LoadedWeights:
    torch = require("torch", extra="export", purpose="vmkla export")
    from vmkla.models import build_model
    from vmkla.models.checkpoints import LoadedWeights

    config = get_preset(request.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        model = build_model(config)
    return LoadedWeights(model.eval(), config, ("polyp",), 0.5, {})
