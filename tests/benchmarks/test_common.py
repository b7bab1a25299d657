"""A section of a benchmark's file is replaced, and the others stay."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import replace_section, section


def test_a_section_is_replaced_or_added(tmp_path: Path) -> None:
    path = tmp_path / "tables.md"
    path.write_text("# Title\n\nAbout.\n\n## One\n\n1\n\n## Two\n\n2\n", encoding="utf-8")
    assert (section(path, "One"), section(path, "Two"), section(path, "Three")) == (
        "## One\n\n1",
        "## Two\n\n2",
        "",
    )
    replace_section(path, "One", "## One\n\n10\n")
    replace_section(path, "Three", "## Three\n\n3")
    replace_section(path, "Three", "## Three\n\n30")
    expected = "# Title\n\nAbout.\n\n## One\n\n10\n\n## Two\n\n2\n\n## Three\n\n30\n"
    assert path.read_text(encoding="utf-8") == expected
