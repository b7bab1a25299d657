"""``vmkla inspect``: what a model file says of itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vmkla.cli.console import print_json
from vmkla.cli.options import Json


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name or an .onnx file.")],
    json: Json = False,
) -> None:
    """Show what a model file holds. No package beyond the base install is needed."""
    from vmkla.engines.inspect import describe

    facts = describe(model)
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        _print_fact(name, value, indent=0)


def _print_fact(name: str, value: Any, *, indent: int) -> None:
    """One line for a plain value, a block for a mapping or for a list of mappings."""
    label = "  " * indent + f"{name or 'standard'}:"
    if isinstance(value, dict) and value:
        print(label)
        for key, item in value.items():
            _print_fact(key, item, indent=indent + 1)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value, start=1):
            _print_fact(f"{name} {number}", item, indent=indent)
    else:
        plain = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{label} {'-' if plain in ('', None, {}) else plain}")
