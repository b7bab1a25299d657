# `make demo` and `make test` are all that a new machine needs: Python 3.10 to 3.13 with pip, g++ 9 or newer, CMake.
# Everything goes into $(VENV); a second run installs again only what changed.

PYTHON ?= python3
VENV ?= .venv
# Plain `torch` brings several gigabytes of CUDA packages on some machines; name another build here if you want it.
TORCH ?= torch==2.13.0
# What to install: this folder, or a wheel that was built from it.
PACKAGE ?= .
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml CMakeLists.txt LICENSE \
	$(shell find vmkla export engines cli calibration -type f -not -name '*.pyc' -not -name '* *')

.PHONY: demo test test-fast test-slow lint format bench install develop clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     render a clip, segment it, say where the overlay is"
	@echo "make test     all tests: the fast ones, then the slow ones"
	@echo "make lint     ruff and mypy"
	@echo "make format   ruff's formatter over all Python files"
	@echo "make bench    measure speed and memory on this CPU, write benchmarks/cpu.md"
	@echo "make develop  editable install, for working on the Python files"

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
	$(PIP) install '$(PACKAGE)[dev]'
	@touch $(VENV)/.base $@

install: $(VENV)/.dev

# The compiled library is rebuilt only by another `make develop`.
develop: $(VENV)/.torch
	$(PIP) install -e '.[dev]'
	@touch $(VENV)/.base $(VENV)/.dev

demo: $(VENV)/.base
	$(BIN)/vmkla sample runs/demo/clip.mp4 --frames 90 --seed 7 --exist-ok
	$(BIN)/vmkla infer --video runs/demo/clip.mp4 --out runs/demo/result --exist-ok

test: test-fast
	$(BIN)/pytest -q -rs -m slow $(PYTEST_FLAGS)

test-fast: $(VENV)/.dev
	$(BIN)/pytest -q -rs -m "not slow" $(PYTEST_FLAGS)

test-slow: $(VENV)/.dev
	$(BIN)/pytest -q -rs -m slow $(PYTEST_FLAGS)

# mypy reads the installed package: only there do the top-level folders sit inside vmkla.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV) && bin/mypy --config-file $(CURDIR)/pyproject.toml -p vmkla

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# About ten minutes; `pip install openvino` into $(VENV) adds its rows.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/cpu.py

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
