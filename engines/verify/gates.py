"""The gates: how far an artefact may differ from its source. All limits, and the check of a limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.bounded import MalformedError, parse_names, parse_toml, read_file
from vmkla.errors import BadInputError

_FILE_MAX_BYTES = 64 << 10
"""Largest accepted file of gates, which has a line for each."""

TITLES = {
    "finite": "no NaN or infinity",
    "max_error": "max probability error",
    "mean_error": "mean probability error",
    "relative_error": "probability error relative to p (1 - p)",
    "min_mean_dice": "mean mask Dice",
    "min_worst_dice": "worst frame's mask Dice",
    "max_mean_dice_drop": "mean Dice drop",
    "max_worst_dice_drop": "worst image's Dice drop",
    "max_lost_lesion": "share of the largest lost lesion",
    "max_false_alarm_rise": "rise of false alarms",
}
"""Name of each limit -> the quantity that it limits."""


@dataclass(frozen=True)
class GateCheck:
    """Result of checking one limit.

    Attributes:
        name: name of the limit, a key of ``TITLES``.
        limit: the limit; a smallest value where the name begins with ``min_``, else a largest.
        measured: the measured value; None where no frame could show it or it is not finite.
        passed: whether the check passed.
        text: the sentence for people.
    """

    name: str
    limit: float | None
    measured: float | None
    passed: bool
    text: str


def check_limit(name: str, limit: float, measured: float, where: str = "") -> GateCheck:
    """Compare a measured value with its limit; NaN always fails.

    Args:
        name: name of the limit, a key of ``TITLES``.
        limit: the smallest allowed value where the name begins with ``min_``, else the largest.
        measured: the measured value.
        where: text that follows the value, for instance the frame.
    """
    if name.startswith("min_"):
        text = f"{TITLES[name]} is {measured:.5f}{where}, needed is {limit:.5f}"
        return GateCheck(name, limit, measured, measured >= limit, text)
    text = f"{TITLES[name]} is {measured:.3g}{where}, allowed is {limit:.3g}"
    return GateCheck(name, limit, measured, measured <= limit, text)


@dataclass(frozen=True)
class Gates:
    """Limits of one comparison of probabilities and masks; None does not check a quantity.

    Attributes:
        name: the step that is checked.
        max_error: largest difference of any probability, 0 to 1.
        mean_error: mean difference of all probabilities.
        relative_error: sum of all differences over the sum of the reference's p (1 - p). To first order it
            is the mean difference of the logits, weighted by how undecided a pixel is, so that empty pixels
            do not dilute it as they do the mean.
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
        """Drop the limits of Dice: an untrained network's probability is near the threshold everywhere."""
        return dataclasses.replace(self, min_mean_dice=None, min_worst_dice=None)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return dataclasses.asdict(self)


# Both sides compute in float32 and differ only in the order of their sums. Measured: at most 8e-7 and on
# average 7e-8 for an untrained nano, 1.4e-5 and 8e-8 for a trained one on real frames, 6e-6 and 1.5e-7 for a
# small network with every weight random. Planted errors in an untrained nano, where scans weigh least: no
# carry between the chunks of the bodies, or one route read forwards, 9e-4 and 6e-5; two routes exchanged in
# the delta of the first of eight scans, 8e-5 and 5e-6. The mean decides, since no single steep pixel moves
# it; the maximum catches errors in few pixels. Not caught: the same exchange in the deepest scan of an
# untrained network (1e-5 and 5e-7), which the tests of the ops and of the bodies catch.
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
# --frames DIR``, the largest of the three ways to run it; the relative error is comparable between frames:
#     16 images of CVC-ClinicDB   max 1.3e-2 mean 5e-5 relative 4e-3
#     16 images of Kvasir-SEG     max 1.4e-2 mean 9e-5 relative 4e-3
#     7 rendered frames           max 1.8e-2 mean 5e-5 relative 1.0e-2
#     a rendered clip             max 3.2e-2 mean 1e-5 relative 1.7e-2
# An untrained small, whose probabilities are nowhere steep or flat: max 1.6e-3 mean 1.9e-4. Planted in each
# scan of nano, over the rendered frames: two routes exchanged, delta_bias or D zero give a relative error of
# at least 0.29 in all scans of the first three stages but the last, where the routes give 7.4e-2, with a mean
# of 4e-4, within the mean's limit. In the fourth stage they give 6e-4 to 2e-3, less than rounding does: no
# figure of the result in half can detect these. HALF_ARITHMETIC does for a file, and the float32 engine for
# an engine. In small masks (40 pixels) 2 to 4 pixels flip: 8 of 256x256 are spared.
FP16_EXPORT = Gates(
    name="fp16 export",
    max_error=1e-1,
    mean_error=1e-3,
    min_mean_dice=0.995,
    min_worst_dice=0.98,
    spare_share=1 / 8192,
    relative_error=4e-2,
)

