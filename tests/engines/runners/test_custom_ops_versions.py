"""One compiled library for every onnxruntime from 1.20 on; older ones are refused aloud."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper

from tests.engines.runners.custom_op_models import Array, call_model, open_session, run, save, scan_inputs
from vmkla.errors import MissingDependencyError

pytestmark = pytest.mark.slow

# Runs in a process of its own, whose `import onnxruntime` finds another release.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
from vmkla.engines.runners.custom_ops import register
from vmkla.errors import VmklaError

folder = Path(sys.argv[1])
assert onnxruntime.__version__ == sys.argv[2], onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
try:
    register(options)
except VmklaError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_status)
inputs = dict(np.load(folder / "inputs.npz"))
session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
np.save(folder / "y.npy", session.run(None, inputs)[0])
"""


@dataclass(frozen=True)
class Release:
    """An onnxruntime that pip put in a folder of its own."""

    version: str
    folder: Path

    def run(self, work: Path) -> subprocess.CompletedProcess[str]:
        """The script above, on the model and inputs in ``work``."""
        # What is on the path already makes the child the same kind of CPU, see ``as_cpu.py``.
        path = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(work), self.version],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
            cwd=work,  # not the checkout, whose vmkla/ is not the installed package
            capture_output=True,
            text=True,
            timeout=120,
        )


def install(requirement: str, folder: Path) -> Release:
    """One release without its dependencies: numpy is that of this environment."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip in this environment to fetch another onnxruntime with")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--target", str(folder), requirement], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"pip cannot fetch {requirement} here: {done.stderr.strip()[-300:]}")
    (installed,) = importlib.metadata.distributions(name="onnxruntime", path=[str(folder)])
    return Release(installed.version, folder)


@pytest.fixture(scope="module", params=["onnxruntime==1.20.1", "onnxruntime==1.23.2", "onnxruntime"])
def supported(request: pytest.FixtureRequest) -> Iterator[Release]:
    """The oldest supported release, the last one for Python 3.10, and the newest there is."""
    with tempfile.TemporaryDirectory() as folder:
        yield install(request.param, Path(folder))


@pytest.fixture(scope="module")
def too_old() -> Iterator[Release]:
    with tempfile.TemporaryDirectory() as folder:
        yield install("onnxruntime==1.19.2", Path(folder))


def calls(dtype: npt.DTypeLike) -> dict[str, tuple[bytes, dict[str, Array]]]:
    """A model and inputs for each op. Its body returns something else, so the kernel is seen to run."""
    rng = np.random.default_rng(21)
    scan = scan_inputs(rng, 2, 6, 5, 21, 3, 2, dtype)
    knots = np.linspace(-2.0, 3.0, 11).astype(np.float32)
    basis = {"x": rng.uniform(-2.5, 3.5, (4, 9, 7)).astype(dtype), "grid": knots}
    uniform = {"order": 3, "uniform": 1, "grid_min": -2.0, "grid_step": 0.5}
    return {
        "scan": (
            call_model("SelectiveScan2d", scan, dtype, body=[helper.make_node("Neg", ["u"], ["y"])]),
            scan,
        ),
        "basis": (
            call_model("BSplineBasis", basis, dtype, body=[helper.make_node("Neg", ["x"], ["y"])], **uniform),
            basis,
        ),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("op", ["scan", "basis"])
def test_a_supported_release_gives_the_same_bits(
    supported: Release, op: str, dtype: npt.DTypeLike, tmp_path: Path
) -> None:
    model, inputs = calls(dtype)[op]
    save(model, inputs, tmp_path)
    done = supported.run(tmp_path)
    assert done.returncode == 0, done.stderr
    here = run(open_session(model, threads=2), inputs)
    there = np.load(tmp_path / "y.npy")
    assert here.shape == there.shape and here.dtype == there.dtype
    assert here.tobytes() == there.tobytes()


def test_a_release_that_is_too_old_is_refused(too_old: Release, tmp_path: Path) -> None:
    model, inputs = calls(np.float32)["scan"]
    save(model, inputs, tmp_path)
    done = too_old.run(tmp_path)
    assert done.returncode == MissingDependencyError.exit_status, done.stderr
    assert done.stdout.startswith("MissingDependencyError")
    assert "need ONNX Runtime 1.20 or newer, and this one is 1.19.2" in done.stdout
    assert "pip install --upgrade 'onnxruntime>=1.20'" in done.stdout
    assert not (tmp_path / "y.npy").exists()
