"""Limits on what is decoded. It imports the errors only, since commands and data sources use it."""

from __future__ import annotations

from collections.abc import Sequence

from vmkla.errors import BadInputError, UsageError

MAX_MEGAPIXELS = 150.0
"""Largest image or frame that is decoded unless the user allows more, in megapixels. Decoding it takes about
1 GB. The largest cameras give 150; a PNG of 400 kB can hold 400."""


MAX_UNREADABLE = 0.05
"""Largest share of a set's images that may be unreadable: with more, it would no longer be the named set."""
_SHOWN = 20


def check_unreadable(problems: Sequence[str], of: int, images: str, *, hint: str) -> None:
    """Reject a set with too many unreadable images.

    Args:
        problems: one line for each unreadable image.
        of: number of images that were tried or are in the set.
        images: name of the images in the message.
        hint: the command or change that fixes it.
    Raises:
        BadInputError: there are more than ``MAX_UNREADABLE`` allows.
    """
    if len(problems) > MAX_UNREADABLE * of:
        listed = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
        raise BadInputError(
            f"{len(problems)} of {of} {images} cannot be read, allowed are {MAX_UNREADABLE:.0%}; those found "
            f"so far:\n{listed}",
            hint=hint,
        )


def check_max_megapixels(value: float) -> None:
    """Reject a limit that OpenCV does not support.

    Raises:
        UsageError: it is not above 0, or above what OpenCV decodes.
    """
    if not 0 < value <= 1000:  # OpenCV's own limit is 2**30 pixels
        raise UsageError(
            f"the limit is {value:g} megapixels, expected more than 0 and at most 1000",
            hint="For instance: --max-megapixels 200",
        )
