"""The power mode of this machine, without which a delay means little."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_COMMAND_S = 5.0


def power_mode() -> dict[str, Any]:
    """Return the power mode: Jetson's ``nvpmodel``, frequency governors, mains supply."""
    found: dict[str, Any] = {}
    mode = _output_of("nvpmodel", "-q")
    if mode:
        found["nvpmodel"] = mode
    for name in ("scaling_governor", "energy_performance_preference", "scaling_max_freq"):
        values = _values(Path("/sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}"))
        if values:
            found[name] = values
    profile = _values([Path("/sys/firmware/acpi/platform_profile")])
    if profile:
        found["platform_profile"] = profile
    mains = _values(Path("/sys/class/power_supply").glob("*/online"))
    if mains:
        found["on mains"] = mains
    return found


def _values(paths: Iterable[Path]) -> list[str]:
    """Return the distinct texts of some files; files that cannot be read are skipped."""
    values = set()
    for path in paths:
        try:
            values.add(path.read_text(encoding="utf-8", errors="replace").strip())
        except OSError:
            continue
    return sorted(values)


def _output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
