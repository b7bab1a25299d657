"""Build an engine from an ONNX file: ``vmkla build``. A file gets the engine's name when it is checked."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.engines.runners.onnx_file import without_functions
from vmkla.engines.tensorrt.api import TensorRTApi, load_api
from vmkla.engines.tensorrt.build.inspection import inspect_engine
from vmkla.engines.tensorrt.build.monitor import SCALE, BuildProgress, Phases, make_monitor, run_cancellable
from vmkla.engines.tensorrt.build.network import (
    INPUT,
    check_custom_layers,
    check_network,
    layer_counts,
    parse_network,
)
from vmkla.engines.tensorrt.build.outputs import ensure_folder
from vmkla.engines.tensorrt.build.preflight import BuildRequest, Preflight, preflight
from vmkla.engines.tensorrt.build.timing import TimingCache
from vmkla.engines.tensorrt.build.verification import verify_engine
from vmkla.engines.tensorrt.machine import cuda_version, driver_version, find_gpu
from vmkla.engines.tensorrt.manifest import (
    BuildSettings,
    EngineManifest,
    GpuFacts,
    OnnxFacts,
    PluginFacts,
    manifest_path,
    write_manifest,
)
from vmkla.engines.tensorrt.messages import Messages
from vmkla.engines.tensorrt.plugins import load_plugin
from vmkla.errors import BadInputError, MissingDependencyError, VmklaError
from vmkla.files import file_sha256, write_whole

logger = logging.getLogger(__name__)

__all__ = ["BuildReport", "BuildRequest", "build_engine"]

SHOWN_MESSAGES = 8

_BODY_TWICE = "already exists, the output tensors of this new instance will not be queryable"
"""The parser's harmless warning on each node of a function body that is expanded a second time."""


@dataclass(frozen=True)
class BuildReport:
    """Result of a build.

    Attributes:
        path: path of the engine.
        manifest: the engine's manifest, as written beside it.
        layers: layers of the network before the build by kind and type, see ``network.layer_counts``.
        engine_layers: the engine inspector's facts of each layer; None where no GPU could load the engine.
        seconds: duration of the library's build, s.
        remarks: choices made for the user, and files that were not used or not written.
        warnings: the library's warnings, each kind once, with its count.
    """

    path: Path
    manifest: EngineManifest
    layers: dict[str, int]
    engine_layers: tuple[dict[str, Any], ...] | None
    seconds: float
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return {
            "path": str(self.path),
            "manifest_path": str(manifest_path(self.path)),
            "manifest": self.manifest.to_dict(),
            "verified": self.manifest.verified,
            "layers": self.layers,
            "engine_layers": None if self.engine_layers is None else list(self.engine_layers),
            "seconds": self.seconds,
            "remarks": list(self.remarks),
            "warnings": list(self.warnings),
        }


