"""The manifest of an engine: what it was built from and where it runs, ``model.plan.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from vmkla import __version__
from vmkla.bounded import MalformedError, parse_names, read_file
from vmkla.engines.tensorrt.api import EngineRuntime
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.files import write_whole
from vmkla.metadata import ArtefactMetadata
from vmkla.plain_values import from_plain

FORMAT = "1"
"""Version of this layout, raised when older readers would misread it."""

_FILE_MAX_BYTES = 16 << 20
"""Largest accepted manifest; most of it is the model's metadata."""

SEAL = "manifest_sha256"
"""Field that holds the hash of all others, so that an edited manifest is detected."""


@dataclass(frozen=True)
class OnnxFacts:
    """The ONNX file that an engine was built from.

    Attributes:
        name: name of the shipped model, or of the file.
        sha256: hex digest of the file's bytes.
        bytes: size of the file.
    """

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class PluginFacts:
    """The plugin library that an engine calls.

    Attributes:
        name: name of the file.
        sha256: hex digest of the file's bytes.
        version: version of vmkla's plugins in it, ``"1"``.
    """

    name: str
    sha256: str
    version: str


@dataclass(frozen=True)
class GpuFacts:
    """Facts of a GPU.

    Attributes:
        name: the driver's name of it.
        compute_capability: for instance ``"8.7"``.
        sm_count: number of streaming multiprocessors.
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
    """Batch sizes of an engine: the smallest, the one that it is tuned for, the largest."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class BuildSettings:
    """Settings of a build.

    Attributes:
        workspace_bytes: limit of scratch memory on the GPU, bytes; None is the library's default.
        optimization_level: 0 to 5; None is the library's default.
        timing_cache: path of the timing cache; None without one.
        timing_cache_hit: whether the library accepted timings from the file.
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: str | None = None
    timing_cache_hit: bool = False


@dataclass(frozen=True)
class EngineManifest:
    """Facts about an engine. Engine and manifest are all that a cart needs.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        runtime_version: version of the library that built the engine.
        engine_sha256, engine_bytes: hex digest and size of the ``.plan``.
        onnx: the ONNX file that the engine was built from.
        weights_sha256: hex digest of the weights in the ONNX file.
        profile: batch sizes that the engine accepts.
        metadata: the ONNX file's ``metadata_props``, complete.
        plugin: the plugin library that the engine calls; None where it uses function bodies.
        gpu: the GPU that it was built on; None when it was built ahead of time.
        target_sms: GPUs that TensorRT-RTX built for, for instance (86, 89); empty for TensorRT.
        cuda_version, driver_version: versions that it was built under; None without a GPU.
        settings: settings of the build.
        calibration_sha256: hex digest of the calibration set; None without one.
        gates: result of the check against ONNX Runtime: ``{"passed": ...}``, ``{"skipped": true}``, or
            ``{"not_run": why}`` where no GPU could run the engine.
        vmkla_version: version of vmkla that built it.
        format: version of this layout.
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
        """Whether the engine itself was compared with ONNX Runtime and passed."""
        return self.gates.get("passed") is True

    @property
    def unverified_because(self) -> str | None:
        """Why the engine is unverified; None when it is verified."""
        if self.verified:
            return None
        if "not_run" in self.gates:
            return f"it has not been run on any GPU ({self.gates['not_run']})"
        return "its maker's check was skipped"

    def artefact(self, plan: Path) -> ArtefactMetadata:
        """Return the network's metadata, with the engine's gates instead of the ONNX file's.

        Args:
            plan: path of the engine, for messages.
        Raises:
            ArtefactMismatchError: the metadata are damaged or have another layout.
        """
        source = ArtefactMetadata.from_props(self.metadata, path=str(manifest_path(plan)))
        gates = {**self.gates, "onnx": source.gates}
        if self.verified and not source.verified:
            gates["passed"] = False  # it agrees with a file that was never checked
        return dataclasses.replace(source, gates=gates)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values with their seal, for JSON."""
        return sealed(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EngineManifest:
        """Make a manifest from plain values, the inverse of ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown, of the wrong type or out of range,
                or the seal does not match the values.
        """
        fields = dict(values)
        seal = fields.pop(SEAL)
        if seal != sealed(fields)[SEAL]:
            raise ValueError(f"{SEAL} does not match: the file was changed after it was written")
        made: EngineManifest = from_plain(cls, fields, "the manifest")
        made._check_values()
        return made

    def _check_values(self) -> None:
        """Raise ``ValueError`` for a value of the right type that is out of range."""
        if self.runtime not in get_args(EngineRuntime):
            raise ValueError(f"runtime is {self.runtime!r}, expected one of {get_args(EngineRuntime)}")
        if not 1 <= self.profile.min <= self.profile.opt <= self.profile.max:
            raise ValueError(f"{self.profile}, expected 1 <= min <= opt <= max")
        name = self.onnx.name
        if name in ("", ".", "..") or Path(name).name != name:
            raise ValueError(f"onnx.name is {name!r}, expected the name of a file or a model")
        if self.gpu is not None and not re.fullmatch(r"\d+\.\d+", self.gpu.compute_capability):
            raise ValueError(f"gpu.compute_capability is {self.gpu.compute_capability!r}, expected as '8.7'")


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Add the seal to a manifest's plain values, or replace the one that they have."""
    fields = {name: value for name, value in values.items() if name != SEAL}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return {**fields, SEAL: hashlib.sha256(canonical.encode("ascii")).hexdigest()}


