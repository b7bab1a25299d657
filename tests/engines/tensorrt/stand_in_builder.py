"""Build on the stand-in GPU with TensorRT-RTX's real network and parser, and the stand-in's engines.

TensorRT itself cannot be had here. Its builder needs a GPU and takes plugins, which TensorRT-RTX's does not,
so two classes derive from TensorRT-RTX's: the parser puts the function bodies back where the plugins of a
loaded library would run, and the builder writes an engine that the stand-in computes with ONNX Runtime. Like
TensorRT 10.3, it takes a plugin only where the file has no function of that name. Its network shows a
layer for each node that a plugin runs, which the real one has in the place of the body's.
"""

from __future__ import annotations

import json
import types
from typing import Any

import onnx
import tensorrt_rtx

from tests.engines.tensorrt import stand_in_tensorrt
from vmkla.export import bodies

SHARED = (
    "BuilderFlag",
    "IErrorRecorder",
    "ILogger",
    "IProgressMonitor",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
)
"""What is TensorRT-RTX's own."""

BODIES = {
    "SelectiveScan2d": bodies.scan_body,
    "BSplineBasis": lambda: bodies.bspline_body(3, uniform=True),
}


class PluginLayer:
    """Layer of a node that a plugin runs."""

    type = tensorrt_rtx.LayerType.PLUGIN_V3
    num_outputs = 1

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype

    def get_output(self, index: int) -> Any:
        assert index == 0
        return types.SimpleNamespace(dtype=self._dtype)


class Network:
    """TensorRT-RTX's network, and behind its layers those of plugins."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._plugins: list[PluginLayer] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def num_layers(self) -> int:
        return int(self._real.num_layers) + len(self._plugins)

    def get_layer(self, index: int) -> Any:
        own = self._real.num_layers
        return self._real.get_layer(index) if index < own else self._plugins[index - own]


class OnnxParser(tensorrt_rtx.OnnxParser):  # type: ignore[misc]
    """Takes a custom node whose creator is registered."""

    def __init__(self, network: Any, logger: Any) -> None:
        super().__init__(network._real, logger)
        self._network = network

    def parse(self, model: bytes, path: str | None = None) -> bool:
        read = onnx.load_model_from_string(model)
        functions = set() if Builder.prefers_plugins else {function.name for function in read.functions}
        registry = stand_in_tensorrt.get_plugin_registry()
        by_plugin = []
        for name in sorted({node.op_type for node in read.graph.node if node.domain == "vmkla"} - functions):
            if registry.get_creator(name, "1", "vmkla") is not None:
                by_plugin.append(name)
                if name not in {function.name for function in read.functions}:
                    read.functions.append(BODIES[name]())
        if not Builder.prefers_bodies:
            calls = [node for node in read.graph.node if node.op_type in by_plugin]
            self._network._plugins += [PluginLayer(tensorrt_rtx.DataType.FLOAT) for _ in calls]
        Builder.parsed[self._network.name] = (model, by_plugin)
        return bool(super().parse(read.SerializeToString()))


class Builder(tensorrt_rtx.Builder):  # type: ignore[misc]
    """Writes the stand-in's engines.

    Attributes:
        parsed: the network's file and its plugins, by the network's name.
        swapped: a file to build instead, as a builder that goes wrong would.
        prefers_bodies: its parser expands a body although there is a plugin.
        prefers_plugins: its parser takes a plugin although there is a body, as TensorRT's from 10.7 on.
    """

    parsed: dict[str, tuple[bytes, list[str]]] = {}
    swapped: bytes | None = None
    prefers_bodies = False
    prefers_plugins = False

    def create_network(self, flags: int = 0) -> Any:
        return Network(super().create_network(flags))

    def create_optimization_profile(self) -> Any:
        self._profile = super().create_optimization_profile()
        return self._profile

    def build_serialized_network(self, network: Any, config: Any) -> bytes:
        model, plugins = Builder.parsed[network.name]
        batches = [shape[0] for shape in self._profile.get_shape("frames")]
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        for step in range(2):
            assert monitor.step_complete("Building engine", step)
        monitor.phase_finish("Building engine")
        head = json.dumps({"profile": batches, "plugins": plugins}).encode()
        return head + b"\n" + (Builder.swapped or model)


class EngineInspector:
    """Knows the nodes of the file in an engine."""

    def __init__(self, model: bytes) -> None:
        self._model = model

    def get_engine_information(self, format: Any) -> str:
        assert format == tensorrt_rtx.LayerInformationFormat.JSON
        nodes = onnx.load_model_from_string(self._model).graph.node
        return json.dumps({"Layers": [{"Name": node.name, "LayerType": node.op_type} for node in nodes]})


class Runtime(stand_in_tensorrt.Runtime):
    """Its engines have an inspector."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        engine = super().deserialize_cuda_engine(serialized_engine)
        if engine is not None:
            model = serialized_engine.partition(b"\n")[2]
            engine.create_engine_inspector = lambda: EngineInspector(model)  # type: ignore[attr-defined]
        return engine


def module() -> types.ModuleType:
    """Return the module that ``import tensorrt`` finds."""
    made = stand_in_tensorrt.module("tensorrt")
    made.__dict__.update({name: getattr(tensorrt_rtx, name) for name in SHARED})
    made.__dict__.update(Builder=Builder, OnnxParser=OnnxParser, Runtime=Runtime)
    return made
