"""``vmkla infer --live``: turn its flags into options, and print the results."""

from __future__ import annotations

import functools
import json as json_format
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmkla.cli.console import print_json, print_line, say
from vmkla.cli.options import is_gpu, parse_hide, run_folder
from vmkla.errors import DegradedError, StoppedError, UsageError

if TYPE_CHECKING:
    from vmkla.runner import Runner
    from vmkla.segment.overlay import Label, OverlayStyle
    from vmkla.video.live.network.options import WorkerOptions
    from vmkla.video.live.options import LiveOptions
    from vmkla.video.media.address import LiveAddress


@dataclass(frozen=True)
class LiveFlags:
    """The flags that apply only to ``--live``, as given; None or False when not given."""

    display: bool = False
    max_staleness_ms: float | None = None
    record: bool = False
    stills: bool = False
    segment_s: float | None = None
    hide: tuple[str, ...] = ()
    monitor: str | None = None
    monitor_token_file: Path | None = None
    loop: bool = False
    duration_s: float | None = None
    hysteresis: float | None = None
    min_lesion_age_ms: float | None = None

    def given(self) -> list[str]:
        """Return the given flags as the user writes them."""
        return [
            "--" + field.name.replace("_", "-")
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]


def refuse_flags(given: list[str], *, live: bool) -> None:
    """Reject flags of the other mode.

    Raises:
        UsageError: there is such a flag.
    """
    if not given:
        return
    if live:
        raise UsageError(
            f"{given[0]} applies to files and folders, not to --live",
            hint=f"Leave {given[0]} or --live out.",
        )
    raise UsageError(f"{given[0]} applies only to --live", hint=f"Add --live, or leave {given[0]} out.")


def live_loader(
    model: str, runtime: str, device: str | None, threads: int | None, plugin: Path | None
) -> Callable[[], Runner]:
    """Return the function that loads the model in the worker process.

    Without ``threads`` a CPU runtime gets all CPUs of this process but one, which is left to the display.

    Raises:
        BadInputError: the model does not exist.
    """
    from vmkla import weights
    from vmkla.cpus import cpu_budget
    from vmkla.engines import load_runner

    path = weights.resolve(model, ".safetensors" if runtime == "torch" else ".onnx")
    if threads is None and path.suffix != ".plan" and not is_gpu(device):
        threads = max(1, cpu_budget().cpus - 1)
    return functools.partial(load_runner, model, runtime, device, threads=threads, plugin=plugin)


def run_live_command(
    spec: str,
    load: Callable[[], Runner],
    flags: LiveFlags,
    worker: WorkerOptions,
    overlay: OverlayStyle,
    alpha: float | None,
    label: Label,
    *,
    pause_on_poor: bool,
    out: Path | None,
    exist_ok: bool,
    runs: Path,
    json: bool,
    quiet: bool,
    anonymous: bool = False,
) -> None:
    """Run live mode with the given flags, and print the results.

    Args:
        spec: address of the source.
        load: loads the model, see ``live_loader``.
        flags: flags of live mode.
        worker: options of the network's process, without those of ``flags``.
        overlay, alpha, label, pause_on_poor: as the flags of these names.
        out: folder of the run; None uses a new one in ``runs``.
        exist_ok, json, quiet, anonymous: as the flags of these names.
        runs: folder of runs without ``out``.
    """
    from vmkla.names import Names
    from vmkla.video.cancellation import stop_on_signals
    from vmkla.video.live.run import run_live
    from vmkla.video.live.screen import WindowScreen
    from vmkla.video.media import address as addresses

    address, names = addresses.parse_address(spec), Names({})
    if anonymous:
        address, names = addresses.anonymous(address)
    with run_folder(out, _default_folder(address, runs), again=exist_ok) as folder:
        options = _options(
            flags, worker, overlay, alpha, label, folder, pause_on_poor=pause_on_poor, exist_ok=exist_ok
        )
        screen = WindowScreen() if flags.display else None
        ends = "q or Esc in the window" if flags.display else "Ctrl-C"
        say(f"live: {address}, {ends} ends it", quiet=quiet)
        try:
            with names.in_errors(), stop_on_signals() as cancel:
                report = run_live(
                    load, address, options, cancel, screen=screen, notify=lambda text: say(text, quiet=quiet)
                ).to_dict()
        except (DegradedError, StoppedError):
            # The figures are printed all the same; main() then prints the message and exits with its status.
            written = json_format.loads((folder / "report.json").read_text(encoding="utf-8"))
            _print_results(written, folder, json=json, quiet=quiet)
            raise
    _print_results(report, folder, json=json, quiet=quiet)


