"""What people type, verb by verb, against real containers."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.live import Cluster, wait_for

IMAGE = "shipwheel.local/web:1"


def deployment(name: str, replicas: int = 2, **container: object) -> dict:
    labels = {"app": name}
    spec = {"name": "c", "image": IMAGE, "ports": [{"containerPort": 80}], **container}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [spec]}},
        },
    }


def pod(name: str, *command: str, **spec: object) -> dict:
    container = {"name": "c", "image": IMAGE, **({"command": list(command)} if command else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
    }


class In:
    """kubectl in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def __call__(self, *arguments: str, **options: object) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **options)  # type: ignore[arg-type]

    def apply(self, *objects: dict) -> str:
        for each in objects:
            each["metadata"]["namespace"] = self.namespace
        return self.cluster.apply(*objects)

    def get(self, *arguments: str) -> dict:
        return self.cluster.get("-n", self.namespace, *arguments)

    def ready(self, *pods: str) -> None:
        self("wait", "--for=condition=Ready", "--timeout=120s", *(f"pod/{each}" for each in pods))


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> In:
    return In(cluster, namespace)


def test_the_demo_answers(cluster: Cluster) -> None:
    service = cluster.get("service", "web")
    (port,) = service["spec"]["ports"]
    node = cluster.get("node", "node-1")["status"]["addresses"][0]["address"]
    for url in (f"http://{service['spec']['clusterIP']}/", f"http://{node}:{port['nodePort']}/"):
        with urlopen(url, timeout=20) as answer:
            assert answer.read().startswith(b"Hello from web-")


def test_apply_get_describe(kubectl: In) -> None:
    assert kubectl.apply(deployment("a")) == "deployment.apps/a created\n"
    assert kubectl.apply(deployment("a")) == "deployment.apps/a unchanged\n"
    assert kubectl.apply(deployment("a", replicas=3)) == "deployment.apps/a configured\n"
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    header, *rows = kubectl("get", "pods", "-o", "wide").splitlines()
    assert header.split() == [
        "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED", "NODE", "READINESS", "GATES",
    ]  # fmt: skip
    assert len(rows) == 3
    for row in rows:
        assert re.fullmatch(r"a-\S+ +1/1 +Running +0 +\d+s +10\.\S+ +node-1 +<none> +<none>", row)
    header, row = kubectl("get", "deployment", "a").splitlines()
    assert header.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:4] == ["a", "3/3", "3", "3"]
    assert "kind: Deployment" in kubectl("get", "deployment", "a", "-o", "yaml")
    described = kubectl("describe", "deployment", "a")
    assert re.search(r"Replicas: +3 desired \| 3 updated \| 3 total \| 3 available \| 0 unavailable", described)
    assert "ScalingReplicaSet" in described
    described = kubectl("describe", "pod", rows[0].split()[0])
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert f"  {reason} " in described


def test_the_demo_says_what_it_does(cluster: Cluster) -> None:
    lines = cluster.kubectl("logs", "-l", "app=web", "--prefix").splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"\[pod/web-\S+/web\] serving on port 80", line) for line in lines)


def test_scale_and_rollouts(kubectl: In) -> None:
    kubectl.apply(deployment("a"))
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    assert kubectl("scale", "deployment/a", "--replicas=3") == "deployment.apps/a scaled\n"
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    assert len(kubectl.get("pods")["items"]) == 3
    kubectl("set", "env", "deployment/a", "COLOUR=red")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    assert re.findall(r"^(\d+) ", kubectl("rollout", "history", "deployment/a"), re.MULTILINE) == ["1", "2"]
    assert "rolled back" in kubectl("rollout", "undo", "deployment/a")
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    assert "env" not in kubectl.get("deployment", "a")["spec"]["template"]["spec"]["containers"][0]
    assert "restarted" in kubectl("rollout", "restart", "deployment/a")
    kubectl("rollout", "status", "deployment/a", "--timeout=120s")
    kubectl("set", "image", "deployment/a", "c=shipwheel.local/none:1")
    wait_for(lambda: "ErrImageNeverPull" in kubectl("get", "pods") or "ImagePull" in kubectl("get", "pods"))


