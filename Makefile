# Everything starts with `make install`, which the other targets do by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Dozens of processes start in a test and in a demo: what they import is compiled once, ours when first imported.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check lint types format bench bench-serving bench-batch bench-rollback soak soak-serving chaos clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): constraints.txt pyproject.toml packages/gyrostat-runtime/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error  Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints-bootstrap.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e packages/gyrostat-runtime -e .
	@touch $(STAMP)

install: $(STAMP)  ## Set up .venv with everything, pinned and hash-checked; then .venv/bin/gyrostat works

demo: $(STAMP)  ## The whole story on real data, in minutes (ARGS="--exit" ends everything afterwards)
	$(BIN)/gyrostat demo $(ARGS)

test: $(STAMP)  ## Tests for people: unit, property, contract, whole loop, 1,000 simulated histories
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(STAMP)  ## The above and what takes longer
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## Only what `make test` leaves out
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow $(ARGS)

check: lint types test  ## What CI runs first: lint, types, test

lint: $(STAMP)  ## Style, and the import contract of ARCHITECTURE.md
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP)  ## Static types
	$(BIN)/basedpyright

format: $(STAMP)  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## Print the figures that README promises, measured here
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-batch: $(STAMP)  ## Rows a minute of `gyrostat predict` beside the bare minimum (ARGS="2000000": fewer rows)
	$(BIN)/python benchmarks/batch.py $(ARGS)

bench-rollback: $(STAMP)  ## From fault to finished rollback at 100 requests a second, in some minutes
	$(BIN)/python benchmarks/rollback.py $(ARGS)

bench-serving: $(STAMP)  ## The model server beside the bare minimum and its peers (ARGS="--peers all": those that install)
	$(BIN)/python -m benchmarks.serving $(ARGS)

soak-serving: $(STAMP)  ## 10 minutes of load with a swap each 20 s: no failed request, flat memory (ARGS="--requests 1000000": over 100 swaps)
	$(BIN)/python -m benchmarks.serving.soak $(ARGS)

soak: $(STAMP)  ## 30,000 simulated histories, with a table of what was tried and what held (ARGS="1000": fewer)
	$(BIN)/python -m tests.loop.simulation $(or $(ARGS),30000)

chaos: $(STAMP)  ## kill -9 of every process at each of its points, and at 1,000 random instants (ARGS="50": fewer)
	$(BIN)/python -m tests.chaos $(ARGS)

clean:  ## Remove the set-up and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
