"""The training loop: epochs, validation, the best weights, and a state to go on from."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.data.arrays import Batch, TrainLoader, in_batches
from vmkla.errors import BadInputError, StoppedError, UsageError, VmklaError
from vmkla.metrics import confusion, per_image
from vmkla.models.vmamba import load_vmamba_encoder
from vmkla.models.vmkla_unet import VMKLAUNet, build_model
from vmkla.preprocess import PreprocessSpec
from vmkla.training.allocation import keep_freed_memory
from vmkla.training.averaging import WeightAverage
from vmkla.training.checkpoints import load_weights, save_weights
from vmkla.training.config import EpochReport, StepReport, TrainConfig, TrainResult
from vmkla.training.losses import bce_dice_loss
from vmkla.training.records import draw_curves, write_metrics
from vmkla.training.schedules import learning_rate
from vmkla.training.sets import load_sets
from vmkla.training.state import history_from_state, history_to_state, load_state, save_state
from vmkla.training.stopping import StopFlag

logger = logging.getLogger(__name__)

STATE, BEST, LAST = "state.pt", "best.safetensors", "last.safetensors"
NO_DECAY = ("A_log", "D", "delta_bias")
"""Parameters of the recurrence: pulling them towards 0 changes its time scales, not its size."""


def train(
    config: TrainConfig,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a network.

    Writes into ``config.out_dir``: ``config.json``, ``state.pt`` (to go on from), ``best.safetensors``
    and ``last.safetensors``, ``metrics.csv``, ``curves.png``.

    Args:
        config: everything that fixes the run.
        on_epoch, on_step: called after every epoch and step.
        on_message: told in a sentence what a longer preparation does.
    Returns:
        How the run ended.
    Raises:
        BadInputError: data are missing or wrong (all problems are named at once), or files cannot be
            read or written.
        UsageError: the folder holds another run.
        StoppedError: SIGINT or SIGTERM; the state was saved.
        VmklaError: the loss is not finite; the batch was saved to ``bad_batch.npz``.
    """
    threads_before = torch.get_num_threads()
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        keep_freed_memory()
        return _Run(config, on_epoch, on_step, on_message or logger.info).go()
    finally:
        torch.set_num_threads(threads_before)


