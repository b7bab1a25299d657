"""Compile the TensorRT plugin with several TensorRT versions for every architecture; write a report.

    python benchmarks/gpu/plugin_log.py TENSORRT_ROOT... --output docs/plugin-builds.md

Each TENSORRT_ROOT is a folder with TensorRT's ``include/``. Needs nvcc, g++ and CMake, and no GPU.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table

ROOT = Path(__file__).resolve().parents[2]
HOST_FLAGS = "-Wall -Wextra -Werror"
"""On top of the build's own: a warning of the host compiler ends the build."""
LIBRARY = Path("engines") / "plugins" / "tensorrt" / "libvmkla_tensorrt.so"
COMPILING = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
REGISTERS = re.compile(r"Used (\d+) registers")
WARNING = re.compile(r"\bwarning\b[: #]", re.IGNORECASE)


@dataclass(frozen=True)
class Usage:
    """The registers and stack of a kernel on one architecture."""

    kernel: str
    architecture: str
    registers: int
    spilled_bytes: int


@dataclass(frozen=True)
class Compilation:
    """One TensorRT version: the commands, their output, their time and the resulting library."""

    version: str
    configure: str
    build: str
    output: str
    seconds: float
    library_bytes: int
    exported: tuple[str, ...]
    needed: tuple[str, ...]


def usages(text: str) -> list[Usage]:
    """Parse ptxas's report on each kernel; a kernel without registers is an error."""
    found = []
    current: tuple[str, str] | None = None
    spilled = 0
    for line in text.splitlines():
        if match := COMPILING.search(line):
            if current is not None:
                raise ValueError(f"ptxas said nothing of the registers of {current}")
            current = (match[1], match[2])
        elif match := SPILLS.search(line):
            spilled = int(match[2])
        elif (match := REGISTERS.search(line)) and current is not None:
            found.append(Usage(*current, int(match[1]), spilled))
            current = None
    if current is not None:
        raise ValueError(f"ptxas said nothing of the registers of {current}")
    return found


def warnings(text: str) -> list[str]:
    """Return the lines in which a compiler or the linker warns."""
    return [line for line in text.splitlines() if WARNING.search(line) and "-Werror" not in line]


def neutral(text: str, places: Mapping[str, Path]) -> str:
    """Replace this machine's folders in a text by their names, the deepest first."""
    for name, folder in sorted(places.items(), key=lambda item: -len(str(item[1]))):
        text = text.replace(str(folder), f"${name}")
    return text


def readable(kernels: Sequence[str]) -> dict[str, str]:
    """Shorten demangled names to those of the source, without namespaces and parameters."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    short = (re.sub(r"(\w+|\(anonymous namespace\))::", "", name) for name in done)
    return {
        kernel: re.sub(r"^void ", "", name).split("(")[0] for kernel, name in zip(kernels, short, strict=True)
    }


def command_output(command: Sequence[str]) -> str:
    """Run a command that must succeed; return stdout and stderr as one text."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def compile_with(root: Path, build: Path) -> Compilation:
    """Compile the plugin with the headers under ``root``; kernels need none and are compiled once."""
    configure = [
        "cmake", "-S", str(ROOT), "-B", str(build), "-DVMKLA_CUDA=ON", f"-DTENSORRT_ROOT={root}",
        f"-DCMAKE_CXX_FLAGS={HOST_FLAGS}", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v",
    ]  # fmt: skip
    make = ["cmake", "--build", str(build), "--target", "vmkla_tensorrt", "--verbose"]
    configured = command_output(configure)
    version = re.search(r"libvmkla_tensorrt\.so: TensorRT ([\d.]+)", configured)
    if version is None:
        sys.exit(f"no TensorRT in what CMake says:\n{configured}")
    # Objects that an earlier TensorRT gave are younger than these headers.
    for compiled in (build / "engines" / "plugins" / "tensorrt").glob("**/*.o"):
        compiled.unlink()
    begun = time.monotonic()
    output = command_output(make)
    library = build / LIBRARY
    symbols = command_output(["nm", "-D", "--defined-only", str(library)]).splitlines()
    dynamic = command_output(["readelf", "-d", str(library)])
    return Compilation(
        version[1], shlex.join(configure), shlex.join(make), output, time.monotonic() - begun,
        library.stat().st_size, tuple(line.split()[-1] for line in symbols),
        tuple(re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic)),
    )  # fmt: skip


