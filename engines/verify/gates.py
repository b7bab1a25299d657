"""The gates: how far an artefact may be from what it was made of. One row per step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.bounded import MalformedError, parse_names, parse_toml, read_file
from vmkla.errors import BadInputError

_FILE_MAX_BYTES = 64 << 10
"""Of a file of gates, which has a line for each."""


@dataclass(frozen=True)
class Gates:
    """Limits of one comparison; None leaves a figure ungated.

    Attributes:
        name: the step that they guard.
        max_error: largest difference of any probability, 0 to 1.
        mean_error: mean difference of all probabilities.
        relative_error: sum of all differences over the sum of the reference's p (1 - p). To first order it
            is the mean difference of the logits, where a pixel counts the more the less decided it is, so
            empty pixels do not dilute it as they do the mean.
        min_mean_dice: mean over frames of the Dice between both masks, 0 to 1.
        min_worst_dice: Dice of the worst frame.
        spare_share: share of a frame's pixels in which its masks may differ before its Dice counts.
    """

    name: str
    max_error: float | None
    mean_error: float | None
    min_mean_dice: float | None = None
    min_worst_dice: float | None = None
    spare_share: float = 0.0
    relative_error: float | None = None

    def without_masks(self) -> Gates:
        """The same without Dice: an untrained network's probability hangs about the threshold everywhere."""
        return dataclasses.replace(self, min_mean_dice=None, min_worst_dice=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


# Both sides compute in float32 and differ in the order of their sums alone. Measured: at most 8e-7 and on
# average 7e-8 for an untrained nano, 1.4e-5 and 8e-8 for a trained one on real frames, 6e-6 and 1.5e-7 for a
# small network with every weight random. Planted errors in an untrained nano, where scans weigh least: no
# carry between the chunks of the bodies, or one route read forwards, 9e-4 and 6e-5; two routes exchanged in
# the delta of the first of eight scans, 8e-5 and 5e-6. The mean decides, which no single steep pixel moves;
# the maximum is there for what is wrong in few pixels. What stays below: the same exchange in the deepest
# scan of an untrained network (1e-5 and 5e-7); the tests of the ops and of the bodies see that.
# The relative error is for trained networks, whose frames are nearly empty: at most 1.5e-5 for
# ``vmkla export --model nano``, and 4.2e-5 over a rendered clip (``vmkla sample``, ``--frames``); two routes
# exchanged in nano's deepest scan: 3.7e-4.
FP32_EXPORT = Gates(
    name="fp32 export",
    max_error=5e-4,
    mean_error=2e-6,
    min_mean_dice=0.999,
    min_worst_dice=0.99,
    relative_error=1.5e-4,
)

# Half against float32: every tensor is rounded to 11 bits. ``vmkla export --model nano --precision fp16
# --frames DIR``, the largest of the three ways to run it; relative is what compares between frames:
#     16 images of CVC-ClinicDB   max 1.3e-2 mean 5e-5 relative 4e-3
#     16 images of Kvasir-SEG     max 1.4e-2 mean 9e-5 relative 4e-3
#     7 rendered frames           max 1.8e-2 mean 5e-5 relative 1.0e-2
#     a rendered clip             max 3.2e-2 mean 1e-5 relative 1.7e-2
# An untrained small, whose probabilities are nowhere steep or flat: max 1.6e-3 mean 1.9e-4. Planted in each
# scan of nano, over the rendered frames: two routes exchanged, delta_bias or D zero give a relative error of
# 0.29 or more in all scans of the first three stages but the last, where the routes give 7.4e-2, with a mean
# of 4e-4 that the mean's limit passes. In the fourth stage they give 6e-4 to 2e-3, less than rounding does:
# no figure of the result in half can tell these from a good file. HALF_ARITHMETIC does for a file, and the
# float32 engine for an engine. Of small masks (40 pixels) 2 to 4 pixels flip: 8 of 256x256 are spared.
FP16_EXPORT = Gates(
    name="fp16 export",
    max_error=1e-1,
    mean_error=1e-3,
    min_mean_dice=0.995,
    min_worst_dice=0.98,
    spare_share=1 / 8192,
    relative_error=4e-2,
)

# A half-precision file widened to float32, against its half weights and tables in PyTorch in float32: one
# arithmetic, but for the order of sums. Measured as above: at most 3.2e-5 (the clip), on average 7e-8 and
# relative 3.8e-5; a small network with every weight random 4e-6, 1e-7 and 6e-7. Two routes exchanged in the
# deepest scan of nano, over the rendered frames: 4.4e-3, 1.8e-6 and 3.7e-4; over the images of CVC-ClinicDB
# 1.0e-2, 9.9e-6 and 8.4e-4. A D of zero there is 1e-8 of what that scan gives, and below every limit.
# No masks: the probability is the finer measure of the two.
HALF_ARITHMETIC = Gates(name="half arithmetic", max_error=1.5e-4, mean_error=5e-7, relative_error=1.5e-4)


@dataclass(frozen=True)
class GateReport:
    """What became of a comparison.

    Attributes:
        passed: every gate held.
        failures: one line for each gate that did not.
        gates: the limits.
        measured: the figures.
    """

    passed: bool
    failures: tuple[str, ...]
    gates: Gates
    measured: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and metadata."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "gates": self.gates.to_dict(),
            "measured": self.measured,
        }


