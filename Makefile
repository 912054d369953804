# The targets make .venv on first use, from the versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help compare chapter test test-slow check bench clean

help:
	@echo "make compare    compare techniques on digits: table, figure and CSV under out/"
	@echo "make chapter    run the chapter's experiments on MNIST beside the chapter's figures"
	@echo "make test       run the tests"
	@echo "make test-slow  run the tests that take minutes"
	@echo "make check      lint, format and type checks"
	@echo "make bench      measure fit speed against MLPClassifier"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

compare: $(READY)
	$(BIN)/python examples/compare_techniques.py

chapter: $(READY)
	$(BIN)/python examples/chapter_mnist.py

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/fit_speed.py

clean:
	rm -rf .venv out build *.egg-info
