# Every target sets up what it needs in $(VENV); nothing has to be installed before but Python 3.11 to 3.13.
PYTHON ?= python3
VARIANT ?= BiT-digits
VENV ?= .venv
RUN := $(VENV)/bin/
INSTALL ?= $(RUN)python -m pip install --quiet
PEERS := .venv-peers

.PHONY: help convert quick test lint types docs bench clean

help:  ## print this (the default)
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F': ' '{printf "  %-9s %s\n", $$1, $$2}'
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) VARIANT=$(VARIANT)"

convert: $(VENV)/convert.stamp  ## convert, verify and publish VARIANT into ./hub
	$(RUN)bit-convert --variant $(VARIANT) --push --hub hub

quick: $(VENV)/quick.stamp  ## the tests to run after each change, in under a minute
	$(RUN)python -m pytest --quick -n auto -r fE

test: $(VENV)/test.stamp  ## every test, in some eight minutes
	$(RUN)python -m pytest -n auto --dist worksteal

lint: $(VENV)/quick.stamp  ## ruff's rules and format
	$(RUN)ruff check .
	$(RUN)ruff format --check .

types: $(VENV)/test.stamp  ## mypy, strict
	$(RUN)mypy

docs: $(VENV)/docs.stamp  ## the guide and the reference as a site, build/site/index.html
	rm -rf build/site docs/reference
	$(RUN)python -m sphinx --builder html --doctree-dir build/doctrees \
	    --jobs auto --nitpicky --fail-on-warning --keep-going --quiet docs build/site

# Every benchmark against the peers, which live in an environment of their own; fails where a goal is missed.
bench: $(PEERS)/bench.stamp  ## every benchmark beside timm and transformers
	status=0; for script in $(wildcard benchmarks/*.py); do \
	    case $$script in */common.py|*/tolerance.py) continue;; esac; \
	    echo; echo "== $$script"; $(PEERS)/bin/python $$script || status=1; \
	done; exit $$status

clean:  ## remove environments and everything that was made
	rm -rf $(VENV) $(PEERS) build dist *.egg-info models hub parity docs/reference

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "bit-convert needs Python 3.11 to 3.13: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/convert.stamp: $(VENV)/python.stamp pyproject.toml
	$(INSTALL) -e .
	touch $@

$(VENV)/quick.stamp: $(VENV)/python.stamp pyproject.toml
	$(INSTALL) -e '.[quick]'
	touch $@ $(VENV)/convert.stamp

# Installed together with what the tests need, so that torch and torchvision match.
$(VENV)/test.stamp: $(VENV)/python.stamp pyproject.toml
	$(INSTALL) -e '.[test]'
	touch $@ $(VENV)/convert.stamp $(VENV)/quick.stamp

$(VENV)/docs.stamp: $(VENV)/python.stamp pyproject.toml
	$(INSTALL) -e '.[docs]'
	touch $@ $(VENV)/convert.stamp

$(PEERS)/bench.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN)python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -e '.[bench]'
	touch $@
