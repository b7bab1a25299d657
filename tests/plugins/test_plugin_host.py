"""The TensorRT plugin, compiled with TensorRT's own headers and driven through TensorRT's interfaces.

The library and the program that drives it (tests/plugins/host) are compiled for each TensorRT that
TENSORRT_ROOTS names. The kernels are the CUDA ones, run on the CPU by the emulation
(engines/plugins/harness/emulation).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.plugins import plugin_builds
from tests.plugins.emulated_kernels import Array, ScanInputs, Shape, random_inputs, recurrence
from tests.plugins.plugin_builds import Build
from tests.tolerances import TOLERANCES

pytestmark = [pytest.mark.tensorrt, pytest.mark.slow]

CASES = (
    "capabilities", "clones_stand_alone", "configure_and_shape_change", "enqueue_of_wrong_arguments",
    "enqueue_without_gpu", "entry_points", "field_names", "field_values_refused", "fields_of_every_type",
    "fields_refused", "formats_of_scan", "formats_of_spline", "load_library_after_opening",
    "load_library_alone", "loaded_into_another_registry_after_opening", "logger", "opened_registers_itself",
    "other_major_version_is_left_alone", "other_minor_version_is_served", "output_types",
    "profiles_beyond_the_launcher", "scan_shapes", "scan_shapes_refused",
    "serialize_round_trip", "spline_shapes", "spline_shapes_refused", "timing_cache_tells_plugins_apart",
    "unknown_fields_are_named", "workspace",
)  # fmt: skip
NEEDS_NO_GPU = "enqueue_without_gpu"
"""The emulation is a GPU to this case; test_plugin_library.py runs it."""
ELEMENTS = {"float": np.float32, "half": np.float16}
TYPES = {"float": torch.float32, "half": torch.float16}


@pytest.fixture(scope="module", params=plugin_builds.each_root())
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Library and program for one TensorRT."""
    return plugin_builds.emulated(request.param, tmp_path_factory.mktemp("plugin"))


def test_no_case_is_forgotten(build: Build) -> None:
    assert sorted(plugin_builds.must([str(build.program), "--list"]).split()) == sorted(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case != NEEDS_NO_GPU])
def test_case(build: Build, case: str) -> None:
    done = build.run(case)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_messages_reach_stderr_without_a_logger(build: Build) -> None:
    assert (
        "vmkla BSplineBasis: field order is missing" in build.run("other_major_version_is_left_alone").stderr
    )


def test_opened_before_tensorrt_brings_tensorrt_in(build: Build, tmp_path: Path) -> None:
    """As Polygraphy does: it opens plugins first, and the registry that comes later has to know them."""
    major = plugin_builds.version(build.root)[0]
    plugin_builds.stand_in_tensorrt(build.root, tmp_path / f"libnvinfer.so.{major}")
    script = (
        "import ctypes, sys; ctypes.CDLL(sys.argv[1]); "
        f"print(ctypes.CDLL('libnvinfer.so.{major}').registered_creators())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(build.library)], capture_output=True, text=True, check=False,
        timeout=60, env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr


def test_opened_where_there_is_no_tensorrt(build: Build) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(build.library)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def enqueue(build: Build, folder: Path, inputs: list[Array], op: str, element: str, *sizes: object) -> Array:
    """What the plugin's enqueue gives; the replayed CUDA graph gives the same bits."""
    for i, array in enumerate(inputs):
        np.ascontiguousarray(array).tofile(folder / f"{i}.bin")
    done = build.run("--enqueue", op, str(folder), element, *(str(size) for size in sizes))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    direct, graph = ((folder / name).read_bytes() for name in ("direct.bin", "graph.bin"))
    assert direct == graph
    result: Array = np.frombuffer(direct, dtype=ELEMENTS[element])
    return result


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("shape", [(2, 5, 7, 33, 16, 3), (1, 24, 16, 64, 16, 6), (3, 4, 4, 8, 5, 1)])
def test_scan_equals_its_definition(build: Build, tmp_path: Path, shape: Shape, element: str) -> None:
    dtype = ELEMENTS[element]
    inputs: ScanInputs = random_inputs(shape, dtype, seed=11)
    seen = enqueue(build, tmp_path, inputs.typed(dtype), "scan", element, *shape, 8)
    expected = recurrence(inputs).sum(axis=0) + inputs.D * inputs.u
    tolerance = TOLERANCES[("cuda", "recurrence"), TYPES[element]]
    largest = np.abs(expected).max()
    error = np.abs(seen.astype(np.float64).reshape(expected.shape) - expected).max()
    assert error <= tolerance.atol * largest, (error, largest)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("order", "uniform"), [(3, True), (3, False), (2, True), (2, False), (5, False)])
def test_spline_equals_its_definition(
    build: Build, tmp_path: Path, order: int, uniform: bool, element: str
) -> None:
    from vmkla.ops import bspline_basis

    rng = np.random.default_rng(order)
    knots, x_shape = 2 * order + 6, (3, 5, 17)
    steps = np.full(knots - 1, 0.25) if uniform else rng.uniform(0.1, 0.5, knots - 1)
    grid = (-1.5 + np.concatenate([[0.0], np.cumsum(steps)])).astype(np.float32)
    x = rng.uniform(grid[0] - 0.5, grid[-1] + 0.5, x_shape).astype(ELEMENTS[element])
    seen = enqueue(
        build, tmp_path, [x, grid], "spline", element, order, int(uniform), -1.5, 0.25, knots, *x_shape
    )
    wide_x, wide_grid = (torch.from_numpy(a.astype(np.float64)) for a in (x, grid))
    expected = bspline_basis(wide_x, wide_grid, order, backend="reference").numpy()
    tolerance = TOLERANCES[("cuda basis", "recurrence"), TYPES[element]]
    error = np.abs(seen.astype(np.float64).reshape(expected.shape) - expected).max()
    assert error <= tolerance.atol, error
