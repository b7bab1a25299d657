"""Build PyCUDA into this Python without a CUDA toolkit or GPU, for the tests of device memory.

PyCUDA comes as source alone. It needs the headers of CUDA's driver API, which are in two small packages, and
a libcuda to link with: an empty one does, since the process that imports it brings a driver, or the tests'
stand-in for one. CURAND is left out.

    python tests/engines/tensorrt/build_pycuda.py
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENT = "pycuda>=2024.1"
HEADERS = ("nvidia-cuda-runtime==13.*", "nvidia-cuda-profiler-api==13.*")


def main() -> None:
    """Build and install."""
    if importlib.util.find_spec("pycuda") is not None:
        print("PyCUDA is installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip("install", "setuptools", "wheel")
        pip("install", "--no-deps", "--target", str(folder / "headers"), *HEADERS)
        pip("download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", name, REQUIREMENT)
        (archive,) = folder.glob("pycuda-*.tar.gz")
        (folder / "source").mkdir()
        subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder / "source")], check=True)
        (source,) = (folder / "source").iterdir()
        (cuda_h,) = (folder / "headers").rglob("cuda.h")
        build_empty_driver(folder)
        settings = {
            "CUDA_INC_DIR": [str(cuda_h.parent)],
            "CUDADRV_LIB_DIR": [name],
            "CUDA_ENABLE_CURAND": False,
        }
        lines = [f"{key} = {value!r}\n" for key, value in settings.items()]
        (source / "siteconf.py").write_text("".join(lines), encoding="utf-8")
        # Out of pip's cache: there it would be taken for a whole PyCUDA by a later installation.
        pip("install", "--no-build-isolation", "--no-cache-dir", str(source))


def build_empty_driver(folder: Path) -> None:
    """Build a libcuda.so with one function, so that the linker records a need for libcuda.so.1."""
    source = folder / "driver.cpp"
    source.write_text('extern "C" int cuInit(unsigned) { return 100; }\n', encoding="ascii")
    flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["g++", *flags, str(source), "-o", str(folder / "libcuda.so")], check=True)


def pip(*arguments: str) -> None:
    """Run pip of this Python."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    main()
