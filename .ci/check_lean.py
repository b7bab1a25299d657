"""Check a base install from inside it: no torch, no onnx, and one clip rendered and segmented.

python .ci/check_lean.py [FRAMES], by the Python of the install, in a folder that it may write to.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path


def vmkla(*arguments: str) -> str:
    """Run the installed command and return its stdout; ends the check when it fails."""
    command = [str(Path(sys.executable).with_name("vmkla")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Ends with a message when something is wrong."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    for absent in ("torch", "onnx", "onnxscript", "safetensors"):
        if importlib.util.find_spec(absent) is not None:
            sys.exit(f"{absent} is installed; the base install must do without it")
    vmkla("--version")
    vmkla("sample", "clip.mp4", "--frames", str(frames), "--seed", "3")
    report = json.loads(vmkla("infer", "--video", "clip.mp4", "--out", "out", "--save-masks", "--json"))

    import av

    with av.open("out/overlay.mp4") as container:
        written = sum(1 for _ in container.decode(video=0))
    lines = Path("out/frames.jsonl").read_text(encoding="utf-8").splitlines()
    if written != frames or len(lines) != frames:
        sys.exit(f"{frames} frames in, {written} in overlay.mp4, {len(lines)} in frames.jsonl: {report}")
    vmkla("doctor", "--json")
    machine = f"Python {platform.python_version()} on {platform.machine()}"
    print(f"{machine}: {written} frames segmented without torch")


if __name__ == "__main__":
    main()
