"""Answers that were saved: the same verdict without the runner, and files that are not whole."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.verify.scenes import GREEN, LESION, NOTHING, RED, ChannelRunner, box, frame
from tests.export.exported_models import HEIGHT, WIDTH, frames
from vmkla.engines import load_runner
from vmkla.engines.verify.clinical import LiveReference, verify_reference
from vmkla.engines.verify.frame import VerifyFrame
from vmkla.engines.verify.saved_reference import SavedReference, SavingReference, save_answers
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.segment.preprocess import PreprocessSpec


def scene(*, labelled: bool = True) -> list[VerifyFrame]:
    truth = LESION if labelled else None
    return [frame("a", LESION, box(5, 5, 19, 20), truth), frame("b/é", LESION, LESION, truth)]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_same_verdict(tmp_path: Path, labelled: bool) -> None:
    path = tmp_path / "reference.zip"
    live = LiveReference(ChannelRunner(RED), scene(labelled=labelled))
    first = verify_reference(SavingReference(live, path), ChannelRunner(GREEN))
    saved = SavedReference(path)
    assert (saved.total, saved.labelled) == (2, labelled)
    second = verify_reference(saved, ChannelRunner(GREEN))
    assert second.to_dict() == first.to_dict()
    assert [one.to_dict() for one in second.each] == [one.to_dict() for one in first.each]
    assert not second.passed


def test_every_pixel_and_probability_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = VerifyFrame(
        "x", rng.integers(0, 256, (30, 50, 3), dtype=np.uint8), rng.integers(0, 2, (30, 50), dtype=np.uint8),
        PreprocessSpec(40, 40, "none"),
    )  # fmt: skip
    runner = ChannelRunner(RED)
    path = tmp_path / "new folder" / "reference.zip"
    assert save_answers(LiveReference(runner, [given]), path) == 1
    live = list(LiveReference(runner, [given]).answers())
    kept = list(SavedReference(path).answers())
    assert kept[0][0].name == "x" and kept[0][0].prepared == given.prepared
    assert np.array_equal(kept[0][0].image_rgb, given.image_rgb)
    assert np.array_equal(kept[0][0].mask, given.mask)  # type: ignore[arg-type]
    assert np.array_equal(kept[0][1], live[0][1])
    assert SavedReference(path).spec == runner.spec


def test_values_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    class Broken(ChannelRunner):
        def infer(self, frames_rgb: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            return np.full_like(super().infer(frames_rgb), np.nan)

    path = tmp_path / "reference.zip"
    save_answers(LiveReference(Broken(RED), scene()), path)
    report = verify_reference(SavedReference(path), ChannelRunner(GREEN))
    assert "the reference's probability holds NaN" in report.failures[0]


SCRIPT = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
from pathlib import Path
from vmkla.engines import load_runner
from vmkla.engines.verify.clinical import verify_reference
from vmkla.engines.verify.saved_reference import SavedReference
report = verify_reference(SavedReference(Path(sys.argv[1])), load_runner(sys.argv[2]))
print(json.dumps(report.to_dict()))
"""


def test_a_machine_without_torch_comes_to_the_same_verdict(
    tmp_path: Path, tiny_onnx: Path, tiny_weights: Path
) -> None:
    """PyTorch answers where it is; where it is not, ONNX Runtime is compared with what was kept."""
    path = tmp_path / "reference.zip"
    torch_runner, ort_runner = load_runner(tiny_weights), load_runner(tiny_onnx)
    live = LiveReference(torch_runner, frames(3, HEIGHT, WIDTH, seed=4))
    expected = verify_reference(SavingReference(live, path), ort_runner)
    assert expected.passed and expected.reference["runtime"]["runner"] == "torch"
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, str(path), str(tiny_onnx)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(expected.to_dict()))


