# Every target makes the environment it needs; `make` alone says what there is.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# What pip is asked for as PyTorch, options included; constraints.txt gives the version.
TORCH ?= torch

# The first Python that runs, is new enough and can make environments. Tried by running it: a name on the PATH may be a
# pyenv shim without a version behind it, and a system's Python may lack ssl or ensurepip.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, ssl, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# Tests run beside each other, each in one thread: one per core, and one more, since many wait for processes of their own.
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1) + 1 )))

# Folders with tests marked gpu: collecting all the others takes a minute.
GPU_TESTS := tests/gpu tests/engine tests/model tests/problems tests/scripts

# Quiet: errors are shown; progress and warnings (one a package where an index is incomplete) are not.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo docs test test-slow test-extras lint format types clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

# The stamp is written last, so an installation that failed is tried again.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		python='$(PYTHON)'; \
		if [ -z "$$python" ]; then \
			echo "No Python 3.11 or newer with ssl and venv was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$($$python --version)"; \
		$$python -m venv --clear $(VENV); \
	fi
# PyTorch first and pinned: pip then takes the CPU build of that version where it is offered one (2.13.0+cpu goes before
# 2.13.0). Without the pin it would fetch the newest release, and with it gigabytes of CUDA packages.
	@echo "Installing PyTorch (minutes, the first time)"
	@$(PIP) $(TORCH)
	@echo "Installing dop_lightning and its tools"
	@$(PIP) -e ".[dev,astro,matlab,figures,theory,cluster,estimator,video,tune,rivals,docs]"
# Triton, for its tests alone: it lies beside the environment, since PyTorch imports what it finds, which costs each start time.
	@if [ "$$(uname -s)" = Linux ]; then $(PIP) --upgrade --no-deps --target $(VENV)/triton triton; fi
	@touch $@

setup: $(STAMP) ## the environment, in .venv

demo: $(STAMP) ## a tour of the package, written to demo/
	@$(BIN)/python scripts/demo.py

docs: $(STAMP) ## the site of docs/, in docs/_build/html
	@$(BIN)/python -m sphinx -b html -n -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

test: $(STAMP) ## all checks: lint, types, tests
	@$(MAKE) --no-print-directory -j2 lint types
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu and not triton and not slow"
	@if [ "$$(uname -s)" = Linux ]; then PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -n $(WORKERS) -m triton tests/model; fi
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m gpu -p tests.pretend_cuda.plugin $(GPU_TESTS)

test-slow: $(STAMP) ## the slowest tests, which `make test` leaves out
	@$(BIN)/python -m pytest -m "slow and not gpu" tests

# A wheel for each extra, into .venv-extras; EXTRAS="hdf5 ray" tries these alone.
test-extras: $(STAMP) ## each extra in an environment of its own, in .venv-extras
	@$(BIN)/python scripts/test_extras.py $(EXTRAS)

lint: $(STAMP) ## rules and layout of the code, rooms, duplicates
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pylint dop_lightning

format: $(STAMP) ## put the code into its layout, and mend what can be mended
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

types: $(STAMP) ## static types
	@$(BIN)/python -m mypy

clean: ## remove caches, builds and demo/ (the environment and runs/ stay)
	@rm -rf build dist demo docs/_build htmlcov .coverage .coverage.* .import_linter_cache .mypy_cache .pytest_cache .ruff_cache *.egg-info
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
