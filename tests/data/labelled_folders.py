"""Labelled images made for the tests of data and training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def labelled_image(seed: int, height: int, width: int) -> tuple[Image, Image]:
    """Make a noisy brown image with one bright, bluish disc of class 1; every fifth has none."""
    rng = np.random.default_rng(seed)
    image = rng.normal((120, 70, 50), 12, (height, width, 3))
    mask: Image = np.zeros((height, width), np.uint8)
    if seed % 5 != 4:
        radius = int(rng.uniform(0.15, 0.3) * min(height, width))
        centre = tuple(int(rng.integers(radius, side - radius)) for side in (width, height))
        cv2.circle(mask, centre, radius, 1, -1)
        image[mask > 0] += (40, 70, 110)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_folder(folder: Path, count: int, *, height: int = 48, width: int = 64, first_seed: int = 0) -> Path:
    """Write ``images/`` and ``masks/`` with PNG files ``case-00``, ``case-01`` ..."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = labelled_image(first_seed + number, height, width)
        cv2.imwrite(str(folder / "images" / f"case-{number:02d}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"case-{number:02d}.png"), 255 * mask)
    return folder


def write_stems(folder: Path, stems: Sequence[str], *, first_seed: int = 0, side: int = 40) -> Path:
    """Write ``images/`` and ``masks/`` with PNG files of these stems."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(stems):
        image, mask = labelled_image(first_seed + number, side, side)
        cv2.imwrite(str(folder / "images" / f"{stem}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{stem}.png"), 255 * mask)
    return folder


def write_split_polyps(root: Path) -> Path:
    """Write a miniature of ``kvasir-seg/``, ``cvc-clinicdb/`` and ``splits/``: 10 + 4 and 10 + 4 images."""
    stems = {
        "Kvasir": [f"cju{number:02d}" for number in range(14)],
        "CVC-ClinicDB": [str(number) for number in (*range(22, 32), *range(100, 104))],
    }
    (root / "splits").mkdir(parents=True)
    for seed, (name, folder) in enumerate({"Kvasir": "kvasir-seg", "CVC-ClinicDB": "cvc-clinicdb"}.items()):
        write_stems(root / folder, stems[name], first_seed=100 * seed)
        (root / "splits" / f"train_{name}.txt").write_text("\n".join(stems[name][:10]), encoding="utf-8")
        (root / "splits" / f"test_{name}.txt").write_text("\n".join(stems[name][10:]), encoding="utf-8")
    return root


def write_pranet(root: Path, *, train: str = "TrainDataset", tests: str = "TestDataset") -> Path:
    """Write a miniature of PraNet's layout: 12 images of both sets together, two test sets of 2."""
    write_stems(root / train, [*(f"cju{n:02d}" for n in range(6)), *map(str, (1, 2, 3, 30, 31, 60))])
    for seed, name in enumerate(("Kvasir", "CVC-300")):
        write_stems(root / tests / name, ["a", "b"], first_seed=50 + 10 * seed)
    return root


def synapse_slice(seed: int, side: int = 48) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Make a slice with values in 0..1 and a label of three organs, floats as in the published files."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 0.4, (side, side)).astype(np.float32)
    label = np.zeros((side, side), np.float32)
    for organ in (1, 5, 8):
        y, x = rng.integers(0, side - 12, 2)
        label[y : y + 12, x : x + 12] = organ
        image[y : y + 12, x : x + 12] += np.float32(0.06 * organ)
    return np.clip(image, 0, 1), label


def write_synapse(root: Path, *, patients: int = 3, slices: int = 4) -> Path:
    """Write a miniature of TransUNet's Synapse: training slices, two test volumes, and their lists."""
    import h5py

    for name in ("train_npz", "test_vol_h5", "lists/lists_Synapse"):
        (root / name).mkdir(parents=True)
    stems = [f"case{5 + p:04d}_slice{s:03d}" for p in range(patients) for s in range(slices)]
    for seed, stem in enumerate(stems):
        image, label = synapse_slice(seed)
        np.savez(root / "train_npz" / f"{stem}.npz", image=image, label=label)
    for number, case in enumerate(("case0001", "case0002")):
        made = [synapse_slice(1000 + 10 * number + depth) for depth in range(3 + number)]
        with h5py.File(root / "test_vol_h5" / f"{case}.npy.h5", "w") as file:
            file["image"] = np.stack([image for image, _ in made])
            file["label"] = np.stack([label for _, label in made])
    lists = root / "lists" / "lists_Synapse"
    (lists / "train.txt").write_text("\n".join(stems), encoding="utf-8")
    (lists / "test_vol.txt").write_text("case0001\ncase0002\n", encoding="utf-8")
    return root
