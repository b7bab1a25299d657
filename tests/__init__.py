"""The tests and their helpers, each beside what it serves."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

FIND_TESTS = f"import sys; sys.path.append({str(ROOT)!r})\n"
"""First line of code that imports from here in a process of its own; vmkla stays the installed one."""