def build_engine(
    request: BuildRequest,
    progress: BuildProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> BuildReport:
    """Build an engine, check it where there is a GPU, and write it with its manifest.

    A build that fails leaves no file behind.

    Args:
        request: what to build.
        progress: called with the library's phases, from the library's threads.
        say: called with a line at each step.
    Raises:
        GateError: the engine's results differ from the ONNX file's.
        VmklaError: the library failed; its errors are in the message.
        KeyboardInterrupt: the user stopped it.
        UsageError, BadInputError, ArtefactMismatchError, MissingDependencyError: see ``preflight``,
            ``plugins.load_plugin`` and ``network.parse_network``.
    """
    messages = Messages()
    api = load_api(request.runtime)
    with api.collecting(messages):
        return _build(request, api, messages, progress, say or logger.info)


def _build(
    request: BuildRequest,
    api: TensorRTApi,
    messages: Messages,
    progress: BuildProgress | None,
    say: Callable[[str], None],
) -> BuildReport:
    gpu, no_gpu_because = _gpu()
    plan = preflight(request, api, gpu, no_gpu_because=no_gpu_because)
    for remark in plan.remarks:
        say(remark)
    plugin = None if plan.plugin is None else load_plugin(api, plan.plugin)
    say(_heading(plan))
    builder = _make_builder(api, messages)
    data = without_functions(plan.model.data) if plan.strip_functions else plan.model.data
    parsed = parse_network(api, builder, data, plan.path)
    network = parsed.network
    check_network(network, plan.metadata, plan.path)
    layers = layer_counts(network)
    check_custom_layers(layers, plan.outline.nodes, plan.path, plan.plugin)
    say(layer_report(layers))
    config = _make_config(plan, builder, network)
    cache = TimingCache(api, request.timing_cache, messages)
    cache.attach(config)
    for remark in cache.remarks:
        say(remark)
    started = time.monotonic()
    serialized = _serialize(api, builder, network, config, messages, progress, say)
    seconds = time.monotonic() - started
    if progress is not None:
        progress(SCALE, SCALE, "checking")
    settings = BuildSettings(
        workspace_bytes=request.workspace_bytes,
        optimization_level=request.optimization_level,
        timing_cache=None if request.timing_cache is None else str(request.timing_cache),
        timing_cache_hit=cache.hit,
    )
    with _folder_beside(request.output) as folder:
        draft = folder / request.output.name
        write_whole(draft, memoryview(serialized), private=False)
        manifest = _manifest(plan, plugin, settings, draft)
        write_manifest(manifest, draft)
        engine_layers = inspect_engine(api, draft, messages) if plan.runnable else None
        gates = verify_engine(plan, draft, say)
        manifest = dataclasses.replace(manifest, gates=gates)
        _put_in_place(draft, request.output, manifest)
    unsaved = cache.save(config)
    for remark in unsaved:
        say(remark)
    return BuildReport(
        path=request.output,
        manifest=manifest,
        layers=layers,
        engine_layers=engine_layers,
        seconds=seconds,
        remarks=(*plan.remarks, *cache.remarks, *unsaved),
        warnings=summarise(messages.warnings),
    )


def layer_report(layers: dict[str, int]) -> str:
    """Summarise layers before the build in one line: the number of each type, and the most frequent kinds."""
    by_type: Counter[str] = Counter()
    for name, count in layers.items():
        by_type[name.rpartition(" ")[2]] += count
    types = ", ".join(f"{count} {name}" for name, count in by_type.most_common())
    kinds = ", ".join(f"{count} {name}" for name, count in list(layers.items())[:5])
    return f"{sum(layers.values())} layers before the build: {types}; most frequent {kinds}"


def summarise(texts: list[str]) -> tuple[str, ...]:
    """Return each kind of message once: messages that differ only in a node's name are one kind."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        if _BODY_TWICE in text:
            continue
        kinds.setdefault(text.partition(" named ")[0], []).append(text)
    return tuple(
        same[0] if len(same) == 1 else f"{same[0]} (and {len(same) - 1} like it)" for same in kinds.values()
    )


def _gpu() -> tuple[GpuFacts | None, str]:
    """Return this machine's GPU and an empty text; or None and the reason."""
    try:
        return find_gpu(), ""
    except MissingDependencyError as error:
        return None, error.message


def _heading(plan: Preflight) -> str:
    api, gpu, profile = plan.api, plan.gpu, plan.profile
    where = f"SM {', '.join(map(str, plan.target_sms))}" if plan.target_sms else gpu.name if gpu else "no GPU"
    nodes = "function bodies" if plan.plugin is None else f"plugin {plan.plugin.name}"
    return (
        f"{api.label}: {plan.path.name}, {plan.metadata.precision}, for {where}, "
        f"batch {profile.min},{profile.opt},{profile.max}, custom nodes by {nodes}"
    )


def _make_builder(api: TensorRTApi, messages: Messages) -> Any:
    try:
        return api.make_builder()
    except Exception as error:  # the bindings raise TypeError where the library returns nothing
        raise _failure(f"{api.label} cannot make a builder: {error}", messages) from error


def _make_config(plan: Preflight, builder: Any, network: Any) -> Any:
    api, request = plan.api, plan.request
    module = api.module
    config = builder.create_builder_config()
    # The file sets the precision. With TF32 the library would compute float32 products with 10 bits.
    config.clear_flag(module.BuilderFlag.TF32)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    rest = tuple(network.get_input(0).shape)[1:]
    profile = builder.create_optimization_profile()
    batches = (plan.profile.min, plan.profile.opt, plan.profile.max)
    profile.set_shape(INPUT, *((batch, *rest) for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise VmklaError(f"{api.runtime} rejects the batch sizes {batches} for {INPUT} (n, {rest})")
    if plan.target_sms:
        config.num_compute_capabilities = len(plan.target_sms)
        for index, sm in enumerate(plan.target_sms):
            capability = getattr(module.ComputeCapability, f"SM{sm}")
            if not config.set_compute_capability(capability, index):
                raise VmklaError(f"{api.label} rejects the target SM {sm}")
    return config


def _serialize(
    api: TensorRTApi,
    builder: Any,
    network: Any,
    config: Any,
    messages: Messages,
    progress: BuildProgress | None,
    say: Callable[[str], None],
) -> Any:
    """Build the engine; return its bytes in memory that the library owns."""
    phases = Phases(progress)

    def cancel() -> None:
        phases.cancel()
        say("stopping at the library's next step; another Ctrl-C ends it at once")

    def build() -> Any:
        with api.collecting(messages):  # in the thread that runs it
            return builder.build_serialized_network(network, config)

    monitor = make_monitor(api, phases)
    config.progress_monitor = monitor
    messages.errors.clear()  # they belong to steps that succeeded
    serialized = run_cancellable(build, cancel)
    if phases.error is not None:
        raise phases.error
    if serialized is None:
        raise _failure(f"{api.label} could not build the engine", messages)
    return serialized


def _failure(what: str, messages: Messages) -> VmklaError:
    shown = summarise(messages.errors)[-SHOWN_MESSAGES:]
    return VmklaError(
        "\n  ".join([f"{what}; it reported:", *(shown or ["nothing"])]),
        hint="Where memory ran out, a lower --workspace or --optimization-level helps.",
    )


def _manifest(
    plan: Preflight, plugin: PluginFacts | None, settings: BuildSettings, engine: Path
) -> EngineManifest:
    return EngineManifest(
        runtime=plan.api.runtime,
        runtime_version=plan.api.version_text,
        engine_sha256=file_sha256(engine),
        engine_bytes=engine.stat().st_size,
        onnx=OnnxFacts(plan.onnx_name, plan.model.sha256, plan.outline.size_bytes),
        weights_sha256=plan.metadata.weights_sha256,
        profile=plan.profile,
        metadata=dict(plan.outline.metadata),
        plugin=plugin,
        gpu=plan.gpu,
        target_sms=plan.target_sms,
        cuda_version=cuda_version(),
        driver_version=driver_version() if plan.gpu is not None else None,
        settings=settings,
    )


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Make a folder on the output's disk for the unfinished engine; remove it at the end in every case."""
    try:
        with (
            ensure_folder(output.parent),
            tempfile.TemporaryDirectory(
                dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True
            ) as folder,
        ):
            yield Path(folder)
    except OSError as error:
        raise BadInputError(f"{output} cannot be written: {error.strerror or error}") from error


def _put_in_place(draft: Path, output: Path, manifest: EngineManifest) -> None:
    """Give engine and manifest, both whole by now, their names; a full disk leaves an older pair intact.

    The engine goes first: if the process ends in between, the older manifest rejects the new engine.
    """
    written = write_manifest(manifest, draft)
    os.replace(draft, output)
    os.replace(written, manifest_path(output))
