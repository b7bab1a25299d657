"""Device memory through cuda-bindings and through PyCUDA themselves: the same tests for both."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.tensorrt import stand_in_gpu
from tests.engines.tensorrt.stand_in_gpu import PACKAGES, needs_pycuda
from vmkla.engines.tensorrt.run import memory
from vmkla.engines.tensorrt.run.memory import Cuda, CudaError, Package, open_cuda
from vmkla.errors import MissingDependencyError, VmklaError

BYTES = 10_000
ILLEGAL_ADDRESS = 700


@pytest.fixture(params=PACKAGES)
def cuda(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    """The stand-in GPU through either package; nothing may be left behind."""
    assert stand_in_gpu.live() == 0
    stand_in_gpu.library().stand_in_reset()
    opened = open_cuda(0, request.param)
    yield opened
    opened.close()
    opened.close()
    assert stand_in_gpu.live() == 0


class Buffers:
    """Two pinned arrays, device memory, a stream and an event."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.source, self.result = cuda.allocate_pinned(BYTES), cuda.allocate_pinned(BYTES)
        self.device = cuda.allocate(BYTES)
        self.stream, self.event = cuda.create_stream(), cuda.create_event()
        self.source[:] = np.random.default_rng(0).integers(0, 256, BYTES)

    def round_trip(self) -> None:
        """Queue a copy to the GPU and back."""
        self.cuda.upload(self.device, self.source, self.stream)
        self.cuda.download(self.result, self.device, self.stream)

    def release(self) -> None:
        self.cuda.destroy_event(self.event)
        self.cuda.destroy_stream(self.stream)
        self.cuda.free(self.device)
        self.cuda.free_pinned(self.source)
        self.cuda.free_pinned(self.result)


@pytest.mark.stand_in_gpu
def test_copies_are_there_after_the_wait_and_not_before(cuda: Cuda) -> None:
    with cuda.current():
        buffers = Buffers(cuda)
        assert stand_in_gpu.live() == 6  # with the primary context
        buffers.result[:] = 0
        for wait in (lambda: cuda.wait(buffers.event), lambda: cuda.synchronize(buffers.stream)):
            buffers.round_trip()
            cuda.record(buffers.event, buffers.stream)
            assert not buffers.result.any()
            wait()
            np.testing.assert_array_equal(buffers.result, buffers.source)
            buffers.result[:] = 0
        assert stand_in_gpu.library().stand_in_pageable_copies() == 0
        buffers.release()


@pytest.mark.stand_in_gpu
def test_parts_of_a_buffer(cuda: Cuda) -> None:
    with cuda.current():
        buffers = Buffers(cuda)
        frames = buffers.source[: 12 * 50].view(np.float32).reshape(3, 50)
        frames[:] = np.random.default_rng(1).standard_normal((3, 50))
        cuda.upload(buffers.device, frames[:2], buffers.stream)
        result = buffers.result[: 8 * 50].view(np.float32).reshape(2, 50)
        cuda.download(result, buffers.device, buffers.stream)
        cuda.synchronize(buffers.stream)
        np.testing.assert_array_equal(result, frames[:2])
        buffers.release()


@pytest.mark.stand_in_gpu
def test_a_captured_graph_does_nothing_until_it_is_launched(cuda: Cuda) -> None:
    with cuda.current():
        buffers = Buffers(cuda)
        buffers.result[:] = 0
        graph = cuda.capture(buffers.stream, buffers.round_trip)
        cuda.synchronize(buffers.stream)
        assert not buffers.result.any()
        for seed in (1, 2):
            buffers.source[:] = np.random.default_rng(seed).integers(0, 256, BYTES)
            cuda.launch(graph, buffers.stream)
            cuda.synchronize(buffers.stream)
            np.testing.assert_array_equal(buffers.result, buffers.source)
        assert stand_in_gpu.calls("cuGraphLaunch") == 2 and stand_in_gpu.calls("cuGraphDestroy") == 1
        cuda.destroy_captured(graph)
        buffers.release()


@pytest.mark.stand_in_gpu
def test_what_cannot_be_captured(cuda: Cuda) -> None:
    with cuda.current():
        buffers = Buffers(cuda)
        with pytest.raises(CudaError, match="cuStreamSynchronize"):
            cuda.capture(buffers.stream, lambda: cuda.synchronize(buffers.stream))
        with pytest.raises(VmklaError, match="of its own"):
            cuda.capture(buffers.stream, _raise_of_its_own)
        stand_in_gpu.fail("cuGraphInstantiateWithFlags", 2)
        with pytest.raises(CudaError, match="cuGraphInstantiate.*out of memory"):
            cuda.capture(buffers.stream, buffers.round_trip)
        # The stream works on as if nothing had been.
        buffers.round_trip()
        cuda.synchronize(buffers.stream)
        np.testing.assert_array_equal(buffers.result, buffers.source)
        buffers.release()


