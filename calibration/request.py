"""Options of a calibration, and their checks before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmkla.calibration.layers import Target
from vmkla.calibration.ranges import PERCENTILE, Method
from vmkla.calibration.reader import MIN_FRAMES
from vmkla.cpu_features import missing_for_int8
from vmkla.data.rules import ReadRules
from vmkla.engines.verify.gates import ClinicalGates, read_gates
from vmkla.errors import BadInputError, MissingDependencyError, UsageError

FRAMES, CHECK_FRAMES = 128, 256
"""Default numbers of frames to calibrate and to check with: 64 are too few to see a lesion that is lost on
one image in a hundred."""


@dataclass(frozen=True)
class CalibrateRequest:
    """Options of a calibration.

    Attributes:
        model: a shipped model's name, or a float32 file of ``vmkla export``.
        data: videos, images, folders or patterns to measure ranges on.
        target: what will run the result: ``cpu`` is any CPU, with weights of 7 bits; ``cpu-vnni`` is one with
            VNNI, with weights of 8 bits.
        output: the file to write.
        half: the same network's half-precision file, of which a file for ``tensorrt`` is made; None looks for
            ``NAME.fp16.onnx`` beside ``NAME.onnx``.
        method: how a range follows from the values.
        percentile: percentile of the method of that name, 0 to 100.
        frames, check_frames: largest numbers of frames to calibrate and to check with.
        check: data to check with; if empty, some of ``data`` is held out.
        max_dice_drop: largest loss of mean Dice; None takes the gates' own limit.
        gates: a file that tightens the gates.
        allow_few: accept fewer frames than reliable ranges need.
        measure_sensitivity: measure each group alone even if no group has to be put back.
        skip_gates: write the file unchecked, marked unverified.
        reading: how files of images and masks are read.
        threads: CPU threads; None is the runtime's own choice.
        out: folder for the cache, the table, the plot and the report.
        anonymous: name every image by the first digits of its file's sha256.
    """

    model: str
    data: tuple[str, ...]
    target: Target
    output: Path
    out: Path
    half: Path | None = None
    method: Method = "percentile"
    percentile: float = PERCENTILE
    frames: int = FRAMES
    check_frames: int = CHECK_FRAMES
    check: tuple[str, ...] = ()
    max_dice_drop: float | None = None
    gates: Path | None = None
    allow_few: bool = False
    measure_sensitivity: bool = True
    skip_gates: bool = False
    reading: ReadRules = ReadRules()
    threads: int | None = None
    anonymous: bool = False


def check_request(request: CalibrateRequest) -> None:
    """Reject options that make no sense, before anything is read.

    Raises:
        UsageError: a value makes no sense.
        BadInputError: the output is a folder, or the gates would be loosened.
        MissingDependencyError: this CPU cannot check what is made for ``cpu-vnni``.
    """
    if not request.data:
        raise UsageError("there is no data to calibrate with", hint="Give some with: --data DIR")
    if request.frames < 1 or request.check_frames < 1:
        raise UsageError("the numbers of frames must be at least 1")
    if request.frames < MIN_FRAMES and not request.allow_few:
        raise UsageError(
            f"{request.frames} frames are asked for, expected at least {MIN_FRAMES}",
            hint="Accept the risk with: --allow-few",
        )
    if not 0 < request.percentile <= 100:
        raise UsageError(f"the percentile is {request.percentile}, expected a number from 0 to 100")
    if request.half is not None and request.target != "tensorrt":
        raise UsageError("a half-precision file is for the target tensorrt only")
    if request.target == "cpu-vnni" and (missing := missing_for_int8()) is not None:
        raise MissingDependencyError(
            f"this CPU has no {missing.upper()}, so a file for --target cpu-vnni cannot be checked here",
            hint="Use --target cpu, whose file runs on every CPU, or a machine with VNNI.",
        )
    if request.output.is_dir():
        raise BadInputError(f"{request.output} is a folder, expected the name of a file to write")
    if request.max_dice_drop is not None:
        gates_of(request)


def gates_of(request: CalibrateRequest) -> ClinicalGates:
    """Return the gates of the request.

    Raises:
        BadInputError: they cannot be read, or are looser than the defaults.
    """
    gates = ClinicalGates() if request.gates is None else read_gates(request.gates)
    if request.max_dice_drop is None:
        return gates
    return gates.tightened({"max_mean_dice_drop": request.max_dice_drop}, where="--max-dice-drop")


def half_beside(path: Path) -> Path:
    """Find ``NAME.fp16.onnx`` beside ``NAME.onnx``.

    Raises:
        BadInputError: it is missing.
    """
    half = path.with_suffix(".fp16.onnx")
    if not half.is_file():
        raise BadInputError(
            f"there is no {half}: for TensorRT the half-precision file of the same network is quantized",
            hint=f"Run: vmkla export --model WEIGHTS --precision fp16 --output {half}   (or: --half FILE)",
        )
    return half
