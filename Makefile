# `make` lists what there is. Everything runs in .venv, which is made on first use.

# Interpreters to try, in this order; `make PYTHON=python3.12 ...` names one.
PYTHON ?= python3.13 python3.12 python3.11 python3
# pyspark 3.5 and numpy 1 end at Python 3.12, and are at home on 3.11.
PYTHON35 ?= python3.11 python3.12 python3

VENV := .venv
VENV35 := .venv-spark35
BIN := $(VENV)/bin
# Tests run in two processes: Spark leaves a part of two cores idle. ARGS='-n 0' runs them in one, for
# a debugger.
PYTEST := -m pytest -n 2 --dist worksteal
# What pyspark 3.5 runs: what differs there (reading and writing through Spark, Python workers, jobs
# and their cancellation, columns of predictions), and the arithmetic on numpy 1.
TESTS35 := tests/core \
	$(patsubst %,tests/engine/test_%.py,broadcast ingest interrupts left_behind rdd shards shared_properties) \
	$(patsubst %,tests/ml/test_%.py,bad_input conformance large_models persistence transform)

# Spark takes its settings and its log levels from conf/, its Python from .venv,
# and itself from the pyspark that is installed there.
SPARK := SPARK_CONF_DIR=$(CURDIR)/conf \
	PYSPARK_PYTHON=$(CURDIR)/$(BIN)/python PYSPARK_DRIVER_PYTHON=$(CURDIR)/$(BIN)/python
unexport SPARK_HOME

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup java demo test test-spark35 test-cluster test-client lint format bench bench-averaging bench-search bench-parity bench-tabular bench-peers notebooks zip wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: java $(VENV)/.made ## make .venv with everything in it (and Java, where allowed)

java:
	@.ci/need-java

# The stamp comes last: an interrupted set-up is taken up again.
$(VENV)/.made: pyproject.toml
	@.ci/make-venv $(VENV) "$(PYTHON)" \
		"The tools of development need Python 3.11 or later, and none of '$(PYTHON)' is: install python3.11." \
		--editable '.[dev]'
	@touch $@

$(VENV35)/.made: pyproject.toml
	@MAX_PYTHON=3.12 .ci/make-venv $(VENV35) "$(PYTHON35)" \
		"pyspark 3.5 needs Python 3.11 or 3.12, and none of '$(PYTHON35)' is: install python3.11." \
		--editable '.[test,spark35]'
	@touch $@

demo: setup ## train on all of MNIST with Spark on this machine (conf/mnist.toml)
	@$(SPARK) $(BIN)/spark-submit --master 'local[*]' sparknn/__main__.py train conf/mnist.toml

test: setup ## run every test; make test ARGS='-k averaging' picks some
	$(BIN)/python $(PYTEST) $(ARGS)

test-spark35: java $(VENV35)/.made ## run what may differ on pyspark 3.5 and numpy 1
	$(VENV35)/bin/python $(PYTEST) $(TESTS35) $(ARGS)

test-cluster: setup ## run the tests of faults, soak and size in tests/cluster, for an hour
	$(BIN)/python -m pytest -o norecursedirs='.*' --timeout 3600 -s tests/cluster $(ARGS)

test-client: setup ## fit over Spark Connect by a client that has no py4j (pyspark-client)
	@$(BIN)/python -m venv build/client
	@build/client/bin/pip install --quiet pyspark-client 'pandas<3'
	$(BIN)/python tests/cluster/pure_client.py build/client/bin/python

lint: setup ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m mypy

format: setup ## repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup ## measure the figures that the README states
	@$(SPARK) $(BIN)/python tests/benchmarks/figures.py $(ARGS)

bench-averaging: setup ## measure ways of averaging against each other
	@$(SPARK) $(BIN)/python tests/benchmarks/averaging.py $(ARGS)

bench-search: setup ## time a grid search in one pass against a fit after the other
	@$(SPARK) $(BIN)/python tests/benchmarks/grid_search.py $(ARGS)

bench-parity: setup ## compare the defaults with those of scikit-learn and Spark
	@$(SPARK) $(BIN)/python tests/benchmarks/parity.py $(ARGS)

bench-tabular: setup ## compare the defaults with those of boosted trees on real tables
	@$(SPARK) $(BIN)/python tests/benchmarks/tabular.py $(ARGS)

bench-peers: setup ## compare speed with PyTorch, scikit-learn, XGBoost and Spark's own
	@$(SPARK) $(BIN)/python tests/benchmarks/peers.py $(ARGS)

notebooks: setup ## run the notebooks in full and keep their output
	@$(BIN)/python .ci/run-notebooks $(ARGS)

zip: setup ## build dist/sparknn-VERSION.zip for spark-submit --py-files
	@$(BIN)/python .ci/build-zip

wheel: setup ## build dist/sparknn-VERSION-py3-none-any.whl
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove what make, the tests and Spark left, the environments included
	rm -rf $(VENV) $(VENV35) build dist out *.egg-info spark-warehouse artifacts metastore_db derby.log
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
