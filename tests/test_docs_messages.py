"""The messages that docs/desktop.md explains are those that the code gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SHORTEST = 8
"""Shorter constant pieces of a message say nothing."""


def constants(folder: Path) -> str:
    """Every piece of constant text in the sources of a folder, one a line."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def messages(document: str) -> list[str]:
    """First cells of the table of messages, where they quote one."""
    _, _, table = document.partition("## What a message means")
    return re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def unknown_pieces(message: str, said: str) -> list[str]:
    """Pieces of a message between its dots that no source holds."""
    pieces = [piece.strip() for piece in message.split("...")]
    return [piece for piece in pieces if len(piece) >= SHORTEST and piece not in said]


@pytest.fixture(scope="module")
def said(root: Path) -> str:
    return constants(root / "engines") + constants(root / "vmkla")


def test_messages_are_those_of_the_code(root: Path, said: str) -> None:
    found = messages((root / "docs" / "desktop.md").read_text(encoding="utf-8"))
    assert len(found) >= 10
    wrong = {message: unknown for message in found if (unknown := unknown_pieces(message, said))}
    assert not wrong


def test_the_check_sees_a_message_that_nobody_gives(said: str) -> None:
    assert unknown_pieces("... cannot load the plugin bookcase ...", said) == [
        "cannot load the plugin bookcase"
    ]
