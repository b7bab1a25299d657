"""The network from uint8 frames to probabilities, for the export and the PyTorch runner."""

from __future__ import annotations

import hashlib
import re

import torch
from torch import Tensor, nn

from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.errors import MissingDependencyError, UsageError


class FramesToProbability(nn.Module):
    """Normalisation, network, and sigmoid or softmax in one module.

    Args:
        model: (n, 3, H, W) normalised image -> (n, classes, H, W) logits, float32 or float16.
        num_classes: output channels; 1 means a sigmoid, more a softmax over the classes.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.model, self.num_classes = model, num_classes
        std = torch.tensor(IMAGENET_STD, dtype=torch.float64)
        mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
        # (x / 255 - mean) / std = x scale + shift
        self.register_buffer("scale", (1.0 / (255.0 * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 RGB -> (n, classes, H, W) float32 probability."""
        return self.probability(self.model(self.normalised(frames)))

    def normalised(self, frames: Tensor) -> Tensor:
        """Normalise frames: (n, H, W, 3) uint8 RGB -> (n, 3, H, W), in the type of the network."""
        x = frames.to(torch.float32) * self.scale.float() + self.shift.float()
        return x.permute(0, 3, 1, 2).to(self.scale.dtype)

    def probability(self, logits: Tensor) -> Tensor:
        """Convert (n, classes, H, W) logits to float32 probabilities of the same shape."""
        logits = logits.float()
        return torch.sigmoid(logits) if self.num_classes == 1 else torch.softmax(logits, dim=1)


def check_device(device: str) -> None:
    """Reject a device that torch does not have here, before anything is moved to it.

    Raises:
        UsageError: it is neither ``"cpu"`` nor a GPU's name.
        MissingDependencyError: there is no such GPU.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"device is {device!r}, expected cpu, cuda or cuda:N")
    if device != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise MissingDependencyError(
            f"device {device} was asked for, and torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} GPUs",
            hint="Use --device cpu, or under torchrun no more processes than GPUs.",
        )


def weights_sha256(model: nn.Module) -> str:
    """Hash the weights' bytes in float32, in the order of their names, whatever type they have."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
