"""``vmkla infer``: segment a video or images, or show a source live."""

from __future__ import annotations

import dataclasses
import json as json_format
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmkla.cli.console import print_json, print_line, progress_bar, say
from vmkla.cli.live import LiveFlags, live_loader, refuse_flags, run_live_command
from vmkla.cli.options import (
    Alpha,
    Anonymous,
    Deinterlace,
    DeinterlaceOption,
    Device,
    Export,
    ExportFrames,
    Hide,
    ImageFormat,
    ImageFormatOption,
    Json,
    Label,
    LabelOption,
    MaxMegapixels,
    MinFraction,
    Model,
    Overlay,
    OverlayOption,
    PauseOnPoor,
    Peak,
    Plugin,
    Quiet,
    Roi,
    Runtime,
    RuntimeOption,
    SaveMasks,
    SaveProbability,
    Stride,
    Threads,
    Threshold,
    Track,
    parse_hide,
    run_folder,
)
from vmkla.cli.usage import EACH_SOURCE, check_source
from vmkla.errors import DegradedError, StoppedError, UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.video.media.naming import NamedSource

RUNS = Path("runs/infer")


def infer(
    video: Annotated[
        list[str] | None, typer.Option("--video", metavar="FILE", help="A video to segment.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="WHAT",
            help="A video, an image, a folder of images or a pattern; with --live also rtsp://, "
            "v4l2:///dev/video0, gst:PIPELINE, a named pipe, or sample://, a rendered stand-in.",
        ),
    ] = None,
    model: Model = "nano",
    runtime: RuntimeOption = Runtime.auto,
    device: Device = None,
    plugin: Plugin = None,
    threshold: Threshold = None,
    peak: Peak = None,
    min_fraction: MinFraction = None,
    overlay: OverlayOption = Overlay.contour,
    alpha: Alpha = None,
    label: LabelOption = Label.none,
    save_masks: SaveMasks = False,
    save_probability: SaveProbability = False,
    export: Export = None,
    export_frames: ExportFrames = False,
    stride: Stride = 1,
    roi: Roi = None,
    deinterlace: DeinterlaceOption = Deinterlace.auto,
    track: Track = None,
    image_format: ImageFormatOption = ImageFormat.png,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    resume: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Continue an interrupted run over images; of a video give it from the first run on.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/infer/NAME, numbered.")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Replace the outputs of an earlier run.")
    ] = False,
    anonymous: Anonymous = False,
    threads: Threads = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Show the source live, with markers, without waiting for the network."),
    ] = False,
    display: Annotated[
        bool, typer.Option("--display", help="With --live: in a window; q or Esc closes it.")
    ] = False,
    max_staleness_ms: Annotated[
        float | None,
        typer.Option(
            "--max-staleness-ms",
            help="With --live: longest time that a marker stays after its frame; default 120.",
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="With --live: record the frames, raw and with markers.")
    ] = False,
    stills: Annotated[
        bool,
        typer.Option("--stills", help="With --live: keep the best still of each lesion; --record does too."),
    ] = False,
    segment_s: Annotated[
        float | None,
        typer.Option("--segment-s", help="With --record: seconds in one file; default 10."),
    ] = None,
    hide: Hide = None,
    pause_on_poor: PauseOnPoor = False,
    monitor: Annotated[
        str | None,
        typer.Option("--monitor", metavar="HOST:PORT", help="With --live: serve a page that shows the run."),
    ] = None,
    monitor_token_file: Annotated[
        Path | None,
        typer.Option(
            "--monitor-token-file",
            metavar="FILE",
            help="Token that readers of that page must give; needed off this machine.",
        ),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="With --live: restart a file at its end.")] = False,
    duration_s: Annotated[
        float | None, typer.Option("--duration-s", help="With --live: length of the run, seconds.")
    ] = None,
    hysteresis: Annotated[
        float | None,
        typer.Option(
            "--hysteresis", metavar="LOW", help="With --live: probability down to which a finding stays."
        ),
    ] = None,
    min_lesion_age_ms: Annotated[
        float | None,
        typer.Option("--min-lesion-age-ms", help="With --live: age from which a finding is drawn."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment a video or images, or show a source live. Writes overlays, masks, and a report."""
    from vmkla.names import Names, given_names

    spec = _one_source(video or [], source or [])
    # A hint quotes the source as a shell needs it.
    hidden = given_names([spec]).also({shlex.quote(spec): "the source"}) if anonymous else Names({})
    with hidden.in_errors():
        check_source(spec, live=live, as_video=bool(video))
    flags = LiveFlags(
        display=display,
        max_staleness_ms=max_staleness_ms,
        record=record,
        stills=stills,
        segment_s=segment_s,
        hide=tuple(hide or ()) if live else (),
        monitor=monitor,
        monitor_token_file=monitor_token_file,
        loop=loop,
        duration_s=duration_s,
        hysteresis=hysteresis,
        min_lesion_age_ms=min_lesion_age_ms,
    )
    if live:
        of_files = {
            "--save-masks": save_masks,
            "--save-probability": save_probability,
            "--export": export is not None,
            "--export-frames": export_frames,
            "--stride": stride != 1,
            "--track": track is not None,
            "--continue": resume,
            "--image-format": image_format is not ImageFormat.png,
            "--max-megapixels": max_megapixels != MAX_MEGAPIXELS,
        }
        refuse_flags([flag for flag, given in of_files.items() if given], live=True)
        from vmkla.segment.operating_point import PointOverrides
        from vmkla.segment.preprocess import parse_roi
        from vmkla.video.live.network.options import WorkerOptions

        run_live_command(
            spec,
            live_loader(model, runtime.value, device, threads, plugin),
            flags,
            WorkerOptions(
                point=PointOverrides(threshold, peak, min_fraction),
                roi=None if roi is None else parse_roi(roi),
                deinterlace=deinterlace.value,
            ),
            overlay.value,
            alpha,
            label.value,
            pause_on_poor=pause_on_poor,
            out=out,
            exist_ok=exist_ok,
            runs=RUNS,
            json=json,
            quiet=quiet,
            anonymous=anonymous,
        )
        return
    refuse_flags(flags.given(), live=False)

    from vmkla.video.media.address import is_live_address

    if is_live_address(spec):
        raise UsageError(
            "a live source was given without --live", hint="Add --live, and --display for a window."
        )

    from vmkla.engines import load_runner
    from vmkla.procedures.annotations.formats import parse_formats
    from vmkla.segment.operating_point import PointOverrides
    from vmkla.segment.preprocess import parse_roi
    from vmkla.video.cancellation import stop_on_signals
    from vmkla.video.file.options import Progress, SegmentOptions
    from vmkla.video.file.outputs import search_exclusions
    from vmkla.video.file.pipeline import segment
    from vmkla.video.media.naming import name_source
    from vmkla.video.media.sources import open_source

    # All values are checked before any file is opened.
    options = SegmentOptions(
        out_dir=out or RUNS,
        point=PointOverrides(threshold, peak, min_fraction),
        overlay=overlay.value,
        alpha=alpha,
        label=label.value,
        save_masks=save_masks,
        save_probability=save_probability,
        export=() if export is None else parse_formats(export),
        export_frames=export_frames,
        stride=stride,
        roi=None if roi is None else parse_roi(roi),
        image_format=image_format.value,
        max_megapixels=max_megapixels,
        resume=resume,
        exist_ok=exist_ok,
        anonymous=anonymous,
        track=track,
        deinterlace=deinterlace.value,
        hide=parse_hide(hide or ()),
        pause_on_poor=pause_on_poor,
    )
    what: str | NamedSource = spec
    if anonymous:
        with hidden.in_errors():
            # Earlier runs inside the source are left out; one of them may be the source itself.
            inside = RUNS.resolve() in (Path(spec).resolve(), *Path(spec).resolve().parents)
            exclude = search_exclusions(out) if out is not None else [] if inside else [RUNS]
            what = name_source(open_source(spec, options.reading, exclude=exclude), anonymous=True)
    name = _name_of(spec) if isinstance(what, str) else what.label
    with run_folder(out, RUNS / name, again=resume or exist_ok) as out_dir:
        options = dataclasses.replace(options, out_dir=out_dir)
        runner = load_runner(model, runtime.value, device, threads=threads, plugin=plugin)
        try:
            with stop_on_signals() as cancel, progress_bar("segmenting", "frames", quiet=quiet) as bar:

                def show(progress: Progress) -> None:
                    if bar is not None:
                        bar(progress.done, progress.total, f"{progress.findings} with a finding")

                report = segment(runner, what, options, show, cancel).to_dict()
        except (DegradedError, StoppedError):
            # The results are printed all the same; main() then prints the message and exits with its status.
            written = json_format.loads((out_dir / "report.json").read_text(encoding="utf-8"))
            _print_results(written, out_dir, json=json, quiet=quiet)
            raise
        finally:
            runner.close()
    _print_results(report, out_dir, json=json, quiet=quiet)


def _one_source(videos: Sequence[str], sources: Sequence[str]) -> str:
    """Return the only given source."""
    given = [*videos, *sources]
    if len(given) == 1:
        return given[0]
    if videos and sources or not given:
        raise UsageError("give either --video or --source", hint="For instance: vmkla infer --video clip.mp4")
    raise UsageError(f"{len(given)} sources were given, expected one", hint=EACH_SOURCE)


def _print_results(report: dict[str, Any], out_dir: Path, *, json: bool, quiet: bool) -> None:
    for warning in report["warnings"]:
        say(f"note: {warning}", quiet=quiet)
    if json:
        print_json({"out_dir": str(out_dir), **report})
        return
    for line in _summary(report):
        print_line(line)
    for name, path in report["outputs"].items():
        print_line(f"{name + ':':14} {out_dir / path}")


def _summary(report: dict[str, Any]) -> list[str]:
    """Return lines on what was found, when and where."""
    counts, found = report["counts"], report["findings"]
    video = report["input"]["kind"] == "video"
    kind = "frames" if video else "images"
    lines = [f"{counts['segmented']} of {counts['frames']} {kind} segmented, {report['fps']:.1f} a second"]
    if not found["regions"]:
        return [*lines, "findings:      none"]
    where = f"{found['regions']} regions in {found['frames']} {kind}"
    if video:
        count = found.get("lesions")  # missing where they could not be written
        lesions = "" if count is None else f"{count} lesion{'s' * (count != 1)}, "
        where = (
            f"{lesions}in {found['with_finding_s']:.1f} of {found['segmented_s']:.1f} s, {where}, "
            f"first at {found['first_s']:.2f} s, last at {found['last_s']:.2f} s"
        )
    largest = found["largest"]
    at = f"at {largest['pts_s']:.2f} s" if video else f"in {largest['name']}"
    share = f"{100 * largest['area_fraction']:.1f} % of the {kind[:-1]}"
    return [*lines, f"findings:      {where}", f"largest:       {share} {at}, {largest['place']}"]


def _name_of(spec: str) -> str:
    """Return the name of a source, for the folder of its run."""
    parts = [part for part in Path(spec).parts if not re.search(r"[*?\[]", part) and part not in ("/", "..")]
    path = Path(parts[-1]) if parts else Path("images")
    return path.stem if Path(spec).is_file() else path.name
