"""Run the CUDA kernels on the CPU: their source, compiled by g++ over an emulation of CUDA."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.built_once import built_once

PLUGINS = Path(__file__).resolve().parents[2] / "engines" / "plugins"
KERNELS = ("cuda/selective_scan2d.cu", "cuda/scan2d_plan.cu", "cuda/bspline_basis.cu")
EMULATION = ("harness/emulation/emulation.cpp", "harness/emulation/runtime.cpp", "cpu/half.cpp")
ENTRY = "harness/emulation/entry.cpp"
FORWARD, REVERSE, SHUFFLED = range(3)
"""Orders in which threads and blocks run."""
GUARD_BYTES = 4096
Array = NDArray[np.floating]
Shape = tuple[int, int, int, int, int, int]
"""b, H, W, d, n, R."""
SPLITS = ((16, 1), (8, 2), (4, 4), (16, 2), (16, 4), (16, 16))
"""States of a thread and lanes of a channel, for each of which the scan's passes are compiled."""
CUTS = {(*split, chunked) for split in SPLITS for chunked in (False, True)}
"""Every way in which a GPU may run a scan: a split, and whether a route is in chunks."""


def compile_emulation(sources: tuple[str, ...], output: Path, *options: str, root: Path = PLUGINS) -> Path:
    """Compile kernel sources under ``root`` (engines/plugins or a changed copy of it) for the emulation.

    Sources that preprocess to the same text are compiled once in a test run.
    """
    link = [option for option in options if option.startswith(("-l", "-Wl,", "-shared", "-rdynamic"))]
    flags = (
        "-std=gnu++17", "-O1", "-DVMKLA_CUDA_EMULATION", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror",
        "-Wno-unknown-pragmas", f"-I{root / 'harness' / 'emulation'}",
        *(option for option in options if option not in link),
    )  # fmt: skip
    objects = [_object(root / source, flags) for source in sources]
    _must("g++", *map(str, objects), "-o", str(output), *link)
    return output


def _object(source: Path, flags: tuple[str, ...]) -> Path:
    """Compile one source into an object file."""
    text = _must("g++", *flags, "-E", "-P", "-x", "c++", str(source))
    key = hashlib.sha256("\0".join((text, *(flag for flag in flags if "/" not in flag))).encode()).hexdigest()

    def make(path: Path) -> None:
        _must("g++", *flags, "-x", "c++", "-c", str(source), "-o", str(path))

    return built_once(f"{source.stem}-{key[:16]}.o", make)


def _must(*command: str) -> str:
    """Run a command that must succeed and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout


class Guarded:
    """Memory between two zones of NaN: a read outside shows in the result, a write in the zones.

    Args:
        content: what it holds; None for NaN.
        size: bytes, where there is no content.
        offset: bytes by which it misses 16-byte alignment.
    """

    def __init__(self, content: Array | None, size: int = 0, offset: int = 0) -> None:
        size = size if content is None else content.nbytes
        self._all = np.full(size + 2 * GUARD_BYTES + 16, 0xFF, dtype=np.uint8)
        self._begin = GUARD_BYTES + offset + -(self._all.ctypes.data + GUARD_BYTES) % 16
        self.bytes = self._all[self._begin : self._begin + size]
        if content is not None:
            self.bytes[:] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)

    @property
    def pointer(self) -> int:
        """The address of the content."""
        return int(self.bytes.ctypes.data)

    def check(self, what: str) -> None:
        """Assert that nothing was written around the content."""
        outside = (self._all[: self._begin], self._all[self._begin + self.bytes.size :])
        assert all((zone == 0xFF).all() for zone in outside), f"written beside {what}"


@dataclass(frozen=True)
class ScanInputs:
    """Inputs of one scan in float64, exact in the type that the kernel is to read."""

    u: Array
    p: Array
    dt_weight: Array
    A: Array
    D: Array
    delta_bias: Array

    def typed(self, dtype: type[np.floating]) -> list[Array]:
        """Convert to the kernel's types: u, p and dt_weight in ``dtype``, the others float32."""
        wide = [a.astype(np.float32) for a in (self.A, self.D, self.delta_bias)]
        return [a.astype(dtype) for a in (self.u, self.p, self.dt_weight)] + wide


def random_inputs(
    shape: Shape, dtype: type[np.floating], seed: int, *, bias: tuple[float, float] = (-4.0, 1.0)
) -> ScanInputs:
    """Normal u and p, A in [-n, -1/2], biases of delta between ``bias``."""
    b, H, W, d, n, R = shape
    rng = np.random.default_rng(seed)

    def exact(a: Array, kind: type[np.floating]) -> Array:
        return a.astype(kind).astype(np.float64)

    return ScanInputs(
        exact(rng.normal(size=(b, H, W, d)), dtype),
        exact(rng.normal(size=(b, H, W, 4 * (2 * n + R))), dtype),
        exact(rng.normal(size=(4, R, d)) / np.sqrt(R), dtype),
        exact(-rng.uniform(0.5, max(n, 1), size=(4, n, d)), np.float32),
        exact(rng.normal(size=d), np.float32),
        exact(rng.uniform(*bias, size=(4, d)), np.float32),
    )


