"""Find the weights that ship with vmkla by name."""

from __future__ import annotations

from pathlib import Path

from vmkla.errors import BadInputError

_FOLDER = Path(__file__).parent


def shipped(suffix: str = ".onnx") -> dict[str, Path]:
    """Return the file of every shipped model of one kind, by name.

    Args:
        suffix: ``".onnx"`` or ``".safetensors"``.
    """
    return {path.stem: path for path in sorted(_FOLDER.glob(f"*{suffix}"))}


def resolve(name_or_path: str | Path, suffix: str = ".onnx") -> Path:
    """Find the file of a model's name or path.

    Args:
        name_or_path: name of a shipped model, or a file. A text without a folder or suffix is a name.
        suffix: suffix of the file of a name.
    Returns:
        Path of an existing file.
    Raises:
        BadInputError: there is neither a shipped model nor a file of that name.
    """
    known = shipped(suffix)
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text in known:
        return known[text]
    path = Path(name_or_path)
    if path.is_file():
        return path
    hint = f"Shipped models: {', '.join(known) or 'none'}. Give one of these names, or the path of a file."
    if path.is_dir():
        raise BadInputError(f"{text} is a folder, expected a model file", hint=hint)
    if path.suffix or path.name != text:
        raise BadInputError(f"there is no model file {text}", hint=hint)
    raise BadInputError(f"there is no shipped {suffix} model {text!r}, and no file of that name", hint=hint)
