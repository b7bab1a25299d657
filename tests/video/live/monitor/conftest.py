"""A display for the monitor's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.video.live.monitor.displays import Display


@pytest.fixture(scope="module")
def display() -> Iterator[Display]:
    """One for all tests of a file."""
    with Display() as running:
        yield running
