"""The folder of a run: what is written there, each file whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vmkla.data.arrays import LabelledArrays
from vmkla.data.naming import without_folders
from vmkla.errors import BadInputError, UsageError
from vmkla.files import make_folder, written_whole
from vmkla.preprocess import PreprocessSpec
from vmkla.training.checkpoints import save_weights
from vmkla.training.config import EpochReport, TrainConfig
from vmkla.training.records import draw_curves, write_metrics
from vmkla.training.state import load_state

STATE, BEST, LAST = "state.pt", "best.safetensors", "last.safetensors"


def open_folder(config: TrainConfig, *, write: bool) -> dict[str, Any] | None:
    """Make the folder and write ``config.json``; with ``config.resume``, read the state to go on from.

    Args:
        config: of the run.
        write: false for a process that only reads.
    Raises:
        UsageError: the folder holds a run, and it is not to be resumed, or the run had other settings.
        BadInputError: there is no run to resume, or the folder cannot be written.
    """
    out_dir = config.out_dir
    state = load_state(out_dir / STATE, config) if config.resume else None
    if not write:
        return state
    if state is None and (out_dir / STATE).exists():
        raise UsageError(
            f"{out_dir} holds a run already ({STATE})",
            hint="Add --resume to go on with it, or choose another folder.",
        )
    try:
        make_folder(out_dir, private=False)  # for the weights; the other files are closed
    except OSError as error:
        raise BadInputError(f"{out_dir} cannot be made: {error.strerror or error}") from error
    with written_whole(out_dir / "config.json") as file:
        file.write((json.dumps(config.to_dict(), indent=2) + "\n").encode())
    return state


def save_bad_batch(path: Path, batch: LabelledArrays) -> None:
    """Write a batch that cannot be trained on, for whoever looks into it.

    Raises:
        BadInputError: it cannot be written.
    """
    with written_whole(path) as file:
        np.savez_compressed(file, names=np.array(batch.names), images_rgb=batch.images_rgb, masks=batch.masks)


def write_epoch(
    config: TrainConfig, model: nn.Module, history: Sequence[EpochReport], summary: dict[str, Any]
) -> None:
    """Weights and records after an epoch.

    Args:
        config: of the run.
        model: the weights that were judged.
        history: every finished epoch, this one last.
        summary: what the weights' file says of its training.
    """
    out_dir = config.out_dir
    for name in (LAST, BEST) if history[-1].best else (LAST,):
        save_weights(
            model,
            out_dir / name,
            training=summary,
            class_names=config.names_of_classes,
            threshold=config.threshold,
        )
    write_metrics(out_dir / "metrics.csv", history)
    if config.curves:
        draw_curves(out_dir / "curves.png", history)


def summarise(
    config: TrainConfig, report: EpochReport, train_set: LabelledArrays, val_set: LabelledArrays
) -> dict[str, Any]:
    """What the weights' file says of its training; no paths of this machine."""
    return {
        "data": [without_folders(str(source)) for source in config.data],
        "val": [without_folders(str(source)) for source in config.val],
        "train_images": len(train_set) - config.rendered,
        "rendered_images": config.rendered,
        "val_images": len(val_set),
        "image_size_hw": list(config.image_size_hw),
        "roi": config.roi,
        "preprocess": PreprocessSpec(*config.image_size_hw, config.roi).to_dict(),
        "epoch": report.epoch,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "seed": config.seed,
        "precision": config.precision,
        "ema_decay": config.ema_decay,
        "init": None if config.init is None else config.init.name,
        "init_encoder": None if config.init_encoder is None else config.init_encoder.name,
        "val_dice": report.val_dice,
        "val_iou": report.val_iou,
        "figures": "per-image means at the network's resolution",
    }
