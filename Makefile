# Surefoot. `make help` lists what there is; `make demo` is where to start, `make check test` what CI runs.
# Needs Python 3.11 to 3.14, git and make; everything else is installed into .venv from requirements.lock.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.surefoot-setup

# The first of these that is 3.11 to 3.14 is taken; the lock has wheels for each.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3 python
# How many test processes: ours run servers and workers of their own, so more than cores only slows them.
JOBS ?= 2
# Further arguments for pytest: make test ARGS="tests/domain -k fence"
ARGS ?=

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Create .venv and install what requirements.lock says (quick when nothing changed)
	@:

$(STAMP): requirements.lock pyproject.toml
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHONS); do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "make setup: no Python 3.11 to 3.14 found (looked for: $(PYTHONS))." >&2; exit 1; fi; \
	  echo "Creating $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV) || { echo "make setup: 'python -m venv' failed; on Debian it is the package python3-venv." >&2; exit 1; }; \
	fi
	@echo "Installing requirements.lock (the first time takes a minute or two)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

.PHONY: demo
demo: setup ## Watch a workflow survive a bad answer and a killed worker, then try it yourself (ONCE=1: end there)
	@$(BIN)/surefoot demo $(if $(ONCE),--once) $(ARGS)

.PHONY: up
up: setup ## Start everything on this machine: Postgres, Redis, API, workers
	@$(BIN)/surefoot up $(ARGS)

.PHONY: test
test: setup ## Run the tests (real Postgres, Redis protocol, processes and sockets)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile -q $(ARGS)

.PHONY: races
races: setup ## Let two verbs meet 1,000 times each on real Postgres: decided once, and both orders seen
	@SUREFOOT_RACES=1000 $(PY) -m pytest -q tests/engine/test_races.py $(ARGS)

.PHONY: chaos
chaos: setup ## 1,000 workflows under kills, freezes, cuts and lies, judged by what the world saw (HEADLINE=1: 10,000)
	@$(PY) -m tests.chaos $(if $(HEADLINE),--headline) $(ARGS)

.PHONY: chaos-matrix
chaos-matrix: setup ## Die at every named line, in every way, with every effect class: more than 400 cases
	@$(PY) -m tests.chaos.matrix $(ARGS)

.PHONY: mutants
mutants: setup ## Take one protection after another away (in a copy) and see which tests notice
	@$(PY) -m tests.mutants --jobs $(JOBS) $(ARGS)

.PHONY: machine
machine: setup ## Let Hypothesis look for a sequence of events that breaks a law, on the pure engine and on Postgres
	@SUREFOOT_HYPOTHESIS_EXAMPLES=$(or $(EXAMPLES),1000) $(PY) -m pytest -q --timeout 3600 \
	  tests/domain/test_machine.py tests/engine/test_machine_on_postgres.py $(ARGS)

.PHONY: bench
bench: setup ## Surefoot beside its peers on this machine, a quarter of an hour (ARGS=--quick; ARGS="--only=" without peers)
	@$(PY) -m bench.side_by_side $(ARGS)

.PHONY: worst-model
worst-model: setup ## Let a model that obeys every tool's orders try 10,000 turns to get past the gate
	@SUREFOOT_WORST_TURNS=10000 $(PY) -m pytest -q --timeout 900 tests/engine/test_worst_model.py $(ARGS)

.PHONY: bench-recovery
bench-recovery: setup ## Measure recovery: killed workers' calls run again, clean restarts leave no doubt
	@$(PY) -m bench.recovery $(ARGS)

.PHONY: check
check: setup ## What CI checks besides the tests: format, lint, types, layers, house rules, docs, migrations
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(PY) -m pytest -q tests/house tests/migrations

.PHONY: format
format: setup ## Format the code and fix what can be fixed by rule
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

.PHONY: docs
docs: setup ## Write the generated pages of docs/ anew (settings, errors, events, state machine)
	@$(PY) -m docs.generate

.PHONY: migration
migration: setup ## Write the next migration from app/store/tables.py: make migration name=add_labels
	@test -n "$(name)" || { echo "Say what it does: make migration name=add_labels" >&2; exit 1; }
	@$(PY) -m migrations.write "$(name)"

.PHONY: migration-first
migration-first: setup ## Write the first migration anew (only while nothing is released)
	@$(PY) -m migrations.write --first

# Versions that are locked stay; UPGRADE=1 takes the newest that pyproject.toml allows.
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-header --quiet $(if $(UPGRADE),--upgrade)
.PHONY: lock
lock: ## Resolve pyproject.toml into the lock files, with hashes (UPGRADE=1 for the newest versions)
	@test -x $(BIN)/uv || $(MAKE) setup
	@$(COMPILE) --all-extras --output-file requirements.lock
	@$(COMPILE) --no-annotate --constraints requirements.lock --output-file requirements.runtime.lock
	@echo 'hatchling>=1.28' | $(BIN)/uv pip compile - --universal --generate-hashes --no-header --quiet --no-annotate \
	  --constraints requirements.lock --output-file requirements.build.lock

.PHONY: clean
clean: ## Remove caches and builds; keeps .venv and .surefoot
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
