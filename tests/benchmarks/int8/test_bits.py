"""The scripts that measure INT8 files fit the package: one small round of what they call."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.int8 import bits, measure
from vmkla import weights
from vmkla.segment.self_test import self_test_frames


@pytest.mark.slow
def test_a_file_is_made_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "REPEATS", 5)
    frames: Any = SimpleNamespace(frames=self_test_frames(256, 256))
    path = bits.quantized("cpu", frames, tmp_path)
    found = measure.measure(weights.resolve("nano", ".onnx"), path, (), 1, busy=True)
    assert found["sets"] == {} and len(found["ms"]) == 2 and min(found["ms"]) > 0
