"""Limits on what is decoded. No import beyond the errors: commands and data sources state them too."""

from __future__ import annotations

from collections.abc import Sequence

from vmkla.errors import BadInputError, UsageError

MAX_MEGAPIXELS = 150.0
"""Largest image or frame that is decoded, unless the user allows more: it takes about 1 GB. The largest
cameras give 150; a PNG of 400 kB can hold 400."""


MAX_UNREADABLE = 0.05
"""Share of a set's images that may be unreadable: what is left would no longer be the set that was named."""
_SHOWN = 20


def check_unreadable(problems: Sequence[str], of: int, images: str, *, hint: str) -> None:
    """Refuse a set of which too many images cannot be read.

    Args:
        problems: one for each such image.
        of: how many images were tried, or are in the set.
        images: what the message calls them.
        hint: what to do.
    Raises:
        BadInputError: they are more than ``MAX_UNREADABLE`` allows.
    """
    if len(problems) > MAX_UNREADABLE * of:
        listed = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
        raise BadInputError(
            f"{len(problems)} of {of} {images} cannot be read, allowed are {MAX_UNREADABLE:.0%}; those found "
            f"so far:\n{listed}",
            hint=hint,
        )


def check_max_megapixels(value: float) -> None:
    """Refuse a limit that makes no sense.

    Raises:
        UsageError: it is not above 0, or beyond what OpenCV decodes.
    """
    if not 0 < value <= 1000:  # OpenCV's own limit is 2**30 pixels
        raise UsageError(
            f"the limit is {value:g} megapixels, expected more than 0 and at most 1000",
            hint="For instance: --max-megapixels 200",
        )