def test_a_comparison_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "reference.zip"
    mixed = [*scene(), frame("bare", NOTHING, NOTHING)]
    with pytest.raises(BadInputError, match="has no mask"):
        verify_reference(
            SavingReference(LiveReference(ChannelRunner(RED), mixed), path), ChannelRunner(GREEN)
        )
    with pytest.raises(BadInputError, match="no frame"):
        save_answers(LiveReference(ChannelRunner(RED), []), path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "reference.zip"
    save_answers(LiveReference(ChannelRunner(RED), scene()), path)
    return path


def read(path: Path) -> None:
    for _ in SavedReference(path).answers():
        pass


def test_the_limit_of_an_image_can_be_raised(tmp_path: Path) -> None:
    """As where it was saved: what ``--save`` took, ``--load`` must be able to take."""
    path = tmp_path / "reference.zip"
    large = frame("large", LESION, LESION)
    pixels = large.image_rgb.shape[0] * large.image_rgb.shape[1]
    save_answers(LiveReference(ChannelRunner(RED), [large]), path)
    assert len(list(SavedReference(path, max_megapixels=pixels / 1e6).answers())) == 1
    with pytest.raises(BadInputError, match="expected at most .* megapixels") as caught:
        list(SavedReference(path, max_megapixels=(pixels - 1) / 1e6).answers())
    assert "--max-megapixels" in (caught.value.hint or "")
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (40000).to_bytes(4, "big") * 2
    with pytest.raises(BadInputError, match="is 40000x40000 .* at most 150 megapixels"):
        read(replaced(path, **{"image/000000.png": bomb}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_cut_off_files(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInputError, match="not a whole file of saved results"):
        read(saved)


def test_foreign_and_damaged_files(saved: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a whole file"):
        read(tiny_onnx)
    with pytest.raises(BadInputError, match="no file"):
        read(tmp_path / "absent.zip")
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def rewritten(**changed: bytes) -> Path:
        with zipfile.ZipFile(saved, "w") as archive:
            for name, data in (parts | changed).items():
                archive.writestr(name, data)
        return saved

    read(rewritten())
    for name, data in (
        ("probability/000001.npy", parts["probability/000001.npy"][:-4]),
        ("image/000000.png", b"no picture"),
        ("reference.json", b"{}"),
        ("reference.json", b"[1]"),
        ("reference.json", parts["reference.json"].replace(b'"height": 40', b'"height": 8')),
    ):
        with pytest.raises(BadInputError, match="not a whole file"):
            read(rewritten(**{name: data}))
    with pytest.raises(BadInputError, match="layout 2"):
        new = parts["reference.json"].replace(b'"vmkla.reference": 1', b'"vmkla.reference": 2')
        read(rewritten(**{"reference.json": new}))


def replaced(path: Path, **changed: bytes) -> Path:
    """The same archive with other members."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (parts | changed).items():
            archive.writestr(name, data)
    return path


def array(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """NumPy's header for an array of which there is no value."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "changed",
    [
        {"probability/000000.npy": array((1 << 40, 1 << 20))},
        {"probability/000000.npy": array((1, 40, 40))},
        {"probability/000000.npy": array((1, 40, 40), "|O")},
        {"probability/000000.npy": b"\x93NUMPY\x09\x00"},
        {"probability/000000.npy": array((1, 40, 40)).replace(b"}", b"(")},
        {"probability/000000.npy": array((1, 40, 40)).replace(b"{", b"+")},
        {"image/000000.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (40).to_bytes(4, "big") * 2},
        {"reference.json": b"[" * 1_000_000},
        {"reference.json": b" " * (65 << 20)},
        {"reference.json": b'{"vmkla.reference": 1e400}'},
    ],
)
def test_members_that_ask_for_too_much(saved: Path, changed: dict[str, bytes]) -> None:
    with pytest.raises(BadInputError, match="not a whole file of saved results") as caught:
        read(replaced(saved, **changed))
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.update(identity={}),
        lambda i: i.update(identity=[]),
        lambda i: i["identity"].update(runtime=7),
        lambda i: i["identity"]["runtime"].update(runner=None),
        lambda i: i.update(spec=[]),
        lambda i: i["spec"].update(height="40"),
        lambda i: i["spec"].update(height=-40),
        lambda i: i["spec"].update(notes=7),
        lambda i: i["spec"].update(path=None),
        lambda i: i["spec"].update(num_classes=10**9),
        lambda i: i["spec"].update(surplus=1),
        lambda i: i.update(metadata=None),
        lambda i: i["metadata"].update({"vmkla.gates": 1}),
        lambda i: i.update(frames={}),
        lambda i: i["frames"].append(7),
        lambda i: i["frames"][0].update(name=["x"]),
        lambda i: i["frames"][0].update(mask="yes"),
        lambda i: i["frames"][0].update(prepared={"height": 4}),
        lambda i: i["frames"][0].update(prepared={"height": -4, "width": 4, "roi": "none"}),
        lambda i: i["frames"][0].update(prepared={"height": 4, "width": 4, "roi": "bogus"}),
    ],
)
def test_an_index_of_other_types(saved: Path, change: Any) -> None:
    with zipfile.ZipFile(saved) as archive:
        index = json.loads(archive.read("reference.json"))
    change(index)
    with pytest.raises(BadInputError, match="not a whole file of saved results") as caught:
        read(replaced(saved, **{"reference.json": json.dumps(index).encode()}))
    assert caught.value.exit_status == 3


def test_what_is_told_of_the_model_is_its_metadata(saved: Path) -> None:
    """What a report is made of is not taken from the file's words beside it."""
    with zipfile.ZipFile(saved) as archive:
        index = json.loads(archive.read("reference.json"))
    index["identity"]["model"] = {"random_weights": "no"}
    other = SavedReference(replaced(saved, **{"reference.json": json.dumps(index).encode()}))
    assert other.identity["model"]["random_weights"] is False
    assert other.identity["model"]["weights_sha256"] == other.spec.metadata.weights_sha256


def test_damaged_metadata_of_the_model(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        index = json.loads(archive.read("reference.json"))
    index["metadata"]["vmkla.threshold"] = "[" * 50_000
    with pytest.raises(ArtefactMismatchError, match="damaged vmkla metadata") as caught:
        read(replaced(saved, **{"reference.json": json.dumps(index).encode()}))
    assert caught.value.exit_status == 6
