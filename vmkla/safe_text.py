"""Make text safe to print: without passwords of addresses, and without control sequences."""

from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata

# Every repetition is bounded: these search texts of others, and an unbounded one can take quadratic time.
_SCHEME = r"\b[a-z][a-z0-9+.-]{0,30}:/"
_USER = re.compile(rf"(?i){_SCHEME}{{1,9}}")
_BROKEN_USER = re.compile(rf"(?i)({_SCHEME}/)[^\s/@:\[\]'\"]{{0,512}}:(?!\d{{1,5}}(?:[\s/?#'\",;:).]|$))\S+")
_WITHOUT_SCHEME = re.compile(r"(?<![\w/:@.%+-])[\w.%+-]{1,512}:(?!/)[^\s@]{1,512}@(?=[\w\[])")
_QUERY = re.compile(rf"(?i)\b(?!sample:|v4l2:)({_SCHEME}/[^\s?'\"]{{0,512}}\?)[^\s'\"]+")
_ASSIGNED = re.compile(
    r"(?i)((?:pw|pwd|passw(?:or)?d|passphrase|token|secret|user-id)\s{0,9}=\s{0,9})"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s&;,]+)"
)
_LINE_MAX = 20_000
"""Largest number of printed characters of a line; vmkla's own messages are far shorter."""
_BREAK = re.compile(r"\n(?!  )")
_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")


def redact(text: str) -> str:
    """Remove user names, passwords and queries of addresses from a text.

    It is for texts of other programs, which may quote an address; ``parse_address`` reads known addresses.
    Where the end of a password is not clear, it removes too much rather than too little.
    """
    text = "\n".join(map(_without_user, text.split("\n")))
    for pattern, instead in (
        (_BROKEN_USER, r"\1***"),
        (_WITHOUT_SCHEME, "***@"),
        (_QUERY, r"\1***"),
        (_ASSIGNED, r"\1***"),
    ):
        text = pattern.sub(instead, text)
    return text


def _without_user(line: str) -> str:
    """Remove all up to the last @ of a line: a password may contain an @, a space or a quote."""
    at = line.rfind("@")
    found = _USER.search(line, 0, at) if at > 0 else None
    return line if found is None else f"{line[: found.end()]}***{line[at:]}"


def escape(text: str) -> str:
    """Write characters that control a terminal or change the direction of text as escapes such as ``\\x1b``.

    A byte of a file name that is not valid Unicode is escaped too, so that the result can be encoded.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_plain(letter) else _escaped(letter) for letter in text)


def printable(text: str) -> str:
    """Make a message safe to print: redact it, escape all but its line breaks, and cut very long lines.

    A line break stays where two spaces follow it, as in a message's lists, so that a name with a line break
    cannot look like a message of its own.
    """
    text = _BREAK.sub(r"\\n", redact("\n".join(map(_shortened, text.split("\n")))))
    return "\n".join(map(escape, text.split("\n")))


def _shortened(line: str) -> str:
    more = len(line) - _LINE_MAX
    return line if more <= 0 else f"{line[:_LINE_MAX]}... ({more} more characters)"


def printable_json(document: str) -> str:
    """Escape such characters in a JSON document; the module ``json`` escapes them up to ``\\x1f`` only."""
    return _NOT_ASCII.sub(
        lambda found: found[0] if _is_plain(found[0]) else json.dumps(found[0])[1:-1], document
    )


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"  # spaces of any width


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte that is not valid UTF-8, as Python keeps it in a name
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


class _PlainStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Print messages on the current stderr, made safe to print."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)

    @property
    def stream(self) -> object:
        """The current stderr, which tests and parents replace."""
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, with a traceback below it, made safe to print."""
        return printable(super().format(record))


def log_printable() -> None:
    """Print warnings and errors of the log that no other handler takes on stderr, as ``printable`` text."""
    logging.lastResort = _PlainStderr()