def recurrence(inputs: ScanInputs) -> Array:
    """Compute the definition in float64, pixel by pixel: (4, b, H, W, d), what each route adds to y."""
    u, p, weight, A = inputs.u, inputs.p, inputs.dt_weight, inputs.A
    b, H, W, d = u.shape
    n, R = A.shape[1], weight.shape[1]
    pixels = [(i, j) for i in range(H) for j in range(W)]
    columns = [(i, j) for j in range(W) for i in range(H)]
    y = np.zeros((4, b, H, W, d))
    for k, order in enumerate((pixels, columns, pixels[::-1], columns[::-1])):
        B = p[..., k * n : (k + 1) * n]
        C = p[..., (4 + k) * n : (5 + k) * n]
        dt = p[..., 8 * n + k * R : 8 * n + (k + 1) * R]
        delta = np.logaddexp(0.0, dt @ weight[k] + inputs.delta_bias[k])  # (b, H, W, d)
        h = np.zeros((b, n, d))
        for i, j in order:
            step = delta[:, i, j, None, :]  # (b, 1, d)
            h = np.exp(step * A[k]) * h + step * u[:, i, j, None, :] * B[:, i, j, :, None]
            y[k, :, i, j] = (C[:, i, j, :, None] * h).sum(axis=1)
    return y


class EmulatedKernels:
    """The launchers of both ops, loaded from a compiled emulation."""

    def __init__(self, library: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        self._c.emulated_workspace_bytes.restype = ctypes.c_size_t
        self._c.emulated_error.restype = ctypes.c_char_p

    def settings(self, *, multiprocessors: int, order: int = FORWARD, seed: int = 0) -> None:
        """Set the size of the GPU that the launchers see, and the order of threads and blocks."""
        self._c.emulated_settings(multiprocessors, order, seed)

    def plan(self, shape: Shape, multiprocessors: int) -> tuple[int, int, int]:
        """Return states per thread, lanes per channel and chunks per route on a GPU of that size."""
        found = (ctypes.c_int64 * 3)()
        self._c.emulated_plan((ctypes.c_int64 * 6)(*shape), multiprocessors, found)
        return found[0], found[1], found[2]

    def workspace_bytes(self, shape: Shape) -> int:
        """Call ``scan2d_workspace_bytes``."""
        return int(self._c.emulated_workspace_bytes((ctypes.c_int64 * 6)(*shape)))

    def scan(
        self,
        inputs: ScanInputs,
        dtype: type[np.floating],
        *,
        offset: int = 0,
        workspace_bytes: int | None = None,
        multiprocessors: int = 0,
    ) -> Array:
        """Compute y with every tensor and the workspace guarded.

        Args:
            inputs: the op's.
            dtype: of u, p, dt_weight and y.
            offset: as in ``Guarded``.
            workspace_bytes: of another workspace than this shape needs.
            multiprocessors: the GPU's size that the launcher is told; 0: it asks the device.
        """
        b, H, W, d = inputs.u.shape
        shape = (b, H, W, d, inputs.A.shape[1], inputs.dt_weight.shape[1])
        given = [
            Guarded(a, offset=offset * a.itemsize // np.dtype(dtype).itemsize) for a in inputs.typed(dtype)
        ]
        y = Guarded(None, b * H * W * d * np.dtype(dtype).itemsize, offset)
        workspace = Guarded(None, self.workspace_bytes(shape) if workspace_bytes is None else workspace_bytes)
        status = self._c.emulated_scan2d(
            int(dtype is np.float16),
            (ctypes.c_int64 * 6)(*shape),
            (ctypes.c_void_p * 6)(*(g.pointer for g in given)),
            ctypes.c_void_p(y.pointer),
            ctypes.c_void_p(workspace.pointer),
            multiprocessors,
        )
        assert status == 0, self._c.emulated_error().decode()
        y.check("y")
        workspace.check("the workspace")
        result: Array = y.bytes.view(dtype).reshape(b, H, W, d).copy()
        return result

    def scan_status(self, shape: Shape, *, multiprocessors: int = 0) -> int:
        """Return the status for a shape, with pointers that must not be read."""
        nowhere = (ctypes.c_void_p * 6)(*([16] * 6))
        return int(
            self._c.emulated_scan2d(
                0,
                (ctypes.c_int64 * 6)(*shape),
                nowhere,
                ctypes.c_void_p(16),
                ctypes.c_void_p(16),
                multiprocessors,
            )
        )

    def basis(
        self,
        x: Array,
        knots: Array,
        order: int,
        *,
        uniform: tuple[float, float] | None = None,
        offset: int = 0,
    ) -> Array:
        """Compute bases of a vector, (values, knots - order - 1); ``uniform`` is grid_min and grid_step."""
        bases = knots.size - order - 1
        given, grid = Guarded(x, offset=offset), Guarded(knots.astype(np.float32))
        out = Guarded(None, x.size * bases * x.itemsize, offset)
        grid_min, grid_step = uniform or (0.0, 0.0)
        status = self._c.emulated_bspline(
            int(x.dtype == np.float16), ctypes.c_int64(x.size), ctypes.c_int64(knots.size),
            ctypes.c_int64(order),
            int(uniform is not None), ctypes.c_float(grid_min), ctypes.c_float(grid_step),
            ctypes.c_void_p(given.pointer), ctypes.c_void_p(grid.pointer), ctypes.c_void_p(out.pointer),
        )  # fmt: skip
        assert status == 0, self._c.emulated_error().decode()
        out.check("the bases")
        result: Array = out.bytes.view(x.dtype).reshape(x.size, bases).copy()
        return result
