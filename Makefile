# make up: this machine serves.  make test: everything is checked.
SHELL := /bin/bash
# The distribution's own, where it is new enough, is built to be quick; others in PATH often are not.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/)python3
INVENTORY ?= inventories/local.yml
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Ansible compiles our plugins at every start where this is set.
unexport PYTHONDONTWRITEBYTECODE

# Scenarios of whole sites on simulated servers, too long for every run.
SITES := gpu_server cluster air_gap
announced = printf '%(%T)T molecule test -s %s\n' -1 $$scenario

.PHONY: help up test stack checks lint unit molecule sites e2e faults docs clean
.DEFAULT_GOAL := help

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

up: $(VENV)/.runtime ## Bring up INVENTORY (default: this machine) and have it accepted
	deployctl up $(INVENTORY)

test: $(VENV)/.dev $(VENV)/.browser ## Everything that CI runs
	$(MAKE) -j 2 stack molecule

# Scenarios mostly wait for their hosts, and the whole stack for its engines: they do so side by side.
stack: checks $(VENV)/.images
	$(MAKE) e2e

checks: lint
	$(MAKE) unit

lint: $(VENV)/.dev ## ruff, mypy --strict, ansible-lint production
	ruff check .
	ruff format --check .
	mypy
	ansible-lint --offline

unit: $(VENV)/.dev $(VENV)/.browser ## Unit and house tests
	pytest -q tests/unit tests/house

molecule: $(VENV)/.dev $(VENV)/.images ## One scenario per role on real containers
	for scenario in $$(cd molecule && ls -d */ | tr -d / | grep -vxE 'shared|$(subst $() ,|,$(SITES))'); do $(announced); molecule test -s $$scenario || exit 1; done

sites: $(VENV)/.dev $(VENV)/.images ## From bare Debian to an accepted site over SSH, on servers with simulated GPUs
	for scenario in $(SITES); do $(announced); molecule test -s $$scenario || exit 1; done

e2e: $(VENV)/.dev ## The whole stack on this machine: up, change, kill, down
	pytest -q --durations=12 tests/e2e

faults: $(VENV)/.dev $(VENV)/.images ## Every fault under load: first of this machine, then of three simulated servers; ends with a table of all
	code=0; pytest -q --capture=sys tests/faults || code=1; scenario=cluster; $(announced); molecule test -s cluster || code=1; python tests/faults/table.py; exit $$code

docs: $(VENV)/.dev ## docs/roles.md from the roles' argument_specs
	python docs/generate_roles.py

clean: ## Remove what was installed here
	rm -rf $(VENV)

# A minimal Debian has python3 without venv; everything else comes from the lock files.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(VENV)/.browser: $(VENV)/bin/python
	command -v chromium >/dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }
	touch $@

# The engine and the images that the scenarios use; the same roles that a site gets them with.
$(VENV)/.images: $(VENV)/.runtime FORCE
	ansible-playbook -i $(INVENTORY) playbooks/up.yml --tags docker,images

FORCE:
