# Each goal does all of its own set-up: a virtual environment in .venv with pinned versions (constraints.txt).
# PYTHON says which interpreter makes it, 3.11 to 3.14: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TREE := build/tree/undertow
FOLDERS := engine exporters connectors
CODE := api $(FOLDERS) tests examples benchmarks

.DEFAULT_GOAL := help
.PHONY: help demo examples test lint format types bench clean
.DELETE_ON_ERROR:

help:  ## lists the goals
	@sed -n 's/^\([a-z]*\):.*## */  make \1	/p' Makefile

demo: $(READY)  ## exports the activity model, plays the held-out recordings as live streams, writes demo/report.html
	$(BIN)/python examples/activity/export.py --out demo
	$(BIN)/undertow demo demo

examples: .venv/.examples  ## trains what is missing, runs all applications, writes examples-out/index.html and the table of docs/applications.md
	$(BIN)/python examples/everything.py --out examples-out --docs

test: lint types $(READY)  ## lint, formatting, types and all tests; ARGS goes to pytest
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(READY)  ## ruff: rules and formatting, changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## ruff: mends what it can and formats
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The folders are one package only once installed, so pyright sees them the way an import does: as links in build/tree.
types: $(READY)  ## pyright over the package as it is imported
	@rm -rf build/tree
	@find api $(FOLDERS) -name '*.py' | while read -r file; do \
	  link=$(TREE)/$${file#api/}; mkdir -p "$$(dirname "$$link")" && ln -s "$(CURDIR)/$$file" "$$link"; done
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(READY)  ## every benchmark, one after the other
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:  ## removes what make made, fetched data too
	rm -rf .venv build dist demo examples-out .data .pytest_cache .ruff_cache .hypothesis *.egg-info
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	  echo "undertow needs Python 3.11 to 3.14; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[export,dev]'
	@touch $@

.venv/.examples: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[export,dev,examples]'
	@touch $@
