"""The kinds of file that vmkla reads: valid examples, how they are spoilt, and the function that reads them.

A reading function returns, or raises a ``VmklaError`` with a status of 2 to 7. Heavy packages are imported
where they are needed: each target runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz import archives, procedures, seeds, spoilers
from tests.fuzz.seeds import Seed
from tests.fuzz.spoilers import Spoiler
from tests.fuzz.truth import read_truth, spoil_truth, truth_seeds

_IMAGES = b"FOLDER"
"""Stands for the folder of a run's images, which differs from run to run."""


@dataclass(frozen=True)
class Target:
    """A kind of file and its reader.

    Attributes:
        seeds: make sound files.
        spoil: changes one of them.
        read: reads a file; a folder of its own is there for what is written.
    """

    seeds: Callable[[Path], list[Seed]]
    spoil: Spoiler
    read: Callable[[Path, Path], None]


def _segment(path: Path, out: Path, **options: Any) -> None:
    """``vmkla infer --source PATH --out OUT``, with a network that needs no weights."""
    from tests.evaluation.colour_runners import RedRunner
    from vmkla.video.file.options import SegmentOptions
    from vmkla.video.file.pipeline import segment

    segment(RedRunner(32, 48), str(path), SegmentOptions(out, save_masks=True, **options))


def _read_video(path: Path, out: Path) -> None:
    _segment(path, out / "result")


def _read_image(path: Path, out: Path) -> None:
    _segment(path, out / "result")


def _run_on_images(folder: Path) -> tuple[Path, Path]:
    """The images and the results of a run that could be continued."""
    images, out = folder / "images", folder / "result"
    images.mkdir()
    (images / "0.png").write_bytes(seeds.images()[0][1])
    _segment(images, out, export=("coco", "cvat", "yolo"))
    return images, out


def _continue(path: Path, out: Path) -> None:
    """``vmkla infer --continue`` where the settings (the file's first line), the findings for annotation
    formats (its last) or the rows were spoilt.
    """
    from vmkla.procedures.files import ROWS
    from vmkla.video.file.annotations import LOG
    from vmkla.video.file.outputs import SETTINGS

    images, result = _run_on_images(out)
    settings, _, rows = path.read_bytes().partition(b"\n")
    rows, _, log = rows.rpartition(b"\n")
    (result / LOG).write_bytes(log + b"\n")
    (result / SETTINGS).write_bytes(settings.replace(_IMAGES, str(images).encode()))
    (result / ROWS).write_bytes(rows)
    _segment(images, result, resume=True, export=("coco", "cvat", "yolo"))


def _run_records(folder: Path) -> list[Seed]:
    from vmkla.procedures.files import ROWS
    from vmkla.video.file.annotations import LOG
    from vmkla.video.file.outputs import SETTINGS

    images, result = _run_on_images(folder)
    settings = json.dumps(json.loads((result / SETTINGS).read_bytes())).encode()
    settings = settings.replace(str(images).encode(), _IMAGES)
    return [(".txt", settings + b"\n" + (result / ROWS).read_bytes() + (result / LOG).read_bytes().strip())]


def _spoil_records(data: bytes, rng: Random) -> bytes:
    settings, _, rows = data.partition(b"\n")
    if rng.random() < 0.5:
        return spoilers.spoil_json(settings, rng).replace(b"\n", b" ") + b"\n" + rows
    rows, _, log = rows.rpartition(b"\n")
    if rng.random() < 0.5:
        return settings + b"\n" + rows + b"\n" + spoilers.spoil_json(log, rng).replace(b"\n", b" ")
    first, end, rest = rows.partition(b"\n")
    return settings + b"\n" + spoilers.spoil_json(first, rng) + end + rest + b"\n" + log


def _check_pair(path: Path, out: Path, *, part: str) -> None:
    """``vmkla data check`` on a folder in which one image, or one mask, is the file."""
    from vmkla.data.check import check
    from vmkla.data.recipes import open_dataset

    folder = seeds.labelled(out / "set")
    (folder / part / "0.png").unlink()
    (folder / part / f"0{path.suffix}").write_bytes(path.read_bytes())
    problems: list[str] = []
    _raise(check(open_dataset(str(folder), split_validation=False, problems=problems), problems=problems))


def _raise(report: Any) -> None:
    """Raise the errors of a report as the command does."""
    from vmkla.errors import BadInputError

    if report.problems:
        raise BadInputError(report.problems[0].message)


def _read_set(path: Path, out: Path) -> None:
    """``vmkla data check`` on a packed set, then every sample, as training reads it."""
    from vmkla.data.check import check
    from vmkla.data.folder import iter_samples
    from vmkla.data.recipes import open_dataset

    problems: list[str] = []
    data_set = open_dataset(str(path), split_validation=False, problems=problems)
    report = check(data_set, problems=problems)
    for sources in (data_set.train, data_set.val, *data_set.test.values()):
        for sample in iter_samples(sources):
            assert sample.image_rgb.ndim == 3
    _raise(report)


