"""The manifest: a round trip, and every field that keeps an engine from a machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from small_engines import properties

from vmkla.engines.tensorrt.manifest import (
    BuildSettings,
    EngineManifest,
    GpuFacts,
    Machine,
    OnnxFacts,
    PluginFacts,
    Profile,
    check_manifest,
    manifest_path,
    read_manifest,
    rebuild_command,
    write_manifest,
)
from vmkla.errors import ArtefactMismatchError, BadInputError, MissingDependencyError

ENGINE = b"an engine's bytes"
ORIN = GpuFacts("Orin", "8.7", 16)
PLUGIN = PluginFacts("libvmkla_tensorrt.so", "c" * 64, "1")
HERE = Machine("tensorrt", "10.3.0.26", ORIN, PLUGIN, "12.6", "R36.4.3")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.plan"
    path.write_bytes(ENGINE)
    return path


def manifest(**changed: Any) -> EngineManifest:
    whole = EngineManifest(
        runtime="tensorrt",
        runtime_version="10.3.0.26",
        engine_sha256=hashlib.sha256(ENGINE).hexdigest(),
        engine_bytes=len(ENGINE),
        onnx=OnnxFacts("model.fp16.onnx", "a" * 64, 1234),
        weights_sha256="b" * 64,
        profile=Profile(1, 2, 4),
        metadata=properties(),
        plugin=PLUGIN,
        gpu=ORIN,
        cuda_version="12.6",
        driver_version="R36.4.3",
        settings=BuildSettings(2 << 30, 4, "timings", True),
        gates={"passed": True, "frames": 3},
    )
    return dataclasses.replace(whole, **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"plugin": None, "gpu": None, "target_sms": (86, 89), "cuda_version": None, "driver_version": None},
        {"settings": BuildSettings(), "gates": {"not_run": "no GPU"}},
    ],
)
def test_what_is_written_is_what_is_read(plan: Path, changed: dict[str, Any]) -> None:
    written = manifest(**changed)
    assert write_manifest(written, plan) == plan.with_name("model.plan.json") == manifest_path(plan)
    assert read_manifest(plan) == written
    assert set(plan.parent.iterdir()) == {plan, manifest_path(plan)}


def test_an_engine_for_this_machine_passes_without_a_remark(plan: Path) -> None:
    assert check_manifest(manifest(), plan, HERE) == ()


MISMATCHES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    # field: what differs in the manifest, on the machine, the value built, the value here
    "runtime": ({}, {"runtime": "tensorrt-rtx"}, "tensorrt", "tensorrt-rtx"),
    "runtime_version": ({}, {"runtime_version": "10.3.0.30"}, "10.3.0.26", "10.3.0.30"),
    "plugin": ({}, {"plugin": None}, "libvmkla_tensorrt.so", "absent"),
    "plugin.version": ({}, {"plugin": dataclasses.replace(PLUGIN, version="2")}, "1", "2"),
    "plugin.sha256": ({}, {"plugin": dataclasses.replace(PLUGIN, sha256="d" * 64)}, "c" * 64, "d" * 64),
    "gpu": ({"gpu": None}, {}, "unknown", "Orin"),
    "gpu.compute_capability": ({}, {"gpu": GpuFacts("Orin", "8.6", 16)}, "8.7", "8.6"),
    "gpu.sm_count": ({}, {"gpu": GpuFacts("Orin", "8.7", 8)}, "16", "8"),
    "gpu.name": ({}, {"gpu": GpuFacts("Orin (nvgpu)", "8.7", 16)}, "Orin", "Orin (nvgpu)"),
    "target_sms": ({"target_sms": (86, 89)}, {}, "86, 89", "87 (Orin)"),
    "engine_bytes": ({"engine_bytes": 5}, {}, "5", str(len(ENGINE))),
    "engine_sha256": ({"engine_sha256": "e" * 64}, {}, "e" * 64, hashlib.sha256(ENGINE).hexdigest()),
}


@pytest.mark.parametrize("field", MISMATCHES)
def test_a_mismatch_names_the_field_both_values_and_the_command(plan: Path, field: str) -> None:
    in_manifest, on_machine, built, here = MISMATCHES[field]
    with pytest.raises(ArtefactMismatchError) as caught:
        check_manifest(manifest(**in_manifest), plan, dataclasses.replace(HERE, **on_machine))
    assert caught.value.exit_status == 6
    assert f"{field} is {built} in its manifest and {here} here" in caught.value.message
    assert caught.value.hint is not None and caught.value.hint.startswith("Run: vmkla build model.fp16.onnx ")
    assert f"--output {plan}" in caught.value.hint


def test_a_plugin_here_does_not_matter_where_bodies_were_expanded(plan: Path) -> None:
    assert check_manifest(manifest(plugin=None), plan, HERE) == ()


def test_a_gpu_among_the_targets_need_not_be_the_builders(plan: Path) -> None:
    rtx = manifest(runtime="tensorrt-rtx", plugin=None, gpu=None, target_sms=(86, 89))
    for_it = Machine("tensorrt-rtx", "10.3.0.26", GpuFacts("RTX 4090", "8.9", 128), None, "12.6", "R36.4.3")
    assert check_manifest(rtx, plan, for_it) == ()


def test_another_driver_is_a_remark(plan: Path) -> None:
    newer = dataclasses.replace(HERE, cuda_version="12.8", driver_version="R36.5.0")
    remarks = check_manifest(manifest(), plan, newer)
    assert remarks == (
        "the engine was built under CUDA 12.6, this machine has 12.8",
        "the engine was built under driver R36.4.3, this machine has R36.5.0",
    )


def test_no_gpu_is_missing_hardware_and_comes_last(plan: Path) -> None:
    with pytest.raises(MissingDependencyError, match="there is none here"):
        check_manifest(manifest(), plan, dataclasses.replace(HERE, gpu=None))
    with pytest.raises(ArtefactMismatchError, match="engine_sha256"):
        check_manifest(manifest(engine_sha256="0" * 64), plan, dataclasses.replace(HERE, gpu=None))


def test_the_command_repeats_the_build(plan: Path) -> None:
    assert rebuild_command(manifest(), plan) == (
        f"vmkla build model.fp16.onnx --runtime tensorrt --output {plan} --profile 1,2,4 --workspace 2 "
        "--optimization-level 4 --timing-cache timings"
    )
    beside = plan.with_name("model.fp16.onnx")
    beside.touch()
    assert rebuild_command(manifest(settings=BuildSettings()), plan) == (
        f"vmkla build {beside} --runtime tensorrt --output {plan} --profile 1,2,4"
    )


@pytest.mark.parametrize(
    ("capability", "runtime", "target"),
    [("8.6", "tensorrt-rtx", " --target-sm 86"), ("8.7", "tensorrt", ""), ("7.5", "tensorrt", "")],
)
def test_the_command_builds_for_the_gpu_that_is_here(
    plan: Path, capability: str, runtime: str, target: str
) -> None:
    rtx = manifest(runtime="tensorrt-rtx", plugin=None, gpu=None, target_sms=(120,), settings=BuildSettings())
    machine = Machine("tensorrt-rtx", "10.3.0.26", GpuFacts("Somewhere", capability, 16))
    with pytest.raises(ArtefactMismatchError) as caught:
        check_manifest(rtx, plan, machine)
    assert caught.value.hint == (
        f"Run: vmkla build model.fp16.onnx --runtime {runtime} --output {plan} --profile 1,2,4{target}"
    )


def test_an_engine_without_a_manifest_is_refused(plan: Path) -> None:
    with pytest.raises(ArtefactMismatchError, match="has no manifest model.plan.json") as caught:
        read_manifest(plan)
    assert caught.value.hint is not None and "vmkla build" in caught.value.hint


def test_a_manifest_without_an_engine_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no engine file"):
        read_manifest(tmp_path / "model.plan")


def damaged(plan: Path, **changed: Any) -> None:
    values = manifest().to_dict()
    for name, value in changed.items():
        if value is None:
            del values[name]
        else:
            values[name] = value
    manifest_path(plan).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "2"}, "has layout '2', this version of vmkla reads '1'"),
        ({"engine_sha256": None}, "is damaged: .*engine_sha256"),
        ({"onnx": None}, "is damaged: .*onnx"),
        ({"onnx": {"name": "x"}}, "is damaged"),
        ({"unknown": 1}, "is damaged: .*unknown"),
        ({"engine_bytes": "many"}, "is damaged: .*engine_bytes"),
        ({"runtime": 3}, "is damaged: .*runtime"),
        ({"profile": [1, 1, 1]}, "is damaged"),
        ({"metadata": []}, "is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(plan: Path, changed: dict[str, Any], message: str) -> None:
    damaged(plan, **changed)
    with pytest.raises(ArtefactMismatchError, match=message) as caught:
        read_manifest(plan)
    assert caught.value.hint is not None and "vmkla build" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}"])
def test_text_that_is_no_manifest_is_refused(plan: Path, text: str) -> None:
    manifest_path(plan).write_text(text)
    with pytest.raises(ArtefactMismatchError, match="is damaged"):
        read_manifest(plan)


def test_bytes_that_are_no_text_are_bad_input(plan: Path) -> None:
    manifest_path(plan).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_manifest(plan)


@pytest.mark.parametrize(
    ("gates", "source", "verified", "because"),
    [
        ({"passed": True}, {"passed": True}, True, None),
        ({"passed": True}, {}, False, None),  # the engine equals a file that nobody has checked
        ({"skipped": True}, {"passed": True}, False, "its maker's check was skipped"),
        ({"not_run": "no such GPU"}, {"passed": True}, False, "it has not been run on any GPU (no such GPU)"),
    ],
)
def test_the_network_is_as_verified_as_its_engine(
    plan: Path, gates: dict[str, Any], source: dict[str, Any], verified: bool, because: str | None
) -> None:
    one = manifest(gates=gates, metadata=properties(gates=source))
    assert one.artefact(plan).verified is verified
    assert one.artefact(plan).gates["onnx"] == source
    assert one.unverified_because == because
