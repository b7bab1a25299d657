"""From an ONNX file to something that runs: runners, and the comparison that every step ends in. No torch here."""

from vmkla.engines.load import RUNTIMES, load_runner

__all__ = ["RUNTIMES", "load_runner"]
