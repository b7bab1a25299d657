"""The gates: how far an artefact may be from what it was made of. One row per step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gates:
    """Limits of one comparison; None leaves a figure ungated.

    Attributes:
        name: the step that they guard.
        max_error: largest difference of any probability, 0 to 1.
        mean_error: mean difference of all probabilities.
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
FP32_EXPORT = Gates(
    name="fp32 export", max_error=5e-4, mean_error=2e-6, min_mean_dice=0.999, min_worst_dice=0.99
)

# Half against float32: every tensor is rounded to 11 bits. Measured with nano on 24 real frames: at most
# 2.6e-2 (one steep pixel on the edge of a mask), on average 7e-5, Dice 0.9994 on average and 0.996 at worst;
# with an untrained small, whose probabilities are nowhere steep or flat: 1.6e-3 and 1.9e-4. What the gate is
# to see is larger: an infinity is refused whatever its place, and a mean or a normaliser that half cannot
# hold moves whole regions. On rendered frames nano marks 40 to 80 pixels, of which 2 to 4 flip: 8 of 256x256
# are spared. Rounding hides an exchanged route (1e-3 and 9e-6): HALF_ARITHMETIC is there for that.
FP16_EXPORT = Gates(
    name="fp16 export",
    max_error=1e-1,
    mean_error=1e-3,
    min_mean_dice=0.995,
    min_worst_dice=0.98,
    spare_share=1 / 8192,
)

# A half-precision file widened to float32, against its half weights in PyTorch in float32. What is left are
# tables and folded weights that are half in the file: measured 6e-5 and 8e-7 for a small network with every
# weight random, 1.5e-4 and 5e-7 for nano on real frames. Two routes exchanged in one deep scan: 9e-4 and 9e-6
# for the one, 2e-3 and 5e-6 for nano; a route that is not reversed in the bodies: 3e-3 and 1e-4, 1 and 3e-2.
# No masks: the probability is the finer measure of the two.
HALF_ARITHMETIC = Gates(name="half arithmetic", max_error=5e-4, mean_error=2e-6)


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
ENGINE = {
    "fp32": dataclasses.replace(FP32_EXPORT, name="fp32 engine"),
    "fp16": dataclasses.replace(FP16_EXPORT, name="fp16 engine"),
}
