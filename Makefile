# make quickstart   see scale-equivariant and ordinary networks on real digits (no compiler)
# make test         the suite without its slow tests (no compiler)
# make test-all     the whole suite (compiles MMCV's ops once, and keeps them)
# make test-downstream  detectors and segmentors, in an environment of their own (7 GB)
# make benchmark    time and memory against ordinary networks, in work_dirs/benchmark
# make study NAME=models_scalemnist  train and measure missing runs of a study, see docs/results.md
# make docs         the documentation site, in docs/_build/html
# make lint         ruff, and mypy on the public names
#
# Each target sets up .venv and skips finished steps. Versions are in requirements/constraints.txt.
#
# PYTHON=...        the Python to make .venv with; default: the first on the PATH from 3.11 on
# MMCV_WHEELS=...   a folder with a wheel of MMCV with ops, for this Python and PyTorch
# PYTEST_ARGS=...   arguments of pytest
# BENCHMARK_ARGS=... arguments of tools/benchmark/run.py, such as --against ../old
# CORES=2           cells of a study at a time; default: as many as there are CPU cores
# STUDY_ARGS=...    arguments of Snakemake, such as -n; STUDY_CONFIG=...  see studies/Snakefile

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-downstream benchmark study docs lint ops
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Each successful step leaves a stamp.
STAMPS := $(VENV)/stamps
REQ := requirements
DOWNSTREAM := .venv-downstream
# Stubs hold public names alone, so mypy asks no private function for its types.
STUBS := $(VENV)/stubs
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c $(REQ)/constraints.txt

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PYTEST_ARGS ?=
CORES ?= all
# Most tests are too small for a second thread, so the suite runs a process per core.
WORKERS := --numprocesses logical --maxprocesses 8 --dist worksteal
BENCHMARK_ARGS ?=

# $(call say,what happens,how long it takes)
say = printf '\n==> %s (%s)\n' "$(1)" "$(2)"
# command || $(call failed,what,how to go on)
failed = { printf '\nFAILED: %s\n  %s\n  Then run the same make command again; finished steps are kept.\n' \
	'$(1)' '$(2)' >&2; exit 1; }

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

quickstart: $(STAMPS)/mmscale
	@$(call say,quickstart: train and compare four networks,4 to 5 minutes on 2 CPU cores)
	@$(BIN)/python tools/quickstart.py \
		|| $(call failed,the quickstart,The lines above say why.)

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

test: $(STAMPS)/mmscale
	@$(call say,tests but for the slow ones,4 to 6 minutes on 2 CPU cores)
	@$(PYTEST) -m 'not slow' \
		|| $(call failed,the tests,See the summary above. For one test: make test PYTEST_ARGS="-x -k NAME")

test-all: $(STAMPS)/mmscale $(STAMPS)/docs $(STAMPS)/studies ops
	@$(call say,all tests,20 to 25 minutes on 2 CPU cores)
	@$(PYTEST) || $(call failed,the tests,See the summary above.)

test-downstream: $(DOWNSTREAM)/stamps/packages
	@$(call say,detectors and segmentors,up to 25 minutes on 2 CPU cores)
	@OMP_NUM_THREADS=1 $(DOWNSTREAM)/bin/python -m pytest $(WORKERS) $(PYTEST_ARGS) \
		tests/downstream tests/test_studies/test_cells.py \
		|| $(call failed,the tests of detectors and segmentors,See the summary above.)

benchmark: $(STAMPS)/mmscale
	@$(call say,benchmark on the CPU,10 to 15 minutes and 22 GB of memory on 2 CPU cores)
	@$(BIN)/python tools/benchmark/run.py $(BENCHMARK_ARGS) \
		|| $(call failed,the benchmark,The lines above say why.)

study: $(STAMPS)/mmscale $(STAMPS)/studies
	@$(BIN)/snakemake --snakefile studies/Snakefile --profile studies/profile --cores $(CORES) \
		$(STUDY_ARGS) --config study=$(NAME) $(STUDY_CONFIG) \
		|| $(call failed,the study,The lines above say why.)

docs: $(STAMPS)/mmscale $(STAMPS)/docs
	@$(call say,the documentation site,half a minute)
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html \
		|| $(call failed,the documentation,Each warning above names its page and line.)
	@echo "docs/_build/html/index.html"

lint: $(STAMPS)/mmscale
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@rm -rf $(STUBS) && $(BIN)/stubgen --quiet --no-import --output $(STUBS) mmscale
	@$(BIN)/mypy $(STUBS)

$(STAMPS)/venv:
	@$(call say,virtual environment in $(VENV),seconds)
	@test -n "$(PYTHON)" \
		|| $(call failed,no Python from 3.11 on,Install one or name it: make PYTHON=/path/to/python3)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); $(call failed,making $(VENV),On Debian and Ubuntu: apt install python3-venv); }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(REQ)/constraints.txt | $(STAMPS)/venv
	@$(call say,PyTorch,about 5 minutes; 3 GB to download and 7 GB on disk)
	@$(PIP) torch torchvision \
		|| $(call failed,installing PyTorch,Check the network and the space left on this disk.)
	@touch $@

