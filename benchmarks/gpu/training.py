"""Steps of `make gpu-proof` that train: a few steps of every variant, and `nano` for the remaining time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shutil
from collections.abc import Iterable
from time import monotonic
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.machine import read_carried
from benchmarks.gpu.records import Context, Recorder, SkippedError
from experiments.rows import RECIPES, ROW, RUN, Row, run_row
from vmkla.data import open_dataset
from vmkla.data.folder import list_pairs
from vmkla.models import build_model
from vmkla.models.kan import KANLinear
from vmkla.training import StepReport, TrainConfig, train

WARM, TIMED, PROFILED = 5, 20, 3
"""Steps of a variant: before the clock, under it, and under the profiler."""
JUDGING_S = 60.0
"""What judging and saving the trained network may take."""
GROUPS = {"scan": "selective_scan2d", "kan": "bspline_basis"}
"""Parts of a step, by what the names of their ops have in them."""
VARIANTS = (
    ("nano", "eager", True, 8),
    ("small", "eager", True, 8),
    ("nano", "fused", False, 8),
    ("small", "fused", False, 8),
    ("nano", "fused", True, 8),
    ("nano", "eager", False, 8),
    ("nano", "fused", False, 1),
    ("small", "fused", True, 8),
)
"""Network, KAN bases (``eager`` is their definition in torch), deterministic, workers that augment."""


class _EnoughError(Exception):
    """Raised to end a training when the wanted steps are done."""


def config_of(context: Context, network: str, **fields: Any) -> TrainConfig:
    """Build the configuration for the carried images on this device; a dry run trains at a tiny size.

    Raises:
        SkippedError: no images were carried.
    """
    path, side, batch = context.carry / "data.vmkpack", 256, 32
    if context.dry:
        side, batch = 32, 2
    if not path.is_file():
        raise SkippedError("no packed images were carried: make gpu-proof-pack packs them")
    dataset = open_dataset(str(path))
    values = {
        "model": network, "data": dataset.train, "val": dataset.val, "image_size_hw": (side, side),
        "precision": "fp32" if context.dry else "bf16", "device": "cpu" if context.dry else "cuda:0",
        "curves": False, "tensorboard": False, **fields, "batch_size": batch,
    }  # fmt: skip
    return TrainConfig(**values)


def network_of(config: TrainConfig, *, bases: str) -> nn.Module:
    """Build the preset's network; with ``eager`` bases its KAN layers run their definition in torch."""
    model = build_model(config.model_config, backend=config.backend)
    for module in model.modules():
        if isinstance(module, KANLinear) and bases == "eager":
            module.backend = "reference"
    return model


def warm_step(context: Context, network: str) -> None:
    """Run one forward and backward pass on a tiny batch, so that its kernels are compiled."""
    model = network_of(TrainConfig(context.work, model=network), bases="fused").to(context.device)
    with torch.autocast(context.device, torch.bfloat16, enabled=not context.dry):
        loss = model(torch.randn(2, 3, 64, 64, device=context.device)).float().mean()
    loss.backward()


class Watch:
    """Times and profiles the steps of a training, and ends it after them."""

    def __init__(self, *, dry: bool) -> None:
        self.dry, self.seconds = dry, 0.0
        self.warm, self.timed, self.profiled = (1, 1, 1) if dry else (WARM, TIMED, PROFILED)
        self.steps = self.warm + self.timed + self.profiled
        activities = [ProfilerActivity.CPU, *([] if dry else [ProfilerActivity.CUDA])]
        self.profiler = profile(activities=activities)

    def __call__(self, report: StepReport) -> None:
        """Note the time of a step; called after each."""
        if report.step not in (self.warm, self.warm + self.timed, self.steps):
            return
        if not self.dry:
            torch.cuda.synchronize()
        if report.step == self.warm:
            self.seconds = monotonic()
        elif report.step == self.steps:
            self.profiler.stop()
            raise _EnoughError
        else:
            self.seconds = monotonic() - self.seconds
            self.profiler.start()


