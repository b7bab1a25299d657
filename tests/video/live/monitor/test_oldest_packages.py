"""The page with the oldest packages that the extra ``monitor`` allows, and with a faulty one."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def oldest(root: Path) -> list[str]:
    """The lowest releases of the packages of the extra ``monitor``."""
    (extra,) = re.findall(r"^monitor = \[(.*)\]$", (root / "pyproject.toml").read_text(), re.MULTILINE)
    return [requirement.replace(">=", "==") for requirement in re.findall(r'"([^"]+)"', extra)]


def install(requirements: list[str], folder: Path) -> None:
    """Put releases into a folder of their own; what they depend on is in this environment."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip in this environment to fetch other releases with")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--target", str(folder), *requirements], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"pip cannot fetch {requirements} here: {done.stderr.strip()[-300:]}")


def run_tests(root: Path, folder: Path, *arguments: str) -> str:
    """What pytest prints with the releases in ``folder``; it must pass."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(sysconfig.get_path("scripts")) / "pytest"),
            "-q",
            "-p",
            "no:cacheprovider",
            *arguments,
        ],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def seen(folder: Path) -> list[str]:
    """The releases that a process imports which is started as the tests are."""
    code = (
        "import starlette, uvicorn\n"
        "for module in (starlette, uvicorn): print(f'{module.__name__}=={module.__version__}')"
    )
    return subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(folder)}, cwd=folder, text=True
    ).split()


def test_the_page_holds_with_the_oldest_packages_allowed(root: Path, tmp_path: Path) -> None:
    requirements = oldest(root)
    assert [requirement.partition("==")[0] for requirement in requirements] == ["starlette", "uvicorn"]
    install(requirements, tmp_path)
    assert [re.sub(r"(\.0)+$", "", text) for text in seen(tmp_path)] == [
        re.sub(r"(\.0)+$", "", text) for text in requirements
    ]
    tests = [HERE / name for name in ("test_app.py", "test_connections.py", "test_clients.py")]
    output = run_tests(root, tmp_path, *map(str, tests), "-k", "not hammer")
    assert "skipped" not in output


def test_the_guard_does_not_rely_on_starlette_for_the_path(root: Path, tmp_path: Path) -> None:
    """Starlette before 1.0.1 takes the path in ``request.url`` from the Host header."""
    install(["starlette==0.40.0"], tmp_path)
    assert seen(tmp_path)[0] == "starlette==0.40.0"
    run_tests(root, tmp_path, str(HERE / "test_app.py"), "-k", "malformed or style_sheet or token")
