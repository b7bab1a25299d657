"""The network's configuration and its named presets, without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vmkla.errors import ShapeError, UsageError
from vmkla.plain_values import from_plain

DecoderBlock = Literal["mkcsa", "mkla", "csa", "mlla", "mlcsa", "ss2d"]
DECODER_BLOCKS: tuple[str, ...] = get_args(DecoderBlock)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of the input's red, green and blue on a scale of 0 to 1: the network takes
``(rgb / 255 - IMAGENET_MEAN) / IMAGENET_STD``."""


LARGEST = 4096
"""Largest value of each count and width: a file with a larger one is damaged, and would take all memory."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the network's parameters and arithmetic.

    Attributes:
        name: name of the preset that it is based on, or one that the user chose.
        dim: channels of the first stage; they double at each of the four stages.
        encoder_depths: VSS blocks per stage, shallow to deep.
        decoder_depths: decoder blocks per stage, deep to shallow.
        decoder_block: kind of the decoder's blocks (the paper's Tables 9 and 10).
        num_classes: output channels; 1 means a sigmoid, more a softmax with class 0 the background.
        d_state: states n of the selective scan, per channel.
        expand: width d of the scan over the block's width.
        patch: side of the patch that becomes one token, in pixels.
        head_dim: channels per head of the linear attention (fewer when the block is narrower).
        kan_hidden: hidden width of the two-layer KAN that makes Q and K.
        grid_size, spline_order: G and k of the KAN's B-splines.
        mlp_ratio: hidden width of the decoder's MLP over the block's width.
        drop_path: largest rate of stochastic depth, 0 to 1; it grows linearly over the encoder's blocks.
    """

    name: str = "custom"
    dim: int = 96
    encoder_depths: tuple[int, int, int, int] = (2, 2, 9, 2)
    decoder_depths: tuple[int, int, int, int] = (2, 2, 2, 1)
    decoder_block: DecoderBlock = "mkcsa"
    num_classes: int = 1
    d_state: int = 16
    expand: int = 2
    patch: int = 4
    head_dim: int = 32
    kan_hidden: int = 64
    grid_size: int = 5
    spline_order: int = 3
    mlp_ratio: int = 4
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.decoder_block not in DECODER_BLOCKS:
            raise UsageError(
                f"decoder_block {self.decoder_block!r} is not known",
                hint=f"Choose one of: {', '.join(DECODER_BLOCKS)}",
            )
        for field in ("encoder_depths", "decoder_depths"):
            depths = tuple(getattr(self, field))
            object.__setattr__(self, field, depths)
            if len(depths) != 4 or not all(1 <= depth <= LARGEST for depth in depths):
                raise UsageError(f"{field} must be four counts from 1 to {LARGEST}, got {depths}")
        for field in ("dim", "num_classes", "d_state", "expand", "patch", "head_dim", "kan_hidden",
                      "grid_size", "spline_order", "mlp_ratio"):  # fmt: skip
            if not 1 <= getattr(self, field) <= LARGEST:
                raise UsageError(f"{field} must be from 1 to {LARGEST}, got {getattr(self, field)}")
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"drop_path must be in 0 <= x < 1, got {self.drop_path}")

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """Channels of the four stages, shallow to deep."""
        return (self.dim, 2 * self.dim, 4 * self.dim, 8 * self.dim)

    @property
    def multiple_px(self) -> int:
        """Input height and width must be multiples of this: patch, then three halvings."""
        return self.patch * 8

    def check_input(self, height: int, width: int) -> None:
        """Reject an input size that the network does not take; the message names the padded size.

        Raises:
            ShapeError: height or width is not a positive multiple of ``multiple_px``.
        """
        m = self.multiple_px
        if height < m or width < m or height % m or width % m:
            padded = (max(m, -(-height // m) * m), max(m, -(-width // m) * m))
            raise ShapeError(
                f"input is {height}x{width} (height x width), and both must be multiples of {m}",
                hint=f"Pad or resize to {padded[0]}x{padded[1]}.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of ``to_dict``.

        Raises:
            UsageError: a key is not a field of this version, or a value is of another type or makes no sense.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise UsageError(
                f"model configuration has unknown fields: {', '.join(unknown)}",
                hint="The file was written by another version of vmkla: pip install -U vmkla",
            )
        try:
            made: ModelConfig = from_plain(cls, values, "the model configuration")
        except TypeError as error:
            raise UsageError(f"model configuration is damaged: {error}") from error
        return made


PRESETS: dict[str, ModelConfig] = {
    preset.name: preset
    for preset in (
        ModelConfig("small", dim=96, encoder_depths=(2, 2, 9, 2)),
        ModelConfig("tiny", dim=96, encoder_depths=(2, 2, 2, 2)),
        ModelConfig("large", dim=96, encoder_depths=(2, 2, 27, 2)),
        ModelConfig("nano", dim=32, encoder_depths=(2, 2, 2, 2), decoder_depths=(1, 1, 1, 1)),
    )
}


def get_preset(name: str, **changes: Any) -> ModelConfig:
    """Return a named preset, with some fields replaced.

    Raises:
        UsageError: there is no preset of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}", hint=f"Choose one of: {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **changes)
