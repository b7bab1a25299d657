"""Late imports of heavy or optional packages, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from vmkla.errors import MissingDependencyError


def require(module: str, *, extra: str | None, purpose: str) -> Any:
    """Import ``module`` or say which extra brings it.

    Args:
        module: dotted name, for instance ``"onnx"``.
        extra: the optional-dependency group of vmkla that installs it; None for what every
            installation has.
        purpose: what needs it, for the message, for instance ``"vmkla export"``.
    Returns:
        The imported module.
    Raises:
        MissingDependencyError: the module is not installed, or fails to import.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = f"'vmkla[{extra}]'" if extra else f"--force-reinstall {module}"
        raise MissingDependencyError(
            f"{purpose} needs the package {module!r}, which cannot be imported here: {error}",
            hint=f"Run: pip install {wanted}",
        ) from error
