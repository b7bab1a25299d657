"""Text that is safe to print: without passwords of addresses, and without what a terminal would obey."""

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
"""Characters of a line that are printed; no message of vmkla's own comes near."""
_BREAK = re.compile(r"\n(?!  )")
_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")


def redact(text: str) -> str:
    """Take user names, passwords and queries of addresses out of a text.

    It is for texts that others wrote and that may quote an address; what is known to be an address is read by
    ``parse_address``. Where it is not clear what belongs to a password, too much goes rather than too little.
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
    """Up to the last @ of the line: a password may hold an @, a space or a quote itself."""
    at = line.rfind("@")
    found = _USER.search(line, 0, at) if at > 0 else None
    return line if found is None else f"{line[: found.end()]}***{line[at:]}"


def escape(text: str) -> str:
    """Write what moves a cursor, starts a terminal's sequence or turns the direction of text as ``\\x1b``.

    A byte of a file name that is not valid Unicode is written alike, so that the result can be encoded.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_plain(letter) else _escaped(letter) for letter in text)


def printable(text: str) -> str:
    """A message as it may be printed: redacted, and escaped but for line breaks; very long lines are cut.

    A break stays where two spaces follow it, as in lists of a message: a name with a break in it cannot
    put a line of its own at the margin.
    """
    text = _BREAK.sub(r"\\n", redact("\n".join(map(_shortened, text.split("\n")))))
    return "\n".join(map(escape, text.split("\n")))


def _shortened(line: str) -> str:
    more = len(line) - _LINE_MAX
    return line if more <= 0 else f"{line[:_LINE_MAX]}... ({more} more characters)"


def printable_json(document: str) -> str:
    """The same JSON with such characters escaped; the module ``json`` escapes them up to ``\\x1f`` only."""
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
    """Writes messages to what is stderr at that moment, printable."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)

    @property
    def stream(self) -> object:
        """The stream, read anew each time: tests and parents replace it."""
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        """The message, and a traceback below it, printable."""
        return printable(super().format(record))


def log_printable() -> None:
    """Print warnings and errors of the log that nobody else handles on stderr, as ``printable`` text."""
    logging.lastResort = _PlainStderr()
