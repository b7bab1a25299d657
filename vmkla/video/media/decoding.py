"""Decode a video file: every frame, upright, in RGB, with its own time stamp."""

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
from vmkla.video.media.parts import Part
from vmkla.video.media.rgb import RgbConverter
from vmkla.video.media.streams import OpenVideo, limit_pixels
from vmkla.video.media.timestamps import Timeline

_PROBLEMS_KEPT = 20


def how_often(count: int) -> str:
    """Return ``once`` or ``3 times``."""
    return "once" if count == 1 else f"{count} times"


class VideoSource:
    """A video file as a source of frames.

    Every frame that can be decoded is yielded, in order of presentation; a damaged stretch is skipped.
    Rotation metadata is applied to the pixels. A file without colour tags is read as players read it: BT.709
    from 720 lines on, BT.601 below. Interlaced frames are deinterlaced, see ``vmkla.video.media.interlace``.

    Attributes:
        codec: FFmpeg's name of the codec.
        has_audio: whether there is a sound track, which is not read.
        tracks, track: the file's video tracks, and the one that is read.
        repaired_timestamps: number of time stamps that were missing or did not rise and were repaired, in the
            last pass.
        timestamp_jumps: number of places where the time stamps start again, in the last pass.
        size_changes: number of places where the frame size changes, in the last pass.
        ratio_changes: number of places where only the shape of the pixels changes, in the last pass.

    Args:
        path: the file.
        track, deinterlace, max_megapixels: see ``ReadOptions``.
    Raises:
        BadInputError: the file is missing or not a readable video, or its frames are too large.
        UsageError: the track does not exist, or ``deinterlace`` is another word.
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
        """Problems of the last pass, at most twenty; see ``lost_packets`` for their number."""
        return tuple(self._problems)

    @property
    def lost_packets(self) -> int:
        """Number of packets that the last pass could not decode."""
        return self._lost

    @property
    def cut_off(self) -> bool:
        """Whether the file is shorter than its headers state."""
        return self._extent.cut_off

    @property
    def fields(self) -> FieldDecision:
        """Decision on interlaced frames; analyses the first frames on the first call."""
        if self._fields is None:
            self._fields = decide(self._wanted_fields, self._votes())
        return self._fields

    @property
    def combed(self) -> tuple[Problem, ...]:
        """Parts of the last pass that look interlaced and were not changed."""
        return tuple(self._combed)

    def describe(self) -> dict[str, Any]:
        """Return codec, tracks and the decision on fields (None before the first pass) as plain values."""
        return {
            "codec": self.codec,
            "track": self.track.number,
            "tracks": [track.to_dict() for track in self.tracks],
            "fields": None if self._fields is None else self._fields.to_dict(),
        }

    def notes(self) -> list[str]:
        """Return notes on the frames of the last pass that the user should know though nothing failed."""
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
                f"{self.repaired_timestamps} timestamps were missing or did not rise, and were repaired"
            )
        if self.timestamp_jumps:
            notes.append(
                f"the time stamps start again {how_often(self.timestamp_jumps)}; each part follows the one "
                "before it"
            )
        return notes

    def copy_notes(self) -> list[str]:
        """Return what a copy of the video lacks, after the last pass."""
        notes = ["the sound track is not copied"] if self.has_audio else []
        if self.ratio_changes:
            notes.append(
                f"the shape of the pixels changes {how_often(self.ratio_changes)} at the same frame size; a "
                "copy keeps the first one, and other frames are fitted into it"
            )
        return notes

    def frames(self, part: Part | None = None) -> Generator[Frame, None, None]:
        """Decode all frames, from the first to the last.

        Args:
            part: decode this part only. Its frames may differ from those of a whole pass in time stamps, near
                its begin in pixels, and where packets are lost in indices.
        Yields:
            Frames with rising time stamps. Frame size and pixel shape may change, which ``size_changes`` and
            ``ratio_changes`` count.
        Raises:
            BadInputError: no frame can be decoded, or one is wider or taller than 16384.
        """
        self._problems, self._combed, self._lost = [], [], 0
        self.repaired_timestamps = self.timestamp_jumps = self.size_changes = self.ratio_changes = 0
        ratios: deque[Fraction | None] = deque()  # of decoded frames that were not yet yielded
        with self._open() as video:
            timeline = video.timeline()
            to_rgb = RgbConverter()
            traits: VideoTraits | None = None
            index, size_hw = 0 if part is None else part.first, (0, 0)
            pairs = self._whole(video, ratios, part)
            timed = timeline.placed(pairs, lambda pair: pair[0].pts, video.source_base)
            for (decoded, whole), pts in timed:
                if part is not None and index == part.end:
                    return
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
        if part is not None:
            return
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
        """Analyse the first frames until enough of them agree."""
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

    def _whole(
        self, video: OpenVideo, ratios: deque[Fraction | None], part: Part | None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield pairs of a decoded frame and its deinterlaced form, and queue the pixel ratios."""
        if part is not None and part.seek is not None:
            video.seek(part.seek)

        def decode() -> Iterator[Any]:
            for frame, ratio in video.frames_and_ratios(self._lose):
                if part is not None and frame.pts is not None and frame.pts < part.pts:
                    continue  # a seek leads to an earlier keyframe, or the key frame has leading ones
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
