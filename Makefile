# What a developer does here. Everything happens in .venv, which `setup` makes.

PYTHON ?= python3
BIN := .venv/bin
EXAMPLE := examples/word_count
OUT := build/demo
SEEDS ?= 1000
JOBS ?= 3

.PHONY: setup demo test test-cluster simulate lint protos crds bench bench-rescale clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt setup.py $(wildcard worker/wallaroo/state/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

## Word count over the King James text on 3 workers: where keys live, and the top words; then again
## and again, rescaled from 3 to 4 and 2 workers meanwhile, with every count checked.
demo: setup
	@rm -rf $(OUT) && mkdir -p $(OUT)
	$(BIN)/wallaroo run --workers 3 --dir $(OUT)/dir $(EXAMPLE)/word_count.py --out $(OUT)/counts.txt
	$(BIN)/python $(EXAMPLE)/top.py $(OUT)/counts.txt
	$(BIN)/python $(EXAMPLE)/live.py $(OUT)/live

## All checks and tests, in JOBS processes.
test: setup lint
	$(BIN)/pytest -n $(JOBS) --dist worksteal

## On a real Kubernetes: that of KUBECONFIG, else one that is started here (root, Linux); with
## PYTEST='-k rescale' only some of it. tests/cluster/conftest.py says what it needs.
test-cluster: setup
	$(BIN)/pytest tests/cluster -n 6 --maxschedchunk 1 $(PYTEST)

## Seeds 0 to SEEDS - 1 of simulated clusters, on all cores: make simulate SEEDS=10000.
simulate: setup
	$(BIN)/python -m tests.simulation.sim_run --seeds $(SEEDS)

lint: setup
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

## The Python of the wire, from protos/.
protos: setup
	$(BIN)/python protos/generate.py

## The CustomResourceDefinition and its reference, from the schema in the operator.
crds: setup
	$(BIN)/python -m wallaroo_operator.crd .

## Throughput, latency, memory, checkpoints, recovery, disk; the bare Python loop and bytewax beside.
bench: setup
	-$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py

## Rescaling under load, beside stop-and-restart and beside moving all at once; a plot in build/.
bench-rescale: setup
	-$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/rescale.py

clean:
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
