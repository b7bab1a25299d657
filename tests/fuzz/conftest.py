"""Options of the fuzzers: duration and seed.

``pytest tests/fuzz`` knows the options; a run of all tests takes the defaults.
"""

from __future__ import annotations

import pytest

SECONDS = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--fuzz-seconds``, ``--fuzz-seed`` and ``--fuzz-input``."""
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seconds", type=float, default=SECONDS, help="of all targets together")
    group.addoption("--fuzz-seed", type=int, default=0, help="other seeds give other inputs")
    group.addoption("--fuzz-input", help="read this kept input alone; its name begins with the target")
