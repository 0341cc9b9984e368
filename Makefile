# Needs Python 3.11 or newer, make and a package index; everything else is installed into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready

.PHONY: help install demo test check bench lock clean

help: ## list what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY) ## set up .venv from the lock file, compile the kernels

$(READY): requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once; three to four minutes, most of it compiling)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tidegate needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/tidegate warm-up
	@touch $(READY)

demo: $(READY) ## run the store example end to end and report
	@$(BIN)/python examples/demo.py

test: $(READY) ## run all tests
	@$(BIN)/python -m pytest

check: $(READY) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## run the benchmarks and write docs/benchmarks.md
	@$(BIN)/python -m benchmarks

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header \
	  --generate-hashes --extra pandas --extra report --extra s3 --group dev pyproject.toml -o requirements.lock

clean: ## remove what was installed and made
	rm -rf $(VENV) demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
