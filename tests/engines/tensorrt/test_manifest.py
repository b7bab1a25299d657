"""The manifest: a round trip, and every field that keeps an engine from a machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.tensorrt.small_engines import properties
from vmkla import weights
from vmkla.engines.tensorrt.manifest import (
    BuildSettings,
    EngineManifest,
    GpuFacts,
    OnnxFacts,
    PluginFacts,
    Profile,
    manifest_path,
    read_manifest,
    sealed,
    write_manifest,
)
from vmkla.engines.tensorrt.matching import Machine, check_manifest, rebuild_command, rebuild_hint
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
    assert check_manifest(manifest(), plan, HERE, ENGINE) == ()


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
        check_manifest(manifest(**in_manifest), plan, dataclasses.replace(HERE, **on_machine), ENGINE)
    assert caught.value.exit_status == 6
    assert f"{field} is {built} in its manifest and {here} here" in caught.value.message
    assert caught.value.hint is not None and caught.value.hint.startswith("Run: vmkla build model.fp16.onnx ")
    assert f"--output {plan}" in caught.value.hint


def test_a_plugin_here_does_not_matter_where_bodies_were_expanded(plan: Path) -> None:
    assert check_manifest(manifest(plugin=None), plan, HERE, ENGINE) == ()


def test_a_gpu_among_the_targets_need_not_be_the_builders(plan: Path) -> None:
    rtx = manifest(runtime="tensorrt-rtx", plugin=None, gpu=None, target_sms=(86, 89))
    for_it = Machine("tensorrt-rtx", "10.3.0.26", GpuFacts("RTX 4090", "8.9", 128), None, "12.6", "R36.4.3")
    assert check_manifest(rtx, plan, for_it, ENGINE) == ()


def test_another_driver_is_a_remark(plan: Path) -> None:
    newer = dataclasses.replace(HERE, cuda_version="12.8", driver_version="R36.5.0")
    remarks = check_manifest(manifest(), plan, newer, ENGINE)
    assert remarks == (
        "the engine was built under CUDA 12.6, this machine has 12.8",
        "the engine was built under driver R36.4.3, this machine has R36.5.0",
    )


def test_no_gpu_is_missing_hardware_and_comes_last(plan: Path) -> None:
    with pytest.raises(MissingDependencyError, match="there is none here"):
        check_manifest(manifest(), plan, dataclasses.replace(HERE, gpu=None), ENGINE)
    driver = "the NVIDIA driver shows 0 GPUs (cuInit returned 803)"
    broken = dataclasses.replace(HERE, gpu=None, no_gpu=driver)
    with pytest.raises(MissingDependencyError, match="803"):
        check_manifest(manifest(), plan, broken, ENGINE)
    with pytest.raises(ArtefactMismatchError, match="engine_sha256"):
        check_manifest(manifest(engine_sha256="0" * 64), plan, dataclasses.replace(HERE, gpu=None), ENGINE)


def test_the_command_repeats_the_build(plan: Path) -> None:
    assert rebuild_command(manifest(), plan) == (
        f"vmkla build model.fp16.onnx --runtime tensorrt --output {plan} --profile 1,2,4 --workspace 2 "
        "--optimization-level 4 --timing-cache timings"
    )


def test_the_command_takes_the_very_file_that_the_engine_came_from(plan: Path) -> None:
    beside = plan.with_name("model.fp16.onnx")
    beside.write_bytes(b"a network")
    digest = hashlib.sha256(b"a network").hexdigest()
    rest = f"--runtime tensorrt --output {plan} --profile 1,2,4"
    made = manifest(settings=BuildSettings(), onnx=OnnxFacts(beside.name, digest, 9))
    assert rebuild_hint(made, plan) == f"Run: vmkla build {beside} {rest}"
    beside.write_bytes(b"b network")
    wanted = f"use the {beside.name} with sha256 {digest[:12]}..."
    assert rebuild_hint(made, plan) == (
        f"Run: vmkla build {beside.name} {rest}   ({wanted}; {beside} is another file)"
    )
    beside.unlink()
    assert rebuild_hint(made, plan).endswith(f"   ({wanted})")


def test_the_command_takes_a_shipped_model_by_its_name(plan: Path) -> None:
    digest = hashlib.sha256(weights.resolve("nano").read_bytes()).hexdigest()
    for sha256, remark in ((digest, False), ("0" * 64, True)):
        hint = rebuild_hint(manifest(onnx=OnnxFacts("nano", sha256, 1)), plan)
        assert hint.startswith("Run: vmkla build nano ") and ("use the nano" in hint) == remark


@pytest.mark.parametrize(
    ("runtime", "built_with", "path", "words"),
    [
        ("tensorrt", PLUGIN, None, ""),
        ("tensorrt", PLUGIN, Path("/opt/a b.so"), " --plugin '/opt/a b.so'"),
        ("tensorrt", None, None, " --plugin bodies"),
        ("tensorrt-rtx", None, None, ""),
    ],
)
def test_the_command_names_the_plugin_library(
    plan: Path, runtime: str, built_with: PluginFacts | None, path: Path | None, words: str
) -> None:
    made = manifest(runtime=runtime, plugin=built_with, settings=BuildSettings(), target_sms=())
    machine = Machine(runtime, "10.3.0.26", None, PLUGIN, plugin_path=path)
    assert rebuild_command(made, plan, machine) == (
        f"vmkla build model.fp16.onnx --runtime {runtime} --output {plan} --profile 1,2,4{words}"
    )


def test_another_plugin_library_can_be_named_instead(plan: Path) -> None:
    with pytest.raises(ArtefactMismatchError) as caught:
        check_manifest(manifest(), plan, dataclasses.replace(HERE, plugin=None), ENGINE)
    assert "or name the library that the engine was built with: --plugin FILE" in (caught.value.hint or "")


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
        check_manifest(rtx, plan, machine, ENGINE)
    assert (caught.value.hint or "").startswith(
        f"Run: vmkla build model.fp16.onnx --runtime {runtime} --output {plan} --profile 1,2,4{target}   ("
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
    manifest_path(plan).write_text(json.dumps(sealed(values)))


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
        ({"metadata": {"vmkla.format": 1}}, "is damaged"),
        ({"runtime": "foo"}, "is damaged: .*runtime"),
        ({"onnx": {"name": "a/b", "sha256": "a", "bytes": 1}}, "is damaged: .*onnx.name"),
        ({"onnx": {"name": "", "sha256": "a", "bytes": 1}}, "is damaged: .*onnx.name"),
        ({"onnx": {"name": "..", "sha256": "a", "bytes": 1}}, "is damaged: .*onnx.name"),
        ({"settings": {"workspace_bytes": "abc"}}, "is damaged: .*workspace_bytes"),
        ({"settings": {"timing_cache": 3}}, "is damaged: .*timing_cache"),
        ({"settings": {"timing_cache_hit": 1}}, "is damaged: .*timing_cache_hit"),
        ({"profile": {"min": "1", "opt": None, "max": "x"}}, "is damaged: .*min"),
        ({"profile": {"min": 1, "opt": 1}}, "is damaged: .*max"),
        ({"profile": {"min": True, "opt": 1, "max": 1}}, "is damaged: .*min"),
        ({"profile": {"min": 0, "opt": 1, "max": 1}}, "is damaged: .*min=0"),
        ({"profile": {"min": 2, "opt": 1, "max": 4}}, "is damaged: .*opt=1"),
        ({"gpu": {"name": "Orin", "compute_capability": 8.7, "sm_count": 16}}, "is damaged: .*capability"),
        ({"gpu": {"name": "Orin", "compute_capability": "new", "sm_count": 16}}, "is damaged: .*capability"),
        ({"plugin": "libvmkla_tensorrt.so"}, "is damaged: .*plugin"),
        ({"target_sms": ["86"]}, "is damaged: .*target_sms"),
        ({"target_sms": 86}, "is damaged: .*target_sms"),
        ({"cuda_version": 12.6}, "is damaged: .*cuda_version"),
        ({"gates": []}, "is damaged: .*gates"),
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gates", {"passed": True, "frames": 300}),
        ("metadata", {**properties(), "vmkla.threshold": "0.9"}),
        ("metadata", {**properties(), "vmkla.preprocess": '{"height": 32, "width": 64, "roi": "auto"}'}),
        ("profile", {"min": 1, "opt": 2, "max": 3}),
        ("manifest_sha256", "0" * 64),
        ("manifest_sha256", None),
    ],
)
def test_a_manifest_that_somebody_edited_is_refused(plan: Path, field: str, value: Any) -> None:
    path = write_manifest(manifest(), plan)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(
        ArtefactMismatchError, match="manifest_sha256 .*changed after it was written"
    ) as caught:
        read_manifest(plan)
    assert "Copy model.plan.json from where the engine was built" in (caught.value.hint or "")


def test_another_layout_of_the_same_json_is_the_same_manifest(plan: Path) -> None:
    path = write_manifest(manifest(), plan)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=8), encoding="utf-8")
    assert read_manifest(plan) == manifest()


def test_a_manifest_without_a_seal_is_refused(plan: Path) -> None:
    path = write_manifest(manifest(), plan)
    values = json.loads(path.read_text())
    del values["manifest_sha256"]
    path.write_text(json.dumps(values))
    with pytest.raises(ArtefactMismatchError, match="damaged.*manifest_sha256"):
        read_manifest(plan)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, b'{"format": 1e400}', b'{"a": ' + b"9" * 9000],
)
def test_bytes_that_are_no_manifest_are_refused(plan: Path, data: bytes) -> None:
    manifest_path(plan).write_bytes(data)
    with pytest.raises(ArtefactMismatchError, match="is damaged") as caught:
        read_manifest(plan)
    assert caught.value.hint is not None and "vmkla build" in caught.value.hint


def test_a_manifest_of_300_megabytes_is_not_read(plan: Path) -> None:
    with manifest_path(plan).open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(ArtefactMismatchError, match="is damaged: it is larger than 16,777,216 bytes"):
        read_manifest(plan)


def test_a_value_of_megabytes_is_not_repeated_in_the_message(plan: Path) -> None:
    damaged(plan, runtime_version=["x" * 5_000_000])
    with pytest.raises(ArtefactMismatchError, match="is damaged: .*runtime_version") as caught:
        read_manifest(plan)
    assert len(str(caught.value)) < 1500


def test_a_folder_in_the_place_of_the_manifest_is_refused(plan: Path) -> None:
    manifest_path(plan).mkdir()
    with pytest.raises(ArtefactMismatchError, match="model.plan.json is a folder") as caught:
        read_manifest(plan)
    assert caught.value.hint is not None and "vmkla build" in caught.value.hint


@pytest.mark.parametrize(
    ("gates", "source", "verified", "because"),
    [
        ({"passed": True}, {"passed": True}, True, None),
        ({"passed": "no"}, {"passed": True}, False, "its maker's check was skipped"),
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
