# `make convert` and `make test` set up all they need in .venv; nothing else has to be installed but Python 3.11+.
PYTHON ?= python3
VARIANT ?= BiT-digits
VENV := .venv
RUN := $(VENV)/bin/
PEERS := .venv-peers

.PHONY: convert test lint types bench clean

convert: $(VENV)/convert.stamp
	$(RUN)bit-convert --variant $(VARIANT) --push --hub hub

test: $(VENV)/test.stamp
	$(RUN)python -m pytest -n auto

lint: $(VENV)/test.stamp
	$(RUN)ruff check .
	$(RUN)ruff format --check .

types: $(VENV)/test.stamp
	$(RUN)mypy

# Every benchmark against the peers, which live in an environment of their own; fails where a goal is missed.
bench: $(PEERS)/bench.stamp
	status=0; for script in $(wildcard benchmarks/*.py); do \
	    case $$script in */common.py|*/tolerance.py) continue;; esac; \
	    echo; echo "== $$script"; $(PEERS)/bin/python $$script || status=1; \
	done; exit $$status

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info models hub parity

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "bit-convert needs Python 3.11 to 3.13: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/convert.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN)python -m pip install --quiet -e .
	touch $@

# Installed together with what the tests need, so that torch and torchvision match.
$(VENV)/test.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN)python -m pip install --quiet -e '.[test]'
	touch $@ $(VENV)/convert.stamp

$(PEERS)/bench.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN)python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -e '.[bench]'
	touch $@
