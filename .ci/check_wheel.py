"""Check a wheel that auditwheel has tagged, and an sdist: python .ci/check_wheel.py WHEEL [SDIST].

Needs only Python.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

LIBRARY = "vmkla/lib/libvmkla_cpu.so"
ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vmkla": "",
    "export": "export/",
    "engines": "engines/",
    "cli": "cli/",
    "calibration": "calibration/",
}
"""Folders of the repository, and where they lie in the package; pyproject.toml says the same."""
REQUIRED = (
    LIBRARY,
    "vmkla/weights/nano.onnx",
    "vmkla/weights/nano.safetensors",
    "vmkla/py.typed",
    *(
        f"vmkla/{place}{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
)
SOURCES = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".txt", ".cmake", ".map")
BUILT_FROM = (".cpp", ".cu", ".h", ".txt", ".cmake", ".map")
NEWEST_GLIBC = (2, 28)
"""The newest C library that ours may need: the dependencies' own wheels need that one."""
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine in the ELF header of a library, for each machine that a wheel is built for."""


def problems(wheel: Path) -> list[str]:
    """Everything that is wrong with a wheel, empty when nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        library = archive.read(LIBRARY) if LIBRARY in names else None
    found = []
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    if tops != {"vmkla"}:
        found.append(f"its top level holds {sorted(tops)}, expected only vmkla")
    found += [f"{name} is missing" for name in REQUIRED if name not in names]
    packaged = [name for name in names if ".dist-info/" not in name]
    found += [
        f"{name} does not belong in it"
        for name in packaged
        if name.endswith(SOURCES) or "__pycache__" in name
    ]
    if not wheel.name.split("-")[2] == "py3":
        found.append(f"{wheel.name} is tied to one Python; the library's C interface is not")
    if library is not None:
        found += platform_problems(wheel.stem.split("-")[-1], library)
    return found


def platform_problems(tag: str, library: bytes) -> list[str]:
    """Where a wheel's platform tag promises too little, or its library is for another machine."""
    parts = re.match(r"manylinux_(\d+)_(\d+)_(x86_64|aarch64)\b", tag)
    if parts is None:
        return [f"its platform tag is {tag}, expected manylinux_2_28 or older, as `auditwheel repair` writes"]
    glibc, machine = (int(parts[1]), int(parts[2])), parts[3]
    found = []
    if glibc > NEWEST_GLIBC:
        found.append(
            f"the library needs glibc {parts[1]}.{parts[2]} or a C++ runtime of that time, "
            "expected 2.28 or older; `auditwheel show` and `objdump -T` name the symbols"
        )
    seen, expected = int.from_bytes(library[18:20], "little"), ELF_MACHINES[machine]
    if seen != expected:
        found.append(f"the library's ELF machine is {seen}, expected {expected} ({machine})")
    return found


def sdist_problems(sdist: Path, checkout: Path) -> list[str]:
    """Native sources and build files that an sdist lacks, those for GPUs included."""
    with tarfile.open(sdist) as archive:
        # Each name begins with the folder NAME-VERSION.
        held = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = [checkout / "CMakeLists.txt", *(checkout / "engines" / "plugins").rglob("*")]
    needed = [path.relative_to(checkout).as_posix() for path in wanted if path.suffix in BUILT_FROM]
    return [f"{name} is missing" for name in needed if name not in held]


def main() -> int:
    """Print what is wrong; 1 when something is."""
    wheel = Path(sys.argv[1])
    found = [f"{wheel.name}: {problem}" for problem in problems(wheel)]
    for sdist in map(Path, sys.argv[2:]):
        found += [f"{sdist.name}: {problem}" for problem in sdist_problems(sdist, ROOT)]
    for problem in found:
        print(problem)
    if not found:
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, one top-level package, nothing missing")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
