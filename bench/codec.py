"""What reading and writing one pod costs, in microseconds: `python bench/codec.py`.

Measured are the steps of every write (decode, conform, defaults, encode) and protobuf's, for a pod as a client
sends it and for one as it is stored, with the best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from shipwheel.api.codec import decode_json, encode
from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.schema import apply_defaults, conform
from shipwheel.kinds import catalog, wire

SCHEMA = catalog.schema_for(GroupVersionKind("", "v1", "Pod"))
NOON = "2024-01-01T12:00:00Z"


def sent() -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}], "resources": resources}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [container]},
    }


def _container(name: str) -> dict[str, Any]:
    probe = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    return {
        "name": name,
        "image": f"registry.example.com/{name}:v1",
        "command": ["/bin/sh", "-c", "sleep 1000"],
        "ports": [{"containerPort": 80, "protocol": "TCP"}, {"name": "tls", "containerPort": 443, "protocol": "TCP"}],
        "env": [{"name": f"E{i}", "value": f"value {i}"} for i in range(8)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "token", "readOnly": True, "mountPath": "/t"},
        ],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 80, "scheme": "HTTP"}, **probe},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "tls", "scheme": "HTTP"}, **probe},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def stored() -> dict[str, Any]:
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    root = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "web-5d4f8c7b6-abcde",
            "generateName": "web-5d4f8c7b6-",
            "namespace": "default",
            "uid": "0c9a7f0e-6f0e-4a53-9d6c-7a5f0b3c1d2e",
            "resourceVersion": "12345",
            "creationTimestamp": NOON,
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b6"},
        },
        "spec": {
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "token", "projected": {"sources": [token, root], "defaultMode": 420}},
            ],
            "containers": [_container("web"), _container("side")],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "nodeName": "node-1",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "priority": 0,
            "enableServiceLinks": True,
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": each, "status": "True", "lastTransitionTime": NOON} for each in conditions],
            "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}],
            "startTime": NOON,
            "qosClass": "Burstable",
        },
    }


def microseconds(action: Callable[[], Any], *, rounds: int = 7, times: int = 500) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(times):
            action()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def main() -> None:
    for name, pod in (("as sent", sent()), ("as stored", stored())):
        raw = orjson.dumps(pod)
        conform(SCHEMA, pod)
        body = wire.encode_object(pod)
        parse = microseconds(lambda raw=raw: orjson.loads(raw))  # type: ignore[misc]
        steps = {
            "parse JSON": parse,
            "decode, looking for duplicates": microseconds(lambda raw=raw: decode_json(raw, strict_duplicates=[])),
            "conform": microseconds(lambda raw=raw: conform(SCHEMA, orjson.loads(raw))) - parse,
            "defaults": microseconds(lambda pod=pod: apply_defaults(SCHEMA, pod)),
            "encode JSON": microseconds(lambda pod=pod: encode(pod)),
            "encode protobuf": microseconds(lambda pod=pod: wire.encode_object(pod)),
            "decode protobuf": microseconds(lambda body=body: wire.decode_object(body)),
        }
        print(f"a pod {name}: {len(raw)} bytes of JSON, {len(body)} of protobuf")
        for step, cost in steps.items():
            print(f"  {step:32} {cost:7.1f} µs")


if __name__ == "__main__":
    main()
