# Every target creates the environment .venv if it is missing, or if its inputs have changed.

PYTHON ?= python3
ARGS ?=

# The image: for cpu or cuda, with different names.
VARIANT ?= cpu
IMAGE ?= inq_ray$(if $(filter cuda,$(VARIANT)),:cuda)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# Python writes bytecode (every process of Ray imports torch), and Ray sends no usage statistics.
unexport PYTHONDONTWRITEBYTECODE
export RAY_USAGE_STATS_ENABLED := 0

FINISHED := .venv/.finished
PY := .venv/bin/python
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal

# An environment has absolute paths: one that was created elsewhere counts as missing.
ifneq ($(file <$(FINISHED)),$(CURDIR))
.PHONY: $(FINISHED)
endif

$(FINISHED): pyproject.toml constraints.txt .ci/setup
	@PYTHON='$(PYTHON)' .ci/setup

.PHONY: help setup demo test test-long test-gpu soak lint format docs flags results results-check bench bench-gpu constraints image image-test clean

help: ## show this list
	@echo 'make TARGET [PYTHON=python3.11] [ARGS="more arguments for demo, test and test-gpu"]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

setup: $(FINISHED) ## make the environment .venv (the other targets do it by themselves)

demo: $(FINISHED) ## quantize a small network for handwritten digits on two Ray workers, in under a minute
	@$(PY) jobs/quantize_imagenet.py $(ARGS)

test: $(FINISHED) ## run the tests, 10 minutes on two cores: the quick ones, then programs, servers and ranks, then a local Ray cluster
	@failed=''
	echo '== Tests of parts'
	$(PY) -m pytest -m 'not system and not ray and not gpu and not long' $(PARALLEL) $(ARGS) || failed="$$failed parts"
	echo "== Tests of programs, servers, ranks and whole runs (after $$SECONDS s)"
	$(PY) -m pytest -m 'system and not ray and not gpu and not long' $(PARALLEL) $(ARGS) || [ $$? -eq 5 ] || failed="$$failed system"
	echo "== Tests on a local Ray cluster (after $$SECONDS s)"
	$(PY) -m pytest -m 'ray and not gpu and not long' $(ARGS) || [ $$? -eq 5 ] || failed="$$failed on-Ray"
	if [ -n "$$failed" ]; then echo "== FAILED after $$SECONDS s:$$failed" >&2; exit 1; fi
	echo "== All tests passed in $$SECONDS s"

test-long: $(FINISHED) ## run the long tests: nodes, killed sweeps, TLS, runs of all sizes
	@$(PY) -m pytest -m 'long and not gpu' $(ARGS)

soak: $(FINISHED) ## random faults against runs on Ray until Ctrl-C (ARGS="--rounds 5 --seed 1"): each must end in the same bits
	@OMP_NUM_THREADS=1 $(PY) -m tests.soak $(ARGS)

test-gpu: $(FINISHED) ## run the tests that need a GPU
	@$(PY) -m pytest -m gpu $(ARGS)

lint: $(FINISHED) ## check style and types
	@.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(FINISHED) ## format the code as lint requires
	@.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

flags: $(FINISHED) ## generate the tables of docs/flags.md from the declarations of options
	@$(PY) -m inq_ray.cli.flag_tables docs/flags.md

docs: $(FINISHED) ## build the site of the documents and docstrings into build/site, without a warning
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	echo 'build/site/index.html; with search: $(PY) -m http.server --bind 127.0.0.1 --directory build/site'

results: $(FINISHED) ## generate the results table, page and picture from docs/results/
	@$(PY) -m benchmarks.results write

results-check: $(FINISHED) ## fail if the results table or page differs from docs/results/
	@$(PY) -m benchmarks.results check

bench-gpu: $(FINISHED) ## measure training on a GPU against plain torch: a table in some minutes
	@$(PY) benchmarks/bench_gpu.py

bench: $(FINISHED) ## run benchmarks/ but for GPUs, each with ratios of one run, and `inq-ray benchmark` of a small network
	@for benchmark in $(filter-out benchmarks/bench_gpu.py,$(wildcard benchmarks/bench_*.py)); do echo "== $$benchmark"; $(PY) "$$benchmark"; done
	echo '== inq-ray benchmark'
	mkdir -p build
	$(PY) -m inq_ray benchmark --arch cifar_resnet20 --output build/benchmark $(ARGS)

constraints: ## write constraints.txt after pyproject.toml changed (ARGS=--upgrade: with newest versions)
	@[ -x .venv/bin/uv ] || PYTHON='$(PYTHON)' .ci/setup  # only for uv: constraints may not fit pyproject.toml yet
	printf 'hatchling\nuv\n' | .venv/bin/uv pip compile pyproject.toml - --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --quiet --output-file constraints.txt $(ARGS) >/dev/null

image: ## build the image for clusters (VARIANT=cuda: inq_ray:cuda, for GPUs; IMAGE=NAME: under another name)
	@docker/make-image '$(IMAGE)' --build-arg 'VARIANT=$(VARIANT)' $(ARGS)

image-test: ## test the image: a cluster of three nodes, and a job
	@docker/image-test '$(IMAGE)'

clean: ## remove caches and build outputs; the environment stays (rm -rf .venv)
	@rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find inq_ray jobs tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
