"""Run models and check them: runners, TensorRT engines, and the comparison that every step ends in."""

from vmkla.engines.runners.load import RUNTIMES, load_runner

__all__ = ["RUNTIMES", "load_runner"]
