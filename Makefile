# What is typed most. Everything is also a plain command: see README.md.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: up down setup packages test test-fast lint types bench bench-scheduler clean

# Set this machine up, start a cluster, and deploy a web site to it. It can be repeated at will.
up: setup packages
	@$(VENV)/bin/shipwheel up --demo $(ARGS)

down:
	@if [ -x $(VENV)/bin/shipwheel ]; then $(VENV)/bin/shipwheel down $(ARGS); fi

# The virtual environment, anew when pyproject.toml changed.
setup: $(READY)

$(READY): pyproject.toml tools/setup-venv
	@tools/setup-venv $(VENV)
	@touch $@

# What containers need and Python packages cannot give; with root on Debian and Ubuntu.
packages:
	@tools/setup-packages

lint: setup
	$(VENV)/bin/ruff check src tests bench tools
	$(VENV)/bin/ruff format --check src tests bench tools
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: setup packages
	@tools/setup-clients $(VENV)
	$(VENV)/bin/pytest $(ARGS)

# Without whole clusters and without what needs root.
test-fast: setup
	$(VENV)/bin/pytest -m "not root and not containerd and not etcd and not e2e" $(ARGS)

bench: setup packages
	$(PYTHON) -m bench $(ARGS)

bench-scheduler: setup
	$(PYTHON) -m bench scheduler $(ARGS)

clean: down
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
