"""Segment every frame of a file, in order, in overlapping threads: decode, infer, draw and write.

One thread decodes, the caller's thread prepares frames and runs the network, one thread reads the findings,
draws and encodes. The queues between them hold three frames, so memory does not grow with the source.
Whatever ends a run (the end of the source, an error in any stage, a signal), the outputs are closed, the
video is playable up to there, and report.json states how the run ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from vmkla.errors import BadInputError, UsageError
from vmkla.folders import locked_folder
from vmkla.procedures.files import OVERLAY_VIDEO
from vmkla.runner import Runner, check_one_by_one
from vmkla.video.cancellation import Cancellation
from vmkla.video.file.answers import AnswerKind, Answers
from vmkla.video.file.lesions import FrameLesions
from vmkla.video.file.options import Progress, SegmentOptions
from vmkla.video.file.outputs import WHOLE, check_image_names, open_outputs, search_exclusions
from vmkla.video.file.plan import make_plan
from vmkla.video.file.report import SegmentReport
from vmkla.video.file.run import Run
from vmkla.video.media.naming import NamedSource, name_source
from vmkla.video.media.sources import ImageSource, open_source

__all__ = ["Cancellation", "Progress", "SegmentOptions", "SegmentReport", "segment"]


def segment(
    runner: Runner,
    source_spec: str | Path | NamedSource,
    options: SegmentOptions,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    *,
    stored: Sequence[Path] = (),
) -> SegmentReport:
    """Segment a video, an image, a folder or a glob of images.

    Writes ``overlay.mp4`` for a video, and ``contact_sheet.jpg`` when something is found in it; for images
    ``overlay/<name>.png`` or ``.jpg``; ``masks/`` when asked (0 and 255; with several classes the class's
    number), ``frames.jsonl``, of a video ``lesions.jsonl`` and ``lesions/``, and ``report.json`` into
    ``options.out_dir``.
    Files have temporary names until they are complete.

    With the field of view ``"auto"``, a video has one for all frames: the union over the first eight of every
    fifth frame that show one. An image has its own.

    Args:
        runner: the network.
        source_spec: path or pattern, see ``open_source``; or a source that is already open and named.
        options: options of the run.
        progress: called from this thread after each frame; an error that it raises ends the run.
        cancel: event that ends the run when set; ``stop_on_signals`` makes one that signals set.
        stored: files with answers of the network, which it need not give again; see ``AnswerFile``.
    Returns:
        The report, also when ``cancel`` was set without a signal (``outcome`` is then ``"interrupted"``).
    Raises:
        DegradedError: the outputs are complete, but not all of the source could be read.
        StoppedError: a signal ended the run; everything up to there was written.
        UsageError, BadInputError, ArtefactMismatchError: the run cannot begin or continue.
    """
    spec = runner.spec
    check_one_by_one(spec)
    spec.point_at(options.point)  # rejects an unsuitable point before anything is read
    if isinstance(source_spec, NamedSource):
        named = source_spec
    else:
        found = open_source(source_spec, options.reading, exclude=search_exclusions(options.out_dir))
        named = name_source(found, anonymous=options.anonymous)
    with named.names.in_errors(named.anonymous):
        return _segment(runner, named, options, progress, cancel or Cancellation(), stored)


def _segment(
    runner: Runner,
    named: NamedSource,
    options: SegmentOptions,
    progress: Callable[[Progress], None] | None,
    cancel: threading.Event,
    stored: Sequence[Path],
) -> SegmentReport:
    source = named.source
    if isinstance(source, ImageSource):
        check_image_names(source.items, options.out_dir, suffix=f".{options.image_format}")
        if options.export_frames:
            raise UsageError(
                f"frames are exported of a video, and {source.path} is images, which are there already",
                hint="Leave --export-frames out, and copy or link the images to export/images.",
            )
    elif options.image_format != "png":
        raise UsageError(
            f"the image format is for overlays of images, and {source.path} is a video",
            hint="Leave --image-format out: a video gives overlay.mp4.",
        )
    elif source.path.resolve() == (options.out_dir / OVERLAY_VIDEO).resolve():
        raise BadInputError(
            f"the output would replace the input {source.path}", hint="Give another folder: --out DIR"
        )
    plan = make_plan(runner, named, options)
    lesions = None
    if not isinstance(source, ImageSource):
        lesions = FrameLesions(
            options.out_dir, marked=options.overlay != "none", pause_on_poor=options.pause_on_poor
        )
    with locked_folder(options.out_dir, WHOLE):
        outputs = open_outputs(plan)
        keep_in = options.out_dir if options.resume and source.kind == "video" else None
        if not stored and keep_in is None:
            return Run(runner, plan, outputs, lesions).go(progress, cancel)
        kind = AnswerKind(runner, plan.point, whole=options.save_probability)
        try:
            answers = Answers(kind, stored, keep_in)
        except BadInputError:
            outputs.discard()
            raise
        with answers:
            return Run(runner, plan, outputs, lesions, answers).go(progress, cancel)
