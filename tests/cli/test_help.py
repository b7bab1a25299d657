"""The help of every command: options in groups, an example that can be copied; shell completion."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from vmkla.cli.help import GROUPS, group_of
from vmkla.cli.main import app


def commands() -> dict[str, Any]:
    """Name as it is typed -> command."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        for child_name, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {child_name}".strip())
        if not hasattr(command, "commands"):
            found[name] = command

    walk(typer.main.get_command(app), "")
    return found


COMMANDS = commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_a_group(name: str) -> None:
    alone = [parameter.opts for parameter in COMMANDS[name].params if group_of(parameter) == "Options"]
    assert not alone, f"give {alone} a group in vmkla.cli.help.GROUPS"


def test_every_flag_of_the_groups_exists() -> None:
    flags = {flag for command in COMMANDS.values() for option in command.params for flag in option.opts}
    listed = [flag for group in GROUPS.values() for flag in group.split()]
    assert sorted(listed) == sorted(set(listed)) and set(listed) <= flags


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_a_command_line_of_that_command(name: str) -> None:
    command = COMMANDS[name]
    assert command.epilog
    for line in command.epilog.splitlines():
        words = shlex.split(line)
        assert words[: 1 + len(name.split())] == ["vmkla", *name.split()]
        command.make_context(name, words[1 + len(name.split()) :])  # parses, and runs nothing


def test_the_help_shows_groups_and_the_example(vmkla: Any) -> None:
    done = vmkla("infer", "--help")
    headings = [line for line in done.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Input:", "Model:", "Live:", "Output:", "Options:", "Example:"]
    assert "  vmkla infer --video colonoscopy.mp4" in done.stdout.splitlines()
    assert done.status == 0


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("vmkla in", {"infer", "inspect"}),
        ("vmkla infer --over", {"--overlay"}),
        ("vmkla infer --overlay c", {"contour"}),
        ("vmkla data ", {"check", "pack"}),
    ],
)
def test_completion_in_bash(typed: str, completed: set[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash on this machine")
    program = Path(sys.executable).with_name("vmkla")
    words = [str(program) if word == "vmkla" else word for word in typed.split(" ")]
    script = (
        f'eval "$({shlex.quote(str(program))} --show-completion bash)"\n'
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))})\n"
        f"COMP_CWORD={len(words) - 1}\n"
        f"_vmkla_completion {shlex.quote(str(program))}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed, done.stderr
