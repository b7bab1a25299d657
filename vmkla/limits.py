"""Limits on what is decoded. No import beyond the errors: commands and data sources state them too."""

from __future__ import annotations

from vmkla.errors import UsageError

MAX_MEGAPIXELS = 150.0
"""Largest image or frame that is decoded, unless the user allows more: it takes about 1 GB. The largest
cameras give 150; a PNG of 400 kB can hold 400."""


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
