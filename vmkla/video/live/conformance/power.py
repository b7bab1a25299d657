"""How much power this machine gives itself: a delay means little without it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_COMMAND_S = 5.0


def power_mode() -> dict[str, Any]:
    """What this machine says of its power: Jetson's ``nvpmodel``, frequency governors, the mains."""
    found: dict[str, Any] = {}
    said = _said("nvpmodel", "-q")
    if said:
        found["nvpmodel"] = said
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
    """The different texts of some files; those that cannot be read have none."""
    values = set()
    for path in paths:
        try:
            values.add(path.read_text(encoding="utf-8", errors="replace").strip())
        except OSError:
            continue
    return sorted(values)


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
