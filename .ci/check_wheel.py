"""Check what a wheel holds: python .ci/check_wheel.py WHEEL. Needs nothing but Python."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

FOLDERS = ("export", "engines", "cli", "calibration", "models", "ops", "data", "training", "video", "weights")
REQUIRED = (
    "vmkla/lib/libvmkla_cpu.so",
    "vmkla/weights/nano.onnx",
    "vmkla/weights/nano.safetensors",
    "vmkla/py.typed",
    *(f"vmkla/{folder}/__init__.py" for folder in FOLDERS),
)
SOURCES = (".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".txt", ".cmake")


def problems(wheel: Path) -> list[str]:
    """Everything that is wrong with a wheel, empty when nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
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
    return found


def main() -> int:
    """Print what is wrong; 1 when something is."""
    wheel = Path(sys.argv[1])
    found = problems(wheel)
    for problem in found:
        print(f"{wheel.name}: {problem}")
    if not found:
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, one top-level package, nothing missing")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
