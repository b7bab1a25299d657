"""Interlaced recordings: found by flags and content, and each frame made whole from its first field.

A frame of an interlaced recording is woven from two fields, each half of the lines and 1/50 or 1/60 s apart:
whatever moves has combed edges. FFmpeg's ``idet`` compares fields to find that, ``bwdif`` interpolates the
missing lines of a field. Telecined film is not undone (its frames repeat fields in a pattern).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import av
import av.error
from av.filter import Graph

from vmkla.errors import UsageError
from vmkla.video.media.errors import MEDIA_ERRORS
from vmkla.video.media.rgb import check_pixel_format

Deinterlace = Literal["auto", "no", "yes"]
DEINTERLACE: tuple[str, ...] = get_args(Deinterlace)
FieldOrder = Literal["top first", "bottom first"]

PROBE_FRAMES, PROBE_STILL_FRAMES = 300, 3000
"""So many frames are looked through at most, to decide; so many while nothing moves in them (a title)."""
_ENOUGH, _CLEAR = 50, 0.8
"""So many frames with a verdict end the look, when this share of them agrees."""
_FEWEST, _FEWEST_AGREED = 10, 3
"""With fewer frames with a verdict, or fewer that all agree and are most frames of a short clip, the flags
decide and not the content."""
WATCH_FRAMES = 100
"""While frames are left as they are, the content is looked at again over each so many frames."""
_THREADS = 2
_DONE = (av.error.BlockingIOError, av.error.EOFError)


def check_deinterlace(value: str) -> None:
    """Refuse anything but ``"auto"``, ``"no"`` and ``"yes"``.

    Raises:
        UsageError: it is another word.
    """
    if value not in DEINTERLACE:
        raise UsageError(
            f"deinterlace {value!r} is not known", hint=f"Choose one of: {', '.join(DEINTERLACE)}"
        )


@dataclass
class FieldVotes:
    """What the content of some frames looks like; frames without motion have no verdict.

    Attributes:
        top_first, bottom_first: frames that look woven, the upper or the lower field the earlier one.
        progressive: frames that look whole.
        frames: all frames looked at.
        flagged: frames that the decoder calls interlaced.
    """

    top_first: int = 0
    bottom_first: int = 0
    progressive: int = 0
    frames: int = 0
    flagged: int = 0

    @property
    def decided(self) -> int:
        """Frames with a verdict."""
        return self.top_first + self.bottom_first + self.progressive

    @property
    def woven(self) -> bool:
        """More than half of the frames with a verdict look woven in one and the same field order.

        Noise in a still picture looks woven now and then, in both orders alike.
        """
        return 2 * max(self.top_first, self.bottom_first) > self.decided

    @property
    def order(self) -> FieldOrder:
        """The more frequent field order."""
        return "top first" if self.top_first >= self.bottom_first else "bottom first"

    @property
    def known(self) -> bool:
        """The content decides."""
        agreed = self._most == self.decided >= _FEWEST_AGREED and 2 * self.decided > self.frames
        return self.decided >= _FEWEST or agreed

    @property
    def clear(self) -> bool:
        """No more frames are needed."""
        return self.decided >= _ENOUGH and self._most >= _CLEAR * self.decided

    @property
    def _most(self) -> int:
        return max(self.top_first, self.bottom_first, self.progressive)


@dataclass(frozen=True)
class FieldDecision:
    """What is done with the fields of a recording.

    Attributes:
        deinterlace: the second field of each frame is replaced.
        because: ``"asked"``, ``"content"`` or ``"flags"``.
        order: the first field; None leaves it to the flags of each frame.
        votes: what was seen; empty when nobody looked.
    """

    deinterlace: bool
    because: Literal["asked", "content", "flags"]
    order: FieldOrder | None
    votes: FieldVotes

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the report."""
        looked = {**vars(self.votes)}
        return {"deinterlaced": self.deinterlace, "because": self.because, "order": self.order, **looked}

    def note(self) -> str:
        """What the user should know; empty when all is as usual."""
        votes = self.votes
        flags = f"{votes.flagged} of {votes.frames} frames are flagged so"
        look = f"{max(votes.top_first, votes.bottom_first)} of {votes.decided} frames with motion look so"
        if self.deinterlace and self.because == "asked":
            return "the frames were deinterlaced, as asked"
        if self.deinterlace:
            seen = flags if self.because == "flags" else f"{look}, {flags}"
            return (
                f"the recording is interlaced ({seen}): the lines of each frame's second field were "
                "interpolated (bwdif); --deinterlace no leaves frames as they are"
            )
        if self.because == "content" and 2 * votes.flagged > votes.frames:
            return (
                f"the frames are flagged as interlaced, but look progressive ({look}), and were left as they "
                "are; --deinterlace yes interpolates them"
            )
        return ""


def decide(wanted: Deinterlace, votes: FieldVotes) -> FieldDecision:
    """What to do with a recording.

    Args:
        wanted: what was asked for.
        votes: of its first frames.
    """
    if wanted == "no":
        return FieldDecision(False, "asked", None, votes)
    order = votes.order if votes.known and votes.woven else None
    if wanted == "yes":
        return FieldDecision(True, "asked", order, votes)
    if votes.known:
        return FieldDecision(votes.woven, "content", order, votes)
    return FieldDecision(2 * votes.flagged > votes.frames, "flags", None, votes)


