"""The traced module: from frames to probabilities, rewritten for runtimes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmkla.export.form import GraphForm
from vmkla.export.rewrites import Float32Norm, rewrite
from vmkla.metadata import InputType
from vmkla.models.attention import LinearAttention
from vmkla.models.vmkla_unet import VMKLAUNet

INPUT = "frames"
OUTPUT = "probability"


class ExportModule(nn.Module):
    """The function of the ONNX graph, which takes the names of its modules.

    It computes what ``FramesToProbability`` does. The first op on uint8 frames is a Cast, as TensorRT
    requires. In half precision the graph states every type: products, convolutions and norms are half; means,
    the normaliser of linear attention and the sigmoid or softmax at the end are float32, and so are the
    parameters of the scan and the knots of the splines.

    Args:
        model: the network, float32; it is not changed.
        form: form of the graph.
    """

    def __init__(self, model: VMKLAUNet, form: GraphForm) -> None:
        super().__init__()
        self.num_classes = model.config.num_classes
        half = form.precision == "fp16"
        self.element = torch.float16 if half else torch.float32
        self.model = rewrite(
            model, half=half, channels_first=form.input_type == "float32", wide_scans=form.wide_scans
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 or (n, 3, H, W) float32 RGB -> (n, classes, H, W) float32."""
        logits = self.model.head(self.model.decoder(self.model.encoder(frames.to(self.element))))
        logits = logits.to(torch.float32)
        return torch.sigmoid(logits) if self.num_classes == 1 else torch.softmax(logits, dim=1)

    def widened(self) -> ExportModule:
        """Convert the module to float32 arithmetic with half weights and tables, and return it."""
        self.float()
        self.element = torch.float32
        for module in self.modules():
            if isinstance(module, Float32Norm):
                module.result = torch.float32
            elif isinstance(module, LinearAttention):
                module.table_type = torch.float16
        return self


def example_frames(batch: int, height: int, width: int, input_type: InputType = "uint8") -> Tensor:
    """Make random frames to trace with, of the shape and type of ``ExportModule``'s input."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    return frames if input_type == "uint8" else frames.permute(0, 3, 1, 2).float().contiguous()
