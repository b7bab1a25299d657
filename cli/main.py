"""The ``vmkla`` command: its commands, and the one place that turns errors into exit statuses."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from vmkla import __version__
from vmkla.cli.batch import batch
from vmkla.cli.bench import bench
from vmkla.cli.build import build
from vmkla.cli.calibrate import calibrate
from vmkla.cli.console import SafeStreams, say
from vmkla.cli.data import data
from vmkla.cli.doctor import doctor
from vmkla.cli.eval import evaluate
from vmkla.cli.explain import explain
from vmkla.cli.export import export
from vmkla.cli.help import command
from vmkla.cli.infer import infer
from vmkla.cli.inspect import inspect
from vmkla.cli.report import report
from vmkla.cli.sample import sample
from vmkla.cli.train import train
from vmkla.cli.tune import tune
from vmkla.cli.usage import usage_hint
from vmkla.cli.verify import verify
from vmkla.cpus import cpu_budget, limit_libraries
from vmkla.errors import ErrorReport, VmklaError
from vmkla.imports import import_failure
from vmkla.safe_text import log_printable

# Typer 0.20 and later carry a click of their own; either way this is what its usage errors derive from.
_CliError: Any = typer.BadParameter.__mro__[2]

_SEE_WHERE = "Run it again with --debug to see where."

app = typer.Typer(
    help="Polyp segmentation with VMKLA-UNet: train, export, infer. Research use, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich help doubles the time of `vmkla --help`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order in which a user needs them.
command(
    app,
    "infer",
    example="vmkla infer --video colonoscopy.mp4\nvmkla infer --source v4l2:///dev/video0 --live --display",
)(infer)
command(
    app,
    "batch",
    example="vmkla batch archive/ --out runs/archive --plan\n"
    "vmkla batch archive/ --out runs/archive --workers 2",
)(batch)
command(app, "train", example="vmkla train --data DIR --out runs/train/mine")(train)
command(
    app,
    "eval",
    example="vmkla eval --model runs/train/mine/best.safetensors --data DIR\n"
    "vmkla eval --model nano --procedures DIR",
)(evaluate)
command(
    app,
    "tune",
    example="vmkla tune nano --data DIR --quiet quiet1.mp4 quiet2.mp4 --alarms-per-minute 1\n"
    "vmkla tune mine.plan --data DIR --quiet stills/ --fps 25 --sensitivity 0.95",
)(tune)
app.add_typer(data, name="data")
for function, example in (
    (explain, "vmkla explain --model runs/train/mine/best.safetensors --source frames/"),
    (export, "vmkla export --model runs/train/mine/best.safetensors --output mine.onnx"),
    (calibrate, "vmkla calibrate mine.onnx --data DIR --target cpu --output mine.int8.onnx"),
    (build, "vmkla build mine.fp16.onnx --runtime tensorrt --output mine.plan"),
    (verify, "vmkla verify mine.onnx mine.int8.onnx --data DIR"),
    (inspect, "vmkla inspect mine.onnx"),
    (bench, "vmkla bench --model nano"),
    (doctor, "vmkla doctor"),
    (report, "vmkla report runs/infer/colonoscopy"),
    (sample, "vmkla sample clip.mp4 --masks masks/"),
):
    command(app, function.__name__, example=example)(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vmkla {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of an error; accepted anywhere on the command line."
        ),
    ] = False,
) -> None:
    """Options of all commands; ``main`` itself takes ``--debug`` out."""


def main(arguments: Sequence[str]) -> int:
    """Run one command and report its errors on stderr.

    Args:
        arguments: the command line without the program's name.
    Returns:
        Exit status: 0 done; 1 unexpected; 2 usage; 3 bad input; 4 missing dependency; 5 a gate failed;
        6 artefact and machine do not match; 7 done but degraded; 130 after SIGINT.
    """
    arguments, debug = _take_debug(arguments)
    root = typer.main.get_command(app)
    try:
        with root.make_context("vmkla", arguments) as context:
            status = root.invoke(context)
        return status if isinstance(status, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except _CliError as error:
        text = io.StringIO()
        error.show(file=text)  # it quotes the arguments
        for line in text.getvalue().splitlines():
            say(line)
        if hint := usage_hint(error, arguments):
            say(f"  {hint}")
        return int(error.exit_code)
    except (KeyboardInterrupt, Exception) as error:
        return _print_error(error, arguments, debug)


def _print_error(error: BaseException, arguments: Sequence[str], debug: bool) -> int:
    """Print an error on stderr and return its exit status."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        say("vmkla: interrupted")
        return ErrorReport.of(KeyboardInterrupt()).exit_status
    # An import that fails within vmkla is a fault of vmkla, not a missing package.
    if isinstance(error, ImportError) and (error.name or "vmkla").partition(".")[0] != "vmkla":
        error = import_failure(error, purpose=f"vmkla {next(iter(arguments), '')}".strip())
    ended = ErrorReport.of(error)
    if debug:
        _print_traceback()
    if isinstance(error, VmklaError):
        say(f"vmkla: {ended.message}")
        if ended.hint:
            say(f"  {ended.hint}")
    elif not debug:
        say(f"vmkla: unexpected {ended.message.splitlines()[0]}")
        say(f"  {_SEE_WHERE}")
    return ended.exit_status


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Remove ``--debug`` from the arguments before a ``--``; return them, and whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    before = [argument for argument in arguments[:end] if argument != "--debug"]
    return before + list(arguments[end:]), len(before) < end


def _print_traceback() -> None:
    for part in traceback.format_exception(*sys.exc_info()):
        say(part.strip("\n"))  # in one piece, so that line breaks within an error's message are escaped


def _terminate(signum: int, _: FrameType | None) -> NoReturn:
    # An exception, so that every `finally` and `with` on the way closes its files.
    raise SystemExit(128 + signum)


def run() -> None:
    """Entry point of the installed ``vmkla`` script."""
    streams = SafeStreams()
    limit_libraries(os.environ, cpu_budget())
    signal.signal(signal.SIGTERM, _terminate)
    log_printable()
    if "_VMKLA_COMPLETE" in os.environ:  # a shell asks for completions; the answer ends the process
        app(prog_name="vmkla")
    sys.exit(streams.status(main(sys.argv[1:])))
