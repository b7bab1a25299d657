"""What vmkla uses of TensorRT's Python API is in the API of 10.3, 10.13 and 11.1, and of TensorRT-RTX.

TensorRT itself is not needed: ``api_names/*.json`` list the names in the sources of its bindings (made by
``api_names/extract.py``). TensorRT-RTX is installed and asked itself. What vmkla uses is found in the syntax
trees of ``engines/tensorrt/*.py``, where ``OBJECTS`` says which variable holds what.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx

import vmkla.engines.tensorrt as package

LISTS = Path(__file__).with_name("api_names")
VERSIONS = ("10.3", "10.13", "11.1", "rtx")
FUNCTIONS = "(functions)"

# Variable, parameter or attribute of `self` -> class, wherever it occurs in engines/tensorrt.
OBJECTS = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "library_registry": "IPluginRegistry",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "registry": "IPluginRegistry",
    "runtime": "Runtime",
    "self._context": "IExecutionContext",
    "self._engine": "ICudaEngine",
    "self._runtime": "Runtime",
}
# In one file a name means something else than above.
IN_FILE = {
    ("builder.py", "cache"): None,  # a TimingCache of vmkla's own
    ("builder.py", "profile"): "IOptimizationProfile",
    ("execution.py", "self._runtime"): None,
    ("loading.py", "config"): "IRuntimeConfig",
    ("network.py", "error"): "ParserError",
    ("network.py", "errors"): "ParserError",  # a list of them
    ("runner.py", "engine"): None,  # a LoadedEngine
}
# In one function of a file.
IN_FUNCTION = {
    ("builder.py", "_heading", "profile"): None,  # a Profile of vmkla's own
    ("builder.py", "_manifest", "engine"): None,  # a path
}
# What a call or attribute gives, and what iterating over it gives.
GIVES = {
    "ILayer.get_output": "ITensor",
    "INetworkDefinition.get_input": "ITensor",
    "INetworkDefinition.get_layer": "ILayer",
    "INetworkDefinition.get_output": "ITensor",
    "IBuilderConfig.create_timing_cache": "ITimingCache",
    "IBuilderConfig.get_timing_cache": "ITimingCache",
    "OnnxParser.get_error": "ParserError",
}
# What vmkla's subclasses override: names and arguments are TensorRT's to say.
OVERRIDDEN = {
    "IErrorRecorder": {
        "report_error": ["val", "desc"],
        "num_errors": [],
        "get_error_code": ["error_idx"],
        "get_error_desc": ["error_idx"],
        "has_overflowed": [],
        "clear": [],
    },
    "ILogger": {"log": ["severity", "msg"]},
    "IProgressMonitor": {
        "phase_start": ["phase_name", "parent_phase", "num_steps"],
        "step_complete": ["phase_name", "step"],
        "phase_finish": ["phase_name"],
    },
}

RTX_ONLY = {
    "module.ComputeCapability": "TensorRTApi.targets, behind is_rtx; the builder, behind plan.target_sms",
    "module.DynamicShapesKernelSpecializationStrategy": "behind api.is_rtx",
    "DynamicShapesKernelSpecializationStrategy.EAGER": "behind api.is_rtx",
    "IBuilderConfig.num_compute_capabilities": "behind plan.target_sms, which TensorRT has none of",
    "IBuilderConfig.set_compute_capability": "behind plan.target_sms",
    "ICudaEngine.create_runtime_config": "behind api.is_rtx",
    "ICudaEngine.create_execution_context(runtime_config)": "behind api.is_rtx",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": "behind api.is_rtx",
    "IExecutionContext.is_stream_capturable": "behind api.is_rtx",
}
"""Used with TensorRT-RTX alone, and why no TensorRT comes to it."""

NOT_EVERYWHERE: dict[str, str] = {
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "getattr with a default: without it, it is always so",
}
"""Used where a version has it, and what is done where it has not."""


@dataclass(frozen=True)
class Use:
    """One use of a name.

    Attributes:
        name: ``Class.member``, ``module.Class``, or ``module.function``.
        where: file and line.
        positional, keywords: of a call; None where it is not called.
    """

    name: str
    where: str
    positional: int | None = None
    keywords: tuple[str, ...] = ()


def sources() -> list[Path]:
    """The modules that touch TensorRT; those of the GPU's memory do not."""
    found = sorted(Path(package.__path__[0]).rglob("*.py"))
    return [path for path in found if not path.name.startswith("memory")]


