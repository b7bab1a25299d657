"""From shipped weights to an INT8 file that infer runs: the README's commands, as they stand there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


def commands(heading: str) -> list[list[str]]:
    """The lines of the first block under a heading, without their comments."""
    block = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    block = block.partition("```sh\n")[2].partition("```")[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.mark.telling
@pytest.mark.slow
def test_the_readmes_int8_example_runs(vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands("INT8 on a CPU")
    verbs = [words[1] for words in lines]
    assert verbs == [*["sample"] * 4, "export", "calibrate", "verify", "infer"]
    for program, *words in lines:
        done = vmkla(*words)
        assert program == "vmkla" and done.status == 0, done.stderr
    facts = vmkla("inspect", "mine.int8.onnx", "--json").json
    assert (facts["precision"], facts["verified"]) == ("int8", True)
    (report,) = tmp_path.glob("runs/infer/*/report.json")
    seen = json.loads(report.read_text())
    assert seen["warnings"] == [] and seen["model"]["verified"] is True
    (verdict,) = tmp_path.glob("runs/verify/*/report.json")
    assert json.loads(verdict.read_text())["passed"] is True
    assert (tmp_path / "runs/calibrate/mine.int8/sensitivity.png").is_file()
