"""Checks before a build, so that a request that cannot succeed fails at once and not after minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmkla import weights
from vmkla.engines.runners.model_file import ModelFile, open_model
from vmkla.engines.runners.onnx_file import OnnxOutline
from vmkla.engines.tensorrt.api import TURING, EngineRuntime, TensorRTApi
from vmkla.engines.tensorrt.build.host_memory import check_memory
from vmkla.engines.tensorrt.build.outputs import check_files, check_output_name
from vmkla.engines.tensorrt.manifest import GpuFacts, Profile
from vmkla.engines.tensorrt.plugins import CREATORS, NAMESPACE, find_plugin
from vmkla.engines.verify.gate_frames import load_gate_frames
from vmkla.engines.verify.gates import ENGINE
from vmkla.errors import ArtefactMismatchError, BadInputError, MissingDependencyError, UsageError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.metadata import ArtefactMetadata

OLDEST_TENSORRT = (10, 3)
"""Oldest supported version, that of JetPack 6.2. The parser before 10.1 did not know IPluginV3."""
PLUGIN_WINS = (10, 7)
"""First version whose parser prefers a plugin to a function body; older ones always take the body."""
OPTIMIZATION_LEVELS = range(6)
LARGEST_BATCH = 256
"""Largest accepted batch. Frames come one by one or in small batches; the check runs three of the largest."""
LARGEST_WORKSPACE = 1 << 40
"""Largest accepted workspace, bytes: more than any GPU has."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build, as the user asked for it.

    Attributes:
        model: name of a shipped model, or path of an ONNX file that vmkla exported.
        output: path of the engine to write; its manifest is written beside it.
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        profile: batch sizes; None takes the file's own, see ``choose_profile``.
        workspace_bytes: limit of scratch memory on the GPU, bytes; None leaves the library's default.
        timing_cache: path of the timing cache to read and write; None uses no cache.
        optimization_level: 0 (fast to build) to 5; None leaves the library's default.
        target_sms: GPUs that TensorRT-RTX builds for, for instance (86, 89); None takes this machine's, and
            all that the library supports where there is no GPU.
        plugin: path of the plugin library for TensorRT; None takes the installed one.
        expand_bodies: TensorRT uses the function bodies in the file instead of plugins, which is slow.
        skip_gates: do not compare the engine with ONNX Runtime; the manifest records that.
        frames: a video, image, folder or pattern to compare on; None renders frames.
        max_megapixels: larger images and frames of ``frames`` are not decoded.
    """

    model: str
    output: Path
    runtime: EngineRuntime
    profile: Profile | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    target_sms: tuple[int, ...] | None = None
    plugin: Path | None = None
    expand_bodies: bool = False
    skip_gates: bool = False
    frames: str | None = None
    max_megapixels: float = MAX_MEGAPIXELS


@dataclass(frozen=True)
class Preflight:
    """A request that passed all checks, and what was decided about it.

    Attributes:
        request: what the user asked for.
        api: the library that builds.
        gpu: this machine's GPU; None where there is none.
        model: the ONNX file, checked.
        onnx_name: a shipped model's name, or the file's.
        profile: batch sizes.
        target_sms: GPUs that TensorRT-RTX builds for; empty for TensorRT.
        plugin: path of the library that runs the custom nodes; None where function bodies are expanded.
        strip_functions: remove the bodies from the file, so that the parser takes the plugin.
        remarks: choices that were made for the user, one sentence each.
    """

    request: BuildRequest
    api: TensorRTApi
    gpu: GpuFacts | None
    model: ModelFile
    onnx_name: str
    profile: Profile
    target_sms: tuple[int, ...]
    plugin: Path | None
    strip_functions: bool
    remarks: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Path of the ONNX file."""
        return self.model.path

    @property
    def outline(self) -> OnnxOutline:
        """Outline of the ONNX file."""
        return self.model.outline

    @property
    def metadata(self) -> ArtefactMetadata:
        """Metadata of the ONNX file."""
        return self.model.metadata

    @property
    def runnable(self) -> bool:
        """Whether this machine's GPU can run the engine."""
        return self.gpu is not None and (not self.target_sms or self.gpu.sm in self.target_sms)


