"""The module that is traced: uint8 frames to probability, in the form that suits a runtime."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmkla.export.rewrites import rewrite
from vmkla.models.vmkla_unet import VMKLAUNet

INPUT = "frames"
OUTPUT = "probability"


class ExportModule(nn.Module):
    """What the ONNX graph computes; the names of its modules become the graph's.

    It computes what ``FramesToProbability`` does. The first thing done to the frames is a Cast, as
    TensorRT asks of an input of uint8.

    Args:
        model: the network, float32.
    """

    def __init__(self, model: VMKLAUNet) -> None:
        super().__init__()
        self.num_classes = model.config.num_classes
        self.model = rewrite(model)

    def forward(self, frames: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 RGB -> (n, classes, H, W) float32."""
        logits: Tensor = self.model.head(self.model.decoder(self.model.encoder(frames.to(torch.float32))))
        return torch.sigmoid(logits) if self.num_classes == 1 else torch.softmax(logits, dim=1)


def example_frames(batch: int, height: int, width: int) -> Tensor:
    """(batch, height, width, 3) uint8 noise to trace with."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
