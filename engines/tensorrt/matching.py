"""Check that an engine fits this machine, and find the command that rebuilds one that does not."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmkla import weights
from vmkla.engines.tensorrt.api import RTX_TARGETS
from vmkla.engines.tensorrt.manifest import EngineManifest, GpuFacts, PluginFacts
from vmkla.errors import ArtefactMismatchError, BadInputError, MissingDependencyError
from vmkla.files import file_sha256


@dataclass(frozen=True)
class Machine:
    """Facts of a machine that an engine's manifest is compared with.

    Attributes:
        runtime, runtime_version: name and version of the library that would run the engine.
        gpu: the GPU that would run it; None where there is none.
        plugin: the plugin library installed here; None where there is none.
        cuda_version: CUDA version of the driver; None without a driver.
        driver_version: version of the driver; None where it is unknown.
        no_gpu: why there is no GPU; None where there is one, or where the reason is unknown.
        plugin_path: path of the plugin library that the user named; None for the installed one.
    """

    runtime: str
    runtime_version: str
    gpu: GpuFacts | None = None
    plugin: PluginFacts | None = None
    cuda_version: str | None = None
    driver_version: str | None = None
    no_gpu: str | None = None
    plugin_path: Path | None = None


def check_manifest(manifest: EngineManifest, plan: Path, machine: Machine, engine: bytes) -> tuple[str, ...]:
    """Compare an engine's manifest with the machine that will run it, before the engine is deserialised.

    Args:
        manifest: the engine's manifest.
        plan: path of the engine, for messages.
        machine: facts of this machine.
        engine: the engine's bytes.
    Returns:
        Remarks on harmless differences: another driver or CUDA version.
    Raises:
        ArtefactMismatchError: a field differs; the message has its name, both values and the command that
            rebuilds the engine.
        MissingDependencyError: every field agrees, but there is no GPU.
    """
    for name, built, here in _differences(manifest, machine, engine):
        hint = rebuild_hint(manifest, plan, machine)
        if name.startswith("plugin"):
            hint += "   (or name the library that the engine was built with: --plugin FILE)"
        raise ArtefactMismatchError(
            f"{plan} does not fit: {name} is {built} in its manifest and {here} here", hint=hint
        )
    if machine.gpu is None:
        raise MissingDependencyError(
            f"{plan} is an engine of {manifest.runtime}, which runs on an NVIDIA GPU: "
            f"{machine.no_gpu or 'there is none here'}",
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


def rebuild_hint(manifest: EngineManifest, plan: Path, machine: Machine | None = None) -> str:
    """Return ``rebuild_command`` as a hint, which describes the ONNX file where that cannot be found."""
    source, at_hand = _source(manifest, plan)
    hint = f"Run: {rebuild_command(manifest, plan, machine)}"
    if at_hand:
        return hint
    beside = plan.with_name(source)
    other = f"; {beside} is another file" if beside.is_file() else ""
    return f"{hint}   (use the {source} with sha256 {manifest.onnx.sha256[:12]}...{other})"


def rebuild_command(manifest: EngineManifest, plan: Path, machine: Machine | None = None) -> str:
    """Return the command that rebuilds an engine on a machine and for it.

    Args:
        manifest: the engine's manifest.
        plan: path of the engine.
        machine: the machine to build for; None keeps the runtime, GPU and plugin library of the manifest.
    """
    settings, profile = manifest.settings, manifest.profile
    targets, runtime = manifest.target_sms, manifest.runtime
    if runtime == "tensorrt-rtx" and machine is not None and machine.gpu is not None:
        if machine.gpu.sm in RTX_TARGETS:
            targets = (machine.gpu.sm,)
        else:
            runtime, targets = "tensorrt", ()
    words = ["vmkla", "build", _source(manifest, plan)[0], "--runtime", runtime, "--output", str(plan)]
    words += ["--profile", f"{profile.min},{profile.opt},{profile.max}"]
    if manifest.runtime == "tensorrt" and manifest.plugin is None:
        words += ["--plugin", "bodies"]
    elif runtime == "tensorrt" and machine is not None and machine.plugin_path is not None:
        words += ["--plugin", str(machine.plugin_path)]
    if settings.workspace_bytes is not None:
        words += ["--workspace", f"{settings.workspace_bytes / 2**30:g}"]
    if settings.optimization_level is not None:
        words += ["--optimization-level", str(settings.optimization_level)]
    if settings.timing_cache is not None:
        words += ["--timing-cache", settings.timing_cache]
    if targets:
        words += ["--target-sm", ",".join(map(str, targets))]
    return shlex.join(words)


def _source(manifest: EngineManifest, plan: Path) -> tuple[str, bool]:
    """Return the name of an engine's ONNX file, and whether the file of that name is the right one."""
    name = manifest.onnx.name
    beside, shipped = plan.with_name(name), weights.shipped().get(name)
    if _is_file_of(beside, manifest.onnx.sha256):
        return str(beside), True
    return name, shipped is not None and _is_file_of(shipped, manifest.onnx.sha256)


def _is_file_of(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and file_sha256(path) == sha256
    except BadInputError:
        return False


def _differences(
    manifest: EngineManifest, machine: Machine, engine: bytes
) -> Iterator[tuple[str, object, object]]:
    """Yield name, value in the manifest and value here of each field that differs; cheap checks first."""
    if manifest.runtime != machine.runtime:
        yield "runtime", manifest.runtime, machine.runtime
    if manifest.runtime_version != machine.runtime_version:
        yield "runtime_version", manifest.runtime_version, machine.runtime_version
    yield from _plugin_differences(manifest.plugin, machine.plugin)
    if machine.gpu is not None:
        yield from _gpu_differences(manifest, machine.gpu)
    if manifest.engine_bytes != len(engine):
        yield "engine_bytes", manifest.engine_bytes, len(engine)
    digest = hashlib.sha256(engine).hexdigest()
    if manifest.engine_sha256 != digest:
        yield "engine_sha256", manifest.engine_sha256, digest


def _plugin_differences(
    built: PluginFacts | None, here: PluginFacts | None
) -> Iterator[tuple[str, object, object]]:
    if built is None:
        return  # the engine uses function bodies, so it needs no plugin library
    if here is None:
        yield "plugin", built.name, "absent"
        return
    if built.version != here.version:
        yield "plugin.version", built.version, here.version
    if built.sha256 != here.sha256:
        yield "plugin.sha256", built.sha256, here.sha256


def _gpu_differences(manifest: EngineManifest, here: GpuFacts) -> Iterator[tuple[str, object, object]]:
    if manifest.target_sms:  # an engine of TensorRT-RTX runs on every target GPU
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