class FieldDetector:
    """Looks at frames with FFmpeg's ``idet``, and leaves them as they are.

    Attributes:
        votes: what was seen since ``reset``.
    """

    def __init__(self) -> None:
        self.votes = FieldVotes()
        self._graph = _Graph()
        self._sinks: dict[str, Any] = {}

    def reset(self) -> None:
        """Count anew."""
        self.votes = FieldVotes()

    def see(self, frame: Any) -> None:
        """Look at the next frame. The verdict on it comes with the one after it."""
        self.votes.frames += 1
        self.votes.flagged += bool(frame.interlaced_frame)
        try:
            if self._graph.begin(frame):
                self._build()
            self._graph.push(frame, self.votes.frames)
            for name, sink in self._sinks.items():
                count = sum(1 for _ in _pulled(sink))
                setattr(self.votes, name, getattr(self.votes, name) + count)
        except MEDIA_ERRORS:
            return  # a pixel format that the filter has no path to: the flags decide

    def _build(self) -> None:
        graph, source = self._graph.graph, self._graph.source
        detect, split = graph.add("idet"), graph.add("split", "3")
        source.link_to(detect)
        detect.link_to(split)
        verdicts = {"top_first": "tff", "bottom_first": "bff", "progressive": "progressive"}
        self._sinks = {}
        for output, (name, value) in enumerate(verdicts.items()):
            # Up to PyAV 15 a frame does not show its metadata; a filter that passes one verdict does.
            chosen = graph.add("metadata", f"mode=select:key=lavfi.idet.single.current_frame:value={value}")
            sink = self._sinks[name] = graph.add("buffersink")
            split.link_to(chosen, output, 0)
            chosen.link_to(sink)
        graph.configure()


class Deinterlacer:
    """Makes frames whole with FFmpeg's ``bwdif``: one frame out per frame in, in order.

    Args:
        order: the first field; None takes each frame's flag, and the upper one where there is none.
    """

    def __init__(self, order: FieldOrder | None) -> None:
        parity = {"top first": "tff", "bottom first": "bff", None: "auto"}[order]
        # ``deint=interlaced`` would leave frames without a flag as they are.
        self._settings = f"mode=send_frame:parity={parity}:deint=all"
        self._graph = _Graph()
        self._sink: Any = None
        self._waiting: deque[tuple[int, Any]] = deque()

    def frames(self, decoded: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Pairs of a decoded frame, which keeps its time stamp and flags, and the frame made whole.

        Args:
            decoded: PyAV's frames.
        """
        for number, frame in enumerate(decoded):
            if self._graph.is_other(frame):
                yield from self._rest()
            if self._graph.begin(frame):
                self._build()
            self._waiting.append((number, frame))
            self._graph.push(frame, number)
            yield from self._made()
        yield from self._rest()

    def _build(self) -> None:
        graph = self._graph.graph
        whole, self._sink = graph.add("bwdif", self._settings), graph.add("buffersink")
        self._graph.source.link_to(whole)
        whole.link_to(self._sink)
        graph.configure()

    def _made(self) -> Iterator[tuple[Any, Any]]:
        for frame in _pulled(self._sink):
            # The filter counts in a time base of its own: twice as fine, since it could make two of one.
            made = round(frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator))
            number, source = self._waiting.popleft()
            if made != number:
                raise RuntimeError(f"bwdif gave frame {made} for frame {number}")
            if frame.format.name != source.format.name:
                frame.colorspace, frame.color_range = source.colorspace, source.color_range
            yield source, frame

    def _rest(self) -> Iterator[tuple[Any, Any]]:
        """What the filter still holds: it gives a frame only when it has seen the next one."""
        if self._sink is not None:
            self._graph.source.push(None)
            yield from self._made()
            self._sink = None
            self._graph.end()
        if self._waiting:
            raise RuntimeError(f"bwdif kept {len(self._waiting)} frames")


class _Graph:
    """A filter graph's beginning, for frames of one size and pixel format; times are numbers of frames."""

    def __init__(self) -> None:
        self.graph: Any = None
        self.source: Any = None
        self._kind: tuple[int, int, str] | None = None

    def is_other(self, frame: Any) -> bool:
        """The frame does not fit the graph that there is."""
        return self._kind is not None and self._kind != _kind(frame)

    def begin(self, frame: Any) -> bool:
        """Make a graph when there is none that the frame fits; True when one was made.

        Raises:
            ValueError: FFmpeg would end the process at this pixel format.
        """
        if self._kind == _kind(frame):
            return False
        check_pixel_format(frame)
        self._kind = _kind(frame)
        self.graph = Graph()
        if hasattr(self.graph, "threads"):  # PyAV 18 and newer; before, as many as there are cores
            self.graph.threads = _THREADS
        self.source = self.graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
        )
        return True

    def push(self, frame: Any, number: int) -> None:
        """Hand a frame over; it keeps its own time."""
        own = frame.pts, frame.time_base
        frame.pts, frame.time_base = number, Fraction(1)
        try:
            self.source.push(frame)
        finally:
            frame.pts = own[0]
            if own[1] is not None:
                frame.time_base = own[1]

    def end(self) -> None:
        """The next frame gets a new graph."""
        self._kind = None


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _pulled(sink: Any) -> Iterator[Any]:
    while True:
        try:
            frame = sink.pull()
        except _DONE:
            return
        yield frame