def manifest_path(plan: Path) -> Path:
    """Return the path of an engine's manifest: ``model.plan`` -> ``model.plan.json``."""
    return plan.with_name(f"{plan.name}.json")


def write_manifest(manifest: EngineManifest, plan: Path) -> Path:
    """Write the manifest of an engine, whole or not at all.

    Returns:
        The manifest's path.
    Raises:
        BadInputError: it cannot be written.
    """
    path = manifest_path(plan)
    write_whole(path, encode_manifest(manifest), private=False)
    return path


def encode_manifest(manifest: EngineManifest) -> bytes:
    """Return the bytes of a manifest's file."""
    return (json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(plan: Path) -> EngineManifest:
    """Read the manifest of an engine.

    Args:
        plan: path of the engine, not of the manifest.
    Raises:
        BadInputError: there is no such engine, or the manifest cannot be read.
        ArtefactMismatchError: the manifest is missing, damaged or edited, or has another layout.
    """
    if not plan.is_file():
        raise BadInputError(f"there is no engine file {plan}")
    path = manifest_path(plan)
    fix = (
        f"Copy {path.name} from where the engine was built, or build it here: "
        f"vmkla build MODEL.onnx --output {shlex.quote(str(plan))}"
    )
    try:
        data = read_file(path, _FILE_MAX_BYTES)
    except FileNotFoundError as error:
        raise ArtefactMismatchError(
            f"{plan} has no manifest {path.name} beside it, which states what it is and where it runs",
            hint=fix,
        ) from error
    except IsADirectoryError as error:
        raise ArtefactMismatchError(
            f"{path} is a folder, expected the engine's manifest", hint=fix
        ) from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}", hint=fix) from error
    except MalformedError as error:
        raise ArtefactMismatchError(f"{path} is damaged: {error}", hint=fix) from error
    try:
        values = parse_names(data, _FILE_MAX_BYTES)
        layout = values["format"]
        if layout != FORMAT:
            raise ArtefactMismatchError(
                f"{path} has layout {layout!r:.100}, this version of vmkla reads {FORMAT!r}",
                hint=f"Run: vmkla build MODEL.onnx --output {shlex.quote(str(plan))}",
            )
        return EngineManifest.from_dict(values)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactMismatchError(f"{path} is damaged: {error!r:.500}", hint=fix) from error
