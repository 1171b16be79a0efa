# `make demo` and `make test` do everything on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
CONSTRAINTS := $(wildcard constraints/py$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt)
PIP := $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

# Hundreds of processes start in a test run; without bytecode each compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install dev demo test fuzz torture check bench bench-peers clean services

install: $(STAMPS)/install ## the package, the common model extras and the `onrecord` command in .venv

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "onrecord needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	@touch $@

$(STAMPS)/install: $(STAMPS)/venv pyproject.toml
	$(PIP) -e '.[models,postgres]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/install
	$(PIP) --group dev
	@touch $@

dev: $(STAMPS)/dev ## what the tests and checks need, in .venv

demo: install ## train a small real model, serve it, walk through one recorded prediction
	$(BIN)/onrecord demo

services: ## PostgreSQL, Chromium and strace for the tests, from Debian where they are missing
	@./tests/install-services.sh strace

check: dev ## format, lint, types
	$(BIN)/ruff format --check src tests benchmarks torture
	$(BIN)/ruff check src tests benchmarks torture
	$(BIN)/mypy

test: dev services check ## every test, on SQLite and on PostgreSQL
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

fuzz: dev ## schemathesis over the whole API, other cases every time; CASES= how many at most
	FUZZ_CASES=$(or $(CASES),20000) $(BIN)/pytest -n 0 -q -s tests/test_fuzz.py

torture: dev services ## proof under faults, in its long form; ARGS= for python -m torture
	PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

bench: dev ## the benchmark of docs/benchmarks.md
	@./tests/install-services.sh wrk
	$(BIN)/python benchmarks/serving.py

PEERS := $(patsubst benchmarks/requirements/%.txt,benchmarks/.peers/%/.installed,$(wildcard benchmarks/requirements/*.txt))

# The peers load models that this scikit-learn has pickled. One that cannot be installed is left out.
benchmarks/.peers/%/.installed: benchmarks/requirements/%.txt | $(STAMPS)/dev
	$(BIN)/python -m venv --clear $(@D)
	if $(@D)/bin/python -m pip install --quiet -r $< pandas \
		$$($(BIN)/python -m pip freeze --quiet | grep -E '^(scikit-learn|joblib)=='); \
	then touch $@; else rm -rf $(@D); fi

bench-peers: dev $(PEERS) ## onrecord beside other model servers; ARGS= for benchmarks/peers.py
	@./tests/install-services.sh wrk
	$(BIN)/python benchmarks/peers.py $(ARGS)

clean: ## forget everything that was installed or built
	rm -rf $(VENV) benchmarks/.peers dist build .pytest_cache .mypy_cache .ruff_cache