def register_table(found: Sequence[Usage]) -> Table:
    """Make the table of registers of each kernel on each architecture."""
    names = readable([usage.kernel for usage in found])
    architectures = sorted({usage.architecture for usage in found}, key=lambda name: int(name[3:]))
    cells: dict[str, dict[str, str]] = {}
    for usage in found:
        spilled = f" +{usage.spilled_bytes} B" if usage.spilled_bytes else ""
        cells.setdefault(names[usage.kernel], {})[usage.architecture] = f"{usage.registers}{spilled}"
    table = Table("Registers of a thread (spilled bytes)", ["kernel", *architectures])
    for name in sorted(cells):
        table.add(f"`{name}`", *(cells[name].get(architecture, "") for architecture in architectures))
    return table


def commands_of(output: str) -> dict[str, str]:
    """Return one command of each compiler: for a kernel, for a host source, and of the linker."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        if "nvcc" in line and " -c " in line and "scan2d.cu" in line:
            found.setdefault("kernels", line)
        elif "tensorrt/plugin.cpp" in line and " -c " in line:
            found.setdefault("host", line)
        elif "-shared" in line and "libvmkla_tensorrt.so" in line:
            found.setdefault("link", line)
    return found


def first_line(command: Sequence[str], pattern: str) -> str:
    """Return the line of a tool's version that matches."""
    return next(line for line in command_output(command).splitlines() if re.search(pattern, line))


def report(compilations: Sequence[Compilation], places: Mapping[str, Path]) -> str:
    """Write the whole page."""
    today = datetime.date.today().isoformat()
    tools = [
        first_line(["g++", "--version"], "g\\+\\+"),
        first_line(["nvcc", "--version"], "release"),
        first_line(["cmake", "--version"], "version"),
    ]
    table = Table(
        "Results",
        [
            "TensorRT headers",
            "host sources",
            "warnings",
            "kernels compiled",
            "time, s",
            "library, MB",
            "links",
        ],
    )
    for one in compilations:
        host = len(re.findall(r"Building CXX object engines/plugins/tensorrt", one.output))
        table.add(
            one.version, host, len(warnings(one.output)), len(usages(one.output)) or "as above", one.seconds,
            one.library_bytes / 1e6, ", ".join(f"`{name}`" for name in one.needed),
        )  # fmt: skip
    table.notes.append(f"Exported by each: {', '.join(f'`{name}`' for name in compilations[0].exported)}.")
    parts = [
        "# Builds of the TensorRT plugin",
        f"{today}, written by `python benchmarks/gpu/plugin_log.py $TENSORRT_ROOT...`. No GPU and no "
        "TensorRT library took part: this says that the plugin compiles, not that it runs.",
        "\n".join(f"- {line}" for line in tools),
        "The kernels include no header of TensorRT, so they are compiled once, for all architectures; what "
        f"TensorRT sees is compiled anew for each version, with `{HOST_FLAGS}`.",
        table.markdown(),
        register_table([usage for one in compilations for usage in usages(one.output)]).markdown(),
        "## Commands",
    ]
    for one in compilations:
        shown = [one.configure, one.build, *commands_of(one.output).values()]
        parts += [f"TensorRT {one.version}", "```\n" + "\n".join(shown) + "\n```"]
        parts += ["Warnings:\n\n```\n" + "\n".join(said) + "\n```" for said in [warnings(one.output)] if said]
    return neutral("\n\n".join(parts) + "\n", places)


def main() -> None:
    """Compile with each TensorRT version and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("roots", nargs="+", type=Path, metavar="TENSORRT_ROOT")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "plugin-builds.md")
    arguments = parser.parse_args()
    nvcc = first_line(["nvcc", "--dryrun", "-x", "cu", "-E", os.devnull], "_HERE_=").split("=")[-1]
    with tempfile.TemporaryDirectory() as build:
        compilations = [compile_with(root.resolve(), Path(build)) for root in arguments.roots]
        places = {"BUILD": Path(build), "SOURCE": ROOT, "CUDA": Path(nvcc).parent}
        text = report(compilations, places)
    for root in arguments.roots:
        text = text.replace(str(root.resolve()), "$TENSORRT_ROOT")
    for tool in ("nvcc", "c++"):
        text = text.replace(f"{shutil.which(tool)} ", f"{tool} ")
    arguments.output.write_text(text, encoding="utf-8")
    print(f"{arguments.output}: {len(compilations)} TensorRTs")


if __name__ == "__main__":
    main()
