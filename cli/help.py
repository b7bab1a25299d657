"""The help of a command: options in groups, and an example at the end."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

Function = TypeVar("Function", bound=Callable[..., Any])

GROUPS: dict[str, str] = {
    "Input": "--video --source --data --procedures --root --val --split --split-seed --against --track "
    "--stride --deinterlace --mask-values --mask-orientation --max-megapixels --half --frames --check "
    "--check-frames --frame --fps --manifest --results",
    "Archive": "--executor --shard --plan --retry-failed --max-failures --max-piece-s --max-stall-s "
    "--max-piece-mb --lease-s --part-s --summary --ray-address --ray-auth --ray-cpus --ray-gpus",
    "Model": "--model --weights --random-weights --runtime --runtime-a --runtime-b --device --device-a "
    "--device-b --kernels --kernels-a --kernels-b --plugin --threads --threshold --peak --min-fraction --roi "
    "--imgsz --batch --precision --input --half-storage --decoder-block --drop-path --init "
    "--init-encoder --block --complexity",
    "Training": "--epochs --lr --min-lr --weight-decay --t-max-epochs --warmup-epochs --ema-decay "
    "--grad-clip --bce-weight --dice-weight --augment --rendered --quiet-share --teacher "
    "--teacher-weight --deterministic --backend "
    "--channels-last --compile --workers --resume --max-minutes --save-minutes",
    "Live": "--live --display --loop --duration-s --max-staleness-ms --record --stills --segment-s "
    "--monitor --monitor-token-file --hysteresis --min-lesion-age-ms",
    "Checks": "--gates --max-dice-drop --skip-gates --allow-few --sensitivity --locate --save --load",
    "Method": "--target --method --percentile --profile --workspace --timing-cache --optimization-level "
    "--target-sm --iterations --warmup --conformance --idle-s --margin --quality --lossless --seed "
    "--size --minutes --masks --alarms-per-minute --holdout --identities",
    "Output": "--out --output --exist-ok --continue --overlay --alpha --label --pause-on-poor --save-masks "
    "--save-probability --export --export-frames --image-format --hide --anonymous --html --curves "
    "--tensorboard --json --quiet --no-progress",
}
"""Heading -> the flags under it, in the order of the help; a flag that is missing stands under "Options"."""

WITH_VALUE = {"--quiet": "Input", "--sensitivity": "Method"}
"""Flag -> the heading where it takes a value, of flags that take none in other commands."""

_GROUP_OF = {flag: group for group, flags in GROUPS.items() for flag in flags.split()}


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options by group."""
        groups: dict[str, list[tuple[str, str]]] = {
            "Arguments": [],
            **{name: [] for name in GROUPS},
            "Options": [],
        }
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups[group_of(parameter)].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one command in a line: a wrapped one cannot be copied."""
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def group_of(parameter: Any) -> str:
    """Return the heading that an option or argument stands under in the help."""
    if parameter.param_type_name == "argument":
        return "Arguments"
    if (panel := getattr(parameter, "rich_help_panel", None)) is not None:
        return str(panel)  # a flag of another meaning elsewhere
    if not parameter.is_flag and (valued := [flag for flag in parameter.opts if flag in WITH_VALUE]):
        return WITH_VALUE[valued[0]]
    return next((_GROUP_OF[flag] for flag in parameter.opts if flag in _GROUP_OF), "Options")


def command(app: typer.Typer, name: str, *, example: str) -> Callable[[Function], Function]:
    """Add a command; the list of commands shows the whole first sentence of its docstring, wrapped.

    Args:
        app: where to add it.
        name: as a user types it.
        example: one or two command lines, for the end of its help.
    """

    def add(function: Function) -> Function:
        sentence = re.match(r"(?:.|\n)+?\.(?=\s|$)", inspect.cleandoc(function.__doc__ or ""))
        app.command(name, cls=GroupedCommand, short_help=sentence[0] if sentence else None, epilog=example)(
            function
        )
        return function

    return add
