"""A miniature of the polyp split, and short trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.labelled_folders import write_folder


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    """``kvasir-seg/``, ``cvc-clinicdb/`` and ``splits/`` with twelve and eight images."""
    root = tmp_path / "data"
    (root / "splits").mkdir(parents=True)
    for folder, name, count, seed in (
        ("kvasir-seg", "Kvasir", 12, 0),
        ("cvc-clinicdb", "CVC-ClinicDB", 8, 50),
    ):
        write_folder(root / folder, count, first_seed=seed)
        stems = sorted(path.stem for path in (root / folder / "images").iterdir())
        (root / "splits" / f"train_{name}.txt").write_text("\n".join(stems[:-2]) + "\n")
        (root / "splits" / f"test_{name}.txt").write_text("\n".join(stems[-2:]) + "\n")
    return root