# A half-precision file widened to float32, against its half weights and tables in PyTorch in float32: the
# same arithmetic but for the order of sums. Measured as above: at most 3.2e-5 (the clip), on average 7e-8 and
# relative 3.8e-5; a small network with every weight random 4e-6, 1e-7 and 6e-7. Two routes exchanged in the
# deepest scan of nano, over the rendered frames: 4.4e-3, 1.8e-6 and 3.7e-4; over the images of CVC-ClinicDB
# 1.0e-2, 9.9e-6 and 8.4e-4. A D of zero there changes that scan's result by 1e-8, below every limit.
# Masks are not checked: the probability is the finer measure.
HALF_ARITHMETIC = Gates(name="half arithmetic", max_error=1.5e-4, mean_error=5e-7, relative_error=1.5e-4)


@dataclass(frozen=True)
class GateReport:
    """Result of checking a comparison.

    Attributes:
        passed: whether every check passed.
        failures: one sentence for each check that failed.
        gates: the limits.
        measured: the measured figures.
    """

    passed: bool
    failures: tuple[str, ...]
    gates: Gates
    measured: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON and metadata."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "gates": self.gates.to_dict(),
            "measured": self.measured,
        }


# A GPU sums in another order than a CPU, in full float32: the builder turns TF32 off.
# Half precision is rounded at other places than on a CPU, which computes a half graph in float32.
# Where that moves a value past the middle of two integers, an INT8 product changes by one step of its scale,
# a hundredth of its range. How often was not measured on a GPU: the limits catch a wrong scale.
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
    """What one artefact may lose against another in clinical terms; None does not check a quantity.

    A value that is not finite fails whatever the limits.

    Attributes:
        name: name of the set, for reports.
        max_mean_dice_drop: mean over all frames of the reference's Dice less the candidate's. Dice is against
            the truth where masks are given; else the reference's masks are the truth and its Dice is 1.
        max_worst_dice_drop: the same of the worst frame with a lesion. (A frame without one scores only 0 or
            1, by a single pixel: false alarms measure those.)
        max_lost_lesion: the largest lesion that may be lost, as a share of its image. It is lost when the
            reference marks a pixel of it and the candidate none.
        max_false_alarm_rise: share of the frames without a lesion that may gain a false alarm, 0 to 1: 0.01
            is one percentage point.
        max_error, mean_error: largest and mean difference of all probabilities, 0 to 1.
    """

    name: str = "clinical"
    max_mean_dice_drop: float | None = 0.01
    max_worst_dice_drop: float | None = 0.10
    max_lost_lesion: float | None = 0.01
    max_false_alarm_rise: float | None = 0.01
    max_error: float | None = None
    mean_error: float | None = None

    def limits(self) -> dict[str, float | None]:
        """Return name to limit."""
        values = dataclasses.asdict(self)
        del values["name"]
        return values

    def tightened(self, values: Mapping[str, Any], *, where: str = "the gates") -> ClinicalGates:
        """Return the gates with stricter limits.

        Args:
            values: attribute name to limit.
            where: source of the values, for messages.
        Raises:
            BadInputError: a name is unknown, a limit is not between 0 and 1, or it is looser than before.
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
                    hint="A file of gates can only tighten them.",
                )
            limits[name] = float(value)
        return dataclasses.replace(self, **limits)  # type: ignore[arg-type]

    def for_pair(
        self, precisions: tuple[str, str], *, same_weights: bool, random_weights: bool
    ) -> ClinicalGates:
        """Return the gates for a pair of artefacts.

        Args:
            precisions: precisions of reference and candidate.
            same_weights: whether both were made from the same weights.
            random_weights: whether one of them was never trained, so that only its probability has a meaning.
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

    def _within(self, limits: Gates) -> ClinicalGates:
        """Add the limits of the maximum and mean probability error, unless there are stricter ones."""
        changes = {}
        for name in ("max_error", "mean_error"):
            old, new = getattr(self, name), getattr(limits, name)
            changes[name] = new if old is None else min(old, new)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return dataclasses.asdict(self)


# Probability errors by the coarser precision of a pair, finest first. An 8-bit product is off by about 1 % of
# its tensor's largest value, and the errors of a network's products add up to several per cent. The mean
# catches a wrong scale or zero point, which shifts every pixel.
_PROBABILITY = {
    "fp32": FP32_EXPORT,
    "fp16": FP16_EXPORT,
    "int8": Gates(name="int8 pair", max_error=2.5e-1, mean_error=2e-2),
}


def read_gates(path: Path) -> ClinicalGates:
    """Read a file that tightens gates.

    Args:
        path: path of a JSON (``.json``) or TOML (``.toml``) file: name to limit.
    Raises:
        BadInputError: the file cannot be read, or is looser than the defaults.
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
    return ClinicalGates().tightened(values, where=str(path))