class Reader(ast.NodeVisitor):
    """Finds the uses in one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.uses, self.function = path, [], ""
        self.uses: list[Use] = []
        self.inferred: dict[str, str] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self.function, kept = self.function, node.name, dict(self.inferred)
        self.generic_visit(node)
        self.function, self.inferred = before, kept

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        self._bind(node.targets[0], self.kind(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if node.value is not None:
            self._bind(node.target, self.kind(node.value))

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, self.kind(node.iter))
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, self.kind(node.iter))
        self.generic_visit(node)

    def _comprehension(self, node: Any) -> None:
        for generator in node.generators:
            self.visit(generator)
        for field in ("elt", "key", "value"):
            if hasattr(node, field):
                self.visit(getattr(node, field))

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        kind = self.kind(node.value)
        if kind is not None:
            self.uses.append(Use(f"{kind}.{node.attr}", f"{self.path.name}:{node.lineno}"))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        where = f"{self.path.name}:{node.lineno}"
        if isinstance(node.func, ast.Attribute) and (kind := self.kind(node.func.value)) is not None:
            # Base.__init__(self) has one argument more than its signature.
            unbound = node.func.attr == "__init__"
            variable = any(isinstance(argument, ast.Starred) for argument in node.args)
            keywords = tuple(keyword.arg or "" for keyword in node.keywords)
            self.uses.append(
                Use(
                    f"{kind}.{node.func.attr}",
                    where,
                    None if variable else len(node.args) - unbound,
                    keywords,
                )
            )
        if isinstance(node.func, ast.Name) and node.func.id == "getattr":
            kind = self.kind(node.args[0])
            if kind is not None and isinstance(node.args[1], ast.Constant):
                self.uses.append(Use(f"{kind}.{node.args[1].value}", where))

    def kind(self, node: ast.expr) -> str | None:
        """Class of an expression, ``module`` for the library itself; None where it is none of TensorRT's."""
        if isinstance(node, ast.Attribute | ast.Name):
            text = ast.unparse(node)
            if text in ("api.module", "self.module", "self._api.module", "module"):
                return "module"
            for key in ((self.path.name, self.function, text), (self.path.name, text)):
                table: Any = IN_FUNCTION if len(key) == 3 else IN_FILE
                if key in table:
                    found: str | None = table[key]
                    return found
            if text in self.inferred:
                return self.inferred[text]
            if text in OBJECTS:
                return OBJECTS[text]
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value)
            if owner == "module":
                return node.attr if node.attr[0].isupper() else None
            return GIVES.get(f"{owner}.{node.attr}")
        if isinstance(node, ast.Call):
            made = node.func
            if isinstance(made, ast.Attribute):
                owner = self.kind(made.value)
                if owner == "module":
                    return made.attr if made.attr[0].isupper() else None
                return GIVES.get(f"{owner}.{made.attr}")
        if isinstance(node, ast.ListComp):
            for generator in node.generators:
                self._bind(generator.target, self.kind(generator.iter))
            return self.kind(node.elt)
        if isinstance(node, ast.Subscript):
            return self.kind(node.value)
        return None

    def _bind(self, target: ast.expr, kind: str | None) -> None:
        text = ast.unparse(target)
        if kind is not None and kind != "module":
            self.inferred[text] = kind
        elif text in self.inferred:
            del self.inferred[text]


@functools.cache
def uses() -> tuple[Use, ...]:
    """All uses in all files."""
    found: list[Use] = []
    for path in sources():
        reader = Reader(path)
        reader.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += reader.uses
    return tuple(found)


