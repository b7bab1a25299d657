"""The tests, and what they share: helpers stand beside what they serve."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
