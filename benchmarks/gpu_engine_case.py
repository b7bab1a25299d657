"""One engine in a process of its own: compare it with ONNX Runtime, time it, print figures as JSON.

    python benchmarks/gpu_engine_case.py compare MODEL.onnx MODEL.plan tensorrt|tensorrt-rtx
    python benchmarks/gpu_engine_case.py raw MODEL.onnx default|CURRENT

`compare` goes the way of `vmkla infer`. `raw` asks TensorRT-RTX itself to build for and run on a GPU that
`vmkla build` refuses because the library does not list it; torch lends the memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.bench import Latency
from vmkla.engines.gates import ENGINE
from vmkla.engines.load import load_runner
from vmkla.engines.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.api import TensorRTApi, load_api
from vmkla.engines.tensorrt.messages import Messages
from vmkla.engines.verify import check, compare
from vmkla.errors import VmklaError
from vmkla.runner import Runner, RunnerSpec
from vmkla.video.clip import render_clip

FRAMES, TIMED = 6, 200


def frames_for(spec: RunnerSpec) -> npt.NDArray[np.uint8]:
    """(n, H, W, 3) rendered frames, and one of noise."""
    rendered = [rgb for rgb, _ in render_clip(0, spec.height, spec.width, FRAMES)]
    noise = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8)
    return np.stack([*rendered, noise])


def figures(model: Path, candidate: Runner) -> dict[str, Any]:
    """Differences from ONNX Runtime on the same file, gates that do not hold, and times of one frame."""
    reference = OnnxRuntimeRunner(model, warn_unverified=False)
    frames = frames_for(reference.spec)
    comparison = compare(reference, candidate, frames)
    metadata = reference.spec.metadata
    gates = ENGINE[metadata.precision]
    report = check(comparison, gates.without_masks() if metadata.random_weights else gates)
    times = timed(lambda: candidate.infer(frames[:1]))
    return {**comparison.to_dict(), "failures": list(report.failures),
            "infer_p50_ms": times.p50, "infer_p99_ms": times.p99}  # fmt: skip


def timed(infer: Callable[[], object]) -> Latency:
    """Wall time of one frame, copies included."""
    samples_ms = []
    for i in range(TIMED + 20):
        begun = time.perf_counter()
        infer()
        if i >= 20:
            samples_ms.append((time.perf_counter() - begun) * 1e3)
    return Latency.of(samples_ms)


class RawRunner:
    """TensorRT-RTX without vmkla's checks, for a fixed or dynamic batch of one frame."""

    def __init__(self, model: Path, target: str) -> None:
        """Build and load; anything that the library refuses becomes a ``VmklaError``."""
        self.spec = OnnxRuntimeRunner(model, warn_unverified=False).spec
        self.name = "tensorrt-rtx, asked directly"
        api, messages = load_api("tensorrt-rtx"), Messages()
        with api.collecting(messages):
            self._load(api, messages, model, target)

    def _load(self, api: TensorRTApi, messages: Messages, model: Path, target: str) -> None:
        import torch

        trt = api.module
        builder = api.make_builder()
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        network.error_recorder = None  # as in engines/tensorrt/network.py
        parser = trt.OnnxParser(network, api.logger)
        if not parser.parse(model.read_bytes()):
            raise VmklaError("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
        config = builder.create_builder_config()
        if target != "default":
            config.num_compute_capabilities = 1
            if not config.set_compute_capability(getattr(trt.ComputeCapability, target), 0):
                raise VmklaError(f"the builder refuses the target {target}")
        shape = (1, self.spec.height, self.spec.width, 3)
        profile = builder.create_optimization_profile()
        profile.set_shape("frames", shape, shape, shape)
        config.add_optimization_profile(profile)
        begun = time.perf_counter()
        plan = builder.build_serialized_network(network, config)
        self.build_s = time.perf_counter() - begun
        if plan is None:
            raise VmklaError(f"no engine was built: {'; '.join(messages.errors) or 'it said nothing'}")
        self.engine_bytes = plan.nbytes
        self._runtime = api.make_runtime()
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise VmklaError(f"its own engine does not load: {'; '.join(messages.errors)}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise VmklaError(f"the engine has no context: {'; '.join(messages.errors)}")
        self._frames = torch.empty(shape, dtype=torch.uint8, device="cuda")
        size = (1, self.spec.num_classes, self.spec.height, self.spec.width)
        self._probability = torch.empty(size, dtype=torch.float32, device="cuda")
        self._context.set_input_shape("frames", shape)
        self._context.set_tensor_address("frames", self._frames.data_ptr())
        self._context.set_tensor_address("probability", self._probability.data_ptr())
        self._stream = torch.cuda.Stream()

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """As ``Runner.infer``, one frame."""
        import torch

        with torch.cuda.stream(self._stream):
            self._frames.copy_(torch.from_numpy(frames_rgb))
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise VmklaError("the engine did not run")
            result: npt.NDArray[np.float32] = self._probability.cpu().numpy()
        return result

    def close(self) -> None:
        """Nothing to do: the process ends."""


def main(arguments: list[str]) -> int:
    """Print the figures of one case."""
    kind, model = arguments[0], Path(arguments[1])
    try:
        if kind == "compare":
            candidate = load_runner(arguments[2], arguments[3])
            found = figures(model, candidate)
            candidate.close()
        else:
            raw = RawRunner(model, arguments[2])
            found = {**figures(model, raw), "build_s": raw.build_s, "engine_bytes": raw.engine_bytes}
    except VmklaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
