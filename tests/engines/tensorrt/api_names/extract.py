"""Names in TensorRT's Python API, read from the sources of its bindings, for ``test_api_names.py``.

    git clone --depth 1 --branch v10.3.0 https://github.com/NVIDIA/TensorRT
    python tests/engines/tensorrt/api_names/extract.py TensorRT > tests/engines/tensorrt/api_names/10.3.json

Written are the classes in ``CLASSES`` alone, each with its members: null for a property or an enumeration's
value, a list of signatures for a method, and in each signature the arguments' names; ``?`` where the bindings
name none, ``=`` before one that may be left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IErrorRecorder",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IPluginCreatorInterface",
    "IPluginCreatorV3One",
    "IPluginRegistry",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
)
FUNCTIONS = "(functions)"
"""Key of the module's own functions."""

Signature = list[str]
Api = dict[str, dict[str, list[Signature] | None]]


def extract(checkout: Path) -> Api:
    """Classes, enumerations and functions of a checkout's bindings, by their Python names."""
    api: Api = {FUNCTIONS: {}}
    bases: dict[str, list[str]] = {}
    python_names: dict[str, str] = {}
    sources = sorted((checkout / "python" / "src").rglob("*.cpp"))
    if not sources:
        raise SystemExit(f"{checkout} has no python/src/**/*.cpp")
    for path in sources:
        _read(_without_comments(path.read_text(encoding="utf-8")), api, bases, python_names)
    for name in list(api):
        for base in _ancestors(name, bases, python_names):
            api[name] = {**api.get(base, {}), **api[name]}
    return api


def _read(text: str, api: Api, bases: dict[str, list[str]], python_names: dict[str, str]) -> None:
    variables: dict[str, str] = {"m": FUNCTIONS}
    pattern = re.compile(r"py::(class_|enum_)\s*<|\b(\w+)\s*\.def\w*\(")
    at = 0
    while match := pattern.search(text, at):
        if match[2]:
            at = match.end()
            if match[2] in variables:
                at = _chain(text, match.end(2), api[variables[match[2]]])
            continue
        end = _closing(text, match.end() - 1, "<>")
        kinds = _split(text[match.end() : end])
        head = re.compile(r"\s*(\w*)\s*[({]").match(text, end + 1)
        if head is None:
            at = end
            continue
        opened = head.end() - 1
        closed = _closing(text, opened, text[opened] + {"(": ")", "{": "}"}[text[opened]])
        arguments = _split(text[opened + 1 : closed])
        name = arguments[1].strip().strip('"') if len(arguments) > 1 else ""
        at = closed
        if not re.fullmatch(r"\w+", name):
            continue
        members = api.setdefault(name, {})
        python_names[kinds[0].strip().split("::")[-1]] = name
        bases.setdefault(name, []).extend(kind.strip() for kind in kinds[1:])
        if head[1]:
            variables[head[1]] = name
        owner = variables.get(arguments[0].strip())
        if match[1] == "enum_" and owner not in (None, FUNCTIONS):
            api[owner][name] = None
        at = _chain(text, closed + 1, members)
        if match[1] == "enum_" and owner not in (None, FUNCTIONS) and ".export_values" in text[closed:at]:
            api[owner].update(members)


def _chain(text: str, at: int, members: dict[str, list[Signature] | None]) -> int:
    """Read ``.def("name", ...).value("NAME", ...)`` from ``at`` on; where it ends."""
    link = re.compile(r"\s*\.(\w+)\s*\(")
    while match := link.match(text, at):
        closed = _closing(text, match.end() - 1, "()")
        arguments = _split(text[match.end() : closed])
        name = re.fullmatch(r'\s*"(\w+)"\s*', arguments[0]) if arguments else None
        made = bool(arguments) and arguments[0].strip().startswith("py::init")
        if made or (name and match[1] in ("def", "def_static")):
            signatures = members.setdefault(name[1] if name else "__init__", [])
            if signatures is not None:
                signatures.append(_signature(arguments[1:]))
        elif name and (match[1].startswith("def_") or match[1] in ("value", "attr")):
            members[name[1]] = None
        at = closed + 1
    return at


def _signature(arguments: list[str]) -> Signature:
    named = [re.match(r'\s*(?:py::arg\(\s*"(\w+)"\s*\)|"(\w+)"_a)\s*(=)?', text) for text in arguments]
    found = [f"{match[3] or ''}{match[1] or match[2]}" for match in named if match]
    return found or (["?"] if not any("_a" in text for text in arguments) else [])


def _ancestors(name: str, bases: dict[str, list[str]], python_names: dict[str, str]) -> Iterator[str]:
    for kind in bases.get(name, []):
        base = python_names.get(kind.split("::")[-1])
        if base is not None and base != name:
            yield base
            yield from _ancestors(base, bases, python_names)


def _without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*|^\s*#[^\n]*", "", text, flags=re.MULTILINE)


def _closing(text: str, at: int, pair: str) -> int:
    """Index of the bracket that closes the one at ``at``; quoted text does not count."""
    depth, inside = 0, False
    for index in range(at, len(text)):
        character = text[index]
        if character == '"' and text[index - 1] != "\\":
            inside = not inside
        elif not inside and character == pair[0]:
            depth += 1
        elif not inside and character == pair[1] and text[index - 1] != "-":  # not ->
            depth -= 1
            if depth == 0:
                return index
    raise SystemExit(f"a bracket is not closed: {text[at : at + 60]!r}")


def _split(text: str) -> list[str]:
    """At the commas that stand in no bracket."""
    parts, depth, inside = [""], 0, False
    for index, character in enumerate(text):
        if character == '"' and text[index - 1 : index] != "\\":
            inside = not inside
        if not inside:
            depth += (character in "([{<") - (
                character in ")]}" or (character == ">" and text[index - 1] != "-")
            )
            if character == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += character
    return parts


def main() -> None:
    """Print the names of a checkout as JSON."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} CHECKOUT")
    api = extract(Path(sys.argv[1]))
    chosen = {name: dict(sorted(api[name].items())) for name in (FUNCTIONS, *CLASSES) if name in api}
    lines = []
    for name, members in chosen.items():
        inner = ",\n".join(
            f"    {json.dumps(member)}: {json.dumps(value)}" for member, value in members.items()
        )
        lines.append(f"  {json.dumps(name)}: {{\n{inner}\n  }}")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
