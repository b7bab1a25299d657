"""What the log of plugin builds reads out of compilers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import plugin_log
from benchmarks.gpu.plugin_log import Usage

KERNEL = "_ZN5vmkla4cuda12_GLOBAL__N_19add_partsIfLi4EEEvNS0_4TaskE"
PTXAS = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{KERNEL}' for 'sm_87'
ptxas info    : Function properties for {KERNEL}
    0 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 38 registers, used 0 barriers, 408 bytes cmem[0]
ptxas info    : Compile time = 78.559 ms
ptxas info    : Compiling entry function '{KERNEL}' for 'sm_120'
ptxas info    : Function properties for {KERNEL}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 25 registers, used 0 barriers
"""


def test_registers_and_spills_of_each_architecture() -> None:
    found = plugin_log.usages(PTXAS)
    assert found == [Usage(KERNEL, "sm_87", 38, 4), Usage(KERNEL, "sm_120", 25, 0)]
    table = plugin_log.register_table(found).markdown()
    assert "| kernel | sm_87 | sm_120 |" in table
    assert "| `add_parts<float, 4>` | 38 +4 B | 25 |" in table


@pytest.mark.parametrize("lines", [2, 3, 4, 9])
def test_a_log_that_was_cut_off_is_an_error(lines: int) -> None:
    with pytest.raises(ValueError, match="said nothing of the registers"):
        plugin_log.usages("\n".join(PTXAS.splitlines()[:lines]))


def test_warnings_are_seen_and_flags_are_not() -> None:
    said = (
        "a.cpp:3:5: warning: unused variable 'x'\nptxas warning : stack size\nld: warning: executable stack"
    )
    assert (
        plugin_log.warnings(f"g++ -Wall -Werror -c a.cpp\n{said}\n[100%] Built target") == said.splitlines()
    )


def test_folders_go_by_their_names() -> None:
    places = {"SOURCE": Path("/src/vmkla"), "BUILD": Path("/src/vmkla/build")}
    text = "g++ -I/src/vmkla/engines -o /src/vmkla/build/a.o"
    assert plugin_log.neutral(text, places) == "g++ -I$SOURCE/engines -o $BUILD/a.o"


def test_one_command_of_each_compiler() -> None:
    lines = [
        "cd b && nvcc -O3 -x cu -c $SOURCE/engines/plugins/cuda/selective_scan2d.cu -o s.o",
        "cd b && nvcc -O3 -x cu -c $SOURCE/engines/plugins/cuda/bspline_basis.cu -o b.o",
        "cd b && c++ -o plugin.o -c $SOURCE/engines/plugins/tensorrt/plugin.cpp",
        "c++ -shared -o libvmkla_tensorrt.so plugin.o",
    ]
    found = plugin_log.commands_of("\n".join(["[ 10%] Building", *lines]))
    assert list(found.values()) == [lines[0], lines[2], lines[3]]
