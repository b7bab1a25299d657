"""What an engine was made of and where it runs: the sidecar ``model.plan.json`` beside ``model.plan``."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla import __version__
from vmkla.engines.tensorrt.api import RTX_TARGETS
from vmkla.errors import ArtefactMismatchError, BadInputError, MissingDependencyError
from vmkla.files import file_sha256, written_whole
from vmkla.metadata import ArtefactMetadata

FORMAT = "1"
"""Version of this layout, raised when a reader of the old one would go wrong."""


@dataclass(frozen=True)
class OnnxFacts:
    """The ONNX file that an engine was built from.

    Attributes:
        name: of a shipped model, or of the file.
        sha256: of its bytes.
        bytes: its length.
    """

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class PluginFacts:
    """The plugin library that an engine calls.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        version: of vmkla's plugins in it, ``"1"``.
    """

    name: str
    sha256: str
    version: str


@dataclass(frozen=True)
class GpuFacts:
    """A GPU.

    Attributes:
        name: as the driver calls it.
        compute_capability: for instance ``"8.7"``.
        sm_count: streaming multiprocessors.
    """

    name: str
    compute_capability: str
    sm_count: int

    @property
    def sm(self) -> int:
        """Compute capability as one number, for instance 87."""
        return int(self.compute_capability.replace(".", ""))


@dataclass(frozen=True)
class Profile:
    """Batch sizes of an engine: the smallest, the one it is tuned for, the largest."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class BuildSettings:
    """What the builder was asked for.

    Attributes:
        workspace_bytes: limit of scratch memory on the GPU; None leaves the library's.
        optimization_level: 0 to 5; None leaves the library's.
        timing_cache: file that was read and written; None when there was none.
        timing_cache_hit: the file was there and the library took it.
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: str | None = None
    timing_cache_hit: bool = False


@dataclass(frozen=True)
class EngineManifest:
    """Facts about an engine. With its ``.plan`` it is all that a cart needs.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        runtime_version: of the library that built it.
        engine_sha256, engine_bytes: of the ``.plan``.
        onnx: what it was built from.
        weights_sha256: hash of the weights behind the ONNX file.
        profile: batch sizes that it takes.
        metadata: the ONNX file's ``metadata_props``, whole.
        plugin: the library that it calls; None where function bodies were expanded.
        gpu: that it was built on; None when it was built ahead of time.
        target_sms: of TensorRT-RTX: GPUs that it is for, for instance (86, 89); empty for TensorRT.
        cuda_version, driver_version: under which it was built; None without a GPU.
        settings: of the build.
        calibration_sha256: hash of the calibration set; None without one.
        gates: the check against ONNX Runtime: ``{"passed": ...}``, ``{"skipped": true}``, or
            ``{"not_run": why}`` where no GPU could run it.
        vmkla_version: version that built it.
        format: of this layout.
    """

    runtime: str
    runtime_version: str
    engine_sha256: str
    engine_bytes: int
    onnx: OnnxFacts
    weights_sha256: str
    profile: Profile
    metadata: dict[str, str]
    plugin: PluginFacts | None = None
    gpu: GpuFacts | None = None
    target_sms: tuple[int, ...] = ()
    cuda_version: str | None = None
    driver_version: str | None = None
    settings: BuildSettings = field(default_factory=BuildSettings)
    calibration_sha256: str | None = None
    gates: dict[str, Any] = field(default_factory=dict)
    vmkla_version: str = __version__
    format: str = FORMAT

    @property
    def verified(self) -> bool:
        """The engine itself was run against ONNX Runtime and passed."""
        return bool(self.gates.get("passed", False))

    @property
    def unverified_because(self) -> str | None:
        """Why nobody may rely on the engine; None when it is verified."""
        if self.verified:
            return None
        if "not_run" in self.gates:
            return f"it has not been run on any GPU ({self.gates['not_run']})"
        return "its maker's check was skipped"

    def artefact(self, plan: Path) -> ArtefactMetadata:
        """The network's own facts, with the engine's gates in the place of the ONNX file's.

        Args:
            plan: the engine, for messages.
        Raises:
            ArtefactMismatchError: the metadata are damaged or of another layout.
        """
        source = ArtefactMetadata.from_props(self.metadata, path=str(manifest_path(plan)))
        gates = {**self.gates, "onnx": source.gates}
        if self.verified and not source.verified:
            gates["passed"] = False  # it equals a file that nobody has checked
        return dataclasses.replace(source, gates=gates)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EngineManifest:
        """Inverse of ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or of another kind.
        """
        plugin, gpu = values["plugin"], values["gpu"]
        made = cls(
            **{
                **values,
                "onnx": OnnxFacts(**values["onnx"]),
                "plugin": None if plugin is None else PluginFacts(**plugin),
                "gpu": None if gpu is None else GpuFacts(**gpu),
                "target_sms": tuple(int(sm) for sm in values["target_sms"]),
                "profile": Profile(**values["profile"]),
                "settings": BuildSettings(**values["settings"]),
                "metadata": {str(key): str(value) for key, value in values["metadata"].items()},
                "gates": dict(values["gates"]),
            }
        )
        for name in ("runtime", "runtime_version", "engine_sha256", "weights_sha256", "vmkla_version"):
            if not isinstance(getattr(made, name), str):
                raise TypeError(f"{name} is no text")
        if not isinstance(made.engine_bytes, int):
            raise TypeError("engine_bytes is no number")
        return made


@dataclass(frozen=True)
class Machine:
    """What an engine's manifest is held against.

    Attributes:
        runtime, runtime_version: of the library that would run the engine.
        gpu: that would; None when there is none.
        plugin: the library installed here; None when there is none.
        cuda_version: of CUDA, as the driver offers it; None without a driver.
        driver_version: of the driver itself; None where it does not say.
    """

    runtime: str
    runtime_version: str
    gpu: GpuFacts | None = None
    plugin: PluginFacts | None = None
    cuda_version: str | None = None
    driver_version: str | None = None


def manifest_path(plan: Path) -> Path:
    """``model.plan`` -> ``model.plan.json``."""
    return plan.with_name(f"{plan.name}.json")


def write_manifest(manifest: EngineManifest, plan: Path) -> Path:
    """Write the sidecar of an engine, whole or not at all.

    Returns:
        Its path.
    Raises:
        BadInputError: it cannot be written.
    """
    path = manifest_path(plan)
    with written_whole(path) as file:
        file.write((json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    return path


def read_manifest(plan: Path) -> EngineManifest:
    """The sidecar of an engine.

    Args:
        plan: the engine, not the sidecar.
    Raises:
        BadInputError: there is no such engine, or the sidecar cannot be read.
        ArtefactMismatchError: it has no sidecar, or one that is damaged or of another layout.
    """
    if not plan.is_file():
        raise BadInputError(f"there is no engine file {plan}")
    path = manifest_path(plan)
    rebuild = f"Copy {path.name} from where the engine was built, or build it here: vmkla build MODEL.onnx"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArtefactMismatchError(
            f"{plan} has no manifest {path.name} beside it, so nobody knows what it is and where it runs",
            hint=f"{rebuild} --output {shlex.quote(str(plan))}",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
    try:
        values = json.loads(text)
        layout = values["format"]
        if layout != FORMAT:
            raise ArtefactMismatchError(
                f"{path} has layout {layout!r}, this version of vmkla reads {FORMAT!r}",
                hint=f"Run: vmkla build MODEL.onnx --output {shlex.quote(str(plan))}",
            )
        return EngineManifest.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactMismatchError(
            f"{path} is damaged: {error!r}", hint=f"{rebuild} --output {shlex.quote(str(plan))}"
        ) from error


def check_manifest(manifest: EngineManifest, plan: Path, machine: Machine) -> tuple[str, ...]:
    """Hold an engine against the machine that is to run it, before it is deserialised.

    Args:
        manifest: of the engine.
        plan: the engine.
        machine: this one.
    Returns:
        Remarks on what differs and does no harm: another driver or CUDA version.
    Raises:
        ArtefactMismatchError: a field differs; the message names it, both values and the command that
            builds the engine anew.
        MissingDependencyError: all fits, but there is no GPU.
        BadInputError: the engine cannot be read.
    """
    for name, built, here in _differences(manifest, plan, machine):
        raise ArtefactMismatchError(
            f"{plan} does not fit: {name} is {built} in its manifest and {here} here",
            hint=f"Run: {rebuild_command(manifest, plan, machine)}",
        )
    if machine.gpu is None:
        raise MissingDependencyError(
            f"{plan} is an engine of {manifest.runtime}, which runs on an NVIDIA GPU; there is none here",
            hint="Use the .onnx file that it was built from with --runtime onnxruntime.",
        )
    pairs = {
        "CUDA": (manifest.cuda_version, machine.cuda_version),
        "driver": (manifest.driver_version, machine.driver_version),
    }
    return tuple(
        f"the engine was built under {name} {built}, this machine has {here}"
        for name, (built, here) in pairs.items()
        if built is not None and built != here
    )


def rebuild_command(manifest: EngineManifest, plan: Path, machine: Machine | None = None) -> str:
    """The command that builds an engine anew, on this machine and for it.

    Args:
        manifest: of the engine.
        plan: the engine.
        machine: whose runtime and GPU to build for; None keeps those of the manifest.
    """
    source = plan.with_name(manifest.onnx.name)
    settings, profile = manifest.settings, manifest.profile
    targets, runtime = manifest.target_sms, manifest.runtime
    if runtime == "tensorrt-rtx" and machine is not None and machine.gpu is not None:
        if machine.gpu.sm in RTX_TARGETS:
            targets = (machine.gpu.sm,)
        else:
            runtime, targets = "tensorrt", ()
    words = ["vmkla", "build", str(source) if source.is_file() else manifest.onnx.name]
    words += ["--runtime", runtime, "--output", str(plan)]
    words += ["--profile", f"{profile.min},{profile.opt},{profile.max}"]
    if settings.workspace_bytes is not None:
        words += ["--workspace", f"{settings.workspace_bytes / 2**30:g}"]
    if settings.optimization_level is not None:
        words += ["--optimization-level", str(settings.optimization_level)]
    if settings.timing_cache is not None:
        words += ["--timing-cache", settings.timing_cache]
    if targets:
        words += ["--target-sm", ",".join(map(str, targets))]
    return shlex.join(words)


def _differences(
    manifest: EngineManifest, plan: Path, machine: Machine
) -> Iterator[tuple[str, object, object]]:
    """Name, value in the manifest and value here of each field that differs; cheap ones first."""
    if manifest.runtime != machine.runtime:
        yield "runtime", manifest.runtime, machine.runtime
    if manifest.runtime_version != machine.runtime_version:
        yield "runtime_version", manifest.runtime_version, machine.runtime_version
    yield from _plugin_differences(manifest.plugin, machine.plugin)
    if machine.gpu is not None:
        yield from _gpu_differences(manifest, machine.gpu)
    size = plan.stat().st_size if plan.is_file() else 0
    if manifest.engine_bytes != size:
        yield "engine_bytes", manifest.engine_bytes, size
    digest = file_sha256(plan)
    if manifest.engine_sha256 != digest:
        yield "engine_sha256", manifest.engine_sha256, digest


def _plugin_differences(
    built: PluginFacts | None, here: PluginFacts | None
) -> Iterator[tuple[str, object, object]]:
    if built is None:
        return  # function bodies were expanded: a plugin library here does not matter
    if here is None:
        yield "plugin", built.name, "absent"
        return
    if built.version != here.version:
        yield "plugin.version", built.version, here.version
    if built.sha256 != here.sha256:
        yield "plugin.sha256", built.sha256, here.sha256


def _gpu_differences(manifest: EngineManifest, here: GpuFacts) -> Iterator[tuple[str, object, object]]:
    if manifest.target_sms:  # an engine of TensorRT-RTX runs on every GPU of its targets
        if here.sm not in manifest.target_sms:
            yield "target_sms", ", ".join(map(str, manifest.target_sms)), f"{here.sm} ({here.name})"
        return
    if manifest.gpu is None:
        yield "gpu", "unknown", here.name
        return
    for name in ("compute_capability", "sm_count", "name"):
        built, seen = getattr(manifest.gpu, name), getattr(here, name)
        if built != seen:
            yield f"gpu.{name}", built, seen
