"""Check a base install from inside it: no torch, no onnx, and one clip rendered and segmented."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

FRAMES = 12


def vmkla(*arguments: str) -> str:
    """Run the installed command and return its stdout; ends the check when it fails."""
    command = [str(Path(sys.executable).with_name("vmkla")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Ends with a message when something is wrong."""
    for absent in ("torch", "onnx", "onnxscript", "safetensors"):
        if importlib.util.find_spec(absent) is not None:
            sys.exit(f"{absent} is installed; the base install must do without it")
    vmkla("--version")
    vmkla("sample", "clip.mp4", "--frames", str(FRAMES), "--seed", "3")
    report = json.loads(vmkla("infer", "--video", "clip.mp4", "--out", "out", "--save-masks", "--json"))

    import av

    with av.open("out/overlay.mp4") as container:
        written = sum(1 for _ in container.decode(video=0))
    lines = Path("out/frames.jsonl").read_text(encoding="utf-8").splitlines()
    if written != FRAMES or len(lines) != FRAMES:
        sys.exit(f"{FRAMES} frames in, {written} in overlay.mp4, {len(lines)} in frames.jsonl: {report}")
    vmkla("doctor", "--json")
    print(f"Python {sys.version.split()[0]}: {written} frames segmented without torch")


if __name__ == "__main__":
    main()
