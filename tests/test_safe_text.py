"""Text for people: no password of an address in it, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.safe_text import escape, printable, printable_json, redact

LONG = ("a", "-", "a.", "a+", "%", "a:,", "a:/", "a://", "a://b:c@", "token ", 'pw="', "x:y@ ")
"""What a hostile name may consist of: each is searched in a time that grows with its length alone."""

OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that a terminal may act on, or that no stream can encode."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open rtsp://user:s3cret@host/live", "cannot open rtsp://***@host/live"),
        ("x (rtsp://user:s3#c/r?e t@s3cret@host/live)", "x (rtsp://***@host/live)"),
        ("HTTP://s3cret@host", "HTTP://***@host"),
        ("rtsp:/user:s3cret@host", "rtsp:/***@host"),
        ("rtsp://user:s3cret", "rtsp://***"),
        ("rtsp://user:s3cret#x/y", "rtsp://***"),
        ("no file user:s3cret@host/live", "no file ***@host/live"),
        ("rtsp://host/live?token=s3cret, lost", "rtsp://host/live?*** lost"),
        ("user-pw = 's3cret word' password=s3cret&a=1", "user-pw = *** password=***&a=1"),
    ],
)
def test_what_may_be_a_password_goes(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("piece", LONG)
def test_a_megabyte_is_redacted_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    began_s = time.process_time()
    redact(text + "@!")
    shown = printable(text)
    assert time.process_time() - began_s < 10  # with a search that backtracks: hours
    assert len(shown) < 50_000 and shown.endswith("more characters)")


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://10.0.0.5:8554/ward/3: it does not answer",
        "Expected rtsp://HOST[:PORT]/PATH",
        "rtsp://[fe80::1]:554/live",
        "live: sample://?seed=8&size=480x360",
        "v4l2:///dev/video0?size=1920x1080",
        "monitor: http://127.0.0.1:38021/",
        "Run: vmkla train --data isic17=/data/isic --imgsz 256",
        "a@b.png and c:d e@f.png",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("\x7f\b\r\t", r"\x7f\x08\r\t"),
        ("a\u202egpj.exe\u2066", r"a\u202egpj.exe\u2066"),
        ("\udcff.png", r"\xff.png"),
        ("\u2028", r"\u2028"),
        ("[red]Grüße, 結果[/red]", "[red]Grüße, 結果[/red]"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    line = printable(text)
    assert not {unicodedata.category(each) for each in line.replace("\n", "")} & OBEYED
    assert not any(rest and not rest.startswith("  ") for rest in line.split("\n")[1:])
    line.encode("utf-8")  # any stream of UTF-8 takes it


def test_a_break_in_a_name_makes_no_line_of_its_own() -> None:
    assert printable("problems:\n  a\nvmkla: done") == "problems:\n  a\\nvmkla: done"


@given(st.text())
def test_json_keeps_its_meaning(text: str) -> None:
    document = printable_json(json.dumps({text: text}, ensure_ascii=False, indent=1))
    assert json.loads(document) == {text: text}
    assert not {unicodedata.category(each) for each in document.replace("\n", "")} & OBEYED


def test_log_messages_are_printable_too() -> None:
    code = (
        "import logging\nfrom vmkla.safe_text import log_printable\nlog_printable()\n"
        "logging.getLogger('x').warning('%s %s', 'a\\x1b[2J\\nb', 'rtsp://u:s3cret@h/')\n"
        "logging.getLogger('x').info('not shown')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "a\\x1b[2J\\nb rtsp://***@h/\n" and not done.stdout
