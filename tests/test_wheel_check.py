"""What `make wheels` and CI reject: .ci/check_wheel.py on wheels that are wrong in one way each."""

from __future__ import annotations

import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

X86_64, AARCH64 = 62, 183
GOOD = "vmkla-0.1.0-py3-none-manylinux_2_24_x86_64.whl"


@pytest.fixture(scope="module")
def check(root: Path) -> dict[str, object]:
    """What the script defines."""
    return runpy.run_path(str(root / ".ci" / "check_wheel.py"))


@pytest.fixture
def problems(check: dict[str, object], tmp_path: Path) -> Callable[..., list[str]]:
    """Make a wheel of the required names, and return what the script finds wrong with it."""

    def of(name: str, machine: int, extra: str | None = None) -> list[str]:
        required = check["REQUIRED"]
        assert isinstance(required, tuple) and len(required) > 10
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in (*required, "vmkla-0.1.0.dist-info/WHEEL", *([extra] if extra else [])):
                archive.writestr(member, b"\x7fELF".ljust(18, b"\0") + machine.to_bytes(2, "little"))
        find = check["problems"]
        assert callable(find)
        return list(find(tmp_path / name))

    return of


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        (GOOD, X86_64),
        ("vmkla-0.1.0-py3-none-manylinux_2_28_aarch64.whl", AARCH64),
        ("vmkla-0.1.0-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", AARCH64),
    ],
)
def test_a_good_wheel(problems: Callable[..., list[str]], name: str, machine: int) -> None:
    assert problems(name, machine) == []


@pytest.mark.parametrize(
    ("name", "machine", "extra", "message"),
    [
        ("vmkla-0.1.0-py3-none-manylinux_2_36_x86_64.whl", X86_64, None, "needs glibc 2.36"),
        ("vmkla-0.1.0-py3-none-manylinux_2_31_aarch64.whl", AARCH64, None, "needs glibc 2.31"),
        ("vmkla-0.1.0-py3-none-linux_x86_64.whl", X86_64, None, "its platform tag is linux_x86_64"),
        (GOOD, AARCH64, None, "ELF machine is 183, expected 62 (x86_64)"),
        (GOOD, X86_64, "vmkla.libs/libgomp.so.1", "its top level holds ['vmkla', 'vmkla.libs']"),
        (GOOD, X86_64, "vmkla/engines/plugins/cpu/half.h", "half.h does not belong in it"),
        (GOOD.replace("py3", "cp311"), X86_64, None, "tied to one Python"),
    ],
)
def test_a_wrong_wheel(
    problems: Callable[..., list[str]], name: str, machine: int, extra: str | None, message: str
) -> None:
    (found,) = problems(name, machine, extra)
    assert message in found
