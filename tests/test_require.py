"""``vmkla.imports.require`` switches onnxruntime's telemetry off in time, or warns that it is late."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SWITCH = "ORT_DISABLE_TELEMETRY"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the switch; CI keeps the telemetry of these short processes off."""
    kept = {name: value for name, value in os.environ.items() if name != SWITCH}
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        env=kept | {"CI": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("before", [{}, {SWITCH: "0"}, {SWITCH: ""}])
@pytest.mark.parametrize("module", ["onnxruntime", "onnxruntime.capi._pybind_state", "onnx"])
def test_the_switch_is_set_outright_before_the_import(module: str, before: dict[str, str]) -> None:
    done = run(
        f"""
import importlib, os, sys
from vmkla import imports
seen = []
real = importlib.import_module
def watched(name):
    seen.append((name, os.environ.get("{SWITCH}"), "onnxruntime" in sys.modules))
    return real(name)
importlib.import_module = watched
imports.require("{module}", extra=None, purpose="this test")
assert seen[0] == ("{module}", "1", False), seen
""",
        **before,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_child_process_inherits_it() -> None:
    done = run(
        "import subprocess, sys\nfrom vmkla.imports import require\n"
        "require('onnxruntime', extra=None, purpose='this test')\n"
        f"subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"{SWITCH}\"])'], check=True)"
    )
    assert done.stdout == "1\n", done.stderr


def test_an_earlier_import_is_warned_of_once() -> None:
    code = (
        "import onnxruntime, warnings\nfrom vmkla.imports import require\nwarnings.simplefilter('always')\n"
        "for _ in range(2): require('onnxruntime', extra=None, purpose='this test')"
    )
    late = run(code)
    assert late.returncode == 0 and late.stderr.count("RuntimeWarning") == 1, late.stderr
    assert f"set {SWITCH}=1 before Python starts" in late.stderr
    assert not run(code, **{SWITCH: "1"}).stderr


def test_other_packages_do_not_touch_the_environment() -> None:
    done = run(
        "import os\nbefore = dict(os.environ)\nfrom vmkla.imports import require\n"
        "require('json', extra=None, purpose='this test')\nassert dict(os.environ) == before"
    )
    assert done.returncode == 0, done.stderr
