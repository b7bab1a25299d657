"""Keep the findings of a run on disk as they come, and write them in annotation formats at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from vmkla.bounded import MalformedError, parse_json
from vmkla.files import output_errors, unfinished_path, written_whole
from vmkla.procedures.annotations.formats import WRITTEN, write_annotations
from vmkla.procedures.annotations.records import AnnotatedFrame, annotate
from vmkla.procedures.annotations.yolo import IMAGES, LABELS, label_path
from vmkla.segment.findings import Findings
from vmkla.video.file.plan import Plan
from vmkla.video.media.frames import Frame
from vmkla.video.media.images import write_png
from vmkla.video.media.sinks import JsonlSink, to_json

EXPORT, LOG = "export", ".annotations.jsonl"
_LINE_MAX_BYTES = 64 << 20


class AnnotationLog:
    """The findings of every segmented frame, one line each, in a hidden file beside the rows.

    Memory does not grow with the run: the formats are written from this file, not from a second pass over
    the source.

    Args:
        plan: the run.
        kept: images of an interrupted run that are not segmented again: name to index in the source.
    Raises:
        BadInputError: the file cannot be written.
    """

    def __init__(self, plan: Plan, kept: Mapping[str, int]) -> None:
        self._plan = plan
        self._path = plan.options.out_dir / LOG
        self._resumed = bool(kept)
        if kept:  # under its final name first, so that the lines are on disk at any moment
            with written_whole(self._path) as file:
                for frame in _kept_frames(plan.options.out_dir, kept):
                    file.write(to_json(frame.to_row()) + b"\n")
        self._sink = JsonlSink(self._path)
        if kept:
            for frame in _read(self._path):
                self._sink.write(frame.to_row())

    def add(self, frame: Frame, findings: Findings, lesions: Sequence[int] | None = None) -> None:
        """Append the findings of a frame, and write its picture where that was asked for.

        Args:
            frame: the frame.
            findings: its findings.
            lesions: number of each finding's lesion; None for images.
        Raises:
            BadInputError: the disk is full.
        """
        name = frame.name if frame.traits is None else f"frame_{frame.index:06d}.png"
        size_hw = (frame.rgb.shape[0], frame.rgb.shape[1])
        regions = tuple(annotate(findings, lesions))
        options = self._plan.options
        row = AnnotatedFrame(
            frame.index, name, size_hw, regions, frame.sha256, options.export_frames
        ).to_row()
        self._sink.write(row)  # first, so that a later run knows what to remove
        if options.export_frames:
            write_png(options.out_dir / EXPORT / IMAGES / name, frame.rgb)

    def write(
        self, *, length: int, dropped: Collection[str] = (), joined: Mapping[int, int] | None = None
    ) -> None:
        """Close the file and write the formats from it.

        Args:
            length: number of the source's frames, as far as it is known.
            dropped: names of images of an interrupted run that are missing now.
            joined: final number of each lesion that was joined to an earlier one.
        Raises:
            BadInputError: a file cannot be written.
        """
        self._sink.close()
        offsets = _latest(self._path, dropped) if self._resumed else None
        named = self._plan.named

        def frames() -> Iterator[AnnotatedFrame]:
            for frame in _read(self._path, offsets):
                yield _renumbered(frame, joined or {})

        write_annotations(
            self._plan.options.out_dir / EXPORT,
            self._plan.options.export,
            frames,
            self._plan.labels,
            name=named.label,
            count=self._sink.rows if offsets is None else len(offsets),
            length=length if named.source.kind == "video" else None,
        )

    def discard(self) -> None:
        """Remove the file of a run without a frame."""
        self._sink.close(keep=self._resumed)


def logged_images(out_dir: Path, labels: Collection[int]) -> set[tuple[str, str | None]]:
    """Return name and sha256 of the images whose findings an interrupted run kept.

    Args:
        out_dir: folder of the run.
        labels: classes that a finding can have. A line with another class is damaged.
    """
    paths = (out_dir / LOG, unfinished_path(out_dir / LOG))
    return {
        (frame.name, frame.sha256)
        for path in paths
        for frame in _read(path)
        if all(region.class_index in labels for region in frame.regions)
    }


def remove_annotations(out_dir: Path, *, keep_log: bool) -> None:
    """Remove an earlier run's annotations and no other file; its log names the files of labels.

    Args:
        out_dir: folder of the run.
        keep_log: leave the log for a run that continues it.
    """
    folder = out_dir / EXPORT
    logs = [log for log in (out_dir / LOG, unfinished_path(out_dir / LOG)) if log.exists()]
    for log in logs:
        for frame in _read(log):
            files = [(folder / LABELS, label_path(frame.stem))]
            files += [(folder / IMAGES, f"{IMAGES}/{frame.name}")] * frame.pictured
            for parent, name in files:
                path = (folder / name).resolve()
                if parent.resolve() in path.parents:
                    path.unlink(missing_ok=True)
        if not keep_log:
            log.unlink(missing_ok=True)
    for name in WRITTEN if logs else ():
        (folder / name).unlink(missing_ok=True)
    for parents, _, _ in os.walk(folder, topdown=False) if logs else ():
        with contextlib.suppress(OSError):  # it holds files that are not this run's
            os.rmdir(parents)


def _renumbered(frame: AnnotatedFrame, joined: Mapping[int, int]) -> AnnotatedFrame:
    if not any(region.track_id in joined for region in frame.regions):
        return frame
    regions = tuple(
        dataclasses.replace(region, track_id=None if number is None else joined.get(number, number))
        for region in frame.regions
        for number in [region.track_id]
    )
    return dataclasses.replace(frame, regions=regions)


def _kept_frames(out_dir: Path, kept: Mapping[str, int]) -> Iterator[AnnotatedFrame]:
    """Yield the frames of an interrupted run that are kept, with their index in the source of today."""
    for path in (out_dir / LOG, unfinished_path(out_dir / LOG)):
        for frame in _read(path):
            if frame.name in kept:
                yield dataclasses.replace(frame, index=kept[frame.name])


def _latest(path: Path, dropped: Collection[str]) -> list[int]:
    """Return where the last line of each image begins, in the order of the source."""
    found: dict[str, tuple[int, int]] = {}
    for offset, frame in _lines(path):
        found[frame.name] = (frame.index, offset)
    return [offset for _, offset in sorted(at for name, at in found.items() if name not in dropped)]


def _read(path: Path, offsets: Collection[int] | None = None) -> Iterator[AnnotatedFrame]:
    return (frame for _, frame in _lines(path, offsets))


def _lines(path: Path, offsets: Collection[int] | None = None) -> Iterator[tuple[int, AnnotatedFrame]]:
    """Yield the place of each line of a log and what it holds; incomplete and senseless lines are skipped."""
    with output_errors(path), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        places = iter(offsets) if offsets is not None else None
        while True:
            if places is not None:
                place = next(places, None)
                if place is None:
                    return
                file.seek(place)
            begin = file.tell()
            line = file.readline()
            if not line:
                return
            try:
                yield begin, AnnotatedFrame.from_row(parse_json(line, _LINE_MAX_BYTES))
            except (MalformedError, KeyError, TypeError, ValueError):
                continue
