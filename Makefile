# make demo: the main job, end to end.   make test: the whole test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Processes that share the tests; 0: one, which runs them in the order of their files.
TEST_WORKERS ?= 0

# The fuzz tests of all doors with new examples, FUZZ_FACTOR times as many as in `make test`.
FUZZ_FACTOR ?= 20

.PHONY: demo test fuzz check format protos protos-check docs docs-check gpu gpu-wheels clean

$(VENV)/.installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	-$(BIN)/python -m stage_servers.engine.native.build
	-$(BIN)/python -m kv_transfer.native.copies
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed clients/typescript/node_modules
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS)

fuzz: $(VENV)/.installed
	HYPOTHESIS_PROFILE=explore FUZZ_FACTOR=$(FUZZ_FACTOR) $(BIN)/python -m pytest -q --timeout 3600 tests/coordinator/fuzz

clients/typescript/node_modules: clients/typescript/package-lock.json
	cd clients/typescript && npm ci --no-audit --no-fund --silent

check: $(VENV)/.installed protos-check docs-check
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

docs: $(VENV)/.installed
	$(BIN)/python protos/document.py

docs-check: $(VENV)/.installed
	$(BIN)/python protos/document.py --check

# Every GPU test and benchmark, whatever fails before it, offline, on the Python that is there. What that Python lacks is carried as
# wheels: `make gpu-wheels` fetches them, for Python GPU_PYTHON, where there is a package index.
GPU_SITE := build/gpu-site
GPU_PATH := .:protos/generated:clients/python:$(GPU_SITE)
GPU_WHEELS := build/gpu-wheels
GPU_PYTHON ?= 3.12
GPU_RESULTS ?= benchmarks/results
GPU_TEST_WORKERS ?= 4
GPU_TESTS = $(shell grep -rl --include='test_*.py' 'mark\.gpu' tests)
GPU_GLIBCS := 5 12 17 24 27 28 31 34 35
GPU_LACKS := grpcio protobuf grpcio-health-checking grpcio-reflection grpcio-status googleapis-common-protos pytest-asyncio \
  llguidance starlette uvicorn httptools pydantic typer

gpu:
	rm -rf $(GPU_SITE)
	if ls $(GPU_WHEELS)/*.whl >/dev/null 2>&1; then $(PYTHON) -m pip install --quiet --no-index --no-deps \
	  --target $(GPU_SITE) $(GPU_WHEELS)/*.whl; fi
	status=0; export PYTHONPATH=$(GPU_PATH); \
	  $(PYTHON) -m pytest -q -p no:benchmark -n $(GPU_TEST_WORKERS) -m gpu $(GPU_TESTS) || status=1; \
	  $(PYTHON) -m benchmarks.gpu --json-dir $(GPU_RESULTS) || status=1; exit $$status

gpu-wheels: $(VENV)/.installed
	rm -rf $(GPU_WHEELS)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: -d $(GPU_WHEELS) \
	  --implementation cp --python-version $(GPU_PYTHON) $(GPU_GLIBCS:%=--platform manylinux_2_%_x86_64) \
	  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
	  $(foreach name,$(GPU_LACKS),$$(grep '^$(name)==' requirements.txt)) \
	  $$($(BIN)/python -m pip freeze | grep -iE '^(pydantic[-_]core|annotated[-_]types|typing[-_]inspection)==')

clean:
	rm -rf $(VENV) clients/typescript/node_modules build .mypy_cache .pytest_cache .ruff_cache
