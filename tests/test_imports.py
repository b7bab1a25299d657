"""The two walls of the design: imports run one way, and what a cart runs needs no torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmkla
from tests import FIND_TESTS, ROOT

# Package -> what it may import of vmkla's own; `vmkla` stands for all that is not in the four folders.
ALLOWED = {
    "vmkla": {"vmkla"},
    "engines": {"vmkla", "engines"},
    "export": {"vmkla", "engines", "export"},
    "calibration": {"vmkla", "engines", "calibration"},
    "cli": {"vmkla", "engines", "export", "calibration", "cli"},
}
TORCH_PACKAGES = (
    "vmkla.models",
    "vmkla.ops",
    "vmkla.data",
    "vmkla.training",
    "vmkla.export",
    "vmkla.calibration",
)
FACE = "vmkla"
"""The package itself opens models for its users, and so is the only one that reaches up, in functions."""
TORCH_MODULES = ("vmkla.engines.runners.torch_runner",)
HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "safetensors",
    "matplotlib",
    "monai",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "mamba_ssm",
    "captum",
    "triton",
    "h5py",
    "imagehash",
    "pycuda",
    "starlette",
    "uvicorn",
    "supervision",
    "pycocotools",
    "trackeval",
    "ray",
)


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the installed package."""
    found: dict[str, Path] = {}
    folders = {"vmkla": [Path(folder) for folder in vmkla.__path__]}
    for package in ("export", "engines", "cli", "calibration"):
        spec = importlib.util.find_spec(f"vmkla.{package}")
        assert spec is not None and spec.submodule_search_locations, f"vmkla.{package} is not installed"
        folders[f"vmkla.{package}"] = [Path(folder) for folder in spec.submodule_search_locations]
    for prefix, paths in folders.items():
        for folder in paths:
            if not (folder / "__init__.py").is_file():
                continue  # an editable install lists folders without the sources too
            for path in sorted(folder.rglob("*.py")):
                parts = [prefix, *path.relative_to(folder).with_suffix("").parts]
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def package_of(module: str) -> str:
    """Which of the five packages a module belongs to."""
    second = (module.split(".") + [""])[1]
    return second if second in ALLOWED else "vmkla"


def imported(path: Path, *, top_level_only: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what a file imports; without blocks under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack.extend(node.orelse)
            continue
        stack.extend(ast.iter_child_nodes(node))


def may_import_torch(module: str) -> bool:
    """Whether a module belongs to the side of the wall where torch may be imported at the top."""
    return module in TORCH_MODULES or any(module == p or module.startswith(p + ".") for p in TORCH_PACKAGES)


def test_all_five_packages_are_found() -> None:
    names = modules()
    assert {package_of(name) for name in names} == set(ALLOWED)
    assert {"vmkla.cli.main", "vmkla.engines.doctor", "vmkla.config", "vmkla.ops.scan"} <= set(names)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module: str) -> None:
    package = package_of(module)
    wrong = [
        f"line {line}: {name}"
        for line, name in imported(modules()[module], top_level_only=False)
        if name.split(".")[0] == "vmkla" and package_of(name) not in ALLOWED[package] and module != FACE
    ]
    assert not wrong, f"{module} may import {sorted(ALLOWED[package])} only, and imports {wrong}"


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_second_copy_of_a_module(module: str) -> None:
    bare = {"export", "engines", "cli", "calibration"}
    wrong = [
        f"line {line}: {name}"
        for line, name in imported(modules()[module], top_level_only=False)
        if name.split(".")[0] in bare
    ]
    assert not wrong, f"{module} imports from the checkout instead of vmkla: {wrong}"


@pytest.mark.parametrize("module", sorted(name for name in modules() if not may_import_torch(name)))
def test_no_heavy_import_at_the_top(module: str) -> None:
    wrong = [
        f"line {line}: {name}"
        for line, name in imported(modules()[module], top_level_only=True)
        if name.split(".")[0] in HEAVY or (name.startswith("vmkla.") and may_import_torch(name))
    ]
    assert not wrong, f"{module} must import without torch and onnx; at its top it imports {wrong}"


