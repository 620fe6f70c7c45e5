# make compare and make test do all of their own set-up: a virtual environment with the pinned dependencies.

.DEFAULT_GOAL := help
.PHONY: help compare atlas gallery speed growth scaling soak test coverage check validate setup lock format clean

# The first interpreter of at least 3.12; `make PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for p in python3.12 python3.13 python3 python python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
BIN := .venv/bin
READY := .venv/.ready

help:
	@echo "make compare   fit digits by NUTS, SVI and Bayes-by-Backprop, print the scoreboard (about 2 minutes)"
	@echo "make atlas     every bundled data set, model and method, three seeds (under an hour on 2 cores)"
	@echo "make gallery   every figure from real runs, on one page (about 10 minutes)"
	@echo "make speed     hmcvi beside NumPyro, blackjax, nutpie, torch, scikit-learn and tinygp (hours; ARGS=--quick: minutes)"
	@echo "make growth    time and memory against rows, parameters, draws and chains (about 20 minutes on 2 cores)"
	@echo "make scaling   fits on 1, 2 and 4 host devices: the same work, and work that grows with them (ARGS=--quick: a minute)"
	@echo "make soak      an hour of fits in one process, and of sweeps that are killed: does memory stay, do results?"
	@echo "make test      the tests"
	@echo "make coverage  the tests, and which lines and branches they reach"
	@echo "make validate  the statistical checks over many fits, which the tests leave out (under an hour), and their table"
	@echo "make check     linter, formatter, type checker, known vulnerabilities of the dependencies"
	@echo "make lock      pin the newest versions of the dependencies"
	@echo "make clean     remove the environment and all caches"

compare: $(READY)
	$(BIN)/hmcvi compare $(ARGS)

atlas: $(READY)
	$(BIN)/python -m hmcvi.benchmarks.atlas --publish benchmarks/results/atlas $(ARGS)

gallery: $(READY)
	$(BIN)/python -m hmcvi.benchmarks.gallery --publish benchmarks/results/gallery $(ARGS)

speed: $(READY)
	$(BIN)/python -m hmcvi.benchmarks.speed --publish benchmarks/results/speed $(ARGS)

growth: $(READY)
	$(BIN)/python -m hmcvi.benchmarks.growth --publish benchmarks/results/growth $(ARGS)

scaling: $(READY)
	$(BIN)/python -m hmcvi.benchmarks.scaling --publish benchmarks/results/scaling $(ARGS)

soak: $(READY)
	$(BIN)/python -m hmcvi.benchmarks.soak --publish benchmarks/results/soak $(ARGS)

test: $(READY)
	MPLBACKEND=Agg $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: $(READY)
	$(MAKE) test ARGS="--cov --cov-report term $(ARGS)"

# A later -m takes the place of the default's.
validate: $(READY)
	MPLBACKEND=Agg $(BIN)/python -m pytest -n 2 --dist loadfile -m validate \
		--validation benchmarks/results/validate $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p hmcvi.models -p hmcvi.inference -p hmcvi.plots -p hmcvi.benchmarks
	$(BIN)/python .ci/audit.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

# requirements.txt pins every package by version and hash; it holds no index address.
$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "hmcvi needs Python 3.12 or newer: install it, or make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# Static tools follow an editable install's imports only through a path.
	mkdir -p .pathmap/hmcvi
	for room in models inference plots benchmarks; do ln -sfn ../../$$room .pathmap/hmcvi/$$room; done
	touch $@

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.12 --generate-hashes \
		--upgrade --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.txt

clean:
	rm -rf .venv .pathmap .mypy_cache .ruff_cache .pytest_cache .coverage* build dist *.egg-info
