# One command each. Only Python >= 3.11 and make are needed: the first call builds .venv from the pinned,
# hashed locks in requirements/, later calls only when a lock has changed.
#
#   make demo  ARGS="--exit --json"     the whole loop on real flight data
#   make test  ARGS="tests/store -x"    tests and doctests
#   make lint                           ruff, format, mypy --strict, floors
#   make bench NAME=import_cost ARGS=--json
#   make chaos                          the long kill -9 battery
#   make docs                           rewrite the generated pages
#   make vendor                         fetch the pinned files that the web pages ship, with npm
#   make lock | format | changelog VERSION=0.2.0 | clean

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
INSTALL := $(PIP) install --no-deps --no-build-isolation
BUILT := $(VENV)/.built
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev
ANDON := $(VENV)/.andon
say = @echo "$(1)" >&2

.PHONY: help demo test lint format bench chaos docs vendor lock changelog clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

demo: $(DEMO) $(ANDON)
	@$(BIN)/andon demo $(ARGS)

test: $(DEV) $(ANDON)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

lint: $(DEV) $(ANDON)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@echo "lint: ruff, format, mypy --strict and the floors are clean"

format: $(DEV)
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(DEV) $(ANDON)
	@$(BIN)/python -m benchmarks.run $(NAME) $(ARGS)

chaos: $(DEV) $(ANDON)
	@ANDON_CHAOS_CYCLES=$${ANDON_CHAOS_CYCLES:-500} $(BIN)/python -m pytest -q tests/chaos $(ARGS)

docs: $(DEV) $(ANDON)
	@$(BIN)/python docs/capabilities.py
	@$(BIN)/python docs/cli.py
	@$(BIN)/python docs/mlflow_wire.py

vendor: $(DEV) $(ANDON)
	@$(BIN)/python -m andon.web.ui.vendor

lock:
	@requirements/lock $(ARGS)

changelog: $(DEV)
	@$(BIN)/python changelog.d/collect.py $(VERSION)

clean:
	@rm -rf $(VENV) .venv-bench .venv-wire .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The steps of the set-up. Each leaves a stamp, so an interrupted one is taken up where it stopped.

$(BUILT): requirements/build.lock
	@python=$$(PYTHON="$(PYTHON)" requirements/find-python) || exit 1; \
	if [ ! -x $(BIN)/python ]; then \
	  echo "making $(VENV) with $$($$python --version 2>&1)" >&2; \
	  $$python -m venv $(VENV) || { echo "that Python cannot make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	@$(INSTALL) --require-hashes -r $<
	@touch $@

$(DEMO): requirements/demo.lock $(BUILT)
	$(call say,installing the pinned packages of the demo ...)
	@$(INSTALL) --require-hashes -r $<
	@touch $@

$(DEV): requirements/dev.lock $(BUILT)
	$(call say,installing the pinned packages of development ...)
	@$(INSTALL) --require-hashes -r $<
	@touch $@ $(DEMO)

$(ANDON): pyproject.toml $(BUILT)
	@$(INSTALL) --editable .
	@touch $@

#   make wire                           every scenario with the real MLflow client, newest and old, on both back ends
.PHONY: wire
wire: $(DEV) $(ANDON)
	@ANDON_WIRE=full $(BIN)/python -m pytest -q tests/wire $(ARGS)
