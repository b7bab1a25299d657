"""Names of sources in rows, reports and messages: without their folders, or made of their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vmkla.errors import BadInputError, VmklaError
from vmkla.files import file_sha256

DIGITS = 12
"""Hex digits of a sha256 that ``--anonymous`` shows in place of a name."""


class Names:
    """Real names, and the names that are shown in their place.

    Args:
        shown: maps a real name or path to the one that is shown.
    """

    def __init__(self, shown: Mapping[str, str]) -> None:
        quoted = {repr(real)[1:-1]: name for real, name in shown.items()}
        both = {real: name for real, name in {**quoted, **shown}.items() if len(real) > 1 and real != name}
        self._shown = dict(sorted(both.items(), key=lambda pair: -len(pair[0])))

    def also(self, more: Mapping[str, str] | Names) -> Names:
        """Return these names and some more."""
        return Names({**self._shown, **(more._shown if isinstance(more, Names) else more)})

    def hide(self, text: str) -> str:
        """Replace the real names in a text where they are whole words, the longest first."""
        for real, name in self._shown.items():
            if real in text:
                text = re.sub(_word(real), name.replace("\\", r"\\"), text)
        return text

    def hide_in(self, value: Any) -> Any:
        """Replace the real names in all texts of plain values."""
        if isinstance(value, str | Path):
            return self.hide(str(value))
        if isinstance(value, Mapping):
            return {key: self.hide_in(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide_in(item) for item in value]
        return value

    @contextlib.contextmanager
    def in_errors(self, anonymous: bool = True) -> Iterator[None]:
        """Replace the real names in the messages of errors of the block, and in those of their causes.

        Args:
            anonymous: False leaves the errors as they are.
        """
        if not anonymous:
            yield
            return
        try:
            yield
        except VmklaError as error:
            error.message = self.hide(error.message)
            error.hint = None if error.hint is None else self.hide(error.hint)
            error.args = (error.message,)
            error.__cause__ = error.__context__ = None
            raise
        except Exception as error:
            _reraise(type(error).__name__, self.hide(str(error)))


def pseudonyms(digests: Sequence[str | None]) -> list[str]:
    """Name files after their content: the first digits of the sha256.

    Equal files, and images of one file, get ``-2``, ``-3`` in their order; an unreadable file is
    ``unreadable``.

    Args:
        digests: hex digest of each file; None for one that cannot be read.
    """
    seen: Counter[str] = Counter()
    names = []
    for digest in digests:
        name = "unreadable" if digest is None else digest[:DIGITS]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def digest_or_none(path: Path) -> str | None:
    """Compute the sha256 of a file as a hex digest; None when it cannot be read."""
    try:
        return file_sha256(path)
    except BadInputError:
        return None


def joint_digest(digests: Iterable[str | None]) -> str:
    """Compute the sha256 of a folder or set from those of its files, in any order."""
    return hashlib.sha256("\n".join(sorted(digest or "" for digest in digests)).encode()).hexdigest()


def without_folder(path: Path) -> Names:
    """Show a file or folder by its own name, and the files in a folder relative to it."""
    name = path.name or path.resolve().name
    roots = {str(path), str(path.resolve())} - {".", "/"}
    return Names({**{f"{root}/": "" for root in roots if path.is_dir()}, **dict.fromkeys(roots, name)})


def given_names(specs: Iterable[str], shown: str = "the source") -> Names:
    """Show one text in place of all that a user named on the command line, before it is known what it is."""
    texts = {
        text for spec in specs for text in (spec, str(Path(spec)), os.path.abspath(spec), Path(spec).name)
    }
    return Names(dict.fromkeys((text for text in texts if text not in (".", "..", "/")), shown))


def _word(text: str) -> str:
    """Return a pattern that matches a text where neither end is inside a longer word."""
    before, after = (r"(?<!\w)" if text[0].isalnum() else ""), (r"(?!\w)" if text[-1].isalnum() else "")
    return before + re.escape(text) + after


def _reraise(kind: str, message: str) -> NoReturn:
    # Its own text, and those of its causes, would name files.
    raise RuntimeError(f"{kind}: {message}") from None