def test_logs(kubectl: In) -> None:
    kubectl.apply(pod("talker", "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.3; done; sleep 100"))
    kubectl.ready("talker")
    with subprocess.Popen(
        [str(kubectl.cluster.kubectl_program), "-n", kubectl.namespace, "logs", "-f", "talker"],
        stdout=subprocess.PIPE, text=True, env=kubectl.cluster.environment,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(3)] == ["line 1\n", "line 2\n", "line 3\n"]
        follower.terminate()
    assert kubectl("logs", "talker", "--tail=1") == "line 3\n"
    assert re.fullmatch(r"\d{4}-\S+Z line 3\n", kubectl("logs", "talker", "--timestamps", "--tail=1"))


def test_exec_and_cp(kubectl: In, tmp_path: Path) -> None:
    kubectl.apply(pod("p"))
    kubectl.ready("p")
    result = kubectl.cluster.try_kubectl(
        "-n", kubectl.namespace, "exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7"
    )
    assert (result.code, result.out) == (7, "out\n")
    assert result.err.splitlines()[0] == "err"
    assert result.err.splitlines()[-1] == "command terminated with exit code 7"
    assert kubectl("exec", "-i", "p", "--", "cat", stdin="over there") == "over there"
    source = tmp_path / "in.bin"
    source.write_bytes(os.urandom(300_000))
    kubectl("cp", str(source), "p:/tmp/file")
    kubectl("cp", "p:/tmp/file", str(tmp_path / "out.bin"))
    assert (tmp_path / "out.bin").read_bytes() == source.read_bytes()


def test_exec_with_a_terminal(kubectl: In) -> None:
    kubectl.apply(pod("p"))
    kubectl.ready("p")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [str(kubectl.cluster.kubectl_program), "-n", kubectl.namespace, "exec", "-it", "p", "--", "sh"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=kubectl.cluster.environment, start_new_session=True,
    ) as shell:  # fmt: skip
        os.close(theirs)
        seen = ""

        def read_until(text: str) -> None:
            nonlocal seen
            deadline = time.monotonic() + 10
            while text not in seen:
                assert time.monotonic() < deadline, seen
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 4096).decode()

        read_until("# ")
        os.write(ours, b"tty; echo $((6*7))\n")
        read_until("/dev/pts/")
        read_until("42")
        os.write(ours, b"exit 3\n")
        assert shell.wait(10) == 3
    os.close(ours)


def test_port_forward(kubectl: In) -> None:
    kubectl.apply(pod("p"))
    kubectl.ready("p")
    with subprocess.Popen(
        [str(kubectl.cluster.kubectl_program), "-n", kubectl.namespace, "port-forward", "p", ":80"],
        stdout=subprocess.PIPE, text=True, env=kubectl.cluster.environment,
    ) as forwarder:  # fmt: skip
        assert forwarder.stdout is not None
        found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> 80", forwarder.stdout.readline())
        assert found
        for _ in range(3):
            with urlopen(f"http://127.0.0.1:{found[1]}/", timeout=20) as answer:
                assert answer.read() == b"Hello from p\n"
        forwarder.terminate()


def test_expose_label_annotate_edit(kubectl: In) -> None:
    kubectl.apply(deployment("a", replicas=1))
    assert kubectl("expose", "deployment/a", "--port=80") == "service/a exposed\n"
    # The controller may not have made them yet.
    wait_for(lambda: kubectl("get", "endpoints", "a", "--ignore-not-found", "-o", "jsonpath={.subsets}"))
    kubectl("label", "deployment/a", "tier=front")
    kubectl("annotate", "deployment/a", "note=hello")
    assert kubectl("get", "deployment", "-l", "tier=front", "-o", "name") == "deployment.apps/a\n"
    kubectl.cluster.environment["KUBE_EDITOR"] = "sed -i s/tier:.front/tier:\\ back/"
    assert kubectl("edit", "deployment/a") == "deployment.apps/a edited\n"
    assert kubectl.get("deployment", "a")["metadata"]["labels"]["tier"] == "back"


def test_explain_and_discovery(cluster: Cluster) -> None:
    text = cluster.kubectl("explain", "pod.spec.containers.livenessProbe")
    assert "FIELD: livenessProbe <Probe>" in text
    assert "periodSeconds" in text
    names = cluster.kubectl("api-resources", "-o", "name").split()
    assert {"pods", "deployments.apps", "roles.rbac.authorization.k8s.io", "leases.coordination.k8s.io"} <= set(names)
    assert {"v1", "apps/v1", "rbac.authorization.k8s.io/v1"} <= set(cluster.kubectl("api-versions").split())
    # Again, with what kubectl has cached.
    assert cluster.kubectl("api-resources", "-o", "name").split() == names


