"""``vmkla inspect``: show what a model file holds, and what its network costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmkla.cli.console import print_json, print_line
from vmkla.cli.options import Json, parse_size
from vmkla.errors import UsageError

if TYPE_CHECKING:
    from vmkla.models.complexity import Complexity


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A shipped model's name, an .onnx file or a .plan; "
            "with --complexity a preset or .safetensors too.",
        ),
    ],
    complexity: Annotated[
        bool,
        typer.Option("--complexity", help="Count parameters and floating-point operations, block by block."),
    ] = False,
    imgsz: Annotated[
        str | None,
        typer.Option(
            "--imgsz", help="With --complexity: input size, H or H,W; default: the model's, else 256."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a model file holds. Only --complexity needs more than the base install."""
    if complexity:
        _show_complexity(model, None if imgsz is None else parse_size(imgsz, flag="--imgsz"), json)
        return
    if imgsz is not None:
        raise UsageError("--imgsz is the input size that --complexity counts for", hint="Add --complexity.")
    from vmkla.engines.inspect import describe

    facts = describe(model)
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        _print_fact(name, value, indent=0)


def _show_complexity(model: str, size_hw: tuple[int, int] | None, json: bool) -> None:
    from vmkla.engines.inspect import network_of
    from vmkla.imports import require

    config, own_hw = network_of(model)
    require("torch", extra="train", purpose="vmkla inspect --complexity")
    from vmkla.models.complexity import measure

    counted = measure(config, *(size_hw or own_hw))
    if json:
        print_json({"model": model, "model_config": config.to_dict(), **counted.to_dict()})
        return
    _print_complexity(counted)


def _print_complexity(counted: Complexity) -> None:
    print_line(f"input: {counted.height}x{counted.width}")
    print_line(f"{'part':30} {'kind':18} {'parameters':>12} {'M FLOPs':>10}")
    for cost in counted.blocks:
        print_line(f"{cost.name:30} {cost.kind:18} {cost.parameters:12,} {cost.flops / 1e6:10.1f}")
    print_line(f"{'whole network':49} {counted.parameters:12,} {counted.flops / 1e6:10.1f}")
    print_line()
    print_line("KAN linear attention beside SS2D, on the tokens of each decoder stage (the paper's Table 1):")
    print_line(f"{'channels':>8} {'tokens':>9} {'parameters':>21} {'M FLOPs':>19}")
    for mixer in counted.mixers:
        attention, scan = mixer.attention, mixer.scan
        parameters = f"{attention.parameters:,} / {scan.parameters:,}"
        flops = f"{attention.flops / 1e6:.1f} / {scan.flops / 1e6:.1f}"
        print_line(f"{mixer.dim:8} {f'{mixer.height}x{mixer.width}':>9} {parameters:>21} {flops:>19}")
    print_line()
    print_line(f"{counted.convention}")


def _print_fact(name: str, value: Any, *, indent: int) -> None:
    """Format a plain value in one line, a mapping or a list of mappings as a block."""
    label = "  " * indent + f"{name or 'standard'}:"
    if isinstance(value, dict) and value:
        print_line(label)
        for key, item in value.items():
            _print_fact(key, item, indent=indent + 1)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value, start=1):
            _print_fact(f"{name} {number}", item, indent=indent)
    else:
        plain = ", ".join(map(str, value)) if isinstance(value, list) else value
        print_line(f"{label} {'-' if plain in ('', None, {}) else plain}")
