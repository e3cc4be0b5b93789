# Needs python3 (3.11 or later, with venv) and make; everything else is installed below this directory.
#
#   make test        the test suite
#   make lint        ruff, mypy, import-linter
#   make test-long   the suite with many more generated examples and interleavings, failovers, fuzzing, a long soak, chaos
#   make fuzz        each parser of bytes from outside, fuzzed by coverage for SECONDS=60, or one: TARGETS=entry
#   make chaos       workers, faults and invalidations for SECONDS=120, and their figures; SEED=7
#   make demo        the airports example, shown at work; REDIS_URL=... uses Redis, KEEP=1 leaves it running
#   make clean       removes what the above installed

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
ARGS ?=
TARGETS ?= $$($(VENV)/bin/python -m tests.fuzz list)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Each target brings its own environment; one that is active, or a setting of its user, must not leak in.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: test test-long fuzz chaos lint format demo clean
.DEFAULT_GOAL := test

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(ARGS)

test-long: $(VENV)/.fuzz
	HYPOTHESIS_MAX_EXAMPLES=1000 TIERCACHE_SCHEDULES=20000 TIERCACHE_SOAK_READS=200000 \
		$(VENV)/bin/python -m pytest -m "long or not long" $(ARGS)

fuzz: SECONDS ?= 60
fuzz: $(VENV)/.fuzz
	for target in $(TARGETS); do $(VENV)/bin/python -m tests.fuzz $$target --seconds $(SECONDS) || exit 1; done

chaos: SECONDS ?= 120
chaos: $(VENV)/.test
	$(VENV)/bin/python -m tests.chaos.run --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.lint
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

demo: $(DEMO_VENV)/.examples
	@KEEP=$(KEEP) $(DEMO_VENV)/bin/python examples/demo.py

clean:
	rm -rf $(VENV) $(DEMO_VENV)

# A stamp says which extra an environment has; it is made anew when pyproject.toml has changed.
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(DEMO_VENV)/.%: pyproject.toml | $(DEMO_VENV)/bin/python
	@echo "Installing the example into $(DEMO_VENV) ..."
	@$(DEMO_VENV)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/bin/python $(DEMO_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is missing or older than 3.11; name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(@D)/..
