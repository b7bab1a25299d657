"""Run Python, or the tests, as if this x86-64 CPU had fewer instruction sets.

    python tests/as_cpu.py avx2|avx512|vnni [PYTHON ARGUMENTS ...]
    python tests/as_cpu.py avx2 -m pytest tests/calibration

See ``other_cpus``. Processes that are started with ``python -I`` see the CPU as it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from tests.other_cpus import PROFILES, build, environment


def main() -> int:
    """Run the command; its exit status, or 2 for wrong arguments and 4 where this CPU lacks something."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in PROFILES or not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if not PROFILES[name].runs_here():
        print(f"this CPU lacks instruction sets of {name}", file=sys.stderr)
        return 4
    with tempfile.TemporaryDirectory(prefix="vmkla-cpu-") as folder:
        made = build(Path(folder) / "copies")
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment(name, made), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