def _raise_of_its_own() -> None:
    raise VmklaError("an error of its own")


CALLS: dict[str, Any] = {
    "cuMemAlloc": lambda b: b.cuda.allocate(8),
    "cuMemHostAlloc": lambda b: b.cuda.allocate_pinned(8),
    "cuStreamCreate": lambda b: b.cuda.create_stream(),
    "cuEventCreate": lambda b: b.cuda.create_event(),
    "cuMemcpyHtoDAsync": lambda b: b.cuda.upload(b.device, b.source, b.stream),
    "cuMemcpyDtoHAsync": lambda b: b.cuda.download(b.result, b.device, b.stream),
    "cuEventRecord": lambda b: b.cuda.record(b.event, b.stream),
    "cuEventSynchronize": lambda b: b.cuda.wait(b.event),
    "cuStreamSynchronize": lambda b: b.cuda.synchronize(b.stream),
    "cuStreamBeginCapture": lambda b: b.cuda.capture(b.stream, b.round_trip),
    "cuStreamEndCapture": lambda b: b.cuda.capture(b.stream, b.round_trip),
}
"""Each function of the driver's API, and what calls it."""


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize("function", CALLS)
def test_every_status_becomes_an_error_that_names_the_call(cuda: Cuda, function: str) -> None:
    with cuda.current():
        buffers = Buffers(cuda)
        stand_in_gpu.fail(function, ILLEGAL_ADDRESS)
        with pytest.raises(CudaError) as caught:
            CALLS[function](buffers)
        message = caught.value.message
        assert function in message and "an illegal memory access was encountered" in message
        if "PyCUDA" not in cuda.package:  # which does not tell the number
            assert "700 (CUDA_ERROR_ILLEGAL_ADDRESS)" in message
        if function == "cuStreamEndCapture":  # the stand-in's capture is still open
            stand_in_gpu.end_capture(buffers.stream)
        buffers.release()


@pytest.mark.stand_in_gpu
def test_a_context_that_is_lost(cuda: Cuda) -> None:
    stand_in_gpu.fail("cuCtxPushCurrent", ILLEGAL_ADDRESS)
    with pytest.raises(CudaError, match="cuCtxPushCurrent.*illegal memory access"), cuda.current():
        pytest.fail("the block must not be entered")


@pytest.mark.stand_in_gpu
def test_a_full_gpu(cuda: Cuda) -> None:
    with cuda.current():
        stand_in_gpu.fail("cuMemAlloc", 2)
        with pytest.raises(CudaError, match="cuMemAlloc failed.*OUT_OF_MEMORY.*out of memory") as caught:
            cuda.allocate(1 << 40)
        assert "nvidia-smi" in (caught.value.hint or "")


