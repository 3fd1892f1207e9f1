"""A cluster with simulated pods, for clients of all kinds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.live import Cluster

CLIENTS = Path(sys.executable).parent.parent / "clients"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path_factory.mktemp("clients"), f"clients-{os.getpid()}", "--runtime", "simulated", "--port", "0"
    )
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def kubeconfig(simulated: Cluster) -> str:
    return str(simulated.data / "admin.conf")


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where `tools/setup-clients` has put helm, an older kubectl and the JavaScript client."""
    if not (CLIENTS / "bin/helm").exists():
        pytest.skip("tools/setup-clients has not been run (it needs npm)")
    return CLIENTS
