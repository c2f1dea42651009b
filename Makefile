# make up: this machine serves.  make test: everything is checked.
SHELL := /bin/bash
PYTHON ?= python3
INVENTORY ?= inventories/local.yml
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Ansible compiles our plugins at every start where this is set.
unexport PYTHONDONTWRITEBYTECODE

# Scenarios of whole sites on simulated servers, too long for every run.
SITES := gpu_server cluster
# Scenarios with servers of their own; the others change this machine's containers, so one after another.
SERVERS := bundle docker host_firewall nvidia_container_toolkit nvidia_driver
HERE := $(filter-out shared $(SITES) $(SERVERS),$(notdir $(patsubst %/,%,$(wildcard molecule/*/))))
scenarios = for scenario in $(1); do molecule test -s $$scenario || exit 1; done

.PHONY: help up test checks lint unit molecule on-servers after-checks sites e2e faults docs clean
.DEFAULT_GOAL := help

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

up: $(VENV)/.runtime ## Bring up INVENTORY (default: this machine) and have it accepted
	deployctl up $(INVENTORY)

test: $(VENV)/.dev $(VENV)/.browser ## Everything that CI runs
	$(MAKE) -j 2 on-servers after-checks
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
	$(call scenarios,$(HERE) $(SERVERS))

# The same in two lanes, with the checks: scenarios mostly wait for their hosts.
on-servers: $(VENV)/.dev $(VENV)/.images
	$(call scenarios,$(SERVERS))

after-checks: checks $(VENV)/.images
	$(call scenarios,$(HERE))

sites: $(VENV)/.dev $(VENV)/.images ## From bare Debian to an accepted site over SSH, on servers with simulated GPUs
	$(call scenarios,$(SITES))

e2e: $(VENV)/.dev ## The whole stack on this machine: up, change, kill, down
	pytest -q tests/e2e

faults: $(VENV)/.dev ## Every fault that this machine can make, under load; ends with a table
	pytest -q tests/faults

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
