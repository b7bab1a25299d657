"""Read PyTorch's pickled files without running code in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from vmkla.bounded import Archive
from vmkla.errors import BadInputError

# Checkpoints of the Swin and VMamba family carry their training configuration as an object of the
# package yacs. A plain dictionary replaces its class, and runs no code.
_REPLACEMENTS: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]


def read_pickle(path: Path) -> Any:
    """Read the tensors and plain containers of a ``.pt`` or ``.pth`` file.

    Args:
        path: the file.
    Returns:
        The saved object, with its tensors on the CPU.
    Raises:
        BadInputError: the file is missing, damaged, not PyTorch's, or holds an object that only running
            code can load.
    """
    if not path.is_file():
        raise BadInputError(f"there is no checkpoint {path}")
    try:
        if zipfile.is_zipfile(path):
            with Archive(path) as archive:
                archive.check()  # torch does not compare the checksums that it writes
        with torch.serialization.safe_globals(_REPLACEMENTS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        seen = re.search(r"GLOBAL (\S+)", str(error))
        raise BadInputError(
            f"{path} is not a file of plain tensors, and nothing else is loaded"
            + (f"; it asks for {seen[1]}" if seen else ""),
            hint="Re-save it where you trust it: torch.save(model.state_dict(), FILE)",
        ) from error
    except Exception as error:  # a damaged pickle makes its reader raise any error
        raise BadInputError(
            f"{path} cannot be read as a PyTorch checkpoint: {error}",
            hint="Fetch the file again; the download may have been cut off.",
        ) from error