def test_no_module_of_our_own_is_imported_by_a_string() -> None:
    """mypy and readers do not see such an import, nor do the tests above."""
    names = modules()
    keys = {"vmkla.training", "vmkla.calibration", "vmkla.tuning"}  # of the metadata in a model file
    wrong = [
        f"{module}:{node.lineno}: {node.value}"
        for module, path in names.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and "." in node.value
        and node.value in names.keys() - keys
    ]
    assert not wrong, f"write `from vmkla... import ...` inside the function: {wrong}"


SCRIPTS = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("experiments/**/*.py")])
SHARED = ("tests", "benchmarks", "experiments")
"""Packages of the checkout that are not installed."""


def test_onnxruntime_is_imported_through_require_only() -> None:
    assert len(SCRIPTS) > 20
    wrong = [
        f"{path.name}:{line}: {name}"
        for path in (*modules().values(), *SCRIPTS)
        for line, name in imported(path, top_level_only=False)
        if name.split(".")[0] == "onnxruntime"
    ]
    assert not wrong, f"vmkla.imports.require switches onnxruntime's telemetry off; these do not: {wrong}"


def test_the_checkout_does_not_hide_the_installed_package() -> None:
    code = "import tests.tolerances, benchmarks.common, vmkla.cli; print(vmkla.cli.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", FIND_TESTS + code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.stdout.strip() == str(modules()["vmkla.cli"]), done.stderr


def test_procedures_know_no_video() -> None:
    """The tracker serves live mode, files and evaluation alike: its package does not import vmkla.video."""
    own = {name: path for name, path in modules().items() if name.startswith("vmkla.procedures.")}
    assert len(own) > 5
    for name, path in own.items():
        known = [
            module for _, module in imported(path, top_level_only=False) if module.startswith("vmkla.video")
        ]
        assert not known, f"{name} imports {known}"


def test_programs_find_what_they_share() -> None:
    """A program that imports from the checkout first appends the checkout to the path."""
    files = [*SCRIPTS, *(path for path in ROOT.glob("tests/**/*.py") if not path.name.startswith("test_"))]
    programs = [path for path in files if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")]
    assert len(programs) > 15
    for path in programs:
        shared = [line for line, name in imported(path, top_level_only=True) if name.split(".")[0] in SHARED]
        head = path.read_text(encoding="utf-8").splitlines()[: min(shared, default=1) - 1]
        depth = len(path.relative_to(ROOT).parts) - 1
        preamble = f"sys.path.append(str(Path(__file__).resolve().parents[{depth}]))"
        assert not shared or any(line.startswith(preamble) for line in head), path


BLOCKER = """
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked by the test: {{name}}", name=name)
sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    importlib.import_module(name)
loaded = sorted(set({blocked!r}) & set(sys.modules))
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""


def run_blocked(names: list[str], blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh interpreter in which some packages do not exist."""
    code = BLOCKER.format(blocked=blocked, names=names)
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_cart_side_imports_without_torch_and_onnx() -> None:
    names = sorted(name for name in modules() if not may_import_torch(name))
    assert len(names) > 20
    done = run_blocked(names, HEAVY)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks() -> None:
    done = run_blocked(["vmkla.ops"], ("torch",))
    assert done.returncode != 0 and "blocked by the test: torch" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    heavy = (*HEAVY, "numpy", "cv2", "av", "onnxruntime", "rich")
    code = f"""
import sys
from vmkla.cli.main import main
status = main(["--help"])
loaded = sorted(set({heavy!r}) & set(sys.modules))
sys.exit(f"status {{status}}, loaded {{loaded}}" if status or loaded else 0)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for command in (
        "infer",
        "batch",
        "export",
        "build",
        "verify",
        "calibrate",
        "train",
        "eval",
        "tune",
        "explain",
        "inspect",
        "doctor",
        "bench",
        "report",
        "sample",
    ):
        assert command in done.stdout
