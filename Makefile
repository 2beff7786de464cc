# Needs Python 3.10 or newer and make; everything else comes as wheels into .venv.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 9500
SERVICES ?=
MINUTES ?= 5
RUN = $(VENV)/bin/python
ifneq ($(filter-out all,$(SERVICES)),)
$(error SERVICES is empty or all, not "$(SERVICES)")
endif

.DEFAULT_GOAL := help
.PHONY: help demo demo-tenant test matrix schedules soak bench bench-quick lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo$(SERVICES) ## start the demo site (PORT=9500 SERVICES=all); Ctrl-C stops all of it
	@$(RUN) mt_site/demo.py up --port $(PORT) --services "$(SERVICES)"

demo-tenant: $(VENV)/.demo ## add a tenant while the demo runs: TENANT=tenant-3.test.com
	@$(RUN) mt_site/demo.py tenant -- "$(TENANT)"

test: $(VENV)/.dev ## run the tests (ARGS="-n 2 -k words")
	$(RUN) -m pytest $(ARGS)

matrix: schedules ## and: unit, contract and connection tests on each Python and Django (ARGS="py313-django60")
	$(PYTHON) tests/matrix.py $(ARGS)

schedules: $(VENV)/.dev ## the models of interleavings with 2,000 schedules each, and every case of Celery
	TESTS_MATRIX=1 TENANT_ROUTER_SCHEDULES=2000 $(RUN) -m pytest -n 2 --timeout 3600 \
	  tests/unit/test_unit_of_work.py tests/integration/test_units_model.py \
	  tests/integration/test_open_caches_model.py tests/integration/test_mongo_clients_model.py \
	  tests/integration/test_celery_everywhere.py

soak: $(VENV)/.dev ## 20 processes under random faults and writes (MINUTES=5); prints what went wrong
	$(RUN) -m tests.faults.soak --minutes $(MINUTES)

bench: $(VENV)/.dev ## all benchmarks, and the peers from PyPI: under 15 minutes; writes benchmarks/results.json
	$(RUN) benchmarks/run.py

bench-quick: $(VENV)/.dev ## those that need no server, under a minute; fails when a count misses its goal
	$(RUN) benchmarks/run.py --quick

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

clean: ## remove .venv, the demo's data and all caches
	@$(PYTHON) mt_site/demo.py clean
	rm -rf $(VENV) .matrix .bench mt_site/.ruff_cache build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per extra: the environment is made again when what it needs has changed.
$(VENV)/.demo $(VENV)/.demoall $(VENV)/.dev: $(VENV)/.%: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one: make PYTHON=python3.12")'
	@echo "installing into $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
