"""Volumes of a live cluster: directories made for claims, and volumes emptied for the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.live import Cluster, wait_for
from tests.e2e.test_kubectl import In, pod


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> In:
    return In(cluster, namespace)


def claim(name: str, **spec: object) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, **spec},
    }


def using(name: str, claim_name: str, script: str) -> dict:
    made = pod(name, "sh", "-c", script, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}])
    made["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/data"}]
    return made


def volumes_of(cluster: Cluster, namespace: str) -> list[dict]:
    found = cluster.get("persistentvolumes")["items"]
    return [each for each in found if (each["spec"].get("claimRef") or {}).get("namespace") == namespace]


def test_a_claim_without_a_class_gets_a_directory_that_goes_with_it(kubectl: In) -> None:
    kubectl.apply(claim("c"), using("writer", "c", "echo kept > /data/f; sleep 600"))
    kubectl.ready("writer")
    (volume,) = volumes_of(kubectl.cluster, kubectl.namespace)
    assert volume["spec"]["storageClassName"] == "standard"
    directory = Path(volume["spec"]["local"]["path"])
    assert wait_for((directory / "f").exists)
    kubectl("delete", "pod", "writer")
    kubectl.apply(using("reader", "c", "cat /data/f; sleep 600"))
    kubectl.ready("reader")
    assert wait_for(lambda: kubectl("logs", "reader")) == "kept\n"
    kubectl("delete", "pod/reader", "pvc/c")
    wait_for(lambda: not volumes_of(kubectl.cluster, kubectl.namespace))
    assert not directory.exists()
    wait_for(lambda: kubectl.cluster.kubectl("-n", "kube-system", "get", "pods", "-o", "name") == "")


def test_a_recycled_volume_is_really_empty(kubectl: In, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep" / "er").mkdir(parents=True)
    for path in ("deep/er/secret", ".hidden", "with blank"):
        (data / path).write_text("of the last tenant")
    name = f"recycled-{kubectl.namespace}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Recycle",
            "storageClassName": "",
            "hostPath": {"path": str(data)},
        },
    }
    kubectl.cluster.apply(volume)
    try:
        kubectl.apply(claim("c", storageClassName="", volumeName=name))
        kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=120s", "pvc/c")
        kubectl("delete", "pvc", "c")
        kubectl.cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Available", "--timeout=120s", f"pv/{name}")
        assert list(data.iterdir()) == []
    finally:
        kubectl.cluster.kubectl("delete", "pv", name)
