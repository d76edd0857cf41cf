# make demo     shows what your own agents used, per project, at list price, and what is left (without logs: made-up data)
# make test     lint, types and every test on Python 3.11; if 3.13 exists, the tests that depend on the interpreter there, too
# make cases    inputs that once gave a wrong answer, if they are beside the project: one line each, right or wrong
# make soak     kills each writer two hundred times, and plays two hundred stories of fleets of machines
# make soak-day eight hours in ten minutes: all parts at 50 times a heavy user's load, while clocks jump, processes die and disks fill (Linux)
# make fuzz     every property test with new random input, TOKENOPS_ROUNDS (50) times as much as in make test
# make clients  real SDKs and clients, through the proxy and for a vendor that keeps a ledger (installs them if it can);
#               writes the table of docs/clients.md; CLIENTS=latest takes the newest clients
# make engines  tok-ship against ClickHouse (chdb, and a clickhouse-server if there is one), DuckDB, Parquet, OTLP: a million events
# make oldest   every test on Python 3.11 (if it exists) with the oldest version of each dependency that pyproject.toml allows
# make latest   every test on Python 3.13 (if it exists) with the newest
# make examples  the outputs that README and docs show, as the commands print them today
# make images   the pictures of README.md: tok and tok-top as they look today, the dashboard by Chromium
# make man      man pages and completions of all commands, into share (MANPATH=share/man: man tok-cost)
# make bench    the figures of docs/performance.md, measured anew
# make release  sdist, wheel, SBOM and checksums of the current commit, into dist: the same bytes each time
# make release-check  compares two releases of this commit, made in different places
# make installs tests every way to install dist, each with an empty home: it works and leaves nothing behind
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A second interpreter to test on, where the machine has one: on the path, or beside the first.
BESIDE := $(dir $(shell command -v $(PYTHON)))
python = $(firstword $(foreach p,$(shell command -v python$(1) 2>/dev/null) $(wildcard $(BESIDE)../../$(1)*/bin/python$(1) $(BESIDE)../versions/$(1)*/bin/python$(1)),$(shell $(p) -c 'import sys; print(sys.executable)' 2>/dev/null)))
SECOND := $(call python,3.13)
# Where interpreters differ: times, numbers, JSON, options, streams, SQLite. `make latest` runs every test there.
DIFFER := $(patsubst %,tests/test_%.py,charts events http1 jsonc main manual packaging pricing read_claude read_codex \
  read_copilot read_goose read_opencode rollup store streams when wire)
COMMANDS := $(sort $(wildcard bin/tok bin/tok-*))
# Two tests at once for each processor: half of a test's time is spent waiting for the processes that it starts.
# A worker without tests takes some of another's, so that all end at about the same time.
WORKERS := $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1))

.PHONY: demo test examples images lint types types-mypy types-pyright check cases oldest latest man bench soak soak-day fuzz clients engines release release-check installs clean .venv-clients/commands

demo: $(VENV)/installed
	@echo "3 of 3: reading the logs of your agents"
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh bench/demo.sh

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; run make PYTHON=python3.11" >&2; exit 2; }
	@echo "1 of 3: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml $(COMMANDS) $(wildcard lib/*.py lib/page/* catalog/*.yaml catalog/*.sql catalog/*/*.yaml catalog/*/*.json tools/*.py)
	@echo "2 of 3: installing six packages, about 55 MB with what they need; half a minute the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check .
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	@touch $@

lint: $(VENV)/tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/tools
	@$(MAKE) --no-print-directory -j2 types-mypy types-pyright

types-mypy:
	MYPYPATH=bin $(BIN)/mypy -p tokenops
	MYPYPATH=bin $(BIN)/mypy --scripts-are-modules $(COMMANDS)
	MYPYPATH=bin:tools $(BIN)/mypy tools

types-pyright:
	$(BIN)/pyright --pythonpath $(BIN)/python lib $(COMMANDS)

check: $(VENV)/tools
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: lint types check
ifneq ($(SECOND),)
	@test -x .venv-second/bin/python || $(SECOND) -m venv .venv-second
	@.venv-second/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	TOKENOPS_HYPOTHESIS=brief PATH="$(CURDIR)/.venv-second/bin:$$PATH" .venv-second/bin/python -m pytest -n $(WORKERS) --dist worksteal $(DIFFER)
