"""What fixes a training run. No torch here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.config import ModelConfig, get_preset
from vmkla.data.augment import AugmentConfig
from vmkla.data.sources import DataSource
from vmkla.errors import UsageError

MAY_CHANGE_ON_RESUME = frozenset(
    {
        "epochs",
        "threads",
        "workers",
        "max_minutes",
        "save_minutes",
        "resume",
        "out_dir",
        "curves",
        "tensorboard",
    }
)
"""Fields that a resumed run may change; every other one would make another run of it.

``epochs`` may change unless the cosine spans the whole run (``t_max_epochs`` 0)."""

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that fixes a training run. The defaults are the paper's recipe.

    Attributes:
        out_dir: folder of the run; made when missing.
        data: training sets.
        val: validation sets; the best weights are chosen on them.
        model: a preset's name or a configuration. Several classes are trained with cross-entropy and Dice
            over all of them, one with its binary form.
        class_names: one per output channel; None names them ``polyp``, or ``background`` and ``class 1`` on.
        image_size_hw: height and width of the network's input, px.
        roi: field of view cut out of every image first, ``"none"`` or ``"auto"``.
        rendered: rendered frames added to the training set, made once a run.
        quiet_share: of every batch, the images without a lesion: those of the set, and polyp-free windows of
            the others; see ``vmkla.data.draws``. 0 adds no windows and draws all images alike.
        teacher: packed file with a teacher's soft masks, see ``vmkla.data.teacher``; for one class.
        teacher_weight: of those masks beside the true ones, more than 0 to 1.
        epochs: passes over the training set.
        batch_size: images per step over all processes; the last, smaller batch of an epoch is left out.
        lr: learning rate of AdamW after the warm-up.
        min_lr: lowest point of the cosine.
        weight_decay: of AdamW, on weights with two dimensions or more.
        t_max_epochs: epochs from the cosine's top to its bottom; 0 means the whole run. With 50
            over 300 epochs the rate swings up and down three times, as in the paper's code.
        warmup_epochs: epochs of linear warm-up before the cosine; may be a fraction.
        ema_decay: decay per step of the averaged weights, which are validated and saved; 0 is off.
        grad_clip: largest norm of the gradient; 0 is off.
        ce_weight, dice_weight: the two parts of the loss, cross-entropy (binary for one class) and Dice.
        augment: strengths of the augmentation; the paper's are flips, rotation and crop.
        seed: of the weights, the order, the augmentation and the rendered frames.
        threads: CPU threads for torch; None leaves torch's own choice, within the quota of this process.
        workers: processes that augment for each training process; 0 augments in a thread of the process
            itself. None is 0 on a CPU, and on a GPU's machine one per CPU but one, at most 16. The results
            are the same.
        backend: of the ops, see ``vmkla.ops``.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` for autocast in the network, the latter with a
            scaled loss; the scan, weights, loss and validation stay float32.
        channels_last: keep the weights of convolutions channels-last in memory, as the images are.
        deterministic: equal runs give equal results, bit for bit on a CPU; on a GPU as far as its ops allow.
        device: where the network runs, for instance ``"cpu"`` or ``"cuda:0"``; of several processes each
            takes a GPU of its own with ``"cuda"``.
        init: weights of ours (``.safetensors``) to begin from.
        init_encoder: a public VMamba checkpoint to begin the encoder from.
        resume: continue from ``out_dir/state.pt``.
        max_minutes: stop cleanly after so long; None sets no limit.
        save_minutes: the state is saved at least this often, and after every epoch.
        threshold: probability at and above which a pixel counts as polyp in validation.
        compile: run the network through ``torch.compile``.
        curves: draw ``curves.png`` after every epoch.
        tensorboard: write the figures for TensorBoard as well, where it is installed.
    """

    out_dir: Path
    data: tuple[DataSource, ...] = ()
    val: tuple[DataSource, ...] = ()
    model: str | ModelConfig = "nano"
    class_names: tuple[str, ...] | None = None
    image_size_hw: tuple[int, int] = (256, 256)
    roi: str = "none"
    rendered: int = 0
    quiet_share: float = 0.0
    teacher: Path | None = None
    teacher_weight: float = 0.5
    epochs: int = 300
    batch_size: int = 32
    lr: float = 1e-4
    min_lr: float = 1e-5
    weight_decay: float = 1e-2
    t_max_epochs: int = 50
    warmup_epochs: float = 0.0
    ema_decay: float = 0.0
    grad_clip: float = 1.0
    ce_weight: float = 1.0
    dice_weight: float = 1.0
    augment: AugmentConfig = field(default_factory=AugmentConfig.paper)
    seed: int = 0
    threads: int | None = None
    workers: int | None = None
    backend: str = "auto"
    precision: str = "fp32"
    channels_last: bool = False
    deterministic: bool = True
    device: str = "cpu"
    init: Path | None = None
    init_encoder: Path | None = None
    resume: bool = False
    max_minutes: float | None = None
    save_minutes: float = 10.0
    threshold: float = 0.5
    compile: bool = False
    curves: bool = True
    tensorboard: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", tuple(self.data))
        object.__setattr__(self, "val", tuple(self.val))
        object.__setattr__(self, "image_size_hw", tuple(self.image_size_hw))
        self.model_config.check_input(*self.image_size_hw)
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
        if len(self.names_of_classes) != self.model_config.num_classes:
            raise UsageError(
                f"{len(self.names_of_classes)} class names ({', '.join(self.names_of_classes)}) for "
                f"{self.model_config.num_classes} output channels"
            )
        if self.roi not in ("none", "auto"):
            raise UsageError(f"roi is {self.roi!r}, expected 'none' or 'auto'")
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "save_minutes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("rendered", "weight_decay", "t_max_epochs", "warmup_epochs", "grad_clip", "seed",
                     "ce_weight", "dice_weight", "min_lr", "workers"):  # fmt: skip
            if not (getattr(self, name) or 0) >= 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.ce_weight + self.dice_weight == 0:
            raise UsageError("ce_weight and dice_weight are both 0: there is no loss left")
        if self.min_lr > self.lr:
            raise UsageError(f"min_lr {self.min_lr} is above lr {self.lr}")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay must be in 0 <= x < 1, got {self.ema_decay}")
        if not 0 <= self.quiet_share < 1:
            raise UsageError(f"quiet_share must be in 0 <= x < 1, got {self.quiet_share}")
        if not 0 < self.teacher_weight <= 1:
            raise UsageError(f"teacher_weight must be in 0 < x <= 1, got {self.teacher_weight}")
        if self.teacher is not None and not self.data:
            raise UsageError(
                "a teacher's masks need the images that they are of", hint="Give --data as well."
            )
        if not 0 < self.threshold < 1:
            raise UsageError(f"threshold must be between 0 and 1, got {self.threshold}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, got {self.threads}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise UsageError(f"max_minutes must be above 0, got {self.max_minutes}")
        if self.init is not None and self.init_encoder is not None:
            raise UsageError("init and init_encoder are both given; choose one")

    @property
    def model_config(self) -> ModelConfig:
        """The network's configuration, its preset resolved."""
        return get_preset(self.model) if isinstance(self.model, str) else self.model

    @property
    def names_of_classes(self) -> tuple[str, ...]:
        """One name per output channel."""
        if self.class_names is not None:
            return self.class_names
        count = self.model_config.num_classes
        return ("polyp",) if count == 1 else ("background", *(f"class {c}" for c in range(1, count)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["model"] = self.model_config.to_dict()
        values["data"] = [str(source) for source in self.data]
        values["val"] = [str(source) for source in self.val]
        values["augment"] = dataclasses.asdict(self.augment)
        values["image_size_hw"] = list(self.image_size_hw)
        values["class_names"] = list(self.names_of_classes)
        for name in ("out_dir", "init", "init_encoder", "teacher"):
            values[name] = None if values[name] is None else str(values[name])
        return values


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to.

    Attributes:
        epoch: from 1.
        epochs: of the whole run.
        lr: learning rate at the epoch's last step.
        train_loss: mean loss over the epoch's steps.
        val_loss: mean loss over the validation images.
        val_dice, val_iou: per-image means at the network's resolution, 0 to 1; of several classes, see
            ``vmkla.training.validation.Scores``.
        best: these weights are the best so far.
        seconds: wall time of the epoch, validation included.
        images_per_s: training images per second.
    """

    epoch: int
    epochs: int
    lr: float
    train_loss: float
    val_loss: float
    val_dice: float
    val_iou: float
    best: bool
    seconds: float
    images_per_s: float


@dataclass(frozen=True)
class StepReport:
    """Where a run stands after a step.

    Attributes:
        epoch, epochs: current and last epoch, from 1.
        step, steps: current and last step of the epoch, from 1.
        loss: of this step.
        lr: learning rate of this step.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        best_weights: weights with the best validation Dice; None when no epoch was finished.
        last_weights: weights of the last finished epoch; None when there is none.
        best_dice: their validation Dice; NaN when there is none.
        best_epoch: the epoch they are from; 0 when there is none.
        epochs_done: finished epochs.
        finished: all epochs were run; False when ``max_minutes`` came first.
        history: every finished epoch.
    """

    best_weights: Path | None
    last_weights: Path | None
    best_dice: float
    best_epoch: int
    epochs_done: int
    finished: bool
    history: tuple[EpochReport, ...]
