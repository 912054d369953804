# The targets make .venv on first use, from the versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
BENCH_READY := .venv/ready-bench

.PHONY: help compare chapter test test-slow check bench bench-quick clean

help:
	@echo "make compare      compare techniques on digits: table, figure and CSV under out/"
	@echo "make chapter      run the chapter's experiments on MNIST beside the chapter's figures"
	@echo "make test         run the tests"
	@echo "make test-slow    run the tests that take minutes"
	@echo "make check        lint, format and type checks"
	@echo "make bench        measure speed and memory beside other libraries: benchmarks/RESULTS.md, in twenty minutes"
	@echo "make bench-quick  the same in three minutes, reduced: out/bench-quick/RESULTS.md"

$(READY): pyproject.toml constraints.txt $(wildcard skdnn/engine/native/*)
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

# The contestants that only benchmarks need; one that cannot be installed is left out there.
$(BENCH_READY): $(READY)
	-$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

bench: $(BENCH_READY)
	$(BIN)/python -m benchmarks

bench-quick: $(BENCH_READY)
	$(BIN)/python -m benchmarks --quick

clean:
	rm -rf .venv out build *.egg-info
