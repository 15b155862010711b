# Two commands do all the set-up: `make demo` and `make test`. Both install what they need into this folder.
PYTHON ?= python3
ANVIL_VERSION := 1.7.1
OIDC_PROVIDER_VERSION := 9.13.3
AXE_VERSION := 4.14.1
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := .tools/.anvil-$(ANVIL_VERSION)-oidc-provider-$(OIDC_PROVIDER_VERSION)-axe-$(AXE_VERSION)

.PHONY: help install demo demo-docker test trials trials-sample bench docs lint format clean

help:
	@echo "make demo    deploy this repository's bots to a local cluster on a real chain, then stop everything"
	@echo "make demo-docker  the same with containers, on a machine with docker.io"
	@echo "make test    lint, types and tests"
	@echo "make trials  the tests that take minutes"
	@echo "make trials-sample  some of them, in one or two"
	@echo "make bench   what commands and deployments cost, beside the public command line"
	@echo "make docs    the documentation as a site, in docs/_build"
	@echo "make install what both need: a virtual environment in $(VENV), anvil and oidc-provider in .tools"

install: $(INSTALLED) $(TOOLS)

$(INSTALLED): setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# A chain for the demo and the tests, an OpenID provider and an accessibility checker for the tests. One command: a second one would remove what
# the first installed. anvil's binary is in the package for this platform, which npm picks as an optional dependency; no
# script has to run.
$(TOOLS):
	npm install --prefix .tools --no-save --no-audit --no-fund --ignore-scripts --loglevel=error \
		@foundry-rs/anvil@$(ANVIL_VERSION) oidc-provider@$(OIDC_PROVIDER_VERSION) axe-core@$(AXE_VERSION)
	touch $@

demo: install
	$(BIN)/python -m demo

# The same with containers: needs a Docker Engine that answers, or root and the package docker.io (with busybox-static).
demo-docker: install
	$(BIN)/python -m demo --docker

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: install lint
	$(BIN)/python -m pytest -n auto --dist loadgroup

trials: install
	$(BIN)/python -m pytest -n auto --dist loadgroup -m trial

trials-sample: install
	$(BIN)/python -m pytest -n auto --dist loadgroup -m 'trial and sample'

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/ape-silverback/latest

bench: install
	$(BIN)/python -m benchmarks

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .tools build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .silverback-sessions