def _packed(folder: Path) -> list[Seed]:
    from vmkla.data.packing import PackOptions, pack
    from vmkla.data.recipes import open_dataset
    from vmkla.data.sources import PACK_SUFFIX

    path = folder / f"set{PACK_SUFFIX}"
    pack(open_dataset(str(seeds.labelled(folder / "set", 4))), path, PackOptions((32, 32)))
    return [(PACK_SUFFIX, path.read_bytes())]


def _read_slices(path: Path, out: Path) -> None:
    """A slice or a volume of Synapse's, as ``vmkla data check`` reads it."""
    from vmkla.data.folder import iter_samples
    from vmkla.data.sources import SLICES, VOLUMES, DataSource

    folder = out / "set"
    folder.mkdir()
    kind = SLICES if path.suffix == ".npz" else VOLUMES
    (folder / ("case0001_slice000.npz" if kind == SLICES else "case0001.npy.h5")).write_bytes(
        path.read_bytes()
    )
    for _ in iter_samples([DataSource(folder, kind=kind)]):
        pass


def _slices(folder: Path) -> list[Seed]:
    import h5py

    image, label = np.random.default_rng(0).random((24, 24)), seeds.mask(24, 24) // 255
    buffer = io.BytesIO()
    np.savez(buffer, image=image.astype(np.float32), label=label)
    with h5py.File(folder / "volume.h5", "w") as volume:
        volume["image"], volume["label"] = image[None].repeat(2, 0), label[None].repeat(2, 0)
    return [(".npz", buffer.getvalue()), (".h5", (folder / "volume.h5").read_bytes())]


def _load_model(path: Path, out: Path) -> None:
    """``vmkla inspect``, and ``vmkla infer`` as far as the answer to one frame."""
    from vmkla.engines import load_runner
    from vmkla.engines.inspect import describe

    describe(path)
    runner = load_runner(path, threads=1)
    try:
        spec = runner.spec
        if spec.height * spec.width <= 1 << 16:
            runner.infer(np.zeros((spec.batch or 1, spec.height, spec.width, 3), np.uint8))
    finally:
        runner.close()


def _models(folder: Path) -> list[Seed]:
    from tests.engines.tensorrt.small_engines import small_model

    return [(".onnx", small_model(scan=scan).SerializeToString()) for scan in (False, True)]


def _load_weights(path: Path, out: Path) -> None:
    """Weights as ``vmkla export`` reads them, a state as ``vmkla train --resume`` does, or a checkpoint."""
    from vmkla.models.checkpoints import load_weights
    from vmkla.models.pickles import read_pickle
    from vmkla.training.config import TrainConfig
    from vmkla.training.state import load_state

    if path.suffix == ".safetensors":
        load_weights(path)
    elif path.suffix == ".pt":
        load_state(path, TrainConfig(out, model="nano"))
    else:
        read_pickle(path)


def _weights(folder: Path) -> list[Seed]:
    import torch

    from vmkla.config import ModelConfig
    from vmkla.models.checkpoints import save_weights
    from vmkla.models.vmkla_unet import build_model
    from vmkla.training.config import TrainConfig
    from vmkla.training.state import save_state

    config = ModelConfig("tiny", 16, (1,) * 4, (1,) * 4, d_state=2, head_dim=16, kan_hidden=4)
    save_weights(build_model(config), folder / "tiny.safetensors", training={"image_size_hw": [32, 32]})
    values: dict[str, Any] = {"step": 3, "weights": {"a": torch.arange(12.0).reshape(3, 4)}, "name": "x"}
    save_state(folder / "state.pt", values, TrainConfig(folder, model="nano"))
    torch.save(values, folder / "new.pth")
    torch.save(values, folder / "old.pth", _use_new_zipfile_serialization=False)
    files = [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()]
    return [*files, *((suffix, _unsealed(data)) for suffix, data in files if suffix == ".safetensors")]


def _unsealed(data: bytes) -> bytes:
    """Safetensors as older versions wrote them, without a checksum that would hide all other faults."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"].pop("vmkla.content_sha256", None)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _spoil_archive(data: bytes, rng: Random) -> bytes:
    """A ZIP archive, safetensors, or anything else."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        return spoilers.spoil_zip(data, rng)
    if data[8:9] == b"{":
        return spoilers.spoil_safetensors(data, rng)
    return spoilers.spoil_bytes(data, rng)


def _read_reference(path: Path, out: Path) -> None:
    """What ``vmkla verify --reference`` reads."""
    from vmkla.engines.verify.saved_reference import SavedReference

    for _ in SavedReference(path).answers():
        pass


