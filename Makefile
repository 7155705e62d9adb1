# Every target sets up what it needs in $(VENV); nothing has to be installed before but Python 3.11 to 3.13.
PYTHON ?= python3
VARIANT ?= BiT-digits
VENV ?= .venv
WORKERS ?= auto
RUN := $(VENV)/bin/
INSTALL ?= $(RUN)python -m pip install --quiet
# Images of Python set it, and each of the many processes of a test run would compile all of PyTorch anew.
unexport PYTHONDONTWRITEBYTECODE
PEERS := .venv-peers

# What is installed: what pyproject.toml asks for; or with LOCK=requirements.lock exactly what that names, by its hashes.
LOCK ?=
PACKAGES = $(if $(LOCK),--no-deps --no-build-isolation -e .,-e '.[$(1)]')
LOCKED = $(if $(LOCK),$(RUN)python -m pip install --quiet --require-hashes -r $(LOCK))
TOOLS := .venv-tools
UV := $(TOOLS)/bin/python -m uv
DIST ?= dist

.PHONY: help convert quick test lint types docs bench dist lock sbom audit clean

help:  ## print this (the default)
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F': ' '{printf "  %-9s %s\n", $$1, $$2}'
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) VARIANT=$(VARIANT) WORKERS=$(WORKERS) (of make quick)"

convert: $(VENV)/convert.stamp  ## convert, verify and publish VARIANT into ./hub
	$(RUN)bit-convert --variant $(VARIANT) --push --hub hub

quick: $(VENV)/quick.stamp  ## the tests to run after each change, in about a minute
	$(RUN)python -m pytest --quick -n $(WORKERS) --dist loadfile -r fE

# Each file in one process, or what a file makes for its tests is made more than once.
test: $(VENV)/test.stamp  ## every test, in less than half an hour on two slow cores
	$(RUN)python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/quick.stamp  ## ruff's rules and format
	$(RUN)ruff check .
	$(RUN)ruff format --check .

types: $(VENV)/test.stamp  ## mypy, strict
	$(RUN)mypy

docs: $(VENV)/docs.stamp  ## the guide and the reference as a site, build/site/index.html
	rm -rf build/site docs/reference
	$(RUN)python docs/pictures.py docs
	$(RUN)python -m sphinx --builder html --doctree-dir build/doctrees \
	    --jobs auto --nitpicky --fail-on-warning --keep-going --quiet docs build/site
	$(RUN)python docs/gallery.py build/site/gallery

# Every benchmark against the peers, which live in an environment of their own; fails where a goal is missed.
bench: $(PEERS)/bench.stamp  ## every benchmark beside timm and transformers
	status=0; for script in $(wildcard benchmarks/*.py); do \
	    case $$script in */common.py|*/tolerance.py) continue;; esac; \
	    echo; echo "== $$script"; $(PEERS)/bin/python $$script || status=1; \
	done; exit $$status

dist: $(TOOLS)/tools.stamp  ## sdist and wheel, the same bytes for the same commit
	$(TOOLS)/bin/python -m build --outdir $(DIST)

# Versions that are there stay: make lock UPGRADE=--upgrade, or UPGRADE='--upgrade-package NAME', takes the newest.
lock: $(TOOLS)/tools.stamp  ## requirements.lock, every version of development and CI, with hashes
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate $(UPGRADE) \
	    --custom-compile-command 'make lock' --extra test --extra docs --extra bench --output-file requirements.lock pyproject.toml

sbom: $(TOOLS)/tools.stamp  ## what the package needs to run, as CycloneDX, $(DIST)/bit-convert.cdx.json
	mkdir -p $(DIST) build
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraints requirements.lock \
	    --output-file build/runtime.txt pyproject.toml
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type library --output-reproducible --of JSON \
	    --output-file $(DIST)/bit-convert.cdx.json build/runtime.txt

audit: $(TOOLS)/tools.stamp  ## look for known vulnerabilities of what requirements.lock names
	$(TOOLS)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

clean:  ## remove environments and everything that was made
	rm -rf $(VENV) $(PEERS) $(TOOLS) build $(DIST) *.egg-info models hub parity docs/reference

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "bit-convert needs Python 3.11 to 3.13: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/convert.stamp: $(VENV)/python.stamp pyproject.toml $(LOCK)
	$(LOCKED)
	$(INSTALL) $(if $(LOCK),$(call PACKAGES),-e .)
	touch $@

$(VENV)/quick.stamp: $(VENV)/python.stamp pyproject.toml $(LOCK)
	$(LOCKED)
	$(INSTALL) $(call PACKAGES,quick)
	touch $@ $(VENV)/convert.stamp

# Installed together with what the tests need, so that torch and torchvision match.
$(VENV)/test.stamp: $(VENV)/python.stamp pyproject.toml $(LOCK)
	$(LOCKED)
	$(INSTALL) $(call PACKAGES,test)
	touch $@ $(VENV)/convert.stamp $(VENV)/quick.stamp

$(VENV)/docs.stamp: $(VENV)/python.stamp pyproject.toml $(LOCK)
	$(LOCKED)
	$(INSTALL) $(call PACKAGES,docs)
	touch $@ $(VENV)/convert.stamp

$(TOOLS)/tools.stamp:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet 'uv>=0.9'
	$(UV) pip install --quiet --python $(TOOLS) 'build>=1.2' 'cyclonedx-bom>=7' 'pip-audit>=2.7'
	touch $@

$(PEERS)/bench.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN)python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -e '.[bench]'
	touch $@
