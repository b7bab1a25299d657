"""Detect interlaced recordings by flags and content, and deinterlace each frame from its first field.

A frame of an interlaced recording is woven from two fields, each half of the lines and 1/50 or 1/60 s apart:
moving objects have combed edges. FFmpeg's ``idet`` detects them by comparing fields; ``bwdif`` interpolates
the missing lines of a field. Telecined film, whose frames repeat fields in a pattern, is not restored.
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
"""Largest number of frames analysed to decide, and the same while nothing moves in them (a title)."""
_ENOUGH, _CLEAR = 50, 0.8
"""Number of frames with a verdict that end the analysis, when this share of them agrees."""
_FEWEST, _FEWEST_AGREED = 10, 3
"""Smallest number of frames with a verdict for the content to decide and not the flags; in a short clip, the
smallest number that all agree and are most of its frames."""
WATCH_FRAMES = 100
"""Number of frames over which the content is analysed again while frames are not changed."""
_THREADS = 2
_DONE = (av.error.BlockingIOError, av.error.EOFError)


def check_deinterlace(value: str) -> None:
    """Check for ``"auto"``, ``"no"`` or ``"yes"``.

    Raises:
        UsageError: the value is another word.
    """
    if value not in DEINTERLACE:
        raise UsageError(
            f"deinterlace {value!r} is not known", hint=f"Choose one of: {', '.join(DEINTERLACE)}"
        )


@dataclass
class FieldVotes:
    """Verdicts on the content of some frames; frames without motion have none.

    Attributes:
        top_first, bottom_first: number of frames that look woven, with the upper or the lower field first.
        progressive: number of frames that look progressive.
        frames: number of all frames analysed.
        flagged: number of frames that the decoder flags as interlaced.
    """

    top_first: int = 0
    bottom_first: int = 0
    progressive: int = 0
    frames: int = 0
    flagged: int = 0

    @property
    def decided(self) -> int:
        """Number of frames with a verdict."""
        return self.top_first + self.bottom_first + self.progressive

    @property
    def woven(self) -> bool:
        """Whether more than half of the frames with a verdict look woven in the same field order.

        Noise in a still scene looks woven now and then, in both orders alike.
        """
        return 2 * max(self.top_first, self.bottom_first) > self.decided

    @property
    def order(self) -> FieldOrder:
        """The more frequent field order."""
        return "top first" if self.top_first >= self.bottom_first else "bottom first"

    @property
    def known(self) -> bool:
        """Whether the content decides."""
        agreed = self._most == self.decided >= _FEWEST_AGREED and 2 * self.decided > self.frames
        return self.decided >= _FEWEST or agreed

    @property
    def clear(self) -> bool:
        """Whether no more frames are needed."""
        return self.decided >= _ENOUGH and self._most >= _CLEAR * self.decided

    @property
    def _most(self) -> int:
        return max(self.top_first, self.bottom_first, self.progressive)


@dataclass(frozen=True)
class FieldDecision:
    """The decision on the fields of a recording.

    Attributes:
        deinterlace: whether the second field of each frame is replaced.
        because: ``"asked"``, ``"content"`` or ``"flags"``.
        order: the first field; None uses the flags of each frame.
        votes: verdicts on the content; empty without an analysis.
    """

    deinterlace: bool
    because: Literal["asked", "content", "flags"]
    order: FieldOrder | None
    votes: FieldVotes

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the report."""
        looked = {**vars(self.votes)}
        return {"deinterlaced": self.deinterlace, "because": self.because, "order": self.order, **looked}

    def note(self) -> str:
        """Return a note for the user; empty when there is nothing unusual."""
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
    """Decide on the fields of a recording.

    Args:
        wanted: option of the user.
        votes: verdicts on the first frames.
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
    """Analyses frames with FFmpeg's ``idet``, without changing them.

    Attributes:
        votes: verdicts since ``reset``.
    """

    def __init__(self) -> None:
        self.votes = FieldVotes()
        self._graph = _Graph()
        self._sinks: dict[str, Any] = {}

    def reset(self) -> None:
        """Start counting again."""
        self.votes = FieldVotes()

    def see(self, frame: Any) -> None:
        """Analyse the next frame; the verdict on it comes with the frame after it."""
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
            return  # a pixel format that the filter does not support: the flags decide

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
    """Deinterlaces frames with FFmpeg's ``bwdif``: one frame out per frame in, in order.

    Args:
        order: the first field; None uses each frame's flag, and the upper field without one.
    """

    def __init__(self, order: FieldOrder | None) -> None:
        parity = {"top first": "tff", "bottom first": "bff", None: "auto"}[order]
        # ``deint=interlaced`` would leave frames without a flag as they are.
        self._settings = f"mode=send_frame:parity={parity}:deint=all"
        self._graph = _Graph()
        self._sink: Any = None
        self._waiting: deque[tuple[int, Any]] = deque()

    def frames(self, decoded: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield pairs of a decoded frame, with its time stamp and flags, and the deinterlaced frame.

        Args:
            decoded: frames of PyAV.
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
            # The filter's time base is twice as fine, since it could make two frames of one.
            made = round(frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator))
            number, source = self._waiting.popleft()
            if made != number:
                raise RuntimeError(f"bwdif gave frame {made} for frame {number}")
            if frame.format.name != source.format.name:
                frame.colorspace, frame.color_range = source.colorspace, source.color_range
            yield source, frame

    def _rest(self) -> Iterator[tuple[Any, Any]]:
        """Flush the filter, which returns a frame only when it has got the next one."""
        if self._sink is not None:
            self._graph.source.push(None)
            yield from self._made()
            self._sink = None
            self._graph.end()
        if self._waiting:
            raise RuntimeError(f"bwdif kept {len(self._waiting)} frames")


class _Graph:
    """The source of a filter graph for frames of one size and pixel format, timed by their numbers."""

    def __init__(self) -> None:
        self.graph: Any = None
        self.source: Any = None
        self._kind: tuple[int, int, str] | None = None

    def is_other(self, frame: Any) -> bool:
        """Whether the frame does not fit the current graph."""
        return self._kind is not None and self._kind != _kind(frame)

    def begin(self, frame: Any) -> bool:
        """Create a graph when the frame does not fit the current one, and return whether one was created.

        Raises:
            ValueError: this pixel format would make FFmpeg abort the process.
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
        """Push a frame into the graph; its own time stamp is restored."""
        own = frame.pts, frame.time_base
        frame.pts, frame.time_base = number, Fraction(1)
        try:
            self.source.push(frame)
        finally:
            frame.pts = own[0]
            if own[1] is not None:
                frame.time_base = own[1]

    def end(self) -> None:
        """Discard the graph; the next frame gets a new one."""
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
