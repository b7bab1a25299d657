"""How far a run has come."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from vmkla.training.config import EpochReport, TrainConfig, TrainResult
from vmkla.training.run_folder import BEST, LAST
from vmkla.training.validation import Scores


@dataclass
class Progress:
    """Finished epochs, and the current one so far.

    Attributes:
        epoch: finished epochs.
        step: steps of the current epoch that were taken.
        loss_sum: sum of the losses that were read, which are all of them whenever the state is saved.
        seconds: their wall time.
        history: what every finished epoch came to.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[EpochReport] = field(default_factory=list)

    def close_epoch(
        self, config: TrainConfig, scores: Scores, *, lr: float, validation_s: float
    ) -> EpochReport:
        """End the current epoch, whose steps are done and whose weights were judged.

        Args:
            config: of the run.
            scores: on the validation set.
            lr: rate of the last step.
            validation_s: wall time of the validation.
        """
        best_before = max((report.val_dice for report in self.history), default=-1.0)
        report = EpochReport(
            epoch=self.epoch + 1,
            epochs=config.epochs,
            lr=lr,
            train_loss=self.loss_sum / self.step,
            val_loss=scores.loss,
            val_dice=scores.dice,
            val_iou=scores.iou,
            best=scores.dice > best_before,
            seconds=self.seconds + validation_s,
            images_per_s=self.step * config.batch_size / max(self.seconds, 1e-9),
        )
        self.history.append(report)
        self.epoch, self.step, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0
        return report

    def result(self, config: TrainConfig, *, finished: bool) -> TrainResult:
        """How the run ended."""
        best = max(self.history, key=lambda report: report.val_dice, default=None)
        return TrainResult(
            best_weights=config.out_dir / BEST if best else None,
            last_weights=config.out_dir / LAST if best else None,
            best_dice=best.val_dice if best else math.nan,
            best_epoch=best.epoch if best else 0,
            epochs_done=self.epoch,
            finished=finished,
            history=tuple(self.history),
        )

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> Progress:
        """Inverse of ``state``."""
        return cls(**{**values, "history": [EpochReport(**report) for report in values["history"]]})
