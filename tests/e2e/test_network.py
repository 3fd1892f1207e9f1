"""Pods find and reach what they should: services, DNS, host ports, the API server."""

from __future__ import annotations

from urllib.request import urlopen

import pytest

from tests.e2e.live import Cluster, page, wait_for
from tests.e2e.test_kubectl import IMAGE, In, deployment, pod


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> In:
    return In(cluster, namespace)


def service(name: str, app: str, **spec: object) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80}], **spec},
    }


def in_pod(kubectl: In, *command: str, pod: str = "client", check: bool = True) -> str:
    return kubectl("exec", pod, "--", *command, check=check)


def test_services_by_name(kubectl: In) -> None:
    kubectl.apply(
        deployment("a"), service("web", "a"), service("heads", "a", clusterIP="None"), pod("client", "sleep", "600")
    )
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    kubectl.ready("client")
    namespace = kubectl.namespace
    for name in ("web", f"web.{namespace}", f"web.{namespace}.svc.cluster.local", "heads"):
        get = ("timeout", "20", "wget", "-qO-", f"http://{name}/")
        answer = wait_for(lambda get=get: in_pod(kubectl, *get, check=False))
        assert answer.startswith("Hello from a-")
    addresses = sorted(each["status"]["podIP"] for each in kubectl.get("pods", "-l", "app=a")["items"])
    lookup = in_pod(kubectl, "nslookup", f"heads.{namespace}.svc.cluster.local")
    assert all(f"Address: {each}" in lookup for each in addresses)
    # Everybody gets a turn.
    seen = {in_pod(kubectl, "wget", "-qO-", "http://web/") for _ in range(12)}
    assert len(seen) == 2


def test_a_pod_reaches_itself_by_its_service(kubectl: In) -> None:
    kubectl.apply(deployment("a", replicas=1), service("web", "a"))
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    assert wait_for(
        lambda: kubectl("exec", "deployment/a", "--", "timeout", "3", "wget", "-qO-", "http://web/", check=False)
    )


def test_the_api_server_from_a_pod(kubectl: In) -> None:
    kubectl.apply(pod("client", "sleep", "600"))
    kubectl.ready("client")
    lookup = in_pod(kubectl, "nslookup", "kubernetes.default.svc.cluster.local")
    assert "Address: 10." in lookup
    account = in_pod(kubectl, "ls", "/var/run/secrets/kubernetes.io/serviceaccount")
    assert account.split() == ["ca.crt", "namespace", "token"]
    assert in_pod(kubectl, "sh", "-c", "nc -w2 $KUBERNETES_SERVICE_HOST 443 </dev/null; echo $?").strip() == "0"


def test_a_service_without_endpoints_refuses_at_once(kubectl: In) -> None:
    kubectl.apply(service("nobody", "nobody"), pod("client", "sleep", "600"))
    kubectl.ready("client")
    result = kubectl.cluster.try_kubectl(
        "-n", kubectl.namespace, "exec", "client", "--", "timeout", "20", "wget", "-qO-", "http://nobody/"
    )
    assert "Connection refused" in result.both


def test_stateful_names(kubectl: In) -> None:
    """A hostname and a subdomain give a pod a name of its own."""
    kubectl.apply(
        service("heads", "a", clusterIP="None"),
        {**pod("one", hostname="first", subdomain="heads"), "metadata": {"name": "one", "labels": {"app": "a"}}},
    )
    kubectl.ready("one")
    name = f"first.heads.{kubectl.namespace}.svc.cluster.local"
    address = kubectl.get("pod", "one")["status"]["podIP"]
    wait_for(lambda: f"Address: {address}" in in_pod(kubectl, "nslookup", name, pod="one", check=False))
    assert kubectl("exec", "one", "--", "hostname", "-f").strip() == name


def test_a_host_port(kubectl: In) -> None:
    container = {"name": "c", "image": IMAGE, "ports": [{"containerPort": 80, "hostPort": 18080}]}
    kubectl.apply(pod("p", containers=[container]))
    kubectl.ready("p")
    node = kubectl.cluster.get("node", "node-1")["status"]["addresses"][0]["address"]
    assert wait_for(lambda: page(f"http://{node}:18080/")) == b"Hello from p\n"


def test_rolling_on_without_a_lost_request(kubectl: In) -> None:
    """While pods are replaced, the service answers."""
    probe = {"httpGet": {"path": "/cgi-bin/index.cgi", "port": 80}, "periodSeconds": 1}
    linger = {"preStop": {"exec": {"command": ["sleep", "2"]}}}
    kubectl.apply(deployment("a", readinessProbe=probe, lifecycle=linger), service("web", "a"))
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    address = kubectl.get("service", "web")["spec"]["clusterIP"]
    kubectl("rollout", "restart", "deployment/a")
    answers = 0
    while "successfully" not in kubectl("rollout", "status", "deployment/a", "--watch=false"):
        with urlopen(f"http://{address}/", timeout=20) as answer:
            assert answer.status == 200
        answers += 1
    assert answers > 3
