"""Results that repeat: torch's switches, and its random numbers in every process."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vmkla.training.ranks import Ranks


def repeat_matrix_products(environment: MutableMapping[str, str]) -> None:
    """Have cuBLAS repeat its matrix products bit for bit. It reads this when it starts.

    Args:
        environment: of the process; a variable that is set already stays.
    """
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Choose repeatable algorithms where there are any.

    On the CPU an op without one is an error. On a GPU it is a warning: the gradient of a few ops
    (bilinear interpolation, for instance) has none there, and a run beats no run.

    Args:
        wanted: leaves everything as it is when false, but lets cuDNN look for the fastest algorithm.
        device: where the run computes.
    """
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    try:
        if wanted:
            torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
            # Filling every new tensor costs time and finds errors in kernels only.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not wanted
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


def seed_process(seed: int, epoch: int, ranks: Ranks) -> None:
    """Begin this process's random numbers anew, unlike any other process's."""
    torch.manual_seed(int(np.random.SeedSequence((seed, epoch, ranks.rank)).generate_state(1)[0]))


def random_state(device: torch.device) -> dict[str, Any]:
    """Where this process's random numbers stand."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Inverse of ``random_state``."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
