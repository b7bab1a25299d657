"""The page of the Triton kernels' registers is what the compilers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import triton_log
from benchmarks.gpu.plugin_log import Usage

PAGE = Path(triton_log.ROOT / "docs" / "triton-builds.md")


def test_the_page_is_what_the_installed_triton_compiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(triton_log, "ARCHITECTURES", (87,))
    monkeypatch.setattr(triton_log, "RANKS", (8,))
    triton_log.print_usages()
    version, found = json.loads(capsys.readouterr().out)
    assert {name["architecture"] for name in found} == {"sm_87"} and len(found) == 7 + 2 * 3
    page = PAGE.read_text()
    if f"## Triton {version}: " not in page:
        return  # a newer one than the page was written with
    section = page.split(f"## Triton {version}: ")[1].split("\n## ")[0]
    rows = {line.split("`")[1]: line.split(" | ") for line in section.splitlines() if line.startswith("| `")}
    for usage in found:
        assert usage["spilled_bytes"] == 0
        assert rows[usage["kernel"]][2] == str(usage["registers"]), usage["kernel"]


def test_each_version_has_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def usages(folder: Path | None) -> tuple[str, list[Usage]]:
        version = "9.1" if folder is None else folder.name
        return version, [Usage("a, R =  8", "sm_80", 40, 0), Usage("a, R =  8", "sm_90", 64, 16)]

    monkeypatch.setattr(triton_log, "usages_with", usages)
    page = triton_log.report([Path("7.5")])
    assert page.index("## Triton 9.1: ") < page.index("## Triton 7.5: ") < page.index("## Commands")
    assert page.count("| `a, R =  8` | 40 | 64 +16 B |") == 2
