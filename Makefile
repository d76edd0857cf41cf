# make demo     what your own agents used, per project, at list price (or, where there are no logs, the sample logs')
# make test     lint, types and every test, on Python 3.11 and on 3.13 where it exists
# make soak     writers killed two hundred times each
# make fuzz     made-up input by the ten thousand: HTTP, answers of vendors, logs of clients
# make clients  real SDKs and clients through the proxy (installs them: Python's always, npm's where there is npm)
# make engines  tok-ship against ClickHouse (chdb, and a clickhouse-server where there is one), DuckDB, Parquet, OTLP: a million events
# make man      man pages of all commands, into share/man (MANPATH=share/man: man tok-cost)
# make bench    the figures of docs/performance.md, measured anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A second interpreter to test on, where the machine has one: on the path, or beside the first.
BESIDE := $(dir $(shell command -v $(PYTHON)))
SECOND := $(firstword $(foreach p,$(shell command -v python3.13 2>/dev/null) $(wildcard $(BESIDE)../../3.13*/bin/python3.13 $(BESIDE)../versions/3.13*/bin/python3.13),$(shell $(p) -c 'import sys; print(sys.executable)' 2>/dev/null)))
COMMANDS := $(sort $(wildcard bin/tok-*))

.PHONY: demo test lint types check man bench soak fuzz clients engines clean

demo: $(VENV)/installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh bench/demo.sh

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; run make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Built from a copy, so that no stale build directory finds its way into the package.
$(VENV)/installed: $(VENV)/python pyproject.toml $(COMMANDS) $(wildcard lib/*.py lib/page/* catalog/*.yaml catalog/*.sql catalog/*/*.yaml catalog/*/*.json)
	rm -rf build *.egg-info
	$(BIN)/python -m pip install --quiet --disable-pip-version-check .
	@rm -rf build *.egg-info
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	@rm -rf build *.egg-info
	@touch $@

lint: $(VENV)/tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/tools
	MYPYPATH=bin $(BIN)/mypy -p tokenops
	MYPYPATH=bin $(BIN)/mypy --scripts-are-modules $(COMMANDS)
	$(BIN)/pyright --pythonpath $(BIN)/python lib $(COMMANDS)

check: $(VENV)/tools
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto

test: lint types check
ifneq ($(SECOND),)
	@test -x .venv-second/bin/python || $(SECOND) -m venv .venv-second
	@.venv-second/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	@rm -rf build *.egg-info
	PATH="$(CURDIR)/.venv-second/bin:$$PATH" .venv-second/bin/python -m pytest -n auto
endif

man:
	$(PYTHON) tools/man.py share/man

bench: $(VENV)/tools
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench/run.py

soak: $(VENV)/tools
	TOKENOPS_CALLS=1000 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_carry.py tests/test_statusline.py
	TOKENOPS_ROUNDS=200 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_crashes.py
	TOKENOPS_STREAMS=1000 TOKENOPS_REQUESTS=10000 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_proxy.py

fuzz: $(VENV)/tools
	TOKENOPS_ROUNDS=$${TOKENOPS_ROUNDS:-50} PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto tests/test_http1.py tests/test_wire.py tests/test_readers.py tests/test_limits.py

# The SDKs that the proxy's tests use are large, and disagree with each other's needs: they have a place of their own.
SDKS := openai anthropic google-genai mistralai groq cohere ollama litellm
CLIENTS := @anthropic-ai/claude-code@2.1.197 @openai/codex@0.169.0 @google/gemini-cli@0.61.0 opencode-ai@1.18.33 @modelcontextprotocol/inspector
.venv-clients/installed:
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check $(SDKS)
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix .venv-clients $(CLIENTS); else echo "no npm here: the command-line clients are left out"; fi
	@touch $@

clients: $(VENV)/tools .venv-clients/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/test_clients.py tests/test_hosts.py tests/test_init_clients.py

.venv-engines/installed: pyproject.toml
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,engines]'
	@rm -rf build *.egg-info
	@touch $@

engines: .venv-engines/installed
	PATH="$(CURDIR)/.venv-engines/bin:$$PATH" TOKENOPS_ENGINES=1 .venv-engines/bin/python -m pytest tests/test_engines.py

clean:
	rm -rf .venv .venv-second .venv-clients .venv-engines .venv-rivals build dist share *.egg-info .mypy_cache .ruff_cache .hypothesis
