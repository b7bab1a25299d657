"""The emulation of other CPUs: what is hidden is hidden from all who ask, and the fault is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import other_cpus
from tests.other_cpus.copies import BREAKPOINT, copy_patched

PRODUCT = """
import ctypes, json, sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from vmkla.cpu_features import cpu_flags, kernel_instruction_set, missing_for_int8

weights = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "product",
    [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 64])],
    [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 16])], [weights],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
(sums,) = session.run(None, {"x": np.full((20, 64), 255, np.uint8)})
print(json.dumps({"sum": int(sums[0, 0]), "equal": bool((sums == sums[0, 0]).all()),
                  "kernels": kernel_instruction_set(), "flags": cpu_flags(),
                  "missing": missing_for_int8()}))
"""
EXACT, SATURATED = 255 * 127 * 64, 32767 * 32  # two products of 8 bits saturate where they are added in 16


@pytest.mark.hardware
@pytest.mark.parametrize(
    ("name", "product", "kernels"),
    [("avx2", SATURATED, {"avx2"}), ("avx512", SATURATED, {"avx512"}), ("vnni", EXACT, {"avx512", "avx2"})],
)
def test_products_saturate_where_vnni_is_hidden(
    other_cpus_folder: Path, name: str, product: int, kernels: set[str]
) -> None:
    other_cpus.require(name)
    done = other_cpus.run(name, other_cpus_folder, "-c", PRODUCT)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["sum"], seen["equal"]) == (product, True)
    assert seen["kernels"] in kernels
    assert seen["missing"] == (None if product == EXACT else "vnni")
    named = [flag for flag in ("avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in seen["flags"]]
    assert "avx2" in seen["flags"]
    if name != "vnni":
        assert named == (["avx512f"] if name == "avx512" else [])


def test_only_instructions_are_replaced(tmp_path: Path) -> None:
    """The two bytes of CPUID within another instruction, and in data, stay."""
    import subprocess

    source, built = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text(
        "const unsigned char data[] = {0x0f, 0xa2, 0x0f, 0xa2};\n"
        "unsigned constant(void) { return 0xa20fa20fu; }\n"
        "unsigned leaf(void) { unsigned a = 0, b, c, d;\n"
        '  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d)); return a; }\n'
    )
    subprocess.run(["gcc", "-O1", "-fPIC", "-shared", "-o", built, source], check=True)
    assert copy_patched(built, tmp_path / "b.so") == 1
    before, after = built.read_bytes(), (tmp_path / "b.so").read_bytes()
    changed = [place for place in range(len(before)) if before[place] != after[place]]
    assert len(before) == len(after) and len(changed) == 2 and changed[1] == changed[0] + 1
    assert after[changed[0] : changed[0] + 2] == BREAKPOINT
