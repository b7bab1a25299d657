"""The documents name commands, flags and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from tests import ROOT
from vmkla.cli.main import app

FOLDERS = ("docs", "benchmarks", "experiments")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))])
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def flags(command: str) -> set[str]:
    """Every spelling of every option of a command, and of its commands where it has some."""
    inner = getattr(COMMANDS[command], "commands", {}).values()
    parameters = [parameter for each in (COMMANDS[command], *inner) for parameter in each.params]
    return {"--help", "--debug"} | {
        flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def named_flags(text: str) -> list[tuple[str, str]]:
    """(command, flag) of each ``vmkla COMMAND ... --flag`` in a text, line by line."""
    found = []
    for line in text.splitlines():
        for command, rest in re.findall(r"\bvmkla ([a-z]+)\b([^`\n]*)", line):
            if command in COMMANDS:
                found += [(command, flag) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)]
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_exist(document: Path) -> None:
    wrong = [
        pair for pair in named_flags(document.read_text(encoding="utf-8")) if pair[1] not in flags(pair[0])
    ]
    assert not wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert not [link for link in local if not (document.parent / link).exists()]


def test_every_command_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    assert {command for command, _ in re.findall(r"vmkla ([a-z]+)()", guide)} >= set(COMMANDS)


def test_the_check_itself_sees_a_wrong_flag() -> None:
    assert named_flags("`vmkla infer --video a.mp4 --no-such`") == [
        ("infer", "--video"),
        ("infer", "--no-such"),
    ]
    assert "--no-such" not in flags("infer") and {"--video", "--continue"} <= flags("infer")
