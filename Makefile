# Everything that CI and people do. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SOURCES := ledger services tests protos/generate.py

.PHONY: help setup demo distributed serve test test-fast soak bench check format proto schemas docs vectors lock clean

help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-11s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with every dependency, pinned by hash, and the command .venv/bin/daybook.

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Daybook needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up .venv …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Register real published decisions over gRPC and verify them offline, end to end.
	@$(BIN)/python -m services.demo

distributed: setup ## The demo's data through Kafka, PostgreSQL and every service of the distributed mode.
	@$(BIN)/python -m services.demo.distributed

serve: setup ## Serve a ledger for trials in ./trial-ledger.
	@test -d trial-ledger || $(BIN)/daybook init trial-ledger --origin trial.daybook.example
	@$(BIN)/daybook serve trial-ledger

test: setup ## Run the checks and every test, in stages with their times.
	@$(BIN)/python tests/stages.py

soak: setup ## Run the repeated-kill tests with 30 rounds and more.
	@DAYBOOK_ROUNDS=30 $(BIN)/pytest -q -m hammer tests/hammer tests/distributed

bench: setup ## Measure against floors in the same run: ratios on the terminal, JSON in bench-results/.
	@$(BIN)/python -m tests.bench

check: setup ## Format, lint, types, generated files up to date.
	@$(BIN)/ruff format --quiet --check $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python protos/generate.py --check
	@$(BIN)/python protos/generate.py --lint
	@echo "check: clean"

format: setup ## Format and mend what the linter can.
	@$(BIN)/ruff check --quiet --fix $(SOURCES) || true
	@$(BIN)/ruff format --quiet $(SOURCES)

proto: setup ## Generate the gRPC code again.
	@$(BIN)/python protos/generate.py

docs: setup ## Generate docs/errors.md and docs/schemas again.
	@$(BIN)/python -m services.errors_page > docs/errors.md
	@$(BIN)/python -m tests.support.write_schemas docs/schemas

lock: ## Resolve dependencies again (needs uv).
	@uv pip compile --quiet --universal --generate-hashes --group dev --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 pyproject.toml --output-file requirements.lock
	@sed -i '1i # Every dependency with its hashes, for: pip install --no-deps --require-hashes -r requirements.lock\n# Made by `make lock`. No registry addresses. merkletools stands without pysha3, which it does not need.' requirements.lock

clean: ## Remove what make has made.
	rm -rf .venv .cache build dist bench-results trial-ledger
