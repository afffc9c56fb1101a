# Reprise: `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TESTS ?= tests
# each begins with a half of the tests as they stand, so that what a file's tests share is made once
WORKERS := -n 2 --dist worksteal

.PHONY: help setup setup-full demo claims report test test-fast slow soak check bench bench-tune entries check-entries hooks image clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(VENV)/.core  ## a virtual environment in .venv with what running needs

setup-full: $(VENV)/.full  ## the same, with what only some papers, the tests and the benchmarks need

$(VENV)/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; name it by PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.full: $(VENV)/.core
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[papers,cluster,sweep,report,tensorboard,tables,clouds,translation,export,dev]'
	@touch $@

demo: setup  ## SPIDER, SVRG and SGD to the same gradient norm on bundled data: a table and a picture
	$(PY) run.py -m paper=spider paper.eps=0.005 paper.passes=400 paper.repeats=5 logger=csv \
	  method=variance_reduction/spider_sfo_opt2,variance_reduction/svrg,variance_reduction/sgd
	@echo 'Gradient calls until ||grad f|| <= 0.005, medians of 5 seeds:'
	$(PY) compare.py metric=calls_to_eps,grad_norm_final curve=grad_norm log=xy into=outputs/spider.svg

claims: setup  ## run what the claims of all papers need, and judge them
	$(PY) claims.py hydra/launcher=joblib

report: setup  ## the site in report/: claims, tables and figures from the results that there are
	$(PY) report.py

# the tests start processes by the hundred, which need not compile the same sources each
test test-fast slow soak: export PYTHONDONTWRITEBYTECODE =

test: setup-full  ## all tests (some use real data under DATA_DIR and are skipped without)
	$(PY) -m pytest $(WORKERS) $(TESTS)

test-fast: setup-full  ## the tests for daily work: all but the slow ones (tests/slow.txt)
	$(PY) -m pytest $(WORKERS) -m 'not slow' $(TESTS)

slow: setup-full  ## time all tests and write down which are slow (tests/slow.txt)
	$(PY) -m pytest $(WORKERS) --write-slow

soak: setup-full  ## the long form of the tests of reliability: 200 kills, 5,000 mistyped commands, memory; an hour
	SOAK=1 $(PY) -m pytest $(WORKERS) tests/reliability

check: setup-full  ## ruff, the floors of imports, mypy and the tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/mypy
	$(MAKE) test

bench: setup-full  ## every benchmark (or BENCH=name) against its peer; writes benchmarks/results.json and docs/benchmarks.md
	$(PY) -m benchmarks $(BENCH)

bench-tune: setup-full  ## tune.py's searcher beside BoTorch, Optuna and random search; an hour or more, can be stopped
	$(PY) -m benchmarks.tune

entries: setup  ## the name of every entry, one a line
	@$(PY) -m common.tables.tables

check-entries: setup-full  ## compose every entry at every scale and build its model without memory
	$(PY) -m common.runs.check_entries

hooks: setup-full  ## let git run ruff, mypy and the floors of imports at each commit
	$(VENV)/bin/pre-commit install

image:  ## a container image that runs the demo: docker run --rm reprise
	docker build --tag reprise .

clean:  ## remove the virtual environment (data and outputs stay)
	rm -rf $(VENV)
