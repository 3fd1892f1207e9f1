# What is typed most. Everything is also a plain command: see README.md.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: up down setup packages test test-fast lint types bench bench-scheduler bench-controllers bench-node fuzz bench-api bench-store clean

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

# Ten minutes of requests that the API's own documents allow, or nearly: ARGS="--seconds 60 --seed 1".
fuzz: setup
	$(PYTHON) -m tests.fuzz $(ARGS)

bench: setup packages
	$(PYTHON) -m bench $(ARGS)

# One part each: ARGS="--help" tells what they can be asked.
bench-api: setup
	$(PYTHON) -m bench.api $(ARGS)

bench-store: setup
	$(PYTHON) -m bench.store $(ARGS)

bench-scheduler: setup
	$(PYTHON) -m bench scheduler $(ARGS)

bench-controllers: setup
	$(PYTHON) -m bench controllers $(ARGS)

bench-node: setup packages
	$(PYTHON) -m bench node $(ARGS)
	$(PYTHON) -m bench simulated_nodes

clean: down
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
