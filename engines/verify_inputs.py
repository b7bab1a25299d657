"""What is compared on: labelled images, or pictures without truth; what becomes of unreadable ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vmkla.engines.verify_frame import VerifyFrame
from vmkla.errors import BadInputError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.names import Names
from vmkla.video.images import read_image
from vmkla.video.naming import name_source
from vmkla.video.sources import ImageItem, ImageSource, open_source

if TYPE_CHECKING:
    from vmkla.data.sources import Pair

MAX_UNREADABLE = 0.05
"""Share of the images that may be unreadable: what is left would no longer be the set that was named."""
SHOWN_PROBLEMS = 10

Item = TypeVar("Item")


class VerifyInputs:
    """Frames of one set, read once.

    Args:
        frames: given a list for what cannot be read, reads the rest.
        total: how many there are; None when only reading tells.
        names: for messages and the report.
    """

    def __init__(
        self, frames: Callable[[list[str]], Iterator[VerifyFrame]], total: int | None, names: Names
    ) -> None:
        self._frames = frames
        self.names = names
        self.total = total
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[VerifyFrame]:
        self.problems.clear()
        return self._frames(self.problems)


def labelled_inputs(pairs: Sequence[Pair], *, names: Names | None = None, stride: int = 1) -> VerifyInputs:
    """Images with masks.

    Args:
        pairs: what ``vmkla.data.list_pairs`` found.
        names: of the pairs, see ``vmkla.data.naming``.
        stride: every how many-th is taken.
    """
    chosen, shown = pairs[::stride], names or Names({})

    def read(pair: Pair) -> VerifyFrame:
        sample = pair.read(pair)
        return VerifyFrame(sample.name, sample.image_rgb, sample.mask, sample.prepared)

    return VerifyInputs(lambda problems: _readable(chosen, read, problems, shown), len(chosen), shown)


def unlabelled_inputs(
    what: str | Path,
    *,
    stride: int = 1,
    anonymous: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> VerifyInputs:
    """Pictures without truth.

    Args:
        what: a video, an image, a folder, or a glob of images.
        stride: every how many-th is taken.
        anonymous: see ``name_source``.
        max_megapixels: larger images and frames are not decoded.
    Raises:
        BadInputError: there is nothing of the kind.
    """
    named = name_source(open_source(what, max_megapixels=max_megapixels), anonymous=anonymous)
    source = named.source
    if isinstance(source, ImageSource):
        items = source.items[::stride]
        left_out = [f"{problem.where}: {problem.what}" for problem in source.left_out]

        def read(item: ImageItem) -> VerifyFrame:
            return VerifyFrame(item.name, read_image(item.path, max_megapixels=max_megapixels))

        def readable(problems: list[str]) -> Iterator[VerifyFrame]:
            problems.extend(left_out)
            return _readable(items, read, problems, named.names)

        return VerifyInputs(readable, len(items), named.names)

    def decoded(problems: list[str]) -> Iterator[VerifyFrame]:
        for frame in source.frames():
            if frame.index % stride == 0:
                yield VerifyFrame(f"{named.label} frame {frame.index}", frame.rgb)
        problems.extend(named.names.hide(f"{problem.where}: {problem.what}") for problem in source.problems)

    return VerifyInputs(decoded, None, named.names)


def _readable(
    items: Sequence[Item], read: Callable[[Item], VerifyFrame], problems: list[str], names: Names
) -> Iterator[VerifyFrame]:
    """What can be read of some images.

    Raises:
        BadInputError: more cannot be read than ``MAX_UNREADABLE`` allows.
    """
    for item in items:
        try:
            frame = read(item)
        except BadInputError as error:
            problems.append(names.hide(error.message))
            if len(problems) > MAX_UNREADABLE * len(items):
                listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])
                raise BadInputError(
                    f"{len(problems)} of {len(items)} images cannot be read, allowed are "
                    f"{MAX_UNREADABLE:.0%}; those found so far:\n{listed}",
                    hint="Mend or remove them. For labelled images: vmkla data check --data DIR",
                ) from error
            continue
        yield frame