def preflight(
    request: BuildRequest, api: TensorRTApi, gpu: GpuFacts | None, *, no_gpu_because: str = ""
) -> Preflight:
    """Check a request against the file, the library and this machine.

    Args:
        request: what the user asked for.
        api: the library that builds.
        gpu: this machine's GPU; None where there is none.
        no_gpu_because: the driver's reason where there is none.
    Raises:
        UsageError: an option is out of range or does not suit the file, or two paths are the same file.
        BadInputError: the file is missing or damaged, the output or the timing cache cannot be written, or
            the frames cannot be read.
        ArtefactMismatchError: the file is not vmkla's, is damaged, or has a node that neither a plugin nor a
            function body runs.
        MissingDependencyError: the library is too old, or a GPU, memory or the plugin library is missing.
    """
    check_version(api)
    _check_options(request)
    path = weights.resolve(request.model)
    model = open_model(path)
    outline, metadata = model.outline, model.metadata
    if metadata.precision not in ENGINE:
        raise ArtefactMismatchError(
            f"{path} has precision {metadata.precision!r}, expected one of {', '.join(ENGINE)}",
            hint="Run: vmkla export again, with this version of vmkla",
        )
    profile, remarks = choose_profile(request.profile, outline, metadata, path)
    targets, left_out = choose_targets(request.target_sms, api, gpu, no_gpu_because)
    plugin = choose_plugin(request, api)
    check_custom_nodes(outline, path, with_plugin=plugin is not None)
    check_files(path, request.output, request.timing_cache, plugin)
    check_memory(outline.size_bytes, rtx=api.is_rtx)
    if request.frames is not None:
        # Before the build, which takes minutes: the frames may not be readable.
        load_gate_frames(request.frames, metadata.preprocess, max_megapixels=request.max_megapixels)
    return Preflight(
        request=request,
        api=api,
        gpu=gpu,
        model=model,
        onnx_name=request.model if request.model in weights.shipped() else path.name,
        profile=profile,
        target_sms=targets,
        plugin=plugin,
        strip_functions=plugin is not None and api.version < PLUGIN_WINS,
        remarks=model.notes + remarks + left_out,
    )


def check_version(api: TensorRTApi) -> None:
    """Reject a TensorRT that is too old.

    Raises:
        MissingDependencyError: it is older than ``OLDEST_TENSORRT``.
    """
    if not api.is_rtx and api.version < OLDEST_TENSORRT:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        raise MissingDependencyError(
            f"TensorRT {api.version_text} is installed, expected {oldest} or newer",
            hint=f"Run: pip install --upgrade 'tensorrt>={oldest}'   (on a Jetson: JetPack 6.2 or newer)",
        )


def _check_options(request: BuildRequest) -> None:
    check_output_name(request.output)
    level = request.optimization_level
    if level is not None and level not in OPTIMIZATION_LEVELS:
        raise UsageError(f"--optimization-level is {level}, expected 0 to {OPTIMIZATION_LEVELS[-1]}")
    workspace = request.workspace_bytes
    if workspace is not None and not 1 <= workspace <= LARGEST_WORKSPACE:
        raise UsageError(
            f"--workspace is {workspace} bytes, expected more than 0 and at most "
            f"{LARGEST_WORKSPACE >> 30} GiB"
        )
    if request.plugin is not None and request.expand_bodies:
        raise UsageError("a plugin library and the expansion of function bodies are both requested")
    if request.runtime == "tensorrt-rtx" and request.plugin is not None:
        raise UsageError(
            "TensorRT-RTX does not load plugins; it runs the function bodies in the file",
            hint="Leave --plugin out.",
        )
    if request.runtime == "tensorrt" and request.target_sms is not None:
        raise UsageError(
            "--target-sm is an option of tensorrt-rtx; TensorRT builds for the GPU that it runs on",
            hint="Leave --target-sm out, and build on the machine that will run the engine.",
        )


def choose_profile(
    wanted: Profile | None, outline: OnnxOutline, metadata: ArtefactMetadata, path: Path
) -> tuple[Profile, tuple[str, ...]]:
    """Choose batch sizes: the requested ones, else those of the export, else the fixed batch, else 1.

    Returns:
        The profile, and remarks: that the batch is a default, or that the engine cannot run single frames.
    Raises:
        UsageError: the numbers are not a profile, or do not fit the file's fixed batch.
        BadInputError: the file has no input.
        ArtefactMismatchError: the file's own numbers are not a profile.
    """
    if not outline.inputs or not outline.inputs[0].shape:
        raise BadInputError(f"{path} has no input with a batch", hint="Run: vmkla export again")
    batch = outline.inputs[0].shape[0]
    if wanted is not None:
        if not _is_profile(wanted):
            raise UsageError(
                f"--profile is {wanted.min},{wanted.opt},{wanted.max}, expected 1 <= min <= opt <= max <= "
                f"{LARGEST_BATCH}",
                hint="For instance: --profile 1,1,4",
            )
        if isinstance(batch, int) and (wanted.min, wanted.max) != (batch, batch):
            raise UsageError(
                f"--profile is {wanted.min},{wanted.opt},{wanted.max}, but {path} takes {batch} at once",
                hint="Leave --profile out, or run: vmkla export --batch dynamic",
            )
        return wanted, _remarks_on(wanted, batch)
    own = (batch, batch, batch) if isinstance(batch, int) else metadata.profile
    if own is not None:
        profile = Profile(*own)
        if not _is_profile(profile):
            raise ArtefactMismatchError(
                f"{path} is for {profile.min},{profile.opt},{profile.max} frames at once, expected 1 <= min "
                f"<= opt <= max <= {LARGEST_BATCH}",
                hint="Run: vmkla export --batch dynamic",
            )
        return profile, _remarks_on(profile, batch)
    return Profile(1, 1, 1), ("the file takes any batch; the engine takes 1 (--profile 1,1,8 for up to 8)",)


