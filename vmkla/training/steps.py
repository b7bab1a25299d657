"""One step of training: forward, loss, backward, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vmkla.training.config import TrainConfig
from vmkla.training.losses import foreground, quiet_loss, segmentation_loss
from vmkla.training.processes import Processes, naming_lost_processes

NO_DECAY = ("A_log", "D", "delta_bias")
"""Parameters of the recurrence: pulling them towards 0 changes its time scales, not its size."""
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_SCALE = 1.0
"""Gradients that overflow half precision even at this scale of the loss are not due to the scale."""


class NotFiniteError(Exception):
    """The loss or its gradient is not a number, or infinite.

    Args:
        what: for the message.
        own: this process's own batch did it.
    """

    def __init__(self, what: str, *, own: bool) -> None:
        super().__init__(what)
        self.own = own


class Stepper:
    """Takes steps on a model.

    Args:
        model: the network, on its device.
        config: precision, loss, clipping, compilation.
        processes: which share the batch among them; gradients are averaged over them.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, processes: Processes) -> None:
        self.model, self.config, self.processes = model, config, processes
        self.forward: Callable[[Tensor], Tensor] = processes.wrap(model)
        if config.compile:
            self.forward = torch.compile(self.forward)
        self.optimizer = make_optimizer(model, config.weight_decay)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=config.precision == "fp16")

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss in float32, as in validation; a quiet share adds ``quiet_loss``."""
        config, logits = self.config, logits.float()
        loss = segmentation_loss(logits, target, ce_weight=config.ce_weight, dice_weight=config.dice_weight)
        return loss + quiet_loss(logits, target) if config.quiet_share else loss

    def take(self, pixels: Tensor, target: Tensor, lr: float) -> Tensor:
        """Take one step. The host waits for nothing that the device computes.

        Where the loss or its gradient is not finite, the device leaves weights and moments as they are.

        Args:
            pixels, target: this process's share of the batch, see ``Inputs``.
            lr: learning rate.
        Returns:
            (3,) float32 on the device, for ``judge``: the loss of this process's share, the norm of the
            gradient and the scale of the loss. With a quiet share (3 + b,): then the share of pixels that
            was marked in each image.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        dtype = AUTOCAST[self.config.precision]
        with naming_lost_processes():  # a wrapped model talks in its forward and its backward
            with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
                logits = self.forward(pixels)
            loss = self.loss(logits, target)
            value = loss.detach()
            # A factor of 1, or NaN where the loss is not finite: then no process has a finite gradient.
            whole = loss * (value * 0 + 1)
            self.scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
        values = self._update(value)
        if not self.config.quiet_share:
            return values
        marked = (foreground(logits.detach()) >= 0).flatten(1).float().mean(1)
        return torch.cat([values, marked])

    def _update(self, loss: Tensor) -> Tensor:
        """Clip and step. In half precision a gradient that overflows is left out, and the scale falls."""
        self.scaler.unscale_(self.optimizer)
        scale = self.scaler.scale(torch.ones_like(loss))
        limit = self.config.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)
        if not self.scaler.is_enabled():
            # The fused optimizer reads this on the device and then changes nothing; a scaler sets its own.
            self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack([loss, norm, scale])

    def judge(self, values: Sequence[float]) -> float:
        """Return the loss of a step that was taken, and raise where training must end with it.

        Args:
            values: what ``take`` returned, on the host.
        Returns:
            The loss, its mean over all processes.
        Raises:
            NotFiniteError: on all processes alike. The weights before that step are still there when no
                other was taken since.
        """
        own, norm, scale = values[:3]
        loss = self.processes.mean(own)
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}", own=not math.isfinite(own))
        if not math.isfinite(norm) and not scale > SMALLEST_SCALE:
            raise NotFiniteError(f"the loss is {loss} and the norm of its gradient {norm}", own=True)
        return loss

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on beside the model."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; norms, biases and the recurrence's parameters are not decayed. The rate is set per step."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in NO_DECAY
        (kept if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)
