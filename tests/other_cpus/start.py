"""Loaded by Python at its start, as ``sitecustomize``, in processes that run as another CPU."""

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


class _FirstFolder(importlib.abc.MetaPathFinder):
    """Makes vmkla find the copy of its compiled library before the original."""

    _asked = False

    def find_spec(self, fullname, path, target=None):  # type: ignore[no-untyped-def]
        if fullname != "vmkla" or self._asked:
            return None
        self._asked = True  # the search below comes here again
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.submodule_search_locations is not None:
            spec.submodule_search_locations.insert(0, str(_FOLDER / "vmkla"))
        return spec


def _hide() -> None:
    rows = [int(number, 16) for number in os.environ["VMKLA_TEST_CPU_BITS"].split()]
    library = ctypes.CDLL(str(_FOLDER / "cpuid.so"))
    if library.hide((ctypes.c_uint32 * len(rows))(*rows), len(rows) // 6) != 0:
        raise SystemExit("the handler of CPUID could not be installed")


_hide()
sys.meta_path.insert(0, _FirstFolder())