def _is_profile(profile: Profile) -> bool:
    return 1 <= profile.min <= profile.opt <= profile.max <= LARGEST_BATCH


def _remarks_on(profile: Profile, batch: int | str) -> tuple[str, ...]:
    """Remark on a fixed batch: ``vmkla infer`` sends frames one by one and cannot run such an engine."""
    if not 1 < profile.min == profile.max:
        return ()
    instead = f"--profile 1,1,{profile.max}" if isinstance(batch, str) else "vmkla export --batch dynamic"
    return (
        f"the engine takes exactly {profile.max} frames at once, and `vmkla infer` brings them one by one: "
        f"for that, {instead}",
    )


def choose_targets(
    wanted: tuple[int, ...] | None, api: TensorRTApi, gpu: GpuFacts | None, no_gpu_because: str = ""
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Choose the GPUs that TensorRT-RTX builds for: the requested ones, else this machine's, else all.

    Returns:
        Compute capabilities such as 86, empty for TensorRT; and remarks on what was chosen and left out.
    Raises:
        UsageError: the library does not build for a requested GPU.
        MissingDependencyError: the library does not build for this machine's GPU and no other was requested;
            or TensorRT finds no GPU.
    """
    because = f" ({no_gpu_because})" if no_gpu_because else ""
    if not api.is_rtx:
        if gpu is None:
            raise MissingDependencyError(
                f"TensorRT builds on the GPU that will run the engine, and there is none here{because}",
                hint="Build on that machine. --runtime tensorrt-rtx builds ahead of time, without a GPU.",
            )
        return (), ()
    known = ", ".join(map(str, api.targets))
    library = f"TensorRT-RTX {api.version_text}"
    instead = "For Orin (87), Thor (110) and data-centre GPUs (90, 100): --runtime tensorrt on that machine."
    turing = f"{library} has no float32 matrix products for Turing GPUs (SM {TURING}), which the scan needs"
    if wanted is not None:
        if TURING in wanted:
            raise UsageError(turing, hint=f"Use --runtime tensorrt on that machine. Others here: {known}")
        unknown = sorted(set(wanted) - set(api.targets))
        if unknown or not wanted:
            raise UsageError(
                f"{library} does not build for SM {', '.join(map(str, unknown)) or '(none given)'}; "
                f"it builds for {known}",
                hint=instead,
            )
        return tuple(sorted(set(wanted))), ()
    if gpu is None:
        chosen = f"no GPU was found here{because}: the engine is for all of SM {known} and is not run"
        return api.targets, (chosen, f"{turing}: left out")
    if gpu.sm not in api.targets:
        raise MissingDependencyError(
            f"{library} does not build for this machine's {gpu.name} (SM {gpu.sm}); it builds for {known}",
            hint=f"Use --runtime tensorrt here. For another machine: --target-sm {known.replace(' ', '')}",
        )
    return (gpu.sm,), ()


def choose_plugin(request: BuildRequest, api: TensorRTApi) -> Path | None:
    """Return the plugin library that will run the custom nodes; None where their bodies are expanded."""
    if api.is_rtx or request.expand_bodies:
        return None
    return find_plugin(request.plugin)


def check_custom_nodes(outline: OnnxOutline, path: Path, *, with_plugin: bool) -> None:
    """Check that every node outside the standard domain has a plugin, or a function body in the file.

    Raises:
        ArtefactMismatchError: a node has neither.
    """
    lost = []
    for node in outline.nodes:
        domain, _, op = node.rpartition(".")
        if domain in ("", "ai.onnx") or node in outline.functions:
            continue
        if not (with_plugin and domain == NAMESPACE and op in CREATORS):
            lost.append(node)
    if lost:
        having = f"the plugin library has {', '.join(CREATORS)}" if with_plugin else "no plugin is in use"
        raise ArtefactMismatchError(
            f"{path} has nodes {', '.join(lost)} without a function body, and {having}",
            hint="Run: vmkla export again, with the vmkla installed here",
        )
