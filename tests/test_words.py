"""The words of the documents, help texts, messages, docstrings and comments: one word for one thing."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

FORBIDDEN = {
    r"\b(hold|holds|held|holding)\b[^.]{0,60}\bagainst\b": "compare A with B",
    r"\bheld by\b": "checked by",
    r"(?<!there )\b(is|are) no (?!longer\b|more\b|less\b|fewer\b|faster\b|slower\b|larger\b|smaller\b)[a-z]+":
        "there is no X, X is missing, X is not a Y",
    r"\b(go|goes|going|went) on\b(?! (a|the) (GPU|CPU|device))": "continue, resume, retry",
    r"\btakes? up again\b": "resume",
    r"\blateness\b": "latency, delay",
    r"\b(program|file|report|manifest|report\.json|metadata|header|log|line|command|message|strip|option)s? "
    r"(says?|tells?)\b": "report, print, state",
    r"\bsays so\b": "reports it, states it",
    r"\bsaid (with|in) (fewer|more)\b": "exported as",
    # In quotes "parting" is a key of verify's report.json.
    r"\b(blamed?|deaf|unsaid|stray)\b|(?<!['\"`])\bparting\b": "a term of the field, no metaphor",
    r"\b(checks?|gates?) (is|are) refused\b": "fails, is rejected",
    r", about[.)\"]": "about N, before the quantity",
    r"\bof before\b": "older",
    r"\bwhat is wrong with\b": "problems of",
    r"\bbrings? along\b": "includes",
}  # fmt: skip
"""Pattern, in any case -> what to write. The rest of the glossary is for people: no pattern can judge it."""

CODE = sorted(
    path
    for folder in (
        "vmkla",
        "export",
        "engines",
        "cli",
        "calibration",
        "benchmarks",
        "experiments",
        "examples",
    )
    for path in (ROOT / folder).rglob("*.py")
)
PROSE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


def texts_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every comment and string of a module; neighbouring comment lines are one text."""
    comment, first = "", 0
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            first = first or token.start[0]
            comment += " " + token.string.lstrip("#")
        elif token.type not in (tokenize.NL, tokenize.NEWLINE):
            if comment:
                yield first, comment
            comment, first = "", 0
            if token.type == tokenize.STRING or "FSTRING_MIDDLE" in tokenize.tok_name[token.type]:
                yield token.start[0], token.string
    if comment:
        yield first, comment


def texts_of_prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every paragraph of a document, without its code."""
    code, number, paragraph = False, 0, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            code = not code
        elif not code and line.strip():
            paragraph += " " + re.sub(r"`[^`]*`", "`", line)
            continue
        if paragraph:
            yield number, paragraph
        paragraph = ""
    yield number, paragraph


def wrong_words(texts: Iterator[tuple[int, str]]) -> list[str]:
    """Each forbidden phrase with its place and what to write."""
    found = []
    for line, text in texts:
        joined = " ".join(text.split())
        for pattern, write in FORBIDDEN.items():
            found += [
                f"{line}: {match[0]!r}: write: {write}"
                for match in re.finditer(pattern, joined, re.IGNORECASE)
            ]
    return found


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_code(path: Path) -> None:
    assert not wrong_words(texts_of_code(path))


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents(path: Path) -> None:
    assert not wrong_words(texts_of_prose(path))


def test_the_check_itself_sees_forbidden_words(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('# A run goes\n# on after a cut.\nx = "the manifest is held against the machine"\n')
    assert [line.split(":")[0] for line in wrong_words(texts_of_code(module))] == ["1", "3"]
    page = tmp_path / "page.md"
    page.write_text("The report\nsays how.\n\n```\nit goes on\n```\n\nThere is no GPU; no longer.\n")
    assert len(wrong_words(texts_of_prose(page))) == 1
