"""Open an 8-bit file in a session that saturates: a program for ``other_cpus.run``.

    python tests/calibration/saturating_session.py FOLDER

Prints, as JSON, what the self-test says of the session, and of one that computes the same file exactly.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import numpy as np

from tests import other_cpus
from vmkla import weights
from vmkla.calibration.artefact import open_artefact
from vmkla.engines.runners import onnxruntime_runner
from vmkla.errors import ArtefactMismatchError, VmklaError
from vmkla.segment.self_test import check_self_test, known_output, self_test_frames


def quantized(path: Path) -> None:
    """Quantize the shipped ``nano`` to 8-bit weights, with ranges of the self-test's frames."""
    from vmkla.calibration.ranges import measure_ranges

    source = open_artefact(weights.resolve("nano", ".onnx"), "cpu-vnni", "fp32")
    preprocess = source.metadata.preprocess
    pictures = self_test_frames(preprocess.height, preprocess.width)
    ranges = measure_ranges(source.path, source.layers, pictures, "min-max", input_type="uint8", batch=None)
    source.write_quantized(source.layers, ranges, path)


def said(path: Path, known: dict[str, Any] | None) -> dict[str, Any] | str:
    """Return the self-test's result, or its error message."""
    runner = onnxruntime_runner.OnnxRuntimeRunner(path, threads=1, warn_unverified=False)
    try:
        return known_output(runner) if known is None else str(bool(check_self_test(runner, known)))
    except VmklaError as error:
        return error.message
    finally:
        runner.close()


def main(folder: Path) -> dict[str, Any]:
    """Quantize the file and run the self-test on it."""
    path = folder / "eight.onnx"
    quantized(path)
    try:
        onnxruntime_runner.OnnxRuntimeRunner(path)
        refused = ""
    except ArtefactMismatchError as error:
        refused = error.message
    onnxruntime_runner.missing_for_int8 = lambda: None  # as if it were not refused
    import onnxruntime

    plain = onnxruntime.SessionOptions
    other_cpus.ask_for_precise_mode()
    known = said(path, None)
    assert isinstance(known, dict)
    exact = said(path, known)
    onnxruntime.SessionOptions = plain
    saturated = said(path, None)
    assert isinstance(saturated, dict)
    mean = float(np.abs(np.subtract(saturated["grids"], known["grids"])).mean())
    return {"refused": refused, "exact": exact, "by default": said(path, known), "mean": mean}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