# A GPU sums in another order than a CPU, in full float32: the builder turns TF32 off.
# Half precision is rounded at other places than on a CPU, which computes a half graph in float32.
# Where that moves a value past the middle of two integers, an INT8 product is off by a step of its scale, a
# hundredth of what it can hold. No GPU has shown how often: the limits are there to see a wrong scale.
ENGINE = {
    "fp32": dataclasses.replace(FP32_EXPORT, name="fp32 engine"),
    "fp16": dataclasses.replace(FP16_EXPORT, name="fp16 engine"),
    "int8": Gates(
        name="int8 engine",
        max_error=2.5e-1,
        mean_error=5e-3,
        min_mean_dice=0.98,
        min_worst_dice=0.95,
        spare_share=1 / 8192,
    ),
}


@dataclass(frozen=True)
class ClinicalGates:
    """What one artefact may lose against another, in terms of what it is used for; None leaves it ungated.

    Attributes:
        name: of the set, for reports.
        max_mean_dice_drop: mean over all frames of the reference's Dice less the candidate's. Against truth
            where masks are given; where not, the reference's masks are the truth and its Dice is 1.
        max_worst_dice_drop: the same of the worst frame with a lesion. (A frame without one scores 0 or 1
            alone, by a single pixel: false alarms speak for those.)
        max_lost_lesion: the largest lesion that may be lost, as a share of its image: the reference marks a
            pixel of it and the candidate none.
        max_false_alarm_rise: share of the frames without a lesion that may gain a false alarm, 0 to 1:
            0.01 is one point.
        max_error, mean_error: of all probabilities, 0 to 1.
    A value that is not finite fails whatever the limits.
    """

    name: str = "clinical"
    max_mean_dice_drop: float | None = 0.01
    max_worst_dice_drop: float | None = 0.10
    max_lost_lesion: float | None = 0.01
    max_false_alarm_rise: float | None = 0.01
    max_error: float | None = None
    mean_error: float | None = None

    def limits(self) -> dict[str, float | None]:
        """Name to limit."""
        values = dataclasses.asdict(self)
        del values["name"]
        return values

    def tightened(self, values: Mapping[str, Any], *, where: str = "the gates") -> ClinicalGates:
        """The same with stricter limits.

        Args:
            values: name to limit; the names of this class's attributes.
            where: what they are from, for messages.
        Raises:
            BadInputError: a name is not known, a limit is no share, or one is looser than what it replaces.
        """
        limits = self.limits()
        for name, value in values.items():
            if name not in limits:
                raise BadInputError(
                    f"{where}: there is no gate {name!r}", hint=f"The gates are: {', '.join(limits)}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise BadInputError(f"{where}: {name} is {value!r:.100}, expected a number from 0 to 1")
            old = limits[name]
            if old is not None and value > old:
                raise BadInputError(
                    f"{where}: {name} is {value:g}, which is looser than the {old:g} it would replace",
                    hint="A file of gates can tighten them alone.",
                )
            limits[name] = float(value)
        return dataclasses.replace(self, **limits)  # type: ignore[arg-type]

    def for_pair(
        self, precisions: tuple[str, str], *, same_weights: bool, random_weights: bool
    ) -> ClinicalGates:
        """What holds for two artefacts.

        Args:
            precisions: of reference and candidate.
            same_weights: both were made of the same.
            random_weights: one of them was never trained: its masks mean nothing, its probability does.
        Raises:
            BadInputError: there are no gates for one of the precisions.
        """
        unknown = [name for name in precisions if name not in _PROBABILITY]
        if unknown:
            raise BadInputError(
                f"precision {unknown[0]!r} has no gates, expected one of {list(_PROBABILITY)}"
            )
        coarser = max(precisions, key=list(_PROBABILITY).index)
        if random_weights:
            bare = ClinicalGates(
                f"{self.name}, random weights", None, None, None, None, self.max_error, self.mean_error
            )
            return bare._within(_PROBABILITY[coarser])
        if same_weights and coarser == "fp32":
            return self._within(_PROBABILITY[coarser])
        return self

    def _within(self, limits: tuple[float, float]) -> ClinicalGates:
        """With these limits of the maximum and mean probability error, where its own are not stricter."""
        return dataclasses.replace(
            self,
            max_error=min(limits[0], math.inf if self.max_error is None else self.max_error),
            mean_error=min(limits[1], math.inf if self.mean_error is None else self.mean_error),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


# Maximum and mean probability error by the coarser precision of a pair, finest first. float32 and half are
# the exporter's own. An 8-bit product is off by about 1 % of its tensor's largest value, and a network's
# products add up to several. The mean is what tells a wrong scale or zero point, which shifts every pixel.
_PROBABILITY: dict[str, tuple[float, float]] = {
    "fp32": (5e-4, 2e-6),
    "fp16": (1e-1, 1e-3),
    "int8": (2.5e-1, 2e-2),
}


def read_gates(path: Path, base: ClinicalGates | None = None) -> ClinicalGates:
    """Gates from a file that tightens them.

    Args:
        path: JSON (``.json``) or TOML (``.toml``): name to limit.
        base: what is tightened; None takes the defaults.
    Raises:
        BadInputError: it cannot be read, or is looser than ``base``.
    """
    parse = parse_toml if path.suffix == ".toml" else parse_names
    try:
        values = parse(read_file(path, _FILE_MAX_BYTES), _FILE_MAX_BYTES)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MalformedError as error:
        raise BadInputError(
            f"{path} does not hold names and limits: {error}",
            hint='For instance: {"max_mean_dice_drop": 0.005}',
        ) from error
    return (base or ClinicalGates()).tightened(values, where=str(path))
