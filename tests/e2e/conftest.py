"""The live cluster that most of these tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.live import Cluster, wait_for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With the demo's web site in it."""
    if os.geteuid() != 0 or shutil.which("containerd") is None:
        pytest.skip("needs root and containerd")
    made = Cluster(tmp_path_factory.mktemp("cluster"), f"e2e-{os.getpid()}", "--port", "0")
    try:
        made.up("--demo")
        yield made
    finally:
        made.down()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test."""
    name = "t-" + "".join(each if each.isalnum() else "-" for each in request.node.name.lower())[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    wait_for(lambda: cluster.try_kubectl("-n", name, "get", "serviceaccount", "default").code == 0)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
