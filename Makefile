# make demo and make test need Python >= 3.11 with venv, and make; everything else is built here.
PYTHON ?=
ARGS ?=
export PYTHON
BIN = .venv/bin

.PHONY: help demo test lint types bench lock clean env
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

# On a terminal the demo gets a process group of its own (set -m): Ctrl-C ends it, not make, and its verdict stays
# the exit status.
demo: .venv-demo/.stamp ## the whole way once, on real flights (ARGS="--no-faults")
	@demo=".venv-demo/bin/mlobs demo"; if [ -t 0 ]; then set -m; $$demo $(ARGS); else exec $$demo $(ARGS); fi

test: .venv/.stamp lint types ## every test; on Debian against real servers
	@$(BIN)/python tools/fetch-servers
	@$(BIN)/python -m pytest $(ARGS)

lint: .venv/.stamp ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.stamp ## mypy --strict
	@$(BIN)/mypy --strict mlobs

bench: .venv/.stamp ## us and the peers in one run, as ratios (ARGS="observe" for one of them)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

lock: .venv/.stamp ## rewrites requirements/*.txt; needs uv in PATH
	@tools/lock $(ARGS)

env: .venv/.stamp ## the development environment

clean: ## environments, caches, build output
	rm -rf .venv .venv-demo .cache .nox .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp: requirements/dev.txt requirements/build.txt pyproject.toml tools/build_env.py
	@python=$$(tools/find-python) && "$$python" tools/build_env.py .venv requirements/dev.txt

.venv-demo/.stamp: requirements/demo.txt requirements/build.txt pyproject.toml tools/build_env.py
	@python=$$(tools/find-python) && "$$python" tools/build_env.py .venv-demo requirements/demo.txt
