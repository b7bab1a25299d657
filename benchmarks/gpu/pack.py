"""Prepare what `make gpu-proof` carries to a GPU machine without network or compiler, and check its size.

    python benchmarks/gpu/pack.py [--data polyp=DIR] [--tensorrt-root DIR] [--architectures 90]

Into one folder: the harness, the TensorRT plugin and its host (compiled and stripped), the package as source
for PYTHONPATH, and packed training images (without --data rendered ones). `--device cpu`: the emulation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import cv2

from benchmarks.gpu.machine import CARRIED
from benchmarks.gpu.native import HARNESS, HOST, PLUGIN
from benchmarks.gpu.process import call
from vmkla.cpus import cpu_budget
from vmkla.data import open_dataset
from vmkla.data.packing import PackOptions, pack
from vmkla.errors import BadInputError, MissingDependencyError, VmklaError
from vmkla.files import write_whole
from vmkla.native import find_library
from vmkla.video.media.clip import render_clip

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MIB = 64.0
QUALITY = 75
PARTS = {"vmkla": "", "export": "export", "engines": "engines", "cli": "cli", "calibration": "calibration"}
"""Folders of the repository, and where they lie in the package; pyproject.toml says the same."""
LEFT_OUT = shutil.ignore_patterns("plugins", "__pycache__", "*.onnx", "*.safetensors", "*.so")


def build_kernels(out: Path, root: str | None, architectures: str) -> None:
    """Compile the harness and, where TensorRT's headers are given, the plugin and its host.

    Raises:
        VmklaError: something does not compile.
    """
    source, inside, targets = ROOT, "engines/plugins", ["vmkla_harness"]
    if root:
        source, inside = ROOT / "tests" / "plugins" / "host", "vmkla/engines/plugins"
        targets += ["plugin_host", "vmkla_tensorrt"]
    flags = [f"-DVMKLA_CUDA_ARCHITECTURES={architectures}", *([f"-DTENSORRT_ROOT={root}"] if root else [])]
    with tempfile.TemporaryDirectory() as name:
        made = {HARNESS: f"{inside}/harness/vmkla_harness", HOST: "plugin_host",
                PLUGIN: f"{inside}/tensorrt/libvmkla_tensorrt.so"}  # fmt: skip
        for command in (
            ("cmake", "-S", source, "-B", name, *flags),
            ("cmake", "--build", name, "--parallel", str(cpu_budget().cpus), "--target", *targets),
        ):
            done = call(command, 1800)
            if done.status != 0:
                raise VmklaError(f"{' '.join(map(str, command))}: {done.reason}", hint=done.stdout[-1000:])
        for program, path in list(made.items())[: len(targets)]:
            subprocess.run(["strip", "-o", out / program, Path(name, path)], check=True)


def build_emulation(out: Path, root: str | None) -> None:
    """Compile the same programs for the CPU by g++ alone, over the emulation of CUDA."""
    from tests.built_once import FOLDER
    from tests.plugins.emulated_kernels import EMULATION, KERNELS, PLUGINS, compile_emulation
    from tests.plugins.plugin_builds import emulated

    harness = [path for path in (PLUGINS / "harness").iterdir() if path.suffix in (".cpp", ".cu")]
    with tempfile.TemporaryDirectory() as objects:
        os.environ.setdefault(FOLDER, objects)
        compile_emulation((*KERNELS, *EMULATION, *map(str, harness)), out / HARNESS)
        if root:
            emulated(Path(root), out / "bin")


def copy_package(out: Path) -> None:
    """Copy the package, with its compiled CPU library and without weights, to where PYTHONPATH finds it."""
    for folder, place in PARTS.items():
        shutil.copytree(ROOT / folder, out / "site" / "vmkla" / place, ignore=LEFT_OUT, dirs_exist_ok=True)
    library, target = find_library(), out / "site" / "vmkla" / "lib"
    target.mkdir()
    shutil.copy2(library, target)


def pack_images(out: Path, data: str | None, count: int, side: int) -> str:
    """Pack training, validation and test images at a quality that fits; return a description of them."""
    with tempfile.TemporaryDirectory() as name:
        if data is None:
            render(Path(name, "TrainDataset"), count, side, seed=0)
            render(Path(name, "TestDataset", "rendered"), max(2, count // 10), side, seed=count)
        options = PackOptions((side, side), quality=QUALITY)
        report = pack(open_dataset(data or name), out / "data.vmkpack", options)
    return f"{'rendered frames' if data is None else data.partition('=')[0]} {report.images}"


def render(folder: Path, count: int, side: int, *, seed: int) -> None:
    """Render one frame and its mask from each of ``count`` clips."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(seed, seed + count):
        ((rgb, mask),) = render_clip(number, side, side, 1)
        for kind, pixels in (("images", rgb[..., ::-1]), ("masks", mask)):
            cv2.imwrite(str(folder / kind / f"frame{number}.png"), pixels)


