# make demo        find objects in two photos with the detector that ships in the package
# make light       install the wheel alone in a new environment, and check that it works without torch
# make test        ruff, mypy and all tests
# make test-fast   the tests to run while working: everything that is not marked slow
# make tools       get what the tests of examples/cpp and examples/web need; without it these tests are skipped
# make fuzz        read 20,000 files that were damaged at random; takes minutes. SEED=1 and COUNT=500 change the cases
# make clean       remove the environment, builds and caches
# Each but `make light` and `make tools` uses a virtual environment in .venv, which it makes: `make demo` without torch
# (0.25 GB), the others with everything (7 GB). PYTHON=python3.12 make test uses another Python (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
COUNT ?= 20000
SEED ?= 0
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo light test test-fast tools fuzz lint format clean

demo: .venv/.installed
	$(BIN)/fcos predict examples/photos --viz --out predictions

light:
	PYTHON=$(PYTHON) tests/light_install.sh

test: lint
	$(PYTEST)

test-fast: .venv/.installed-dev
	$(PYTEST) -m "not slow and not gpu"

tools:
	tests/example_tools.sh

fuzz: .venv/.installed-dev
	$(BIN)/python -m tests.hostile.fuzz --count $(COUNT) --seed $(SEED)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.installed: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --editable .
	touch $@

.venv/.installed-dev: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --editable ".[dev]"
	touch $@ .venv/.installed

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
