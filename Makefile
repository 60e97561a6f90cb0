# Everything runs in .venv, which every target makes on demand: Python 3.11+ and pip are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AZURITE := $(VENV)/azurite/.installed
TESTS ?= tests
WORKERS ?= 2
SECONDS ?= 60

.PHONY: all demo test check fmt bench fuzz protos docs clean help

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

all: check test ## everything CI does

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

$(AZURITE): $(STAMP) tests/azurite/package-lock.json
	$(BIN)/python scripts/install_azurite.py
	@touch $@

demo: $(STAMP) ## train a real model, serve it, ask it over REST and gRPC
	$(BIN)/python examples/demo.py

test: $(STAMP) $(AZURITE) ## all tests, with real processes and real clients
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)

check: $(STAMP) ## formatting, lint, types, import layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP) ## format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## benchmarks against the peers; see benchmarks/README.md
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(STAMP) ## fuzz every parser for SECONDS each; one: make fuzz PARSERS=oip_rest SECONDS=600
	$(BIN)/python -m pip install --quiet atheris
	for parser in $(or $(PARSERS),$$(ls tests/fuzz/corpus)); do \
		$(BIN)/python tests/fuzz/fuzz.py $$parser -max_total_time=$(SECONDS) -verbosity=0 || exit 1; done

protos: $(STAMP) ## regenerate protocols/proto from the .proto files
	$(BIN)/python scripts/generate_protos.py

docs: $(STAMP) ## regenerate docs/settings.md and docs/headrace.schema.json
	$(BIN)/python -m headrace.app.settings.docs > docs/settings.md
	$(BIN)/python -m headrace.app.settings.schema > docs/headrace.schema.json

clean: ## remove what make has built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