def _options(
    flags: LiveFlags,
    worker: WorkerOptions,
    overlay: OverlayStyle,
    alpha: float | None,
    label: Label,
    folder: Path,
    *,
    pause_on_poor: bool,
    exist_ok: bool,
) -> LiveOptions:
    from vmkla.video.live.monitor.access import MonitorOptions, parse_monitor_address, read_token
    from vmkla.video.live.network.options import StillOptions, TemporalOptions
    from vmkla.video.live.options import MAX_STALENESS_MS, LiveOptions
    from vmkla.video.live.recording.options import RecordOptions

    monitor = None
    if flags.monitor is not None:
        token = None if flags.monitor_token_file is None else read_token(flags.monitor_token_file)
        monitor = MonitorOptions(*parse_monitor_address(flags.monitor), token)
    elif flags.monitor_token_file is not None:
        raise UsageError("--monitor-token-file is for the monitor page", hint="Add --monitor HOST:PORT.")
    if flags.segment_s is not None and not flags.record:
        raise UsageError("--segment-s is for recordings", hint="Add --record.")
    stills = flags.record or flags.stills
    if flags.hide and not stills:
        raise UsageError("--hide is for recordings and stills", hint="Add --record or --stills.")
    hidden = parse_hide(flags.hide)
    recording = RecordOptions(10.0 if flags.segment_s is None else flags.segment_s, hidden)
    temporal = TemporalOptions(flags.hysteresis, flags.min_lesion_age_ms or 0.0)
    return LiveOptions(
        out_dir=folder,
        worker=replace(
            worker,
            temporal=temporal if temporal.any else None,
            stills=StillOptions(hidden) if stills else None,
        ),
        overlay=overlay,
        alpha=alpha,
        label=label,
        pause_on_poor=pause_on_poor,
        max_staleness_ms=MAX_STALENESS_MS if flags.max_staleness_ms is None else flags.max_staleness_ms,
        recording=recording if flags.record else None,
        monitor=monitor,
        loop=flags.loop,
        duration_s=flags.duration_s,
        exist_ok=exist_ok,
        service_socket=os.environ.get("NOTIFY_SOCKET"),
    )


def _default_folder(address: LiveAddress, runs: Path) -> Path:
    """Return a folder named after the file or the kind of camera: an address may hold a password."""
    name = Path(address.name).stem if address.kind in ("file", "pipe") else f"live-{address.kind}"
    return runs / (name or "live")


def _print_results(report: dict[str, Any], folder: Path, *, json: bool, quiet: bool) -> None:
    for warning in report["warnings"]:
        say(f"note: {warning}", quiet=quiet)
    if json:
        print_json({"out_dir": str(folder), **report})
        return
    counts, ai_s = report["counts"], report["ai_s"]
    video, marker = report["video_delay_ms"], report["marker_delay_ms"]
    print_line(
        f"{counts['shown']} of {counts['received']} frames shown, {report['fps']:.1f} frames/s, "
        f"AI on for {ai_s['on']:.1f} of {sum(ai_s.values()):.1f} s"
    )
    print_line(f"added video delay: {_delays(video, ('p50', 'p99', 'max'), digits=2)}")
    print_line(f"marker delay:      {_delays(marker, ('p50', 'p95'), digits=1, none='no marker was shown')}")
    for name, path in report["outputs"].items():
        print_line(f"{name + ':':10} {folder / path}")


def _delays(
    values: dict[str, float | None], names: tuple[str, ...], *, digits: int, none: str = "no frame was shown"
) -> str:
    """Format percentiles; ``none`` where nothing was measured."""
    if values[names[0]] is None:
        return none
    return ", ".join(f"{name} {values[name]:.{digits}f} ms" for name in names)
