# make demo: the main job, end to end.   make test: the whole test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format protos protos-check bench gpu clean

$(VENV)/.installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed clients/typescript/node_modules
	$(BIN)/python -m pytest -q

clients/typescript/node_modules: clients/typescript/package-lock.json
	cd clients/typescript && npm ci --no-audit --no-fund --silent

check: $(VENV)/.installed protos-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(VENV)/.installed
	$(BIN)/python protos/generate.py

protos-check: $(VENV)/.installed
	$(BIN)/python protos/generate.py --check

# Every GPU test and benchmark, offline, on the Python that is there.
gpu:
	PYTHONPATH=.:protos/generated:clients/python $(PYTHON) -m pytest -q -m gpu
	PYTHONPATH=.:protos/generated:clients/python $(PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) clients/typescript/node_modules .mypy_cache .pytest_cache .ruff_cache
