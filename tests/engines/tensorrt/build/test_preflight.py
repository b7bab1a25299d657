"""What is refused before anything is built, and what is chosen where nobody said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from tests.engines.tensorrt.small_engines import small_model
from vmkla.engines.tensorrt.api import TURING, TensorRTApi, load_api
from vmkla.engines.tensorrt.build.outputs import ensure_folder
from vmkla.engines.tensorrt.build.preflight import LARGEST_BATCH, BuildRequest, Preflight, preflight
from vmkla.engines.tensorrt.manifest import GpuFacts, Profile
from vmkla.errors import ArtefactMismatchError, BadInputError, MissingDependencyError, UsageError, VmklaError

ORIN = GpuFacts("Orin", "8.7", 16)
ADA = GpuFacts("RTX 4090", "8.9", 128)


@pytest.fixture(scope="module")
def rtx() -> TensorRTApi:
    return load_api("tensorrt-rtx")


@pytest.fixture(scope="module")
def trt(rtx: TensorRTApi) -> TensorRTApi:
    """TensorRT 10.3 as far as preflight looks: its name and version."""
    return TensorRTApi("tensorrt", rtx.module, (10, 3, 0, 26))


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return written(tmp_path / "model.onnx")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "libvmkla_tensorrt.so"
    path.write_bytes(b"only its being there is looked at")
    return path


def written(path: Path, **changed: Any) -> Path:
    path.write_bytes(small_model(**changed).SerializeToString())
    return path


def checked(api: TensorRTApi, path: Path, gpu: GpuFacts | None = None, **changed: Any) -> Preflight:
    output = changed.pop("output", path.parent / "out" / "model.plan")
    return preflight(BuildRequest(str(path), output, api.runtime, **changed), api, gpu)


def refused(
    kind: type[VmklaError], api: TensorRTApi, path: Path, gpu: GpuFacts | None = None, **changed: Any
) -> str:
    """The message and the hint; every refusal has both, or a message that says it all."""
    with pytest.raises(kind) as caught:
        checked(api, path, gpu, **changed)
    return str(caught.value)


def test_a_good_file_passes(rtx: TensorRTApi, onnx_file: Path) -> None:
    plan = checked(rtx, onnx_file)
    assert plan.path == onnx_file and plan.onnx_name == "model.onnx"
    assert plan.metadata.precision == "fp32"
    assert plan.target_sms == rtx.targets and plan.plugin is None and not plan.strip_functions
    assert [path.name for path in onnx_file.parent.iterdir()] == ["model.onnx"]


def test_a_shipped_model_goes_by_its_name(rtx: TensorRTApi, tmp_path: Path) -> None:
    plan = preflight(BuildRequest("nano", tmp_path / "nano.plan", "tensorrt-rtx"), rtx, None)
    assert plan.onnx_name == "nano" and plan.path.name == "nano.onnx"


def test_damaged_and_missing_files(rtx: TensorRTApi, onnx_file: Path, tmp_path: Path) -> None:
    data = onnx_file.read_bytes()
    onnx_file.write_bytes(data[: len(data) // 2])
    assert "not a whole ONNX file" in refused(BadInputError, rtx, onnx_file)
    assert "no model file" in refused(BadInputError, rtx, tmp_path / "absent.onnx")


def test_a_foreign_file_is_refused(rtx: TensorRTApi, tmp_path: Path) -> None:
    model = small_model()
    del model.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    assert "carries no vmkla metadata" in refused(ArtefactMismatchError, rtx, path)


def test_an_unknown_precision_is_refused(rtx: TensorRTApi, tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", metadata={"precision": "fp4"})
    assert "'fp4', expected one of fp32, fp16" in refused(ArtefactMismatchError, rtx, path)


@pytest.mark.parametrize(
    ("batch", "recorded", "wanted", "expected"),
    [
        ("n", None, None, Profile(1, 1, 1)),
        ("n", (1, 2, 4), None, Profile(1, 2, 4)),
        ("n", (1, 2, 4), Profile(2, 3, 8), Profile(2, 3, 8)),
        (3, None, None, Profile(3, 3, 3)),
        (3, None, Profile(3, 3, 3), Profile(3, 3, 3)),
    ],
)
def test_the_profile(
    rtx: TensorRTApi,
    tmp_path: Path,
    batch: int | str,
    recorded: Any,
    wanted: Profile | None,
    expected: Profile,
) -> None:
    path = written(tmp_path / "m.onnx", batch=batch, metadata={"profile": recorded})
    plan = checked(rtx, path, profile=wanted)
    assert plan.profile == expected
    said = any("the file takes any batch" in remark for remark in plan.remarks)
    assert said == (batch == "n" and recorded is None and wanted is None)


@pytest.mark.parametrize(
    "wanted",
    [
        Profile(0, 1, 1),
        Profile(2, 1, 4),
        Profile(1, 4, 2),
        Profile(-1, -1, -1),
        Profile(1, 1, LARGEST_BATCH + 1),
    ],
)
def test_what_is_no_profile(rtx: TensorRTApi, onnx_file: Path, wanted: Profile) -> None:
    assert "expected 1 <= min <= opt <= max <= 256" in refused(UsageError, rtx, onnx_file, profile=wanted)


@pytest.mark.parametrize(("batch", "recorded"), [("n", (1, 1, 3_000_000)), (LARGEST_BATCH + 1, None)])
def test_a_files_own_profile_must_be_one(
    rtx: TensorRTApi, tmp_path: Path, batch: int | str, recorded: Any
) -> None:
    path = written(tmp_path / "m.onnx", batch=batch, metadata={"profile": recorded})
    text = refused(ArtefactMismatchError, rtx, path)
    assert "frames at once, expected 1 <= min <= opt <= max <= 256" in text


def test_the_largest_batch_is_taken(rtx: TensorRTApi, onnx_file: Path) -> None:
    largest = Profile(1, 1, LARGEST_BATCH)
    assert checked(rtx, onnx_file, profile=largest).profile == largest


@pytest.mark.parametrize(
    ("batch", "wanted", "instead"),
    [
        ("n", Profile(8, 8, 8), "--profile 1,1,8"),
        (3, None, "vmkla export --batch dynamic"),
        ("n", Profile(2, 4, 8), None),
        ("n", Profile(1, 1, 1), None),
        (1, None, None),
    ],
)
def test_an_engine_that_infer_cannot_run_is_remarked_on(
    rtx: TensorRTApi, tmp_path: Path, batch: int | str, wanted: Profile | None, instead: str | None
) -> None:
    path = written(tmp_path / "m.onnx", batch=batch)
    remarks = [remark for remark in checked(rtx, path, profile=wanted).remarks if "takes exactly" in remark]
    if instead is None:
        assert remarks == []
    else:
        assert len(remarks) == 1 and instead in remarks[0]


def test_a_profile_must_fit_a_fixed_batch(rtx: TensorRTApi, tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", batch=2)
    text = refused(UsageError, rtx, path, profile=Profile(1, 2, 4))
    assert "takes 2 at once" in text and "--batch dynamic" in text


@pytest.mark.parametrize(
    "changed",
    [
        {"optimization_level": 6},
        {"optimization_level": -1},
        {"workspace_bytes": 0},
        {"workspace_bytes": -5},
        {"workspace_bytes": (1 << 40) + 1},
    ],
)
def test_options_out_of_range(rtx: TensorRTApi, onnx_file: Path, changed: dict[str, Any]) -> None:
    assert "expected" in refused(UsageError, rtx, onnx_file, **changed)


@pytest.mark.parametrize("sm", [87, 90, 100, 110, 860])
def test_a_target_that_does_not_exist(rtx: TensorRTApi, onnx_file: Path, sm: int) -> None:
    text = refused(UsageError, rtx, onnx_file, target_sms=(86, sm))
    assert f"does not build for SM {sm}; it builds for 80, 86, 89, 120, 121" in text
    assert "--runtime tensorrt" in text


def test_turing_cannot_be_built_for(rtx: TensorRTApi, onnx_file: Path) -> None:
    text = refused(UsageError, rtx, onnx_file, target_sms=(TURING,))
    assert "no float32 matrix products for Turing" in text and "--runtime tensorrt" in text
    assert any("Turing" in remark for remark in checked(rtx, onnx_file).remarks)


def test_targets_are_sorted_and_taken_once(rtx: TensorRTApi, onnx_file: Path) -> None:
    assert checked(rtx, onnx_file, target_sms=(89, 86, 89)).target_sms == (86, 89)
    assert "none given" in refused(UsageError, rtx, onnx_file, target_sms=())


def test_with_a_gpu_the_target_is_that_gpu(rtx: TensorRTApi, onnx_file: Path) -> None:
    assert checked(rtx, onnx_file, ADA).target_sms == (89,)
    assert checked(rtx, onnx_file, ADA, target_sms=(120,)).target_sms == (120,)
    text = refused(MissingDependencyError, rtx, onnx_file, ORIN)
    assert "does not build for this machine's Orin (SM 87)" in text and "--runtime tensorrt here" in text
    assert checked(rtx, onnx_file, ORIN, target_sms=(86,)).target_sms == (86,)


def test_tensorrt_builds_on_a_gpu_alone(trt: TensorRTApi, onnx_file: Path, plugin: Path) -> None:
    text = refused(MissingDependencyError, trt, onnx_file, plugin=plugin)
    assert "there is none here" in text and "--runtime tensorrt-rtx" in text
    assert checked(trt, onnx_file, ORIN, plugin=plugin).target_sms == ()
    assert "--target-sm is an option of tensorrt-rtx" in refused(
        UsageError, trt, onnx_file, ORIN, plugin=plugin, target_sms=(87,)
    )


def test_an_old_tensorrt_is_refused(rtx: TensorRTApi, onnx_file: Path) -> None:
    old = TensorRTApi("tensorrt", rtx.module, (8, 5, 2, 2))
    text = refused(MissingDependencyError, old, onnx_file, ORIN)
    assert "TensorRT 8.5.2.2 is installed, expected 10.3 or newer" in text and "JetPack 6.2" in text


@pytest.mark.parametrize(
    ("version", "stripped"),
    [((10, 3, 0, 26), True), ((10, 6, 0), True), ((10, 7, 0), False), ((11, 1), False)],
)
def test_functions_are_stripped_where_a_body_would_win(
    rtx: TensorRTApi, onnx_file: Path, plugin: Path, version: tuple[int, ...], stripped: bool
) -> None:
    api = TensorRTApi("tensorrt", rtx.module, version)
    plan = checked(api, onnx_file, ORIN, plugin=plugin)
    assert plan.plugin == plugin and plan.strip_functions is stripped
    bodies = checked(api, onnx_file, ORIN, expand_bodies=True)
    assert bodies.plugin is None and not bodies.strip_functions


def test_tensorrt_without_the_plugin_library(
    trt: TensorRTApi, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no plugin library" in refused(
        MissingDependencyError, trt, onnx_file, ORIN, plugin=tmp_path / "absent.so"
    )
    monkeypatch.setattr("vmkla.engines.tensorrt.plugins.LIBRARY", "libvmkla_absent.so")
    assert "TENSORRT_ROOT=" in refused(MissingDependencyError, trt, onnx_file, ORIN)


def test_plugins_are_tensorrts_alone(
    rtx: TensorRTApi, trt: TensorRTApi, onnx_file: Path, plugin: Path
) -> None:
    assert "does not load plugins" in refused(UsageError, rtx, onnx_file, plugin=plugin)
    assert "both requested" in refused(UsageError, trt, onnx_file, ORIN, plugin=plugin, expand_bodies=True)


def test_every_custom_node_has_its_plugin_or_its_body(
    rtx: TensorRTApi, trt: TensorRTApi, tmp_path: Path, plugin: Path
) -> None:
    bare = written(tmp_path / "bare.onnx", functions=False)
    text = refused(ArtefactMismatchError, rtx, bare)
    assert "vmkla.BSplineBasis without a function body, and no plugin is in use" in text
    assert checked(trt, bare, ORIN, plugin=plugin).plugin == plugin
    lost = [helper.make_node("Gelu", ["frames"], ["g"], domain="com.example")]
    foreign = written(tmp_path / "foreign.onnx", extra_nodes=lost)
    text = refused(ArtefactMismatchError, trt, foreign, ORIN, plugin=plugin)
    assert "com.example.Gelu" in text and "the plugin library has SelectiveScan2d, BSplineBasis" in text


def test_an_output_that_cannot_be_written(rtx: TensorRTApi, onnx_file: Path, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    for output in (in_the_way / "model.plan", tmp_path / ("x" * 300) / "model.plan"):
        assert "cannot be written" in refused(BadInputError, rtx, onnx_file, output=output)
    folder = tmp_path / "folder.plan"
    folder.mkdir()
    assert "is a folder" in refused(BadInputError, rtx, onnx_file, output=folder)
    (tmp_path / "model.plan.json").mkdir()
    assert "is a folder" in refused(BadInputError, rtx, onnx_file, output=tmp_path / "model.plan")


def test_a_folder_that_the_attempt_has_made_is_gone(
    rtx: TensorRTApi, onnx_file: Path, tmp_path: Path
) -> None:
    checked(
        rtx, onnx_file, output=tmp_path / "a" / "b" / "model.plan", timing_cache=tmp_path / "c" / "timings"
    )
    assert "cannot be written" in refused(
        BadInputError, rtx, onnx_file, output=tmp_path / "a" / ("x" * 300) / "model.plan"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_folder_is_made_for_a_block(tmp_path: Path, keep: bool) -> None:
    (tmp_path / "there").mkdir()
    deep = tmp_path / "there" / "a" / "b"
    with ensure_folder(deep, keep=keep):
        assert deep.is_dir()
    assert deep.is_dir() == keep and (tmp_path / "there").is_dir()
    other = tmp_path / "there" / "c" / "d"
    with pytest.raises(KeyboardInterrupt), ensure_folder(other):
        raise KeyboardInterrupt
    assert not other.parent.exists()
    with pytest.raises(KeyboardInterrupt), ensure_folder(other):
        (other.parent / "somebody's").touch()
        raise KeyboardInterrupt
    assert [path.name for path in other.parent.iterdir()] == ["somebody's"]


@pytest.mark.parametrize("name", ["model.engine", "model", ".plan", "", "model.onnx", "model.plan.json"])
def test_an_engine_is_known_by_its_name(rtx: TensorRTApi, onnx_file: Path, name: str) -> None:
    text = refused(UsageError, rtx, onnx_file, output=Path(name))
    assert "expected a file name that ends in .plan" in text


def test_no_file_of_a_build_is_another_one(
    trt: TensorRTApi, onnx_file: Path, plugin: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model.plan"
    link, hard_link = tmp_path / "link", tmp_path / "hard link"
    link.symlink_to(onnx_file)
    hard_link.hardlink_to(onnx_file)
    for cache, names in (
        (onnx_file, "the model and --timing-cache"),
        (link, "the model and --timing-cache"),
        (hard_link, "the model and --timing-cache"),
        (output, "--output and --timing-cache"),
        (tmp_path / "absent" / ".." / "model.plan", "--output and --timing-cache"),
        (tmp_path / "model.plan.json", "the engine's manifest and --timing-cache"),
        (plugin, "--timing-cache and --plugin"),
    ):
        text = refused(UsageError, trt, onnx_file, ORIN, plugin=plugin, output=output, timing_cache=cache)
        assert f"{names} are the same file" in text
    model = onnx_file.rename(tmp_path / "named.plan")
    text = refused(UsageError, trt, model, ORIN, plugin=plugin, output=model)
    assert "the model and --output are the same file" in text


def test_why_there_is_no_gpu_is_said(
    rtx: TensorRTApi, trt: TensorRTApi, onnx_file: Path, plugin: Path
) -> None:
    """A broken driver must not turn a build for this GPU silently into one for all."""
    broken = "the NVIDIA driver shows 0 GPUs (cuInit returned 803)"
    output = onnx_file.with_name("model.plan")
    request = BuildRequest(str(onnx_file), output, "tensorrt-rtx")
    plan = preflight(request, rtx, None, no_gpu_because=broken)
    assert any(broken in remark and "is not run" in remark for remark in plan.remarks)
    request = BuildRequest(str(onnx_file), output, "tensorrt", plugin=plugin)
    with pytest.raises(MissingDependencyError, match=r"there is none here \(the NVIDIA driver shows 0 GPUs"):
        preflight(request, trt, None, no_gpu_because=broken)
