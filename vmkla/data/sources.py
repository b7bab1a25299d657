"""What is known of labelled images before they are read: where they are, and what reading one gives."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmkla.data.rules import ReadRules
from vmkla.data.sequences import rule_for
from vmkla.errors import BadInputError
from vmkla.files import read_regular
from vmkla.segment.preprocess import PreprocessSpec

SHOWN_PROBLEMS = 20
"""A message lists so many problems and counts the rest."""
PAIRS, SLICES, VOLUMES, PACKED = "pairs", "slices", "volumes", "packed"
"""What a source holds: image and mask files, Synapse's ``.npz`` or ``.npy.h5``, or part of a packed file."""
_LONGEST_LIST_BYTES = 64 << 20
PACK_SUFFIX = ".vmkpack"


@dataclass(frozen=True)
class DataSource:
    """Labelled images in one place.

    Attributes:
        folder: a folder with ``images/`` and ``masks/``, one of Synapse's files, or a packed file.
        split: text file with one stem a line; None takes every image.
        stems: what a split by seed chose; None takes all that ``split`` leaves.
        kind: ``PAIRS``, ``SLICES``, ``VOLUMES`` or ``PACKED``.
        part: of a packed file, for instance ``"train"`` or ``"test/Kvasir"``; empty for all of it.
        rule: how names tell sequences, see ``vmkla.data.sequences``; the folder's name may call for one.
        reading: how its files are read; for ``PAIRS``.
    """

    folder: Path
    split: Path | None = None
    stems: tuple[str, ...] | None = None
    kind: str = PAIRS
    part: str = ""
    rule: str = ""
    reading: ReadRules = ReadRules()

    def __post_init__(self) -> None:
        if self.kind == PAIRS and self.folder.suffix == PACK_SUFFIX and self.folder.is_file():
            object.__setattr__(self, "kind", PACKED)
        if not self.rule:
            object.__setattr__(self, "rule", rule_for(self.folder.name))

    @classmethod
    def parse(cls, text: str) -> DataSource:
        """Read ``DIR`` or ``DIR:SPLITFILE``. A folder whose own name holds a colon is taken as it is."""
        if ":" in text and not Path(text).exists():
            folder, split = text.rsplit(":", 1)
            return cls(Path(folder), Path(split))
        return cls(Path(text))

    def __str__(self) -> str:
        """Equal for equal choices, so that a resumed run can tell another one."""
        text = str(self.folder) if self.split is None else f"{self.folder}:{self.split}"
        if self.part:
            text += f" {self.part}"
        if self.stems is not None:
            digest = hashlib.sha256("\n".join(self.stems).encode(errors="surrogateescape")).hexdigest()
            text += f" ({len(self.stems)} images, {digest[:8]})"
        for name, value in self.reading.of_masks.items():
            text += f" {name}={value}"
        return text


@dataclass(frozen=True)
class Pair:
    """One labelled image on disk.

    Attributes:
        name: folder and stem, for messages and reports.
        image, mask: the two files; the same one where a file holds both.
        stem: name of the image within its source.
        group: sequence or patient that it belongs to; empty when that cannot be told.
        member: which image of the file, where a file holds several.
        reading: how the two files are read.
        read: decodes it.
    """

    name: str
    image: Path
    mask: Path
    stem: str
    group: str = ""
    member: str = ""
    reading: ReadRules = field(default=ReadRules(), compare=False)
    read: Callable[[Pair], Sample] = field(kw_only=True, compare=False, repr=False)

    @property
    def identity(self) -> tuple[Path, str]:
        """Equal for one image that is named in two ways."""
        return self.image.resolve(), self.member


@dataclass(frozen=True)
class Sample:
    """One labelled image in memory.

    Attributes:
        name: folder and stem, for messages and reports.
        image_rgb: (H, W, 3) uint8.
        mask: (H, W) uint8, class indices: 0 is the background, 1 a polyp.
        group: sequence or patient that it belongs to; empty when that cannot be told. The slices of a
            volume follow each other, in order.
        prepared: how it was brought to the network's size already; None for an image of its own size.
    """

    name: str
    image_rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    group: str = ""
    prepared: PreprocessSpec | None = None


def chosen_stems(source: DataSource, present: Sequence[str], problems: list[str]) -> list[str]:
    """The stems that a source means, of those that are there: those of its split file or of its choice.

    Stems that are listed and not there are returned too, for the caller to name.
    """
    if source.stems is not None:
        return list(source.stems)
    return list(present) if source.split is None else _read_split(source.split, problems)


def _read_split(path: Path, problems: list[str]) -> list[str]:
    try:
        text = read_regular(path, limit_bytes=_LONGEST_LIST_BYTES).decode("utf-8-sig")
    except BadInputError as error:
        problems.append(f"{path} cannot be read as a list of stems: {error.message}")
        return []
    except UnicodeDecodeError as error:
        problems.append(f"{path} cannot be read as a list of stems: {error}")
        return []
    stems = [line.strip() for line in text.splitlines() if line.strip()]
    if not stems:
        problems.append(f"{path} lists no stem")
    doubled = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    problems.extend(f"{path} lists {stem!r} more than once" for stem in doubled)
    return list(dict.fromkeys(stems))


def raise_problems(problems: Sequence[str]) -> None:
    """One error that names all; nothing when there is none.

    Raises:
        BadInputError: there are problems.
    """
    if not problems:
        return
    shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])
    rest = len(problems) - SHOWN_PROBLEMS
    more = f"\n  and {rest} more" if rest > 0 else ""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise BadInputError(
        f"the labelled images have {count}:\n{shown}{more}",
        hint="Expected: DIR/images/<stem>.jpg with DIR/masks/<stem>.png of the same size, 0 and 255. "
        "All problems at once: vmkla data check --data DIR",
    )
