# Every verb sets up what it needs. `make help` lists them.

PY := .venv/bin/python
# Most tests wait for leases and clocks, not for the processor.
SIDE_BY_SIDE := -n 5 --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help
BENCH_OPTIONS = $(foreach name,$(ONLY),--only $(name)) $(if $(JSON),--json $(JSON))
# Hundreds of processes are started by the tests: each would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help setup test check unit integration sim golden mutants demo soak compose-demo compose-images up bench bench-quick test-etcds format clean

help:  ## list these verbs
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## make .venv with everything that development needs
	@tools/setup

test: check  ## lint, types, and every test (starts its own etcd processes)
	$(PY) -m tests.support.fetch_etcd --needed
	$(PY) -m pytest $(SIDE_BY_SIDE)

check: setup  ## lint and types only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

unit: setup  ## the tests that need no etcd: seconds
	$(PY) -m pytest -m "not etcd" tests/unit tests/property tests/cli

integration: setup  ## the tests on real etcd processes
	$(PY) -m pytest $(SIDE_BY_SIDE) tests/contract tests/integration tests/e2e

sim: setup  ## simulate clusters under faults: SEEDS=1000 JOBS=2 STRETCH=60, or SEED=42 to replay one
	$(PY) -m etcsched.testing.sim $(if $(SEED),--seed $(SEED)) $(if $(SCENARIO),--scenario $(SCENARIO)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(STRETCH),--stretch $(STRETCH))

mutants: setup  ## plant each known bug in turn, and see that it is caught: SEEDS=500 to look for more
	$(PY) -m tests.mutants $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST))

golden: setup  ## write the scenarios in tests/scenarios/golden anew, and show what differs
	$(PY) -m tests.scenarios.golden $(NAMES)

demo: setup  ## a cluster, kills, and a verdict, in under a minute
	$(PY) -m etcsched_cli demo

soak: setup  ## random kills and freezes for MINUTES=60, and the audit's verdict
	$(PY) -m etcsched_cli demo --soak $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

compose-demo: setup  ## the same in containers, with freezes and cuts (needs a Docker Engine)
	$(PY) -m etcsched_cli demo --compose compose

compose-images: setup  ## the containers' base images without a registry (root, debootstrap)
	compose/offline-images

up: setup  ## a whole cluster on this machine until Ctrl-C
	$(PY) -m etcsched_cli up

bench: setup  ## every measure beside its limit: ONLY="lateness burst" JSON=FILE
	$(PY) -m tests.bench $(BENCH_OPTIONS)

bench-quick: setup  ## the same in under two minutes, coarser: ONLY, JSON as well
	$(PY) -m tests.bench --quick $(BENCH_OPTIONS)

test-etcds: setup  ## fetch more etcd versions to test on
	$(PY) -m tests.support.fetch_etcd

format: setup  ## put the code in its standard form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## remove what these verbs made
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
