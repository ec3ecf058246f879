# The four doors. Each makes its own virtual environment if there is none.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.cpp csrc/*.h) setup.py pyproject.toml constraints.txt

.PHONY: demo test bench lint clean

demo: $(VENV)/.installed
	$(BIN)/lc-engine demo --out demo-out

# Two processes: a kernel is either interpreted or compiled, and triton decides that when imported.
test: $(VENV)/.installed
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m interpreter
	$(BIN)/python -m pytest -m "not interpreter"

bench: $(VENV)/.installed
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' --benchmark-only \
		--benchmark-json=benchmarks/latest.json
	$(BIN)/python -m benchmarks.readme_table benchmarks/latest.json README.md

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror csrc/*.cpp csrc/*.h

$(VENV)/.installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist *.egg-info demo-out .venv lc_engine/_native*.so