endif

cases: $(VENV)/installed
	$(BIN)/python tests/cases.py

oldest:
	$(or $(call python,3.11),$(PYTHON)) -m venv --clear .venv-oldest
	.venv-oldest/bin/python tools/minimums.py > .venv-oldest/minimums.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-oldest/minimums.txt '.[dev]'
	PATH="$(CURDIR)/.venv-oldest/bin:$$PATH" .venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal

latest:
	$(or $(SECOND),$(PYTHON)) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	PATH="$(CURDIR)/.venv-latest/bin:$$PATH" .venv-latest/bin/python -m pytest -n $(WORKERS) --dist worksteal

examples: $(VENV)/tools
	TOKENOPS_EXAMPLES=write PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_docs.py

images: $(VENV)/tools
	$(BIN)/python bench/images.py

man: $(VENV)/installed
	$(BIN)/python tools/share.py share

bench: $(VENV)/tools
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench/run.py

soak: $(VENV)/tools
	TOKENOPS_CALLS=1000 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_carry.py tests/test_guard.py tests/test_mcp.py tests/test_statusline.py
	TOKENOPS_ROUNDS=200 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_crashes.py
	TOKENOPS_ROUNDS=10 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) tests/test_pull_fleet.py
	TOKENOPS_ROUNDS=2 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_fields.py tests/test_state_files.py \
	  tests/test_backtest.py tests/test_long_lines.py tests/test_metering.py tests/test_odd_files.py tests/test_read_codex_records.py tests/test_sync.py
	TOKENOPS_STREAMS=1000 TOKENOPS_REQUESTS=10000 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_proxy.py

soak-day: $(VENV)/tools
	$(BIN)/python bench/soak.py --seconds $${SOAK_SECONDS:-600} $(if $(WRITE),--write)

fuzz: $(VENV)/tools
	TOKENOPS_HYPOTHESIS=fuzz TOKENOPS_ROUNDS=$${TOKENOPS_ROUNDS:-50} PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto -m hypothesis

# The SDKs that the proxy's tests use are large, and disagree with each other's needs: they have a place of their own.
SDKS := openai anthropic google-genai mistralai groq cohere ollama litellm
# Command-line clients also work for a vendor that keeps a ledger (tests/rig.py), in the versions of tests/data/clients.yaml;
# `CLIENTS=latest make clients` takes the newest. If a registry lacks a version, the newest of that client is installed.
# What cannot be installed is tried again the next time.
CLIENTS ?= pinned
.venv-clients/sdks:
	$(PYTHON) -m venv .venv-clients
	@if .venv-clients/bin/python -m pip install --quiet --disable-pip-version-check $(SDKS); then touch $@; \
	else rm .venv-clients/bin/python; echo "make: pip could not install the SDKs: their tests are skipped" >&2; fi

.venv-clients/commands: $(VENV)/installed tests/data/clients.yaml tools/clients.py
	@mkdir -p .venv-clients
	@command -v npm >/dev/null || echo "make: no npm here: tests of most command-line clients are skipped" >&2
	@$(BIN)/python tools/clients.py install $(CLIENTS)

clients: $(VENV)/tools .venv-clients/sdks .venv-clients/commands
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_clients.py tests/test_rig.py tests/test_rig_limits.py \
	  tests/test_rig_matrix.py tests/test_rig_acp.py tests/test_hosts.py tests/test_init_clients.py
	$(BIN)/python tools/clients.py table

.venv-engines/installed: pyproject.toml
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,engines]'
	@touch $@

engines: .venv-engines/installed
	PATH="$(CURDIR)/.venv-engines/bin:$$PATH" TOKENOPS_ENGINES=1 .venv-engines/bin/python -m pytest tests/test_engines.py

.venv-release/installed: tools/release.txt
	$(PYTHON) -m venv --clear .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check --requirement tools/release.txt
	@touch $@

release: .venv-release/installed
	@.venv-release/bin/python tools/release.py dist

release-check: .venv-release/installed
	.venv-release/bin/python tools/release_check.py

installs:
	$(PYTHON) tools/installs.py dist

clean:
	rm -rf .venv .venv-second .venv-oldest .venv-latest .venv-clients .venv-engines .venv-release .venv-rivals build dist share *.egg-info .mypy_cache .ruff_cache .hypothesis