@functools.cache
def api(version: str) -> dict[str, dict[str, Any]]:
    """Class -> member -> signatures, None for what is no method."""
    if version != "rtx":
        listed: dict[str, dict[str, Any]] = json.loads((LISTS / f"{version}.json").read_text())
        return listed
    made: dict[str, dict[str, Any]] = {FUNCTIONS: {}}
    for name, value in vars(tensorrt_rtx).items():
        if inspect.isclass(value):
            members = {member: getattr(value, member, None) for member in dir(value)}
            made[name] = {
                member: _documented(one) if callable(one) and (one.__doc__ or "").strip() else None
                for member, one in members.items()
                if member == "__init__" or not member.startswith("_")
            }
        elif callable(value):
            made[FUNCTIONS][name] = _documented(value)
    return made


def _documented(function: Any) -> list[list[str]] | None:
    """Signatures from the first lines of a pybind11 docstring."""
    found = []
    for line in (function.__doc__ or "").splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{re.escape(function.__name__)}\((.*)\)(?: ->|$)", line)
        if match is None or "*args" in match[1]:
            continue
        depth, parts = 0, [""]
        for character in match[1]:
            depth += (character in "([{<") - (character in ")]}>")
            if character == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += character
        named = [part.strip() for part in parts if part.strip() and not part.strip().startswith("self:")]
        found.append([("=" if " = " in part else "") + part.partition(":")[0] for part in named])
    return found or None


def problems(use: Use, version: str) -> Iterator[str]:
    """What a version has against a use."""
    owner, _, member = use.name.partition(".")
    names = api(version)
    if owner == "module":
        if member in names or member in names[FUNCTIONS] or member in ("__name__", "__version__"):
            owner, member = (member, "__init__") if member in names else (FUNCTIONS, member)
            if use.positional is None:
                return
        else:
            yield f"{use.where}: {version} has no {member}"
            return
    if owner not in names:
        yield f"{use.where}: {version} has no class {owner}"
        return
    if member not in names[owner]:
        yield f"{use.where}: {version} has no {owner}.{member}"
        return
    signatures = names[owner][member]
    if use.positional is not None and signatures:
        if not any(fits(use, signature) for signature in signatures):
            yield f"{use.where}: {version} has {owner}.{member}{signatures}, called with {use}"


def fits(use: Use, signature: list[str]) -> bool:
    """Whether a call's arguments are those of a signature."""
    if signature == ["?"]:  # the bindings name no argument: it may be any one
        return not use.keywords
    names = [name.lstrip("=") for name in signature]
    given = set(names[: use.positional]) | set(use.keywords)
    needed = {name for name in signature if not name.startswith("=")}
    return (use.positional or 0) <= len(names) and set(use.keywords) <= set(names) and needed <= given


def key(use: Use) -> str:
    """A use with its keywords, as the tables of exceptions write it where they matter."""
    return f"{use.name}({', '.join(use.keywords)})" if use.keywords else use.name


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_in_use_exists(version: str) -> None:
    wrong = []
    for use in uses():
        if version != "rtx" and {use.name, key(use)} & set(RTX_ONLY):
            continue
        if use.name in NOT_EVERYWHERE:
            continue
        wrong += problems(use, version)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_overridden(version: str) -> None:
    for owner, methods in OVERRIDDEN.items():
        for name, arguments in methods.items():
            assert name in api(version)[owner], f"{version} has no {owner}.{name}"
            signatures = api(version)[owner][name]
            unnamed = [f"arg{index}" for index in range(len(arguments))]  # as pybind11 documents them
            if signatures == [unnamed]:
                continue
            assert not signatures or ["?"] in signatures or arguments in signatures, (owner, name, signatures)


def test_the_tables_of_exceptions_hold_nothing_idle() -> None:
    used = {use.name for use in uses()} | {key(use) for use in uses()}
    assert set(RTX_ONLY) <= used and set(NOT_EVERYWHERE) <= used
    for name in RTX_ONLY:
        use = next(use for use in uses() if name in (use.name, key(use)))
        assert not list(problems(use, "rtx"))
        assert any(list(problems(use, version)) for version in VERSIONS if version != "rtx"), name
    for name in NOT_EVERYWHERE:
        use = next(use for use in uses() if use.name == name)
        assert any(not list(problems(use, version)) for version in VERSIONS)


