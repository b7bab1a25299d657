"""Import heavy or optional packages late, with an error that states how to install them."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from typing import Any

from vmkla.errors import MissingDependencyError

OPENCV_PACKAGES = "libgl1 libglib2.0-0"
"""Packages of Debian and Ubuntu that opencv-python needs, and opencv-python-headless does not."""

_LIBRARY = re.compile(r"([^\s/]+\.so[.\d]*): cannot open shared object file")

_SWITCH = "ORT_DISABLE_TELEMETRY"
_IMPORT_ONNXRUNTIME = frozenset(("onnxruntime", "onnx", "onnxscript", "onnx_ir", "torch"))
"""Packages that import onnxruntime, for instance in an export, and itself."""

MODULE_OWNERS = ("onnxruntime", "onnxruntime-gpu")
"""Packages that install the module ``onnxruntime``. Installing or removing one damages the other."""
REINSTALL_ONNXRUNTIME = (
    f"pip uninstall -y {' '.join(MODULE_OWNERS)}, then pip install onnxruntime   (for an NVIDIA GPU: "
    "pip install 'onnxruntime-gpu[cuda,cudnn]')"
)

_warned = False


def require(module: str, *, extra: str | None, purpose: str) -> Any:
    """Import a module, or report how to install it.

    Args:
        module: dotted name, for instance ``"onnx"``.
        extra: extra of vmkla that installs it; None for a package of every installation.
        purpose: what needs it, for the message, for instance ``"vmkla export"``.
    Returns:
        The imported module.
    Raises:
        MissingDependencyError: the module is not installed, or fails to import.
    """
    if module.split(".")[0] in _IMPORT_ONNXRUNTIME:
        _disable_onnxruntime_telemetry()
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise import_failure(error, module=module, extra=extra, purpose=purpose) from error
    if module == "onnxruntime" and not hasattr(loaded, "InferenceSession"):
        # Where one of its two packages was removed after the other, Python imports the folder that is left.
        raise MissingDependencyError(
            f"{purpose} needs onnxruntime, of which only parts are left here: onnxruntime and "
            "onnxruntime-gpu share a folder, and removing one removes files of the other",
            hint=f"Run: {REINSTALL_ONNXRUNTIME}",
        )
    return loaded


def import_failure(
    error: ImportError, *, purpose: str, module: str | None = None, extra: str | None = None
) -> MissingDependencyError:
    """Turn a failed import into an error that names the command that fixes it.

    Args:
        error: what the import raised; a package that ``module`` imports may be the cause.
        purpose, module, extra: see ``require``; without a module, the one that could not be imported.
    """
    failed = (error.name or "").partition(".")[0]
    library = _LIBRARY.search(str(error))
    if failed == "cv2":
        why = f"the system's library {library[1]} is missing" if library is not None else str(error)
        system = f"apt-get install {OPENCV_PACKAGES}" if library is not None else "pip install opencv-python"
        return MissingDependencyError(
            f"{purpose} needs OpenCV, which cannot be imported here: {why}",
            hint=f"Run: {system}   (or, without windows: pip uninstall opencv-python, then pip install "
            "opencv-python-headless)",
        )
    wanted = f"pip install 'vmkla[{extra}]'" if extra else f"pip install --force-reinstall {module or failed}"
    if extra is None and (module or failed) == "onnxruntime":
        wanted = REINSTALL_ONNXRUNTIME
    return MissingDependencyError(
        f"{purpose} needs the package {module or failed!r}, which cannot be imported here: {error}",
        hint=f"Run: {wanted}",
    )


def _disable_onnxruntime_telemetry() -> None:
    """Disable onnxruntime's telemetry: DNS queries, connections and a database in the user's cache folder.

    onnxruntime reads the variable while it is imported, and no later call stops what it began then. This is
    the only place below ``cli`` that changes the environment (docs/adr/0009).
    """
    global _warned
    too_late = "onnxruntime" in sys.modules and os.environ.get(_SWITCH) != "1"
    os.environ[_SWITCH] = "1"
    if too_late and not _warned:
        _warned = True
        warnings.warn(
            f"onnxruntime was imported before vmkla could set {_SWITCH}=1: its telemetry may be on in this "
            f"process. Import vmkla's runners first, or set {_SWITCH}=1 before Python starts.",
            RuntimeWarning,
            stacklevel=3,
        )
