"""What a run writes for its reader: ``metrics.csv`` and ``curves.png``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from vmkla.imports import require
from vmkla.training.config import EpochReport


def write_metrics(path: Path, history: Sequence[EpochReport]) -> None:
    """Write one line an epoch, anew each time, so that a resumed run has each epoch once."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochReport)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(report) for report in history)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text.getvalue(), encoding="utf-8")
    partial.replace(path)


def draw_curves(path: Path, history: Sequence[EpochReport]) -> None:
    """Draw loss and validation figures over the epochs.

    Raises:
        MissingDependencyError: matplotlib is absent.
    """
    require("matplotlib", extra="train", purpose="curves.png")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    epochs = [report.epoch for report in history]
    losses.plot(epochs, [report.train_loss for report in history], label="training")
    losses.plot(epochs, [report.val_loss for report in history], label="validation")
    losses.set(xlabel="epoch", ylabel="BCE + Dice loss")
    losses.legend()
    scores.plot(epochs, [report.val_dice for report in history], label="Dice")
    scores.plot(epochs, [report.val_iou for report in history], label="IoU")
    best = max(history, key=lambda report: report.val_dice)
    scores.axvline(best.epoch, linestyle=":", label=f"best Dice {best.val_dice:.3f}, epoch {best.epoch}")
    scores.set(xlabel="epoch", ylabel="per-image mean, validation", ylim=(0, 1))
    scores.legend()
    partial = path.with_name(f".{path.name}.part")
    figure.savefig(partial, format="png", dpi=100)
    partial.replace(path)
