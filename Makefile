# Every target creates the environment if necessary; `make` lists the targets.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# Arguments of pip for PyTorch; constraints.txt pins the version.
TORCH ?= torch

# The first Python that runs, is new enough and can create environments. It is tested by running it: a name on the PATH
# may be a pyenv shim without a version, and a system's Python may lack ssl or ensurepip.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, ssl, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# Tests run in parallel with one thread each: one per core plus one, because many tests wait for other processes.
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1) + 1 )))

# Where tests are marked gpu or triton: collecting all others takes longer than running these.
GPU_TESTS := tests/gpu tests/engine/test_graphs.py tests/model/signals/unet/test_streams.py tests/problems/test_randomness.py tests/scripts/test_measure_gpu.py
TRITON_TESTS := tests/model/signals/unet/triton_kernels

# They are few: starting further processes takes longer than they do.
FEW_WORKERS := $(if $(filter 1,$(WORKERS)),1,2)

# Quiet: print errors only; no progress and no warnings. pip compiles modules one by one; see COMPILE.
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt

# Compile the modules that every start imports, on all cores. The others are compiled when they are first imported.
STARTED := torch pytorch_lightning lightning_fabric lightning_utilities torchmetrics jsonargparse numpy omegaconf \
	tensorboard PIL tifffile imagecodecs yaml
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/(tests?|testing|_inductor|onnx)/' $(addprefix $(VENV)/lib/python*/site-packages/,$(STARTED))

# If this is set, each process compiles the modules that it imports, and pytest rewrites the tests in each of its workers.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo docs test test-slow test-extras lint format types clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

# The stamp is written last, so that a failed installation is repeated.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		python='$(PYTHON)'; \
		if [ -z "$$python" ]; then \
			echo "No Python 3.11 or newer with ssl and venv was found. Install one, or specify it: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Creating $(VENV) with $$($$python --version)"; \
		$$python -m venv --clear $(VENV); \
	fi
# PyTorch first and pinned: pip then prefers the CPU build of that version if the index offers one (2.13.0+cpu before
# 2.13.0). Without the pin it would download the newest release, with gigabytes of CUDA packages.
	@echo "Installing PyTorch (minutes, the first time)"
	@$(PIP) $(TORCH)
	@echo "Installing dop_lightning and its tools"
	@$(PIP) -e ".[dev,astro,matlab,figures,theory,cluster,estimator,video,tune,rivals,docs]"
# Triton, for its tests only: outside the environment, because PyTorch imports it if present, which slows every start.
	@if [ "$$(uname -s)" = Linux ]; then $(PIP) --upgrade --no-deps --target $(VENV)/triton triton; fi
	@$(COMPILE) || true
	@touch $@

setup: $(STAMP) ## create the environment in .venv

demo: $(STAMP) ## restore a sample photograph, into demo/
	@$(BIN)/python scripts/demo.py

docs: $(STAMP) ## build the site of docs/ in docs/_build/html
	@$(BIN)/python -m sphinx -b html -n -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

test: $(STAMP) ## run all checks: lint, types, tests
	@$(MAKE) --no-print-directory -j2 lint types
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu and not triton and not slow"
	@if [ "$$(uname -s)" = Linux ]; then PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -n $(FEW_WORKERS) -m triton $(TRITON_TESTS); fi
	@$(BIN)/python -m pytest -n $(FEW_WORKERS) --dist worksteal -m gpu -p tests.pretend_cuda.plugin $(GPU_TESTS)

test-slow: $(STAMP) ## run the slowest tests, which `make test` skips
	@$(BIN)/python -m pytest -m "slow and not gpu" tests

# A wheel for each extra, into .venv-extras; EXTRAS="hdf5 ray" tests only these.
test-extras: $(STAMP) ## test each extra in a separate environment, in .venv-extras
	@$(BIN)/python scripts/test_extras.py $(EXTRAS)

lint: $(STAMP) ## check code, prose, spelling, imports and duplicates
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python scripts/check_prose.py
	@$(BIN)/codespell
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pylint dop_lightning

format: $(STAMP) ## format the code, and fix what ruff can fix
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

types: $(STAMP) ## check static types
	@$(BIN)/python -m mypy

clean: ## remove caches, builds and demo/ (not the environment and runs/)
	@rm -rf build dist demo docs/_build htmlcov .coverage .coverage.* .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
