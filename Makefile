# The four doors. Each makes its own virtual environment if there is none.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.cpp csrc/*.h) setup.py pyproject.toml constraints.txt

# A virtual environment each, as their pins conflict: make test-integrations FRAMEWORKS="trl cleanlab"
FRAMEWORKS ?= trl lightning cleanlab llamafactory data-juicer nemo-curator
TESTS_trl := test_trainers.py
TESTS_lightning := test_rescoring.py

.PHONY: demo test test-integrations bench lint clean

demo: $(VENV)/.installed
	$(BIN)/lc-engine demo --out demo-out

# Two processes: a kernel is either interpreted or compiled, and triton decides that when imported.
test: $(VENV)/.installed
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m interpreter
	$(BIN)/python -m pytest -m "not interpreter"

test-integrations: $(FRAMEWORKS:%=test-integration-%)

# The import first: without the framework its tests would be skipped, not failed.
test-integration-%:
	test -x .venvs/$*/bin/python || $(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip install --quiet --editable ".[$*,hf,language,select,vision]" pytest
	.venvs/$*/bin/python -c "import $(subst -,_,$*)"
	PATH="$(CURDIR)/.venvs/$*/bin:$$PATH" .venvs/$*/bin/python -m pytest \
		tests/integrations/$(or $(TESTS_$*),test_$(subst -,_,$*).py)

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
	rm -rf build dist *.egg-info demo-out .venv .venvs lc_engine/_native*.so
