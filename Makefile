# One word for each task. `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# These need no control plane, and are run where none is installed.
DATAPLANE_TESTS := tests/engines tests/dataplane tests/host
# These are run once more with the hot modules compiled.
HOT_TESTS := tests/engines/relational tests/engines/inmemory tests/engines/keyvalue tests/dataplane/limits tests/dataplane/server tests/dataplane/backend
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help up down status test test-dataplane native lint types fmt bench conformance screenshots lock clean

help: ## list the tasks
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

# What running needs: the control plane and the data plane, pinned and hashed.
$(VENV)/run.stamp: requirements/control.txt requirements/dataplane.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit("WeftKit needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: no venv module: on Debian, apt-get install python3-venv"; exit 1; }
	@echo "installing the pinned requirements into $(VENV) ..."
	@$(PIP) install -q --require-hashes -r requirements/control.txt -r requirements/dataplane.txt
	@touch $@

# The command line, callable from everywhere.
$(BIN)/weft: $(VENV)/run.stamp
	@printf '#!%s\nimport sys\nsys.path.insert(0, "%s")\nfrom deploy.weft.__main__ import main\nmain()\n' \
		"$(abspath $(BIN))/python" "$(CURDIR)" > $@ && chmod 755 $@

# What developing needs on top.
$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@$(PIP) install -q --require-hashes -r requirements/dev.txt
	@touch $@

# The hot modules, compiled where a C compiler is at hand; the list is in dataplane/native.py.
HOT := $(shell sed -n 's/^    "\([a-z_.]*\)",$$/\1/p' dataplane/native.py | tr . /)
$(VENV)/native.stamp: $(VENV)/run.stamp requirements/native.txt deploy/native.py $(HOT:%=%.py)
	@! command -v cc >/dev/null || echo "compiling the modules that see each message (once, about 45 s; NATIVE=no leaves it out) ..."
	@! command -v cc >/dev/null || $(PIP) install -q --require-hashes -r requirements/native.txt
	@$(BIN)/python -m deploy.native build
	@touch $@

native: $(VENV)/native.stamp ## compile the hot modules, if there is a C compiler

up: $(BIN)/weft $(if $(filter no,$(NATIVE)),$(VENV)/run.stamp,$(VENV)/native.stamp) ## start everything and print the connection strings
	@$(BIN)/python -m deploy.local up

down: ## stop everything; data stays
	@test -x $(BIN)/python && $(BIN)/python -m deploy.local down || echo "not installed, so nothing runs"

status: ## say what runs
	@$(BIN)/python -m deploy.local status

test: $(VENV)/dev.stamp test-dataplane ## every test, against real servers
	@$(MAKE) --no-print-directory native
	$(BIN)/python -m pytest -q $(HOT_TESTS)
	DJANGO_SETTINGS_MODULE=weftkit_site.settings.test $(BIN)/python -m pytest -q $(DATAPLANE_TESTS:%=--ignore=%)

# The data plane alone, as on a host that has no Django at all.
.venv-dataplane/stamp: requirements/dataplane.txt requirements/dev.txt
	@test -x .venv-dataplane/bin/python || $(PYTHON) -m venv .venv-dataplane
	@.venv-dataplane/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r requirements/dataplane.txt
	@$(PYTHON) requirements/pinned.py pytest pytest-asyncio pytest-timeout hypothesis httpx 'psycopg[binary]' > .venv-dataplane/test-tools.txt
	@.venv-dataplane/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r .venv-dataplane/test-tools.txt
	@touch $@

test-dataplane: .venv-dataplane/stamp ## engines and data plane without Django, and as plain Python
	@.venv-dataplane/bin/python -m deploy.native clean && rm -f $(VENV)/native.stamp
	.venv-dataplane/bin/python -m pytest -q $(DATAPLANE_TESTS)

lint: $(VENV)/dev.stamp ## format, likely bugs, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/dev.stamp ## mypy, strict on engines and dataplane
	$(BIN)/mypy

fmt: $(VENV)/dev.stamp ## put the format right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp $(VENV)/native.stamp ## ratios against peers, measured in one run: [ONLY=words] [SECONDS=n] [ROUNDS=n]
	$(BIN)/python -m tests.benchmarks "--only=$(ONLY)" --seconds $(or $(SECONDS),2) --rounds $(or $(ROUNDS),3)

conformance: $(VENV)/dev.stamp $(VENV)/native.stamp ## other people's suites: SUITE=psycopg|redis|redis-as-admin|dynalite|dynamodb-pytest CHECKOUT=path [ONLY=part]
	$(BIN)/python -m tests.conformance $(SUITE) $(CHECKOUT) --only "$(ONLY)"

SCREENSHOTS ?= /tmp/weftkit-screenshots
screenshots: $(VENV)/dev.stamp ## a picture of each page at two widths: [SCREENSHOTS=folder]
	@mkdir -p $(SCREENSHOTS)
	WEFTKIT_SCREENSHOTS=$(SCREENSHOTS) DJANGO_SETTINGS_MODULE=weftkit_site.settings.test $(BIN)/python -m pytest -q tests/console/test_pages.py
	@echo "the pictures are in $(SCREENSHOTS)"

lock: $(VENV)/dev.stamp ## compile requirements/*.in again (needs uv)
	for name in control dataplane dev native awscli; do \
	  uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" requirements/$$name.in -o requirements/$$name.txt || exit 1; \
	done

clean: ## remove caches and what was compiled, never data
	@python3 -m deploy.native clean && rm -f $(VENV)/native.stamp
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
