# Every target sets up what it needs: a virtual environment in .venv and the package in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help simulate test lint bench clean

help:
	@echo "make simulate   run the default experiment (ARGS='cifar10-cpu --set ...' for another)"
	@echo "make test       run all tests (ARGS='tests/keys -k golden' for some)"
	@echo "make lint       ruff and mypy"
	@echo "make bench      list the benchmarks and how to run them"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedenc needs Python 3.11 or newer, found %d.%d; set PYTHON=python3.x" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing fedenc and what it needs into $(VENV) (some GB, a few minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

simulate: $(READY)
	@$(BIN)/fedenc simulate $(ARGS)

# All tests: first those that fit in one process each, side by side; then whole runs, which need all
# cores, one after another. With ARGS: pytest as usual.
test: $(READY)
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python -m pytest -n logical --maxprocesses 8 -m "not e2e"
	@$(BIN)/python -m pytest -m e2e
else
	@$(BIN)/python -m pytest $(ARGS)
endif

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(READY)
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
