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
    """

    name: str
    max_error: float | None
    mean_error: float | None
    min_mean_dice: float | None = None
    min_worst_dice: float | None = None

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