def test_no_use_is_overlooked() -> None:
    """A member's name on an object of unknown class: OBJECTS has to say what it is, or NOT_TENSORRTS."""
    members = {
        member
        for version in VERSIONS[:-1]
        for owner, found in api(version).items()
        for member in found
        if owner in set(OBJECTS.values()) | {"ICudaEngine", "ITensor", "ILayer", "ParserError"}
        if "_" in member and not member.startswith("_")
    }
    known = {(use.where, use.name.partition(".")[2]) for use in uses()}
    overlooked = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in members
        if (f"{path.name}:{node.lineno}", node.attr) not in known and ast.unparse(node) not in NOT_TENSORRTS
    ]
    assert not overlooked, "\n".join(overlooked)


NOT_TENSORRTS: set[str] = set()
"""Attributes of vmkla's own objects that happen to be called like a member of TensorRT's."""


def test_what_is_found_is_what_a_runner_and_a_builder_need() -> None:
    """The reader reads: without these names nothing would run."""
    names = {use.name for use in uses()}
    assert {
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_tensor_address",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "ICudaEngine.get_tensor_profile_shape",
        "Builder.build_serialized_network",
        "IOptimizationProfile.set_shape",
        "OnnxParser.parse",
        "ParserError.local_function_stack",
        "IPluginRegistry.load_library",
        "IPluginRegistry.get_creator",
        "INetworkDefinition.get_layer",
        "ITensor.shape",
        "Builder.error_recorder",
        "INetworkDefinition.error_recorder",
        "IPluginRegistry.error_recorder",
        "Runtime.error_recorder",
        "module.IErrorRecorder",
        "module.Runtime",
    } <= names


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        (Use("IExecutionContext.execute_async_v2", "x.py:1"), "no IExecutionContext.execute_async_v2"),
        (Use("module.IInt8Calibrator", "x.py:1"), "no IInt8Calibrator"),
        (Use("IExecutionContext.set_input_shape", "x.py:1", 1), "called with"),
        (Use("IExecutionContext.set_input_shape", "x.py:1", 1, ("dims",)), "called with"),
        (Use("module.OnnxParser", "x.py:1", 1), "called with"),
    ],
)
def test_the_check_sees_what_is_wrong(use: Use, complaint: str) -> None:
    for version in VERSIONS:
        found = list(problems(use, version))
        assert found and complaint in found[0], version


def test_removed_names_are_gone_from_the_newest_list() -> None:
    assert "FP16" in api("10.3")["BuilderFlag"] and "FP16" not in api("11.1")["BuilderFlag"]


def test_the_stand_in_offers_nothing_of_its_own() -> None:
    """stand_in_tensorrt.py has only what 10.3, and for TensorRT-RTX the installed one, have."""
    from tests.engines.tensorrt import stand_in_tensorrt as stand_in

    module = stand_in.module("tensorrt")
    names = api("10.3")
    for name in stand_in.NAMES:
        assert name in names or name in names[FUNCTIONS]
        assert hasattr(module, name)
    classes = [stand_in.ICudaEngine, stand_in.IExecutionContext, stand_in.Runtime, stand_in.ILogger]
    classes += [stand_in.IPluginRegistry, stand_in.TensorIOMode, stand_in.DataType, stand_in.IErrorRecorder]
    for offered in classes:
        own = {member for member in vars(offered) if not member.startswith("_")}
        assert own <= set(names[offered.__name__]), offered
    for offered, real in (
        (stand_in._RtxEngine, tensorrt_rtx.ICudaEngine),
        (stand_in._RtxContext, tensorrt_rtx.IExecutionContext),
        (stand_in._RtxConfig, tensorrt_rtx.IRuntimeConfig),
        (stand_in._RtxRuntime, tensorrt_rtx.Runtime),
    ):
        own = {member for member in vars(offered) if not member.startswith("_")}
        assert own and own <= set(dir(real)), offered
