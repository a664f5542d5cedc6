# Each target makes the environment when it is missing, and not again when it is there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-oldest torture check format docs wheel-test bench clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*##/make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "tlcache needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(READY)  ## Make the environment in .venv with the tested versions

demo: $(READY)  ## The whole job on scikit-learn's digits: extract, fit all heads, fine-tune, one table
	$(BIN)/tlcache demo

# Threads that spin while they wait would take the cores from the other tests, and each of these has one core.
test test-slow test-oldest: export OMP_WAIT_POLICY = passive
test test-oldest: export OMP_NUM_THREADS = 1

test: $(READY)  ## Run the tests, but for those that take long
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not real"

test-slow: $(READY)  ## Run those that take long, with real images and weights where they are at hand (TLCACHE_REAL)
	$(BIN)/python -m pytest -m "slow or real"

# What the oldest use is deprecated by the newest of what they depend on in turn: warnings are no errors there.
test-oldest:  ## Run the tests with the oldest versions of what tlcache depends on, in an environment of their own
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	build/oldest/bin/python -m pytest -n auto --dist worksteal -W default -m "not slow and not real"

torture: $(READY)  ## Provoke faults for a quarter of an hour: kills, full disks, flipped bits, damaged images
	$(BIN)/python tests/torture.py --json torture.json

check: $(READY)  ## Lint, formatting, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## Build the manual, build/site/index.html, which needs no network; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

wheel-test: $(READY)  ## Install the built wheel in an empty environment and use it there: extract, fit-heads, predict
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --constraint constraints.txt build/wheel/tlcache-*.whl
	cd build/wheel && export TLCACHE_CACHE=cache && venv/bin/tlcache doctor && \
	  venv/bin/tlcache extract --data digits --model resnet20_cifar && venv/bin/tlcache fit-heads --heads ridge && \
	  venv/bin/tlcache predict --best cache/data/digits --out predictions.csv && head -n 3 predictions.csv

bench: $(READY)  ## Timing tables; QUICK=1: in two minutes, IMAGES=DIR: on your own JPEGs
	$(BIN)/python -m benchmarks $(if $(IMAGES),--images $(IMAGES))

clean:  ## Remove the environment and everything that tools left; features and runs stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
