# Needs only make, bash and Python 3.11 or later with venv and pip. Everything goes into .venv.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
PYTEST_ARGS ?=
DEMO_ARGS ?=
FUZZ_S ?= 300
FUZZ_DIR ?= build/fuzz
SOAK_S ?= 600

# The interpreter that .venv is made with, for example `make install PYTHON=python3.12`. Empty: the first one that fits.
PYTHON ?=

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip takes a package whose installation was cut off for a whole one, so what is not finished is begun anew.
UNFINISHED := $(VENV)/.unfinished
define finish
@[ ! -e $(UNFINISHED) ] || { echo "The last installation was cut off; beginning anew ..."; rm -rf $(VENV); }
@$(MAKE) --no-print-directory --silent
endef

.PHONY: install
install: ## Make .venv with Trunkline and the locked versions of what it needs
	$(finish) $(VENV)/.installed

.PHONY: dev
dev: ## The same, with what tests and linters need
	$(finish) $(VENV)/.installed-dev

.PHONY: demo
demo: install ## Install, then place calls through Trunkline between two simulated neighbours
	@$(BIN)/trunkline demo

.PHONY: demo-diagnose
demo-diagnose: install ## Place simulated calls with hidden causes of failure; see the diagnosis name them
	@$(BIN)/trunkline demo-diagnose $(DEMO_ARGS)

.PHONY: test
test: dev system-tools ## Everything that CI runs: system tools, linters, types, tests
	@$(MAKE) --no-print-directory check

.PHONY: check
check: lint pytest ## Linters, types and tests, with the system tools that are there

.PHONY: pytest
pytest: dev ## Tests alone; arguments by PYTEST_ARGS
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: dev ## Coverage-guided fuzzing; FUZZ_S seconds for each target, finds and corpus in FUZZ_DIR
	$(BIN)/python -m tests.fuzz.run parser,sdp,rules,rule-file,stack $(FUZZ_S) $(FUZZ_DIR)

.PHONY: soak
soak: dev ## SOAK_S seconds of good and bad traffic; prints memory and table sizes over time
	$(BIN)/python -m tests.soak.soak $(SOAK_S)

.PHONY: lint
lint: dev ## Linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: fmt
fmt: dev ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: system-tools
system-tools: ## SIPp, sipsak, tshark, sngrep and rsyslogd by apt where root; says what is missing otherwise
	@scripts/system-tools

.PHONY: compiled
compiled: install ## Compile the core in place with mypyc (needs a C compiler); make clean-compiled takes it back
	@$(PIP) --require-hashes -r requirements/compile.lock
	$(BIN)/python hatch_build.py

.PHONY: clean-compiled
clean-compiled: ## Back to pure Python
	$(BIN)/python hatch_build.py clean

.PHONY: test-compiled
test-compiled: dev ## Run the core's tests on the compiled core, in a copy of the tree (some minutes)
	@scripts/test-compiled $(PYTEST_ARGS)

.PHONY: bench
bench: dev bench-peers ## Compare with peers on this machine, about 22 minutes (BENCH_ARGS=--help; see docs/capacity.md)
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

.PHONY: bench-quick
bench-quick: dev ## The same in about 5 minutes, with fewer figures
	$(BIN)/python -m benchmarks.run --quick $(BENCH_ARGS)

.PHONY: bench-docs
bench-docs: dev ## Put tables and plots of the last make bench into README.md and docs/capacity.md
	$(BIN)/python -m benchmarks.docs

.PHONY: bench-micro
bench-micro: dev ## What the parts of the call path cost, in microseconds (BENCH_ARGS: pyperf's options)
	$(BIN)/python -m benchmarks.micro $(BENCH_ARGS)

.PHONY: flamegraph
flamegraph: dev ## Draw docs/img/callpath.svg anew: where the time of a call goes in pure Python
	$(BIN)/py-spy record --function --rate 200 --output docs/img/callpath.svg -- \
	    $(BIN)/python -m benchmarks.callpath --sampled --rounds 12

.PHONY: bench-peers
bench-peers: ## Install the peers: Kamailio by apt where root, Sippy into .venv-bench
	@scripts/bench-peers

.PHONY: lock
lock: ## Write the lock files anew (maintainers; needs uv; LOCK_ARGS=--upgrade for newer versions)
	@scripts/lock $(LOCK_ARGS)

.PHONY: clean
clean: ## Remove .venv, caches and build results
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find proxy tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps lie inside .venv, so a new .venv is filled anew.
$(VENV)/.installed: $(BIN)/python pyproject.toml requirements/runtime.lock requirements/build.lock
	@echo "Installing Trunkline into $(VENV) ..."
	@touch $(UNFINISHED)
	@$(PIP) --require-hashes -r requirements/runtime.lock -r requirements/build.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@rm $(UNFINISHED)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.lock
	@echo "Installing the development tools into $(VENV) ..."
	@touch $(UNFINISHED)
	@$(PIP) --require-hashes -r requirements/dev.lock
	@rm $(UNFINISHED)
	@touch $@

$(BIN)/python:
	@python="$$(scripts/find-python "$(PYTHON)")"; \
	echo "Making $(VENV) with $$python ($$("$$python" -V)) ..."; \
	rm -rf $(VENV); mkdir $(VENV); touch $(UNFINISHED); \
	"$$python" -m venv $(VENV); \
	rm $(UNFINISHED)
