"""Read the frames of a verification: labelled images, or images and videos without truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vmkla.engines.verify.frame import VerifyFrame
from vmkla.errors import BadInputError
from vmkla.limits import MAX_MEGAPIXELS, check_unreadable
from vmkla.names import Names
from vmkla.video.media.images import read_image
from vmkla.video.media.naming import name_source
from vmkla.video.media.options import ReadOptions
from vmkla.video.media.sources import ImageItem, ImageSource, open_source

if TYPE_CHECKING:
    from vmkla.data.sources import Pair

FIX = "Repair or remove them. For labelled images: vmkla data check --data DIR"

Item = TypeVar("Item")


class VerifyInputs:
    """The frames of one set, read once.

    Args:
        frames: function that reads the frames, and adds to the object's problems and notes.
        total: number of frames; None where it is known only after reading.
        names: names for messages and the report.
    Attributes:
        problems: images that could not be read so far, one sentence each.
        notes: further notes on the source.
    """

    def __init__(
        self, frames: Callable[[VerifyInputs], Iterator[VerifyFrame]], total: int | None, names: Names
    ) -> None:
        self._frames = frames
        self.names = names
        self.total = total
        self.problems: list[str] = []
        self.notes: list[str] = []

    def __iter__(self) -> Iterator[VerifyFrame]:
        self.problems.clear()
        self.notes.clear()
        return self._frames(self)

    @property
    def warnings(self) -> list[str]:
        """Notes and problems as sentences."""
        return [*self.notes, *(f"passed over: {problem}" for problem in self.problems)]


def labelled_inputs(pairs: Sequence[Pair], *, names: Names | None = None, stride: int = 1) -> VerifyInputs:
    """Read images with masks.

    Args:
        pairs: result of ``vmkla.data.list_pairs``.
        names: names of the pairs, see ``vmkla.data.naming``.
        stride: take every stride-th pair.
    """
    chosen, shown = pairs[::stride], names or Names({})

    def read(pair: Pair) -> VerifyFrame:
        sample = pair.read(pair)
        return VerifyFrame(sample.name, sample.image_rgb, sample.mask, sample.prepared)

    return VerifyInputs(lambda inputs: _readable(chosen, read, inputs), len(chosen), shown)


def unlabelled_inputs(
    what: str | Path,
    *,
    stride: int = 1,
    anonymous: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> VerifyInputs:
    """Read images or a video without truth.

    Args:
        what: a video, an image, a folder, or a glob of images.
        stride: take every stride-th frame.
        anonymous: see ``name_source``.
        max_megapixels: larger images and frames are not decoded.
    Raises:
        BadInputError: there is no such source.
    """
    named = name_source(open_source(what, ReadOptions(max_megapixels=max_megapixels)), anonymous=anonymous)
    source = named.source
    if isinstance(source, ImageSource):
        items = source.items[::stride]
        left_out = [named.names.hide(str(problem)) for problem in source.left_out]
        check_unreadable(left_out, source.named, "images", hint=FIX)

        def read(item: ImageItem) -> VerifyFrame:
            return VerifyFrame(item.name, read_image(item.path, max_megapixels=max_megapixels))

        def readable(inputs: VerifyInputs) -> Iterator[VerifyFrame]:
            inputs.problems += left_out
            return _readable(items, read, inputs)

        return VerifyInputs(readable, len(items), named.names)

    def decoded(inputs: VerifyInputs) -> Iterator[VerifyFrame]:
        for frame in source.frames():
            if frame.index % stride == 0:
                yield VerifyFrame(f"{named.label} frame {frame.index}", frame.rgb)
        hide = named.names.hide
        inputs.problems += [hide(str(problem)) for problem in source.problems]
        inputs.notes += [hide(note) for note in source.notes()]

    return VerifyInputs(decoded, None, named.names)


def _readable(
    items: Sequence[Item], read: Callable[[Item], VerifyFrame], inputs: VerifyInputs
) -> Iterator[VerifyFrame]:
    """Yield the images that can be read.

    Raises:
        BadInputError: more images are unreadable than ``MAX_UNREADABLE`` allows.
    """
    unreadable: list[str] = []
    for item in items:
        try:
            frame = read(item)
        except BadInputError as error:
            unreadable.append(inputs.names.hide(error.message))
            inputs.problems.append(unreadable[-1])
            check_unreadable(unreadable, len(items), "images", hint=FIX)
            continue
        yield frame