@pytest.mark.stand_in_gpu
def test_work_from_another_thread(cuda: Cuda) -> None:
    with cuda.current():
        buffers = Buffers(cuda)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with pytest.raises(CudaError, match="invalid device context"):
                cuda.synchronize(buffers.stream)
            with cuda.current():
                buffers.round_trip()
                cuda.synchronize(buffers.stream)
                np.testing.assert_array_equal(buffers.result, buffers.source)
                buffers.release()
            cuda.close()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors, errors


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize("package", PACKAGES)
def test_the_second_gpu(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError, match="shows 1 GPUs.*number 1") as caught:
        open_cuda(1, package)
    assert caught.value.exit_status == 4
    monkeypatch.setenv("STAND_IN_GPUS", "2")
    second = open_cuda(1, package)
    with second.current():
        assert stand_in_gpu.current_device() == 1
    second.close()
    assert stand_in_gpu.live() == 0


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize("package", PACKAGES)
def test_a_driver_without_a_gpu(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_GPUS", "0")
    with pytest.raises(MissingDependencyError, match=r"shows 0 GPUs \(cuInit returned 100\)") as caught:
        open_cuda(0, package)
    assert caught.value.exit_status == 4 and caught.value.hint


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize("package", PACKAGES)
def test_a_gpu_that_does_not_open(package: Package) -> None:
    stand_in_gpu.fail("cuDevicePrimaryCtxRetain", 2)
    with pytest.raises(MissingDependencyError, match="GPU 0 cannot be opened.*cuDevicePrimaryCtxRetain"):
        open_cuda(0, package)


@needs_pycuda
@pytest.mark.stand_in_gpu
def test_which_package_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for absent in ((), ("cuda.bindings.driver", "cuda.cuda"), ("pycuda.driver",)):
        for module in absent:
            monkeypatch.setitem(sys.modules, module, None)
        if "pycuda.driver" in absent:
            with pytest.raises(MissingDependencyError, match=r"cuda-bindings \(.*pycuda \(") as caught:
                open_cuda()
            assert caught.value.exit_status == 4 and "vmkla[jetson]" in (caught.value.hint or "")
            continue
        opened = open_cuda()
        taken.append(opened.package.split()[0])
        opened.close()
    assert taken == ["cuda-bindings", "PyCUDA"]


ALONE = """
import site, sys
site.addsitedir(sys.argv[1])
import importlib.metadata
found = {d.metadata["Name"] for d in importlib.metadata.distributions() if "cuda" in d.metadata["Name"]}
assert not found & {"cuda-python", "cuda-core", "pycuda"}, found
from vmkla.engines import doctor
from vmkla.engines.tensorrt.run.memory import open_cuda
opened = open_cuda()
print(opened.package)
opened.close()
finding = doctor._package("cuda-bindings", ["tensorrt", "rtx"])
print(finding.works, finding.detail)
"""


@pytest.mark.stand_in_gpu
def test_cuda_bindings_alone_are_enough(tmp_path: Path) -> None:
    """In an environment that has neither cuda-python, which only gathers packages, nor PyCUDA."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(("cuda_python-", "cuda_core-", "pycuda")):
            (tmp_path / entry.name).symlink_to(entry)
    command = [sys.executable, "-I", "-S", "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    version = importlib.metadata.version("cuda-bindings")
    assert done.stdout == f"cuda-bindings {version}\nTrue {version}\n", done.stderr


@pytest.mark.stand_in_gpu
@pytest.mark.parametrize(
    ("installed", "package"),
    [
        ("cuda-python", "cuda-python 12.6.0"),  # before 12.6.1 it had the bindings itself
        ("", "cuda-bindings of an unknown version"),
    ],
)
def test_the_package_is_named_by_what_is_installed(
    installed: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == installed:
            return "12.6.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    opened = open_cuda(0, "cuda-bindings")
    opened.close()
    assert opened.package == package


@pytest.mark.parametrize(
    ("version", "command"),
    [
        ("12.6", "pip install 'cuda-bindings>=12.8,<13'"),
        ("13.0", "pip install 'cuda-bindings>=12.8,<14'"),
        (None, "pip install 'vmkla[tensorrt]'"),
        ("11.8", "pip install 'vmkla[tensorrt]'"),
    ],
)
def test_the_package_goes_with_the_driver(
    version: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "cuda_version", lambda: version)
    monkeypatch.setattr(memory, "find_gpu", lambda _: None)
    for module in ("cuda.bindings.driver", "cuda.cuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as caught:
        open_cuda()
    assert f"Run: {command} " in (caught.value.hint or "")


# The driver that this machine really has, or has not.


@pytest.mark.parametrize("package", PACKAGES)
def test_no_driver(package: Package) -> None:
    """In a process of its own, which no other test has given a driver."""
    code = (
        "import ctypes, sys\n"
        "try:\n"
        "    ctypes.CDLL('libcuda.so.1')\n"
        "except OSError:\n"
        "    pass\n"
        "else:\n"
        "    sys.exit(77)\n"
        "from vmkla.engines.tensorrt.run.memory import open_cuda\n"
        "from vmkla.errors import MissingDependencyError\n"
        "try:\n"
        f"    open_cuda(0, {package!r})\n"
        "except MissingDependencyError as error:\n"
        "    print(error.exit_status, error)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        assert done.stdout == ""  # this machine has a driver: the stand-in's tests without a GPU must do
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 no NVIDIA driver (libcuda.so.1) here") and "nvidia-smi" in done.stdout


def test_the_bare_package_finds_no_driver_either() -> None:
    """What open_cuda asks the driver itself about, cuda-bindings would report too, in its own words."""
    code = (
        "from cuda.bindings import runtime\n"
        "status, count = runtime.cudaGetDeviceCount()\n"
        "print(int(status), count)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, _, count = done.stdout.partition(" ")
    assert int(status) == 35 or int(count) > 0  # cudaErrorInsufficientDriver
