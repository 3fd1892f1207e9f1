"""helm, an older kubectl, and the JavaScript client, unchanged, against a cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.e2e.live import Cluster

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\n",
    "values.yaml": "replicas: 1\n",
    "templates/all.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-settings}
data: {revision: "{{ .Release.Revision }}"}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec: {containers: [{name: web, image: example.com/web}]}
""",
}


def test_helm(simulated: Cluster, kubeconfig: str, programs: Path, tmp_path: Path) -> None:
    for name, text in CHART.items():
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / name).write_text(text)

    def helm(*arguments: str) -> str:
        return simulated.run(str(programs / "bin/helm"), "--kubeconfig", kubeconfig, *arguments).out

    helm("install", "site", str(tmp_path / "web"), "--wait", "--timeout", "60s")
    assert simulated.get("deployment", "site")["status"]["readyReplicas"] == 1
    helm("upgrade", "site", str(tmp_path / "web"), "--set", "replicas=3", "--wait", "--timeout", "60s")
    assert simulated.get("deployment", "site")["spec"]["replicas"] == 3
    helm("rollback", "site", "1", "--wait", "--timeout", "60s")
    assert simulated.get("deployment", "site")["spec"]["replicas"] == 1
    [release] = json.loads(helm("list", "-o", "json"))
    assert (release["name"], release["revision"], release["status"]) == ("site", "3", "deployed")
    helm("uninstall", "site", "--wait")
    assert simulated.kubectl("get", "deployment,service,configmap", "-o", "name").split() == [
        "service/kubernetes", "configmap/kube-root-ca.crt",
    ]  # fmt: skip


def test_an_older_kubectl(simulated: Cluster, kubeconfig: str, programs: Path) -> None:
    def kubectl(*arguments: str) -> str:
        return simulated.run(str(programs / "bin/kubectl"), "--kubeconfig", kubeconfig, *arguments).out

    kubectl("create", "deployment", "old", "--image=example.com/web", "--replicas=2")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/old", "--timeout=120s")
    assert kubectl("get", "pods", "-l", "app=old", "--no-headers").count("Running") == 2
    assert "HOSTNAME=old-" in kubectl("exec", "deployment/old", "--", "env")
    assert "replicas\t<integer>" in kubectl("explain", "deployment.spec")
    kubectl("delete", "deployment", "old")


def test_javascript(simulated: Cluster, kubeconfig: str, programs: Path, tmp_path: Path) -> None:
    script = shutil.copy(Path(__file__).parent / "use.mjs", programs / "use.mjs")
    environment = {**simulated.environment, "KUBECONFIG": kubeconfig}
    done = Cluster.run(_with(simulated, environment), "node", str(script))
    assert json.loads(done.out.splitlines()[-1]) == {"seen": "ADDED", "data": {"a": "b"}}


def _with(cluster: Cluster, environment: dict[str, str]) -> Cluster:
    import copy

    changed = copy.copy(cluster)
    changed.environment = environment
    return changed
