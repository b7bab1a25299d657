"""Engines in the GPU check, without a GPU: what each failure becomes, and TensorRT-RTX as far as it goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gpu_engine_case
import gpu_engines
import numpy as np
import numpy.typing as npt
import pytest
from common import Table
from exported_models import exported
from gpu_process import call
from gpu_report import Outcome

from vmkla.engines.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.errors import VmklaError

GOOD: dict[str, Any] = {
    "max_error": 1e-5,
    "mean_error": 1e-7,
    "mean_dice": 1.0,
    "failures": [],
    "infer_p50_ms": 2.5,
    "infer_p99_ms": 3.5,
    "build_s": 9.0,
    "engine_bytes": 3_000_000,
}
STUB = """
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
table = json.loads(Path(__file__).with_suffix(".json").read_text())
status, text, error = table[next(key for key in table if all(word in arguments for word in key.split()))]
if "--output" in arguments and status == 0:
    Path(arguments[arguments.index("--output") + 1]).write_bytes(bytes(1_000_000))
print(text)
print(error, file=sys.stderr)
sys.exit(status)
"""


class Steps:
    """Stands in for the processes of a GPU: what each answers, by words on its command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = folder / "stub.py"
        self._path.write_text(STUB)
        for name in ("VMKLA", "CASE"):
            monkeypatch.setattr(gpu_engines, name, (sys.executable, str(self._path)))

    def answer(self, answers: dict[str, tuple[int, object, str]]) -> None:
        """Status, stdout and stderr; the first key counts whose words all stand on the command line."""
        table = {words: (status, json.dumps(text), error) for words, (status, text, error) in answers.items()}
        self._path.with_suffix(".json").write_text(json.dumps(table))


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(tmp_path, monkeypatch)


BUILT = (0, {"seconds": 12.0}, "")


def listed(tmp_path: Path) -> tuple[Table, Outcome]:
    table, outcome = Table("engines", gpu_engines.COLUMNS), Outcome()
    gpu_engines.listed_case("tensorrt", tmp_path / "nano.fp16.onnx", tmp_path, table, outcome)
    return table, outcome


def test_a_right_engine_gives_a_row(steps: Steps, tmp_path: Path) -> None:
    steps.answer({"build": BUILT, "compare": (0, GOOD, "")})
    table, outcome = listed(tmp_path)
    assert outcome.wrong == []
    (row,) = table.rows
    assert row[:3] == ("nano.fp16.onnx", "this GPU", 12.0)
    assert row[4:] == (1.0, "1.0e-05", "1.0e-07", "1.0000", 2.5, 3.5)


def test_a_wrong_engine_is_wrong(steps: Steps, tmp_path: Path) -> None:
    bad = {**GOOD, "max_error": None, "failures": ["frame 0 has values that are not finite"]}
    steps.answer({"build": BUILT, "compare": (0, bad, "")})
    table, outcome = listed(tmp_path)
    assert outcome.wrong == ["tensorrt, nano.fp16.onnx: frame 0 has values that are not finite"]
    assert table.rows[0][5] == "NaN"


def test_a_failed_gate_is_wrong_and_the_engine_is_measured(steps: Steps, tmp_path: Path) -> None:
    steps.answer({"build --skip-gates": BUILT, "build": (5, None, "Dice is 0.5"), "compare": (0, GOOD, "")})
    table, outcome = listed(tmp_path)
    assert outcome.wrong == ["tensorrt, nano.fp16.onnx: vmkla build: status 5: Dice is 0.5"]
    assert len(table.rows) == 1


def test_a_failed_build_is_wrong(steps: Steps, tmp_path: Path) -> None:
    steps.answer({"build": (6, None, "vmkla: the plugin cannot be loaded\n  Run: this")})
    table, outcome = listed(tmp_path)
    assert outcome.wrong == [
        "tensorrt, nano.fp16.onnx: vmkla build: status 6: vmkla: the plugin cannot be loaded Run: this"
    ]
    assert table.rows == []


def test_a_failed_run_is_wrong_and_the_build_stays(steps: Steps, tmp_path: Path) -> None:
    steps.answer({"build": BUILT, "compare": (134, None, "Assertion failed")})
    table, outcome = listed(tmp_path)
    assert len(outcome.wrong) == 1 and "Assertion failed" in outcome.wrong[0]
    assert table.rows[0][2] == 12.0 and table.rows[0][-1] == "-"