def _references(folder: Path) -> list[Seed]:
    from tests.evaluation.colour_runners import RedRunner
    from vmkla.engines.verify.clinical import LiveReference
    from vmkla.engines.verify.frame import VerifyFrame
    from vmkla.engines.verify.saved_reference import save_answers

    frames = [
        VerifyFrame(str(n), seeds.noise(40, 56, n), seeds.mask() if n else None, None) for n in range(2)
    ]
    save_answers(LiveReference(RedRunner(24, 24), frames), folder / "reference.zip")
    return [(".zip", (folder / "reference.zip").read_bytes())]


def _read_manifest(path: Path, out: Path) -> None:
    """An engine's sidecar as ``vmkla inspect`` reads it, or limits as ``vmkla verify --gates`` does."""
    from vmkla.engines.inspect import describe
    from vmkla.engines.tensorrt.manifest import manifest_path
    from vmkla.engines.verify.gates import read_gates

    if path.suffix == ".gates":
        limits = path.with_suffix(".json")
        limits.write_bytes(path.read_bytes())
        read_gates(limits)
        return
    plan = out / "model.plan"
    plan.write_bytes(b"an engine")
    manifest_path(plan).write_bytes(path.read_bytes())
    describe(plan)


def _manifests(folder: Path) -> list[Seed]:
    from tests.engines.tensorrt.small_engines import properties
    from vmkla.engines.tensorrt.manifest import (
        BuildSettings,
        EngineManifest,
        GpuFacts,
        OnnxFacts,
        PluginFacts,
        Profile,
    )

    manifest = EngineManifest(
        runtime="tensorrt",
        runtime_version="10.3.0.26",
        engine_sha256="e" * 64,
        engine_bytes=9,
        onnx=OnnxFacts("model.onnx", "a" * 64, 1234),
        weights_sha256="b" * 64,
        profile=Profile(1, 2, 4),
        metadata=properties(),
        plugin=PluginFacts("libvmkla_tensorrt.so", "c" * 64, "1"),
        gpu=GpuFacts("Orin", "8.7", 16),
        cuda_version="12.6",
        driver_version="R36.4.3",
        settings=BuildSettings(2 << 30, 4, "timings", True),
        gates={"passed": True, "frames": 3},
    )
    limits = {
        "max_mean_dice_drop": 0.001,
        "max_worst_dice_drop": 0.01,
        "max_lost_lesion": 1e-4,
        "max_error": 1e-6,
    }
    return [
        (".json", json.dumps(manifest.to_dict()).encode()),
        (".gates", json.dumps(limits).encode()),
    ]


def _spoil_manifest(data: bytes, rng: Random) -> bytes:
    """Half of the manifests get the seal that is theirs, as whoever forges one would do."""
    from vmkla.engines.tensorrt.manifest import sealed

    spoilt = spoilers.spoil_json(data, rng)
    if rng.random() < 0.5:
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            return json.dumps(sealed(json.loads(spoilt))).encode()
    return spoilt


def _image_seeds(_: Path) -> list[Seed]:
    return seeds.images()


def _mask_seeds(_: Path) -> list[Seed]:
    return seeds.encoded(seeds.mask())


TARGETS = {
    "videos": Target(lambda _: seeds.videos(), spoilers.spoil_bytes, _read_video),
    "images": Target(_image_seeds, spoilers.spoil_bytes, _read_image),
    "labelled": Target(_image_seeds, spoilers.spoil_bytes, functools.partial(_check_pair, part="images")),
    "masks": Target(_mask_seeds, spoilers.spoil_bytes, functools.partial(_check_pair, part="masks")),
    "models": Target(_models, spoilers.spoil_onnx, _load_model),
    "weights": Target(_weights, _spoil_archive, _load_weights),
    "packed": Target(_packed, spoilers.spoil_zip, _read_set),
    "slices": Target(_slices, _spoil_archive, _read_slices),
    "references": Target(_references, spoilers.spoil_zip, _read_reference),
    "manifests": Target(_manifests, _spoil_manifest, _read_manifest),
    "truth": Target(lambda _: truth_seeds(), spoil_truth, read_truth),
    "records": Target(_run_records, _spoil_records, _continue),
    "archives": Target(archives.batch_files, archives.spoil_batch_files, archives.read_batch_files),
    "procedures": Target(procedures.run_files, procedures.spoil_run_files, procedures.read_run_files),
}


def check_whole(folder: Path) -> None:
    """Raise AssertionError when a file under its final name is not whole, or something temporary is left."""
    import av
    import cv2

    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            assert path.suffix not in (".part", ".reserve", ".tmp"), f"{path} is left"
            if path.suffix == ".mp4":
                with av.open(str(path)) as container:
                    assert sum(1 for _ in container.decode(video=0)), f"{path} has no frame"
            elif path.suffix == ".png":
                assert cv2.imread(str(path)) is not None, f"{path} cannot be read"
            elif path.suffix in (".json", ".jsonl"):
                for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                    json.loads(text)