# The build of MMCV compiles ops only if it sees torch. A build in isolation, as here, makes no ops
# and needs no compiler. pip's cache cannot tell both wheels apart, so it is off. An installed MMCV,
# with or without ops, stays.
$(STAMPS)/packages: $(wildcard $(REQ)/*.txt) | $(STAMPS)/torch
	@$(call say,the other packages,about 2 minutes)
	@$(PIP) --no-cache-dir --no-deps onedl-mmcv \
		&& $(PIP) -r $(REQ)/runtime.txt -r $(REQ)/mminstall.txt -r $(REQ)/tests.txt setuptools \
		|| $(call failed,installing the packages of $(REQ)/,Check the network.)
	@touch $@

$(STAMPS)/mmscale: setup.py pyproject.toml mmscale/version.py | $(STAMPS)/packages
	@$(call say,mmscale itself,seconds)
	@$(PIP) --no-deps --no-build-isolation --editable . \
		|| $(call failed,installing mmscale from this folder,The lines above say why.)
	@touch $@

$(STAMPS)/docs: $(REQ)/docs.txt $(REQ)/constraints.txt | $(STAMPS)/packages
	@$(call say,Sphinx,seconds)
	@$(PIP) -r $(REQ)/docs.txt || $(call failed,installing the packages of $(REQ)/docs.txt,Check the network.)
	@touch $@

$(STAMPS)/studies: $(REQ)/studies.txt $(REQ)/constraints.txt | $(STAMPS)/packages
	@$(call say,Snakemake,seconds)
	@$(PIP) -r $(REQ)/studies.txt || $(call failed,installing the packages of $(REQ)/studies.txt,Check the network.)
	@touch $@

# ---- MMCV with compiled ops

# A compiled wheel depends on PyTorch and Python: torch-2.11.0-cp311. If a GPU is visible, the wheel
# has CUDA ops.
WHEEL_KEY := import sys, torch; print("torch-%s-cp%d%d" % (torch.__version__.split("+")[0], *sys.version_info[:2]) \
	+ "-cu%s" % torch.version.cuda * torch.cuda.is_available())
HAS_OPS := $(BIN)/python -c 'import torch, mmcv._ext'
MMCV_WHEELS ?= $${XDG_CACHE_HOME:-$$HOME/.cache}/mmscale/wheels/$$($(BIN)/python -c '$(WHEEL_KEY)')
INSTALL_OPS = $(PIP) --no-index --no-deps --force-reinstall --find-links "$$wheels" onedl-mmcv
BUILD_OPS = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip wheel \
	--disable-pip-version-check -c $(REQ)/constraints.txt \
	--no-cache-dir --no-deps --no-build-isolation --wheel-dir "$$wheels" onedl-mmcv

# This target has no stamp, so it notices an MMCV that was reinstalled by hand.
ops: $(STAMPS)/mmscale
	@$(HAS_OPS) 2>/dev/null || { \
		wheels="$(MMCV_WHEELS)"; \
		if ! ls "$$wheels"/onedl_mmcv-*.whl >/dev/null 2>&1; then \
			$(call say,MMCV with ops: compiling once into $$wheels,10 to 20 minutes on 2 CPU cores); \
			$(PIP) -r $(REQ)/build-ops.txt && $(BUILD_OPS) \
				|| $(call failed,compiling the ops of MMCV,It needs a C++ compiler and the headers of Python (apt install g++ python3-dev); with a GPU also its CUDA toolkit (CUDA_VISIBLE_DEVICES= make test does without).); \
		fi; \
		$(call say,MMCV with ops: installing the wheel of $$wheels,seconds); \
		$(INSTALL_OPS) && $(HAS_OPS) \
			|| $(call failed,installing MMCV with ops,The wheel does not fit this Python or PyTorch: delete it and it is compiled anew.); \
	}

# ---- MMDetection and MMSegmentation, with the same wheel of MMCV

# PyTorch and MMCV come first, because setup.py of the others needs them.
$(DOWNSTREAM)/stamps/packages: $(REQ)/downstream.txt | ops
	@$(call say,MMDetection and MMSegmentation in $(DOWNSTREAM),about 6 minutes)
	@test -x $(DOWNSTREAM)/bin/python || $(PYTHON) -m venv $(DOWNSTREAM)
	@wheels="$(MMCV_WHEELS)"; install="$(DOWNSTREAM)/bin/python -m pip install --disable-pip-version-check"; \
		$$install -c $(REQ)/downstream.txt torch torchvision setuptools \
		&& $$install --no-index --no-deps --find-links "$$wheels" onedl-mmcv \
		&& $$install -r $(REQ)/downstream.txt \
		&& $$install --no-deps --no-build-isolation --editable . \
		|| $(call failed,installing the packages of $(REQ)/downstream.txt,Check the network and the space left on this disk.)
	@mkdir -p $(@D) && touch $@