def unlisted(tmp_path: Path) -> tuple[Table, Outcome]:
    table, outcome = Table("engines", gpu_engines.COLUMNS), Outcome()
    model = tmp_path / "nano.onnx"
    gpu_engines.unlisted_case("tensorrt-rtx", 90, (80, 86), model, tmp_path, table, outcome)
    return table, outcome


def test_refusals_of_a_gpu_that_is_not_listed_are_notes(steps: Steps, tmp_path: Path) -> None:
    steps.answer(
        {
            "build --target-sm": BUILT,
            "build": (4, None, "does not build for SM 90"),
            "compare": (6, None, "target_sms is 80, 86"),
            "raw default": (1, None, "its own engine does not load"),
            "raw CURRENT": (0, GOOD, ""),
        }
    )
    table, outcome = unlisted(tmp_path)
    assert outcome.wrong == []
    refusal, elsewhere, default = outcome.notes
    assert "SM 90" in refusal and "status 4" in refusal
    assert "status 6: target_sms" in elsewhere and "does not load" in default
    assert [row[1] for row in table.rows] == ["SM 80,86", "CURRENT, asked directly"]
    assert table.rows[1][2] == 9.0 and table.rows[1][-2:] == (2.5, 3.5)


def test_a_wrong_result_on_a_gpu_that_is_not_listed_is_wrong(steps: Steps, tmp_path: Path) -> None:
    bad = {**GOOD, "failures": ["mean probability error is 0.1, allowed is 2e-06"]}
    steps.answer({"build": BUILT, "compare": (6, None, "no"), "raw": (0, bad, "")})
    _, outcome = unlisted(tmp_path)
    assert len(outcome.wrong) == 3  # vmkla build took the GPU, and both engines compute something else
    assert "vmkla build took SM 90" in outcome.wrong[0] and "target CURRENT" in outcome.wrong[2]


def test_models_are_exported_once(steps: Steps, tmp_path: Path) -> None:
    steps.answer({"export": (0, None, "")})
    found = gpu_engines.models([], tmp_path)
    assert [path.name for path in found] == ["nano.fp32.onnx", "nano.fp16.onnx"]
    steps.answer({"export": (3, None, "no more")})
    assert gpu_engines.models([], tmp_path) == found
    found[1].unlink()
    with pytest.raises(VmklaError, match="--precision fp16: status 3: no more"):
        gpu_engines.models([], tmp_path)
    assert gpu_engines.models([tmp_path / "mine.onnx"], tmp_path) == [tmp_path / "mine.onnx"]


class Spoilt:
    """A runner whose probability is off by a little everywhere."""

    def __init__(self, runner: OnnxRuntimeRunner, error: float) -> None:
        self.spec, self.name, self._runner, self._error = runner.spec, "spoilt", runner, error

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(self._runner.infer(frames_rgb) + np.float32(self._error))

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "tiny.onnx"
    path.write_bytes(exported())
    return path


@pytest.mark.parametrize(("error", "failures"), [(0.0, 0), (1e-3, 3)])
def test_figures_see_a_spoilt_engine(
    tiny: Path, error: float, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_engine_case, "TIMED", 5)
    candidate = Spoilt(OnnxRuntimeRunner(tiny, kernels="bodies"), error)
    found = gpu_engine_case.figures(tiny, candidate)
    assert len(found["failures"]) == failures, found
    assert found["max_error"] == pytest.approx(error, abs=5e-5)
    assert 0 < found["infer_p50_ms"] <= found["infer_p99_ms"]
    assert json.loads(json.dumps(found))["frames"] == gpu_engine_case.FRAMES + 1


@pytest.mark.slow
def test_tensorrt_rtx_without_a_gpu(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    outcome = gpu_engines.engines_part("tensorrt-rtx", 86, [tiny], tmp_path)
    (row,) = outcome.tables[0].rows
    assert isinstance(row[2], float) and isinstance(row[4], float)
    assert row[2] > 0 and row[4] > 0.1  # it was built: seconds, MB
    assert len(outcome.wrong) == 1 and "comparison: status 4" in outcome.wrong[0]  # and cannot run here


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "says"), [("default", "does not load"), ("CURRENT", "no engine was built")]
)
def test_tensorrt_rtx_asked_directly_without_a_gpu(
    tiny: Path, target: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = call([*gpu_engines.CASE, "raw", tiny, target])
    assert done.status == 1 and says in done.stderr
