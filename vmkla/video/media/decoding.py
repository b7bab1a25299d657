"""Videos in: every frame of a file, upright, in RGB, with its own time stamp."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vmkla.errors import BadInputError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.video.media.errors import reading_errors
from vmkla.video.media.frames import Frame, Problem, VideoTraits
from vmkla.video.media.interlace import (
    PROBE_FRAMES,
    PROBE_STILL_FRAMES,
    WATCH_FRAMES,
    Deinterlace,
    Deinterlacer,
    FieldDecision,
    FieldDetector,
    FieldVotes,
    check_deinterlace,
    decide,
)
from vmkla.video.media.rgb import RgbConverter
from vmkla.video.media.streams import OpenVideo, limit_pixels
from vmkla.video.media.timestamps import Timeline

_PROBLEMS_KEPT = 20


def how_often(count: int) -> str:
    """``once`` or ``3 times``."""
    return "once" if count == 1 else f"{count} times"


class VideoSource:
    """A video file.

    Frames come from decoding and from nowhere else: a damaged stretch is passed over, and every frame that
    decodes is yielded, in order of presentation. Rotation metadata is applied to the pixels. A file without
    colour tags is read as players read it: BT.709 from 720 lines on, BT.601 below. Interlaced frames are
    made whole, see ``vmkla.video.media.interlace``.

    Attributes:
        codec: FFmpeg's name of it.
        has_audio: there is a sound track (which is not read).
        tracks, track: the file's video tracks, and the one that is read.
        repaired_timestamps: time stamps that were missing or did not rise, and were mended, in the last pass.
        timestamp_jumps: places in the last pass where the time stamps began anew.
        size_changes: places in the last pass where the frame size changes.
        ratio_changes: places where only the shape of the pixels changes.

    Args:
        path: the file.
        track: number of the video track, from 1; None takes the largest.
        deinterlace: ``"auto"`` finds out whether the frames are interlaced; ``"yes"`` and ``"no"`` settle it.
        max_megapixels: larger frames are not decoded.
    Raises:
        BadInputError: it is missing, no video that can be read, or its frames are too large.
        UsageError: there is no such track, or ``deinterlace`` is none of the three.
    """

    kind: Literal["video"] = "video"

    def __init__(
        self,
        path: Path,
        *,
        track: int | None = None,
        deinterlace: Deinterlace = "auto",
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        check_deinterlace(deinterlace)
        self.path = path
        self._max_megapixels = max_megapixels
        self._wanted_track, self._wanted_fields = track, deinterlace
        self._problems: list[Problem] = []
        self._combed: list[Problem] = []
        self._lost = 0
        self._fields: FieldDecision | None = None
        self.repaired_timestamps = self.timestamp_jumps = self.size_changes = self.ratio_changes = 0
        with self._open() as video:
            self._extent = video.extent
            self.codec = video.codec
            self.has_audio = video.has_audio
            self.tracks, self.track = video.tracks, video.track
            self.total = video.total

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the last pass could not decode, at most twenty entries; see ``lost_packets``."""
        return tuple(self._problems)

    @property
    def lost_packets(self) -> int:
        """Packets that the last pass could not decode."""
        return self._lost

    @property
    def cut_off(self) -> bool:
        """The file is shorter than its headers say."""
        return self._extent.cut_off

    @property
    def fields(self) -> FieldDecision:
        """What is done with interlaced frames; looks through the first frames when that is not settled."""
        if self._fields is None:
            self._fields = decide(self._wanted_fields, self._votes())
        return self._fields

    @property
    def combed(self) -> tuple[Problem, ...]:
        """Stretches of the last pass that look interlaced and were left as they are."""
        return tuple(self._combed)

    def describe(self) -> dict[str, Any]:
        """Codec, tracks and what was done with fields (None before the first pass) as plain values."""
        return {
            "codec": self.codec,
            "track": self.track.number,
            "tracks": [track.to_dict() for track in self.tracks],
            "fields": None if self._fields is None else self._fields.to_dict(),
        }

    def notes(self) -> list[str]:
        """What the user should know of the frames of the last pass though nothing failed."""
        note = "" if self._fields is None else self._fields.note()
        notes = [note] if note else []
        others = [str(track) for track in self.tracks if track.number != self.track.number]
        if others:
            notes.append(
                f"video {self.track} was read; the file has {len(others)} more: {'; '.join(others)}; "
                "vmkla infer --track N reads another"
            )
        if self.repaired_timestamps:
            notes.append(
                f"{self.repaired_timestamps} timestamps were missing or did not rise, and were mended"
            )
        if self.timestamp_jumps:
            notes.append(
                f"the time stamps begin anew {how_often(self.timestamp_jumps)}; each part follows the one "
                "before it"
            )
        return notes

    def copy_notes(self) -> list[str]:
        """What a copy of the video lacks, after the last pass."""
        notes = ["the sound track is not copied"] if self.has_audio else []
        if self.ratio_changes:
            notes.append(
                f"the shape of the pixels changes {how_often(self.ratio_changes)} at the same frame size; a "
                "copy keeps the first one, and other frames are fitted into it"
            )
        return notes

    def frames(self) -> Generator[Frame, None, None]:
        """Decode from the first frame to the last.

        Yields:
            Frames with rising time stamps; mended ones are counted in ``repaired_timestamps``. Their size may
            change, which is counted in ``size_changes``, and so may the shape of their pixels.
        Raises:
            BadInputError: not one frame decodes, or one is wider or taller than 16384.
        """
        self._problems, self._combed, self._lost = [], [], 0
        self.repaired_timestamps = self.timestamp_jumps = self.size_changes = self.ratio_changes = 0
        ratios: deque[Fraction | None] = deque()  # of frames that were decoded and are still on their way
        with self._open() as video:
            timeline = video.timeline()
            to_rgb = RgbConverter()
            traits: VideoTraits | None = None
            index, size_hw = 0, (0, 0)
            pairs = self._whole(video, ratios)
            timed = timeline.placed(pairs, lambda pair: pair[0].pts, video.source_base)
            for (decoded, whole), pts in timed:
                with reading_errors(video.described("its pixels cannot be converted")):
                    rgb, swapped, matrix = to_rgb(whole)
                stored = ratios.popleft()
                ratio = 1 / stored if stored and swapped else stored
                if traits is None:
                    traits = VideoTraits(timeline.time_base, video.rate, ratio, matrix)
                elif rgb.shape[:2] != size_hw:
                    self._change_size(index, size_hw, rgb.shape[:2])
                else:
                    self.ratio_changes += (ratio or 1) != (traits.sample_aspect_ratio or 1)
                if traits.sample_aspect_ratio != ratio:
                    traits = dataclasses.replace(traits, sample_aspect_ratio=ratio)
                size_hw = (rgb.shape[0], rgb.shape[1])
                yield Frame(
                    index=index,
                    rgb=rgb,
                    name=f"{index:06d}",
                    pts=pts,
                    pts_s=float(pts * timeline.time_base),
                    time_base=timeline.time_base,
                    traits=traits,
                    damaged=bool(decoded.is_corrupt),
                )
                index += 1
        if index == 0:
            first = f": {self._problems[0].where} {self._problems[0].what}" if self._problems else ""
            raise BadInputError(
                f"{self.path} has a video stream ({self.codec}) but not one frame that can be decoded{first}"
            )
        self._conclude(index, timeline)

    def _open(self) -> OpenVideo:
        video = OpenVideo(self.path, track=self._wanted_track)
        try:
            limit_pixels(video.stream, str(self.path), self._max_megapixels)
        except BadInputError:
            video.close()
            raise
        return video

    def _votes(self) -> FieldVotes:
        """Look through the first frames, until enough of them agree."""
        detector = FieldDetector()
        if self._wanted_fields == "no":
            return detector.votes
        with self._open() as video:
            for frame in video.frames(lambda where, what: None):
                detector.see(frame)
                votes = detector.votes
                enough = votes.frames >= (PROBE_FRAMES if votes.known else PROBE_STILL_FRAMES)
                if votes.clear or enough:
                    break
        return detector.votes

    def _whole(self, video: OpenVideo, ratios: deque[Fraction | None]) -> Iterator[tuple[Any, Any]]:
        """Pairs of a decoded frame and the same made whole, or left as it is; the ratios go to a queue."""

        def decode() -> Iterator[Any]:
            for frame, ratio in video.frames_and_ratios(self._lose):
                ratios.append(ratio)
                yield frame

        decoded = decode()
        if self.fields.deinterlace:
            with reading_errors(video.described("its fields cannot be separated")):
                yield from Deinterlacer(self.fields.order).frames(decoded)
            return
        detector = FieldDetector() if self._wanted_fields == "auto" else None
        index = -1
        for index, frame in enumerate(decoded):
            if detector is not None:
                detector.see(frame)
                if detector.votes.frames == WATCH_FRAMES:
                    self._watch(index, detector.votes)
                    detector.reset()
            yield frame, frame
        if detector is not None:
            self._watch(index, detector.votes)

    def _watch(self, index: int, votes: FieldVotes) -> None:
        if votes.woven and 2 * votes.decided >= WATCH_FRAMES:
            first = index + 1 - votes.frames
            text = "look interlaced, unlike the first ones, and were left as they are: use --deinterlace yes"
            self._note(f"frames {first} to {index}", text)
            self._combed.append(Problem(f"frames {first} to {index}", text))

    def _change_size(self, index: int, before_hw: tuple[int, ...], after_hw: tuple[int, ...]) -> None:
        self.size_changes += 1
        self._note(
            f"frame {index}",
            f"the frame size changes from {before_hw[1]}x{before_hw[0]} to {after_hw[1]}x{after_hw[0]} "
            "(width x height)",
        )

    def _lose(self, where: str, what: str) -> None:
        self._lost += 1
        self._note(where, what)

    def _note(self, where: str, what: str) -> None:
        if len(self._problems) < _PROBLEMS_KEPT:
            self._problems.append(Problem(where, what))

    def _conclude(self, count: int, timeline: Timeline) -> None:
        if self.cut_off:
            self._problems.append(
                Problem(
                    "the end",
                    f"the file is cut off: it has {self._extent.size_bytes} of "
                    f"{self._extent.promised_bytes} bytes; {count} frames were read",
                )
            )
        self.repaired_timestamps, self.timestamp_jumps = timeline.repaired, timeline.jumps