@pytest.mark.parametrize(
    "arguments",
    [
        "namespace e2e-created",
        "configmap x --from-literal=a=b",
        "secret generic x --from-literal=a=b",
        "secret tls x",
        "deployment x --image=i --replicas=0",
        "job x --image=i",
        "cronjob x --image=i --schedule=@hourly",
        "service clusterip x --tcp=80",
        "service nodeport x --tcp=80",
        "service externalname x --external-name=example.com",
        "service loadbalancer x --tcp=80",
        "serviceaccount x",
        "role x --verb=get --resource=pods",
        "rolebinding x --clusterrole=view --user=u",
        "clusterrole e2e-created --verb=get --resource=pods",
        "clusterrolebinding e2e-created --clusterrole=view --user=u",
        "quota x --hard=pods=5",
        "priorityclass e2e-created --value=5",
        "ingress x --rule=example.com/*=svc:80",
        "poddisruptionbudget x --selector=a=b --min-available=1",
        "token default",
    ],
)  # fmt: skip
def test_create(kubectl: In, cluster: Cluster, arguments: str) -> None:
    words = arguments.split()
    if words[:2] == ["secret", "tls"]:
        words += [f"--cert={cluster.data}/pki/apiserver.crt", f"--key={cluster.data}/pki/apiserver.key"]
    printed = kubectl("create", *words)
    if words[0] == "token":
        assert printed.count(".") == 2
        return
    assert printed.endswith(" created\n")
    if words[1] == "e2e-created":
        assert "deleted" in cluster.kubectl("delete", words[0], "e2e-created", "--wait=false")


def test_delete_and_wait(kubectl: In) -> None:
    kubectl.apply(deployment("a"))
    kubectl("wait", "--for=condition=Available", "deployment/a", "--timeout=120s")
    assert kubectl("delete", "deployment", "a") == f'deployment.apps "a" deleted from {kubectl.namespace} namespace\n'
    wait_for(lambda: not kubectl.get("replicasets,pods")["items"])


def test_events_and_rights(kubectl: In) -> None:
    kubectl.apply(pod("p"))
    kubectl.ready("p")
    assert "Scheduled" in kubectl("events", "--for=pod/p")
    assert kubectl("auth", "can-i", "delete", "nodes") == "yes\n"
    assert kubectl("auth", "can-i", "delete", "nodes", "--as=somebody", check=False) == "no\n"
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    assert "*.*" in kubectl("auth", "can-i", "--list")


def test_cluster_info_and_diff(kubectl: In) -> None:
    info = kubectl("cluster-info")
    assert "control plane" in info
    assert "is running at" in info
    kubectl.apply(deployment("a"))
    changed = deployment("a", replicas=7)
    changed["metadata"]["namespace"] = kubectl.namespace
    import json

    result = kubectl.cluster.try_kubectl("diff", "-f", "-", stdin=json.dumps(changed))
    assert result.code == 1
    assert "-  replicas: 2" in result.out
    assert "+  replicas: 7" in result.out


def test_run_and_debug_by_hand(kubectl: In) -> None:
    assert kubectl("run", "once", f"--image={IMAGE}", "--restart=Never", "--", "echo", "done") == "pod/once created\n"
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", "--timeout=120s")
    assert kubectl("logs", "once") == "done\n"
    command = ("sh", "-c", "sleep 1; echo hi")
    printed = kubectl("run", "hello", f"--image={IMAGE}", "--restart=Never", "-i", "--rm", "--quiet", "--", *command)
    assert printed == "hi\n"


def test_server_side_apply_and_patches(kubectl: In) -> None:
    import json

    obj = deployment("a", replicas=1)
    obj["metadata"]["namespace"] = kubectl.namespace
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(obj))
    kubectl("patch", "deployment/a", "-p", '{"spec":{"replicas":0}}')
    result = kubectl.cluster.try_kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(obj))
    assert result.code == 1
    assert "conflict" in result.err
    kubectl("patch", "deployment/a", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":2}]')
    kubectl("patch", "deployment/a", "--type=merge", "-p", '{"metadata":{"labels":{"x":"y"}}}')
    found = kubectl.get("deployment", "a")
    assert (found["spec"]["replicas"], found["metadata"]["labels"]) == (2, {"x": "y"})
