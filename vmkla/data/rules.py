"""How files of images and masks are read, where the files do not tell. No OpenCV here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from vmkla.errors import UsageError
from vmkla.limits import MAX_MEGAPIXELS, check_max_megapixels

MaskOrientation = Literal["stored", "upright"]
"""A mask lies as its image's pixels are stored, or as the image is shown."""
Colour = tuple[int, int, int]

_GREATEST_GREY = 65535


@dataclass(frozen=True)
class MaskValues:
    """Values of a mask file that mark a lesion.

    Attributes:
        greys: ranges of grey values in the file's own depth, both ends included.
        colours: red, green and blue, 0 to 255 each.
    """

    greys: tuple[tuple[int, int], ...] = ()
    colours: tuple[Colour, ...] = ()

    @classmethod
    def parse(cls, text: str) -> MaskValues:
        """Read values with commas between them: ``100,255``, ``128-255`` or, for colours, ``ff0000,00ff00``.

        Raises:
            UsageError: a value is none of these.
        """
        greys: list[tuple[int, int]] = []
        colours: list[Colour] = []
        for word in text.split(","):
            word = word.strip()
            if match := re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", word):
                red, green, blue = (int(part, 16) for part in match.groups())
                colours.append((red, green, blue))
                continue
            match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", word, re.ASCII)
            low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not low <= high <= _GREATEST_GREY:
                raise UsageError(
                    f"{word!r} is not a value of a mask",
                    hint="Give grey values, ranges or colours: --mask-values 100,255 or 128-255 or "
                    "ff0000,00ff00",
                )
            greys.append((low, high))
        return cls(tuple(greys), tuple(colours))

    def __str__(self) -> str:
        """The text that ``parse`` reads."""
        ranges = [f"{low}" if low == high else f"{low}-{high}" for low, high in self.greys]
        return ",".join([*ranges, *("{:02x}{:02x}{:02x}".format(*colour) for colour in self.colours)])


@dataclass(frozen=True)
class ReadRules:
    """How files of images and masks are read.

    Attributes:
        max_megapixels: larger images and masks are not decoded.
        mask_values: what marks a lesion; None expects 0 and 255, and refuses a mask that holds other levels.
        mask_orientation: of masks whose image has an EXIF orientation; None expects that the sizes tell, and
            refuses a mask for which they do not.
    """

    max_megapixels: float = MAX_MEGAPIXELS
    mask_values: MaskValues | None = None
    mask_orientation: MaskOrientation | None = None

    def __post_init__(self) -> None:
        check_max_megapixels(self.max_megapixels)
        if self.mask_orientation not in (None, *get_args(MaskOrientation)):
            raise UsageError(
                f"the orientation of masks is {self.mask_orientation!r}",
                hint=f"Choose one of: {', '.join(get_args(MaskOrientation))}",
            )

    @property
    def of_masks(self) -> dict[str, str]:
        """What was declared of masks, by name; empty when nothing was."""
        declared = {"mask_values": self.mask_values, "mask_orientation": self.mask_orientation}
        return {name: str(value) for name, value in declared.items() if value is not None}
