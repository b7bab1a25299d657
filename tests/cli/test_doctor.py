"""``vmkla doctor``: what works is true, and what is missing comes with a command."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import pytest

from vmkla import __version__
from vmkla.engines import doctor
from vmkla.native import CPU_LIBRARY


def document_has_gpu(document: Any) -> bool:
    return bool(findings(document, "gpu")["NVIDIA GPU"]["works"])


def findings(document: Any, group: str) -> dict[str, Any]:
    return {finding["name"]: finding for finding in document["findings"] if finding["group"] == group}


def test_what_is_here_works(vmkla: Any) -> None:
    done = vmkla("doctor", "--json")
    assert done.status == 0
    document = done.json
    assert document["vmkla"] == __version__ and document["cores"] >= 1
    packages = findings(document, "package")
    for name in ("numpy", "onnxruntime", "torch"):
        assert packages[name]["works"] and packages[name]["detail"] == importlib.metadata.version(name)
    assert "instruction set" in findings(document, "library")[CPU_LIBRARY]["detail"]
    found = findings(document, "backend")
    assert set(found) == {"native", "reference", "triton", "mamba_ssm"}
    assert found["native"]["works"] and found["reference"]["works"]
    if not document_has_gpu(document):
        assert not found["triton"]["works"] and "NVIDIA GPU" in found["triton"]["detail"]
    assert "with vmkla's kernels" in findings(document, "runtime")["onnxruntime"]["detail"]


@pytest.mark.parametrize(("missing", "words"), [(None, "and cpu-vnni"), ("vnni", "no VNNI: ")])
def test_which_int8_files_run(
    vmkla: Any, monkeypatch: pytest.MonkeyPatch, missing: str | None, words: str
) -> None:
    monkeypatch.setattr(doctor, "missing_for_int8", lambda: missing)
    finding = findings(vmkla("doctor", "--json").json, "runtime")["INT8 on this CPU"]
    assert finding["works"] and words in finding["detail"] and "--target cpu" in finding["detail"]


def test_every_missing_package_has_its_command() -> None:
    missing = [f for f in doctor.diagnose().findings if f.group == "package" and not f.works]
    assert missing, "the tests install no CUDA package, so some are missing"
    for finding in missing:
        assert finding.fix is not None and finding.fix.startswith("pip install ")
        assert finding.needed_for


def test_it_ends_with_a_verdict(vmkla: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = vmkla("doctor")
    assert done.stdout.splitlines()[-1] == "CPU inference: ready"
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("vmkla.weights.shipped", lambda suffix: {})
    done = vmkla("doctor")
    assert done.status == 0
    assert done.stdout.splitlines()[-1] == "CPU inference: not ready, without av, shipped weights"


def test_either_opencv_counts_and_developers_tools_do_not(
    vmkla: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def headless(name: str) -> str:
        if name == "opencv-python":
            raise importlib.metadata.PackageNotFoundError(name)
        return "4.12.0.88" if name == "opencv-python-headless" else version(name)

    monkeypatch.setattr("importlib.metadata.version", headless)
    document = vmkla("doctor", "--json").json
    packages = findings(document, "package")
    assert packages["opencv-python"]["works"]
    assert packages["opencv-python"]["detail"] == "opencv-python-headless 4.12.0.88"
    assert not {"pytest", "ruff", "mypy", "polygraphy", "selenium"} & set(packages)
    assert {"numpy", "torch", "onnx", "starlette"} <= set(packages)
    assert document["cpu_inference_ready"] is True


def test_nothing_missing_makes_it_fail(vmkla: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a cart with a broken library: no torch, no onnxruntime, no compiled kernels."""
    for module in ("torch", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    monkeypatch.setattr("vmkla.__path__", [])
    document = vmkla("doctor", "--json").json
    assert not findings(document, "runtime")["onnxruntime"]["works"]
    assert not findings(document, "runtime")["torch"]["works"]
    library = findings(document, "library")[CPU_LIBRARY]
    assert not library["works"] and "pip install" in library["fix"]
    assert all(not backend["works"] for backend in findings(document, "backend").values())


def test_the_text_lists_the_same(vmkla: Any) -> None:
    done = vmkla("doctor")
    assert done.status == 0 and f"vmkla {__version__}" in done.stdout
    for finding in doctor.diagnose().findings:
        assert finding.name in done.stdout and (finding.fix or "") in done.stdout