class _Run:
    """One run: what changes from step to step, and the steps."""

    def __init__(
        self,
        config: TrainConfig,
        on_epoch: Callable[[EpochReport], None] | None,
        on_step: Callable[[StepReport], None] | None,
        on_message: Callable[[str], None],
    ) -> None:
        self.config, self.flag = config, StopFlag()
        self.on_epoch, self.on_step, self.on_message = on_epoch, on_step, on_message
        self.device = torch.device(config.device)
        self.started_s = self.saved_s = time.monotonic()
        state = self._open_folder()
        self.train_set, self.val_set = load_sets(config, on_message)
        self.loader = TrainLoader(
            self.train_set,
            batch_size=config.batch_size,
            size_hw=config.image_size_hw,
            config=config.augment,
            seed=config.seed,
        )
        self.model = self._initial_model().to(self.device).train()
        self.step_model: Callable[[Tensor], Tensor] = (
            torch.compile(self.model) if config.compile else self.model
        )
        self.average = WeightAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.optimizer = make_optimizer(self.model, config.weight_decay)
        mean = 255.0 * torch.tensor(IMAGENET_MEAN, device=self.device)
        deviation = 255.0 * torch.tensor(IMAGENET_STD, device=self.device)
        self.mean, self.deviation = mean[:, None, None], deviation[:, None, None]  # (3, 1, 1)
        # Progress: finished epochs, finished steps of the current one, and its sums so far.
        self.epoch, self.step = 0, 0
        self.loss_sum, self.seconds = 0.0, 0.0
        self.history: list[EpochReport] = []
        if state is not None:
            self._restore(state)

    def go(self) -> TrainResult:
        """Run until the epochs are done or the time is up."""
        with self.flag:
            while self.epoch < self.config.epochs:
                if self._time_is_up() or not self._train_epoch():
                    self._save()
                    return self._result(finished=False)
                self._finish_epoch()
        return self._result(finished=True)

    def _open_folder(self) -> dict[str, Any] | None:
        out_dir = self.config.out_dir
        state_path = out_dir / STATE
        if self.config.resume:
            return load_state(state_path, self.config)
        if state_path.exists():
            raise UsageError(
                f"{out_dir} holds a run already ({STATE})",
                hint="Add --resume to go on with it, or choose another folder.",
            )
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.config.to_dict(), indent=2) + "\n"
            (out_dir / "config.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise BadInputError(f"{out_dir} cannot be written: {error}") from error
        return None

    def _initial_model(self) -> VMKLAUNet:
        config = self.config
        torch.manual_seed(config.seed)
        if config.init is not None:
            loaded = load_weights(config.init, backend=config.backend)
            if loaded.config != config.model_config:
                raise UsageError(
                    f"{config.init} holds another network than the one to train:\n"
                    f"  {loaded.config}\n  {config.model_config}",
                    hint="Choose the model that the weights belong to.",
                )
            return loaded.model
        model = build_model(config.model_config, config.backend)
        if config.init_encoder is not None:
            self.on_message(str(load_vmamba_encoder(model, config.init_encoder)))
        return model

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalised images (b, 3, h, w) and targets (b, 1, h, w), float32."""
        pixels = torch.from_numpy(batch.images_rgb).to(self.device).permute(0, 3, 1, 2).float()
        target = torch.from_numpy(batch.masks).to(self.device)[:, None].gt(127).float()
        return pixels.sub_(self.mean).div_(self.deviation), target

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        config = self.config
        return bce_dice_loss(logits, target, bce_weight=config.bce_weight, dice_weight=config.dice_weight)

    def _rate(self) -> float:
        config = self.config
        return learning_rate(
            self.epoch + self.step / self.loader.steps,
            lr=config.lr,
            min_lr=config.min_lr,
            t_max=config.t_max_epochs or max(config.epochs - config.warmup_epochs, 1e-9),
            warmup=config.warmup_epochs,
        )

    def _train_epoch(self) -> bool:
        """Steps of the current epoch from where it stands; False when the time is up."""
        config, steps = self.config, self.loader.steps
        self.model.train()
        batches = self.loader.epoch(self.epoch, self.step)
        try:
            before_s = time.monotonic()
            for batch in batches:
                lr = self._rate()
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                loss = self._take_step(batch)
                self.loss_sum += loss
                self.step += 1
                now_s = time.monotonic()
                self.seconds += now_s - before_s
                before_s = now_s
                if self.on_step is not None:
                    self.on_step(StepReport(self.epoch + 1, config.epochs, self.step, steps, loss, lr))
                if self.flag.signum is not None:
                    self._save()
                    raise StoppedError(
                        self.flag.signum,
                        f"training was stopped in epoch {self.epoch + 1} after step {self.step} of {steps}; "
                        f"go on with --resume ({config.out_dir / STATE})",
                    )
                if self._time_is_up() and self.step < steps:
                    return False
                if now_s - self.saved_s > 60 * config.save_minutes:
                    self._save()
        finally:
            batches.close()  # type: ignore[attr-defined]
        return True

    def _time_is_up(self) -> bool:
        limit = self.config.max_minutes
        return limit is not None and time.monotonic() - self.started_s > 60 * limit

    def _take_step(self, batch: Batch) -> float:
        pixels, target = self._inputs(batch)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits = self.step_model(pixels)
        loss = self._loss(logits.float(), target)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._refuse_batch(batch, f"the loss is {value}")
        loss.backward()  # type: ignore[no-untyped-call]
        limit = self.config.grad_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True))
        if not math.isfinite(norm):
            self._refuse_batch(batch, f"the loss is {value} and the norm of its gradient {norm}")
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return value

    def _refuse_batch(self, batch: Batch, what: str) -> None:
        path = self.config.out_dir / "bad_batch.npz"
        np.savez_compressed(path, names=np.array(batch.names), images_rgb=batch.images_rgb, masks=batch.masks)
        raise VmklaError(
            f"{what} in epoch {self.epoch + 1}, step {self.step + 1}, expected a finite number; "
            f"the batch is in {path}, and the last weights before it are kept",
            hint="Try a lower --lr, a longer --warmup-epochs or a --grad-clip.",
        )

    @property
    def _judged(self) -> VMKLAUNet:
        """The weights that are validated and saved: the average, when there is one."""
        return self.model if self.average is None else self.average.model  # type: ignore[return-value]

    @torch.no_grad()
    def _validate(self) -> tuple[float, float, float]:
        """Mean loss, and per-image mean Dice and IoU at the network's resolution."""
        model = self._judged.eval()
        limit = math.log(self.config.threshold / (1 - self.config.threshold))
        loss_sum, found = 0.0, []
        for batch in in_batches(self.val_set, self.config.batch_size):
            pixels, target = self._inputs(batch)
            logits = model(pixels)
            loss_sum += float(self._loss(logits, target)) * len(batch.names)
            predictions = (logits[:, 0] >= limit).cpu().numpy()
            found += [
                confusion(prediction, mask > 127)
                for prediction, mask in zip(predictions, batch.masks, strict=True)
            ]
        values = per_image(found)
        return loss_sum / len(self.val_set), float(values["dice"].mean()), float(values["iou"].mean())

    def _finish_epoch(self) -> None:
        begun_s = time.monotonic()
        lr = float(self.optimizer.param_groups[0]["lr"])
        val_loss, val_dice, val_iou = self._validate()
        best_before = max((report.val_dice for report in self.history), default=-1.0)
        steps = self.loader.steps
        report = EpochReport(
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            lr=lr,
            train_loss=self.loss_sum / steps,
            val_loss=val_loss,
            val_dice=val_dice,
            val_iou=val_iou,
            best=val_dice > best_before,
            seconds=self.seconds + time.monotonic() - begun_s,
            images_per_s=steps * self.config.batch_size / max(self.seconds, 1e-9),
        )
        self.history.append(report)
        self.epoch, self.step, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0
        out_dir = self.config.out_dir
        for name in (LAST, BEST) if report.best else (LAST,):
            save_weights(
                self._judged, out_dir / name, training=self._summary(report), threshold=self.config.threshold
            )
        write_metrics(out_dir / "metrics.csv", self.history)
        if self.config.curves:
            draw_curves(out_dir / "curves.png", self.history)
        self._save()
        if self.on_epoch is not None:
            self.on_epoch(report)

    def _summary(self, report: EpochReport) -> dict[str, Any]:
        """What the weights' file says of its training; no paths of this machine."""
        config = self.config
        return {
            "data": [_short(str(source)) for source in config.data],
            "val": [_short(str(source)) for source in config.val],
            "train_images": len(self.train_set) - config.rendered,
            "rendered_images": config.rendered,
            "val_images": len(self.val_set),
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

    def _save(self) -> None:
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "history": history_to_state(self.history),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_steps": 0 if self.average is None else self.average.steps,
            "train_names": list(self.train_set.names),
            "val_names": list(self.val_set.names),
        }
        save_state(self.config.out_dir / STATE, state, self.config)
        self.saved_s = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        for kind, images in (("train", self.train_set), ("val", self.val_set)):
            then = state[f"{kind}_names"]
            if then != list(images.names):
                raise UsageError(
                    f"the {kind} set has changed: {len(then)} images then, {len(images)} now, or others",
                    hint="Put the images back, or start a new run in another folder.",
                )
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.loss_sum, self.seconds = float(state["loss_sum"]), float(state["seconds"])
        self.history = history_from_state(state["history"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
            self.average.steps = int(state["average_steps"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _result(self, *, finished: bool) -> TrainResult:
        best = max(self.history, key=lambda report: report.val_dice, default=None)
        out_dir: Path = self.config.out_dir
        return TrainResult(
            best_weights=out_dir / BEST if best else None,
            last_weights=out_dir / LAST if best else None,
            best_dice=best.val_dice if best else math.nan,
            best_epoch=best.epoch if best else 0,
            epochs_done=self.epoch,
            finished=finished,
            history=tuple(self.history),
        )


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; norms, biases and the recurrence's parameters are not decayed. The rate is set per step."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in NO_DECAY
        (kept if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _short(source: str) -> str:
    """Last part of each path in ``DIR:SPLITFILE``."""
    return ":".join(Path(part).name for part in source.split(":"))
