"""Find the installed package of the module ``onnxruntime``: two packages own it and overwrite each other."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmkla.imports import MODULE_OWNERS

CPU_PACKAGE, GPU_PACKAGE = MODULE_OWNERS
INSTALL_GPU = f"pip uninstall -y {CPU_PACKAGE} {GPU_PACKAGE}, then pip install '{GPU_PACKAGE}[cuda,cudnn]'"


@dataclass(frozen=True)
class Installed:
    """The packages in the folder that ``import onnxruntime`` reads.

    Attributes:
        versions: package to version; both packages where one was installed over the other.
        spoilt: files that are missing, or whose size differs from their package's record.
    """

    versions: dict[str, str]
    spoilt: tuple[str, ...]

    @property
    def text(self) -> str:
        """Packages with their versions, for messages."""
        return " and ".join(f"{name} {version}" for name, version in self.versions.items())

    @property
    def problem(self) -> str | None:
        """The problem of the installation; None where one package is complete, or none is installed."""
        if len(self.versions) > 1:
            return f"{self.text} are both installed, and each overwrites files of the other"
        if self.spoilt:
            return (
                f"{self.text} is installed, and {len(self.spoilt)} of its files are missing or from another "
                f"package, such as {self.spoilt[0]}"
            )
        return None


def find_installed() -> Installed:
    """Read the packages' records, without importing the packages."""
    spec = importlib.util.find_spec("onnxruntime")
    places = (
        [] if spec is None else [str(Path(place).parent) for place in spec.submodule_search_locations or ()]
    )
    found = {
        name: distribution
        for name in MODULE_OWNERS
        for distribution in importlib.metadata.distributions(name=name, path=places)
    }
    versions = {name: distribution.version for name, distribution in found.items()}
    spoilt = (file for distribution in found.values() for file in _spoilt(distribution))
    return Installed(versions, tuple(sorted(set(spoilt))))


def _spoilt(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    for file in distribution.files or ():
        if file.size is None or file.parts[0] != "onnxruntime":
            continue  # the record has no size of compiled files
        try:
            size = Path(str(file.locate())).stat().st_size
        except OSError:
            size = -1
        if size != file.size:
            yield str(file)
