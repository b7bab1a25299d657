"""Fixtures of the tests of engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported_models import exported


@pytest.fixture
def tiny_onnx(tmp_path: Path) -> Path:
    """A whole, verified file of a tiny network with a dynamic batch, to be spoilt at will."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(exported())
    return path
