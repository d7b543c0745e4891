.DEFAULT_GOAL := help
.PHONY: help install check format

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

install:  ## the project and what its tests need, into the current environment
	pip install -e ".[test]"

check:  ## what the commit hooks and .ci/run check: format, lint, types, tests
	ruff format --check .
	ruff check .
	mypy
	pytest

format:  ## put the code in order
	ruff format .
	ruff check --fix .
