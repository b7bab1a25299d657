"""Fixtures of the calibration's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.calibration.small_graphs import small_weights, write_images, write_small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file of the small graph."""
    return write_small(tmp_path / "small.onnx", small_weights())


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of images: ``images(count)``."""

    def write(count: int, *, name: str = "images", seed: int = 0) -> Path:
        return write_images(tmp_path / name, count, seed=seed)

    return write