def parts_of(events: Iterable[Any], steps: int, *, dry: bool) -> dict[str, float]:
    """Split a step into the times of the scan, the KAN bases and the rest, in ms, and count kernel launches.

    An op counts with all that it calls and with its gradient; in a dry run it is the CPU's time.
    """
    ops = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    whole = sum(event.self_cpu_time_total if dry else event.self_device_time_total for event in ops)
    found = dict.fromkeys(GROUPS, 0.0)
    for event in ops:
        if (group := group_of(event)) and not group_of(event.cpu_parent):
            found[group] += event.cpu_time_total if dry else event.device_time_total
    found["rest"] = whole - sum(found.values())
    per_step = {f"{name}_ms": us / 1e3 / steps for name, us in found.items()}
    return {**per_step, "launches": sum(len(event.kernels) for event in ops) / steps}


def group_of(event: Any) -> str:
    """Find the part of a step that an op or one of its callers belongs to; empty for the rest."""
    while event is not None:
        for name, text in GROUPS.items():
            if text in event.name:
                return name
        event = event.cpu_parent
    return ""


def steps(context: Context, out: Recorder) -> None:
    """Time training steps of every variant.

    Raises:
        SkippedError: too few images were carried.
    """
    for network, bases, deterministic, workers in VARIANTS[:1] if context.dry else VARIANTS:
        fields = {"epochs": 1, "deterministic": deterministic, "workers": 0 if context.dry else workers}
        watch, folder = Watch(dry=context.dry), context.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        config = config_of(context, network, out_dir=folder, **fields)
        wanted = (watch.steps + 1) * config.batch_size
        stems = tuple(pair.stem for pair in itertools.islice(list_pairs(config.data), wanted))
        if len(stems) < wanted:
            raise SkippedError(f"{wanted} training images are needed and {len(stems)} were carried")
        few = (dataclasses.replace(config.data[0], stems=stems),)  # no more are decoded
        with contextlib.suppress(_EnoughError):
            make = functools.partial(network_of, bases=bases)
            train(dataclasses.replace(config, data=few), network=make, on_step=watch)
        rate = config.batch_size * watch.timed / watch.seconds
        parts = parts_of(watch.profiler.events(), watch.profiled, dry=context.dry)
        out.row(
            f"Training steps, {config.batch_size} images of {config.image_size_hw}, {config.precision}",
            {"network": network, "KAN bases": bases, "deterministic": deterministic,
             "workers": config.workers, "images a second": round(rate, 1),
             "ms": round(1e3 * watch.seconds / watch.timed, 2),
             **{name.replace("_", ", "): round(value, 2) for name, value in parts.items()}},
        )  # fmt: skip
        key = f"{network}.{bases}"
        if rate > context.figures().get(f"{key}.images_per_s", 0.0):
            for name, value in {"images_per_s": rate, **parts}.items():
                out.figure(f"{key}.{name}", value)


def train_nano(context: Context, out: Recorder) -> None:
    """Train `nano` for as long as the step may take, and evaluate it.

    Raises:
        SkippedError: there was no time for one epoch.
    """
    minutes, epochs, figures = max(0.2, (context.seconds - JUDGING_S) / 60), 1, context.figures()
    fields = {**RECIPES["long"], "max_minutes": minutes, "deterministic": False}
    folder = context.work / "run"
    config = config_of(context, "nano", out_dir=folder, **fields)
    if not context.dry:  # as many as fit, so that the learning rate comes down in time
        rate = max(figures.get(f"nano.{bases}.images_per_s", 100.0) for bases in ("eager", "fused"))
        epochs = max(1, int(0.8 * 60 * minutes * rate / len(list_pairs(config.data))))
    tests = open_dataset(str(context.carry / "data.vmkpack")).test
    row = Row("nano", folder, dataclasses.replace(config, epochs=epochs), tests)
    document = run_row(row, lambda line: print(line, flush=True))
    if document is None:
        raise SkippedError(f"no epoch was done in {minutes:.1f} minutes")
    run, data = document["run"], (read_carried(context.carry) or {}).get("data")
    dice = {f"Dice on {name}": test["resolutions"]["native"]["per_image"]["dice"]
            for name, test in document["tests"].items()}  # fmt: skip
    figures = {"images a second": run["images_per_s"], "validation Dice": run["val_dice"], **dice}
    out.row(
        f"`nano` trained from random weights on {data}",
        {"epochs": f"{run['epochs_done']} of {epochs}", "seconds": round(run["seconds"], 1),
         **{name: round(value, 4) for name, value in figures.items()}},
    )  # fmt: skip
    for path in (folder / ROW, folder / RUN / "metrics.csv", folder / RUN / "best.safetensors"):
        shutil.copyfile(path, context.results / f"nano-{path.name}")
