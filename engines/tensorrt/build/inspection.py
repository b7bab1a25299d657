"""Read the engine inspector's facts of each layer of an engine, where a GPU can load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.messages import Messages, take_errors
from vmkla.errors import VmklaError


def inspect_engine(api: TensorRTApi, plan: Path, messages: Messages) -> tuple[dict[str, Any], ...]:
    """Return the library's facts of each layer of an engine (name, type, formats, tactic).

    Args:
        api: the library; plugins are registered.
        plan: path of the engine; its manifest was checked against this machine.
        messages: collects the library's messages, for the error.
    Raises:
        VmklaError: the library cannot load the engine.
    """
    runtime = api.make_runtime()
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise VmklaError(f"{api.label} does not load the engine that it has built: {take_errors(messages)}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(api.module.LayerInformationFormat.JSON)
    return layers_of(text)


def layers_of(text: str) -> tuple[dict[str, Any], ...]:
    """Convert the inspector's JSON to one mapping per layer, also where it gives only a layer's name."""
    layers = json.loads(text).get("Layers", [])
    return tuple(layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in layers)
