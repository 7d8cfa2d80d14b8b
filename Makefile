# Everything from a fresh Linux machine: Python >= 3.10, a C++ compiler and the package registry are enough.
# Set-up is kept in stamp files inside the virtual environment, so each command is quick to repeat.

PYTHON ?= python3
VENV ?= .venv
REPORT ?= build/report
BENCH_ARGS ?=
GPU_ARGS ?=
PYTEST_ARGS ?=
# Test processes at a time; each may take 2 GiB.
WORKERS ?= 2

PY := $(VENV)/bin/python
PYTEST = $(PY) -m pytest -n $(WORKERS) --dist worksteal
DEPENDENCIES := $(VENV)/.stamp-dependencies
BUILT := $(VENV)/.stamp-built
SOURCES := $(shell find csrc -type f 2>/dev/null)
# An extension fits one torch: another torch in the environment means building again.
TORCH := $(wildcard $(VENV)/lib/python*/site-packages/torch/version.py)

.PHONY: help build bench test quick mutants cubins gpu-check clean toolchain
.DEFAULT_GOAL := help

help:
	@echo "make bench   set up .venv, build, race eager, torch.compile and fused, and write a report (5 minutes)"
	@echo "make test    set up, build and run the whole test suite"
	@echo "make quick   of each test not marked slow a sample of its cases (3 minutes)"
	@echo "make mutants seed bugs into the CUDA and Triton kernels and see that the tests catch each (needs nvcc, no GPU; 45 minutes)"
	@echo "make build   set up .venv and build the extensions"
	@echo "make cubins  compile the CUDA and Triton kernels for every architecture and write the tables in tests/resources (needs nvcc)"
	@echo "make gpu-check   on a machine with an NVIDIA GPU: build for it, test, race (10 minutes; nothing is downloaded)"
	@echo "make clean   remove what the build and the benchmarks left; .venv stays"
	@echo "Options: BENCH_ARGS='--model resnet50 --mode infer' PYTEST_ARGS='-k bench' WORKERS=1 GPU_ARGS='--quick' PYTHON=python3.12 VENV=.venv"

toolchain:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "resnet_fused needs Python 3.10 or newer: install it, or name it with make PYTHON=python3.12" >&2; exit 1; }
	@command -v $(firstword $(if $(filter default,$(origin CXX)),c++,$(CXX))) >/dev/null 2>&1 || \
	  { echo "resnet_fused needs a C++ compiler: install one, for example with apt-get install g++" >&2; exit 1; }

$(PY): | toolchain
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "the virtual environment could not be made: install Python's venv module, for example with apt-get install python3-venv" >&2; exit 1; }

$(DEPENDENCIES): pyproject.toml | toolchain $(PY)
	@test -f "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
	  { echo "resnet_fused needs Python's headers: install them, for example with apt-get install python3-dev" >&2; exit 1; }
	$(PY) -m pip install --quiet 'torch>=2.6' torchvision 'setuptools>=70' wheel ninja pybind11
	@touch $@

$(BUILT): $(DEPENDENCIES) setup.py pyproject.toml $(SOURCES) $(TORCH) | toolchain
	$(PY) -m pip install --quiet --no-build-isolation -e '.[dev]'
	@touch $@

build: $(BUILT)

bench: $(BUILT)
	$(PY) -m resnet_fused bench --report $(REPORT) $(BENCH_ARGS)

test: $(BUILT)
	$(PYTEST) tests benchmarks --slow --benchmark-disable $(PYTEST_ARGS)

quick: $(BUILT)
	$(PYTEST) tests --sample 6 $(PYTEST_ARGS)

mutants: $(BUILT)
	PYTHONPATH=tests $(PY) -m mutants
	PYTHONPATH=tests $(PY) -m mutants.triton_bn
	PYTHONPATH=tests $(PY) -m mutants.triton_conv

cubins: $(DEPENDENCIES)
	PYTHONPATH=tests $(PY) -m resources
	PYTHONPATH=tests $(PY) -m resources.triton_bn
	PYTHONPATH=tests $(PY) -m resources.triton_convolutions

# No .venv is made: such a machine has its own torch and may have no network.
gpu-check:
	@PYTHONPATH=benchmarks $(if $(wildcard $(PY)),$(PY),$(PYTHON)) -m gpu_check $(GPU_ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .benchmarks
	rm -f resnet_fused/_cpu*.so resnet_fused/_cuda*.so resnet_fused/*.torch-version $(BUILT)
	find resnet_fused tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