def sizes(out: Path) -> dict[str, int]:
    """Measure the bytes that travel: the tree (files that git does not ignore) and what is carried."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-coz", "--exclude-standard"], check=True, capture_output=True
    )
    tree = {ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
    found = {"the tree": sum(path.stat().st_size for path in tree if path.is_file())}
    for path in sorted(out.iterdir()):
        files = path.rglob("*") if path.is_dir() else [path]
        found[f"{out.name}/{path.name}"] = sum(file.stat().st_size for file in files if file.is_file())
    return found


def prepare(args: argparse.Namespace) -> dict[str, int]:
    """Write the folder anew, its list last: without the list nothing counts as carried.

    Returns:
        What travels, bytes by part.
    Raises:
        BadInputError: it is larger than the limit; names the parts.
    """
    shutil.rmtree(args.out, ignore_errors=True)
    (args.out / "bin").mkdir(parents=True)
    dry, cuda = args.device == "cpu", "13.0"
    if dry:
        build_emulation(args.out, args.tensorrt_root)
    else:
        nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc")) or "/usr/local/cuda/bin/nvcc"
        release = (
            re.search(r"release ([\d.]+)", call((nvcc, "--version"), 60).stdout)
            if Path(nvcc).exists()
            else None
        )
        if release is None:
            raise MissingDependencyError(
                "there is no nvcc here", hint="Install the CUDA toolkit, or set CUDACXX."
            )
        cuda = release[1]
        build_kernels(args.out, args.tensorrt_root, args.architectures)
    copy_package(args.out)
    images = pack_images(args.out, args.data, args.images, args.imgsz)
    found = sizes(args.out)
    total = sum(found.values())
    listed = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in found.items())
    if total > args.limit_mib * 2**20:
        raise BadInputError(
            f"{total / 2**20:.1f} MiB would travel, at most {args.limit_mib:g} can: {listed} MiB",
            hint="Remove files from the tree, or pack fewer images.",
        )
    reason = "it was packed without TensorRT's headers: make gpu-proof-pack TENSORRT_ROOT=DIR"
    left_out = {
        Path(name).name: reason for name in (HARNESS, HOST, PLUGIN) if not (args.out / name).is_file()
    }
    facts = {"architectures": [int(a) for a in args.architectures.split(";")], "cuda": cuda, "data": images,
             "left_out": left_out, "device": args.device}  # fmt: skip
    write_whole(args.out / CARRIED, json.dumps(facts, indent=1).encode())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the folder and print what travels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="as `vmkla train --data` takes it; none: rendered frames")
    parser.add_argument("--images", type=int, default=1000, help="how many frames are rendered")
    parser.add_argument("--imgsz", type=int, default=256, help="side of the network's input, px")
    parser.add_argument(
        "--tensorrt-root", default=os.environ.get("TENSORRT_ROOT"), help="has TensorRT's include/"
    )
    parser.add_argument("--architectures", default="90", help="compute capabilities, such as 80;90")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--limit-mib", type=float, default=LIMIT_MIB, help="what may travel, the tree included"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-proof")
    args = parser.parse_args(arguments)
    try:
        for name, size in prepare(args).items():
            print(f"{size / 2**20:7.1f} MiB  {name}")
    except VmklaError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
