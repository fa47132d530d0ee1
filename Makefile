# Everything works from nothing but Python 3.11 and make: the targets set up their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# What the linters need, without torch.
LINT := .venv-lint
LINTERS := $(LINT)/ready
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

.PHONY: demo test quick test-slow coverage check lint format docs clean

demo: $(READY)  ## Train a Vision Transformer on the built-in images and open the result
	$(BIN)/vitral train --output runs/demo

test: $(READY)  ## All tests but the slow ones and those that need a GPU
	$(TESTS) -m "not slow and not gpu"

quick: $(READY)  ## The tests of what has changed since the last commit, and a core: under a minute
	$(BIN)/python scripts/quick.py

test-slow: $(READY)  ## The slow tests
	$(BIN)/python -m pytest -q -m "slow and not gpu"

coverage: $(READY)  ## Which lines the tests run, in percent and as a page in build/coverage
	$(TESTS) -m "not slow and not gpu" --cov=vitral --cov-report=term:skip-covered --cov-report=html:build/coverage

check: $(READY)  ## Format, lint, types and the directions of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: $(LINTERS)  ## As check, but for the types: needs no torch, and half a minute from nothing
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/ruff check .
	$(LINT)/bin/lint-imports

format: $(READY)  ## Bring the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## Write anew what is drawn from the code: docs/api.md, docs/images/floors.svg
	$(BIN)/python scripts/write_docs.py

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

$(LINTERS): pyproject.toml constraints.txt
	test -x $(LINT)/bin/python || $(PYTHON) -m venv $(LINT)
	$(LINT)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ruff import-linter
	touch $(LINTERS)

clean:
	rm -rf $(VENV) $(LINT) build dist
