SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test prove check bench dashboards clean

# The folder that `make run` works on; empty: a sample tree that it lays out first.
DIR ?=
SAMPLE := sample/upload/resize_cache
# Anything: stop after the first pass, and verify what it made.
ONCE ?=
# Where the service keeps what it remembers.
export WEBPD_STATE_DIR ?= $(CURDIR)/state
# Options for pytest, such as PYTEST="-k publisher -x".
PYTEST ?=

help: ## Show what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

run: ## Run the service on DIR=… (default: a sample tree made of real photographs) until Ctrl-C; ONCE=1: one pass
	@tools/setup.sh $(if $(DIR),run,sample)
	@$(if $(DIR),,.venv/bin/python tools/sample.py $(SAMPLE))
	.venv/bin/webpd run $(if $(ONCE),--once) "$(or $(DIR),$(SAMPLE))"
	$(if $(ONCE),.venv/bin/webpd verify "$(or $(DIR),$(SAMPLE))")

# More at a time than CI has cores: half of them mostly wait. What fails in the crowd is tried again alone, once.
test: ## Run every check at a small size
	@tools/setup.sh test
	.venv/bin/pytest -n 3 --dist worksteal --cov --cov-report=term $(PYTEST) || \
		.venv/bin/pytest --last-failed --last-failed-no-failures none

prove: ## Run every check at its full size (about an hour)
	@tools/setup.sh test
	PROVE=1 .venv/bin/pytest -s $(PYTEST)

check: ## Lint, types, layers
	@tools/setup.sh check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: ## Measure speed and sizes against the bare codec and against peers
	@tools/setup.sh bench
	.venv/bin/python -m bench.quality
	.venv/bin/python -m bench.throughput
	.venv/bin/python -m bench.scan

dashboards: ## Write deploy/grafana/dashboards anew from tools/dashboards
	@tools/setup.sh test
	.venv/bin/python -m tools.dashboards

clean: ## Remove what the other targets made
	rm -rf .venv build dist sample state bench/out bench/node_modules .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
