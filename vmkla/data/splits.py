"""Splits by a fixed seed. Sequences stay whole; equal seeds give equal splits on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vmkla.errors import BadInputError


def split_off(
    stems: Sequence[str], groups: Sequence[str], *, share: float, seed: int
) -> tuple[list[str], list[str]]:
    """Set a share of the images aside.

    Groups are taken in the order of a hash of seed and name, so that neither the order of the files nor
    the version of a random generator matters. One that would pass the share is left where it is.

    Args:
        stems: names of the images.
        groups: of each image, the sequence that it belongs to; an empty one stands alone.
        share: how much to set aside, 0 to 1; at least one group.
        seed: of the choice.
    Returns:
        What stays, and what was set aside; both in the given order.
    Raises:
        BadInputError: all images belong to one sequence, or there is but one.
    """
    members: dict[str, list[str]] = {}
    for stem, group in zip(stems, groups, strict=True):
        members.setdefault(f"sequence {group}" if group else f"image {stem}", []).append(stem)
    if len(members) < 2:
        raise BadInputError(
            f"{len(stems)} images of one sequence cannot be split: both sides would show the same scene"
            if len(stems) > 1
            else "a single image cannot be split into two sets",
            hint="Give the sides as folders or as split files.",
        )
    wanted = max(1, round(share * len(stems)))
    order = sorted(members, key=lambda name: _digest(f"{seed}/{name}"))
    aside: set[str] = set()
    for name in order:
        if len(aside) + len(members[name]) <= wanted:
            aside.update(members[name])
    if not aside:  # every sequence is longer than the share
        aside.update(members[min(order, key=lambda name: len(members[name]))])
    return [stem for stem in stems if stem not in aside], [stem for stem in stems if stem in aside]


def _digest(text: str) -> bytes:
    """A name from the disk may be no valid Unicode."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
