# make demo | test | check | bench | fuzz | cluster-test; the first call makes .venv from the pins in constraints.txt
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test check bench fuzz cluster-test clean

demo: $(VENV)/.installed
	$(BIN)/python pipelines/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m ray
	$(BIN)/python -m pytest -m 'not ray' -n 2

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python -m benchmarks.decoders
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/describe.py
	$(BIN)/python benchmarks/retrieval_metrics.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/scaling.py

# Damaged files and replies, 2,000 seeded cases; `make test` runs a slice.
fuzz: $(VENV)/.installed
	FUZZ_CASES=2000 $(BIN)/python -m pytest tests/fuzz -m 'not ray'

# Two hosts with SSH on this machine, as namespaces; needs Linux and root, and fails with a message elsewhere.
cluster-test: $(VENV)/.installed
	$(BIN)/python -m tests.cluster

# uv where it can be installed (seconds), plain pip otherwise (minutes); both take the same pins.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	touch $@

clean:
	rm -rf demo runs .mypy_cache .pytest_cache .ruff_cache
