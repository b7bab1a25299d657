"""What an engine was made of and where it runs: the sidecar ``model.plan.json`` beside ``model.plan``."""

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
from vmkla.files import written_whole
from vmkla.metadata import ArtefactMetadata
from vmkla.plain_values import from_plain

FORMAT = "1"
"""Version of this layout, raised when a reader of the old one would go wrong."""

_FILE_MAX_BYTES = 16 << 20
"""Of a manifest, most of which are the model's metadata."""

SEAL = "manifest_sha256"
"""Field of the file: hash of all others, so that a manifest that somebody edited is known as such."""


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
        return self.gates.get("passed") is True

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
        """Plain values, for JSON, with their seal."""
        return sealed(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EngineManifest:
        """Inverse of ``to_dict``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown, of another kind or senseless, or the
                seal is not that of the values.
        """
        fields = dict(values)
        seal = fields.pop(SEAL)
        if seal != sealed(fields)[SEAL]:
            raise ValueError(f"{SEAL} is not that of the rest: it was changed after it was written")
        made: EngineManifest = from_plain(cls, fields, "the manifest")
        made._check_sense()
        return made

    def _check_sense(self) -> None:
        """Raises ValueError for what has the right type and yet cannot be."""
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
    """A manifest's plain values with the seal that is theirs, in the place of any that they had."""
    fields = {name: value for name, value in values.items() if name != SEAL}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return {**fields, SEAL: hashlib.sha256(canonical.encode("ascii")).hexdigest()}


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
    with written_whole(path, private=False) as file:
        file.write((json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    return path


def read_manifest(plan: Path) -> EngineManifest:
    """The sidecar of an engine.

    Args:
        plan: the engine, not the sidecar.
    Raises:
        BadInputError: there is no such engine, or the sidecar cannot be read.
        ArtefactMismatchError: it has no sidecar, or one that is damaged, edited or of another layout.
    """
    if not plan.is_file():
        raise BadInputError(f"there is no engine file {plan}")
    path = manifest_path(plan)
    mend = (
        f"Copy {path.name} from where the engine was built, or build it here: "
        f"vmkla build MODEL.onnx --output {shlex.quote(str(plan))}"
    )
    try:
        data = read_file(path, _FILE_MAX_BYTES)
    except FileNotFoundError as error:
        raise ArtefactMismatchError(
            f"{plan} has no manifest {path.name} beside it, so nobody knows what it is and where it runs",
            hint=mend,
        ) from error
    except IsADirectoryError as error:
        raise ArtefactMismatchError(
            f"{path} is a folder, expected the engine's manifest", hint=mend
        ) from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}", hint=mend) from error
    except MalformedError as error:
        raise ArtefactMismatchError(f"{path} is damaged: {error}", hint=mend) from error
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
        raise ArtefactMismatchError(f"{path} is damaged: {error!r:.500}", hint=mend) from error
