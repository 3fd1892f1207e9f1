"""Derive the table of built-in schemas from published packages.

    python tools/generate_schemas.py

reads the structural schemas that the PyPI package `kubernetes-validate` carries for each release, and writes
`src/shipwheel/kinds/schemas.json`: every definition of the API without its prose, one definition a line so that
a change of release reads as a diff. What the package adds for its own use is taken off again (it lets everything
be null, and limits `kind` and `apiVersion` to what a manifest may say); what it lost is put back from `DEFAULTS`,
and what was never in it comes from `extra_schemas.py`.

The words are OpenAPI's own, so that one reader (`shipwheel.api.schema`) serves built-in kinds and custom ones.
One is added: `x-go`, how the field is declared in Go (see `generate_go_types.py`), where that is not what an
optional field of its type usually is. Names lose the prefix they share: `core.v1.Pod` stands for
`io.k8s.api.core.v1.Pod`.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from extra_schemas import extra_schemas

Node = dict[str, Any]

RELEASES = ["v1.36.0"]
"""The first release that has a definition decides; later ones add what is no longer served today."""

TARGET = Path(__file__).parent.parent / "src/shipwheel/kinds/schemas.json"
GO_TYPES = Path(__file__).parent / "go_types.json"

PREFIX = "io.k8s.api."
META = "io.k8s.apimachinery.pkg."
REFERENCE = "#/$defs/"

SCALARS: dict[str, Node] = {
    META + "util.intstr.IntOrString": {"x-kubernetes-int-or-string": True, "format": "int-or-string"},
    META + "api.resource.Quantity": {"type": "string"},
}
"""Definitions that the package rewrites for validators; here as the API describes them."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "autoscaling.v1.ScaleSpec": {"replicas": 0},
    "certificates.v1beta1.PodCertificateRequestSpec": {"maxExpirationSeconds": 86400},
    "core.v1.AzureDiskVolumeSource": {
        "cachingMode": "ReadWrite", "fsType": "ext4", "kind": "Shared", "readOnly": False,
    },
    "core.v1.ConfigMapEnvSource": {"name": ""},
    "core.v1.ConfigMapKeySelector": {"name": ""},
    "core.v1.ConfigMapProjection": {"name": ""},
    "core.v1.ConfigMapVolumeSource": {"name": ""},
    "core.v1.ContainerPort": {"protocol": "TCP"},
    "core.v1.FileKeySelector": {"optional": False},
    "core.v1.GRPCAction": {"service": ""},
    "core.v1.ISCSIPersistentVolumeSource": {"iscsiInterface": "default"},
    "core.v1.ISCSIVolumeSource": {"iscsiInterface": "default"},
    "core.v1.LocalObjectReference": {"name": ""},
    "core.v1.RBDPersistentVolumeSource": {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"},
    "core.v1.RBDVolumeSource": {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"},
    "core.v1.ReplicationControllerSpec": {"minReadySeconds": 0, "replicas": 1},
    "core.v1.ScaleIOPersistentVolumeSource": {"fsType": "xfs", "storageMode": "ThinProvisioned"},
    "core.v1.ScaleIOVolumeSource": {"fsType": "xfs", "storageMode": "ThinProvisioned"},
    "core.v1.SecretEnvSource": {"name": ""},
    "core.v1.SecretKeySelector": {"name": ""},
    "core.v1.SecretProjection": {"name": ""},
    "core.v1.ServicePort": {"protocol": "TCP"},
    "resource.v1.DeviceToleration": {"operator": "Equal"},
    "resource.v1alpha3.ResourcePoolStatusRequestSpec": {"limit": 100},
    "resource.v1beta1.DeviceToleration": {"operator": "Equal"},
    "resource.v1beta2.DeviceToleration": {"operator": "Equal"},
    "scheduling.v1alpha2.PodGroupSpec": {"disruptionMode": "Pod"},
}  # fmt: skip
"""Defaults that the OpenAPI v3 documents declare and the older format, which the package is made of, does not."""

DROPPED = {"description", "enum", "oneOf"}


def short(name: str) -> str:
    return name.removeprefix(PREFIX)


def clean(node: Node) -> Node:
    """One schema without prose and without the package's additions."""
    out: Node = {}
    for key, value in node.items():
        if key in DROPPED:
            continue
        if key == "type" and isinstance(value, list):
            out[key] = next(each for each in value if each != "null")
        elif key == "$ref":
            out[key] = short(value.removeprefix(REFERENCE))
        elif key == "properties":
            out[key] = {name: clean(each) for name, each in sorted(value.items())}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = clean(value)
        else:
            out[key] = value
    return out


def definitions(release: str) -> dict[str, Node]:
    """All definitions of one release, by short name."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"{release}-local"
    raw = json.loads((folder / "_definitions.json").read_text())
    table = {short(name): clean(node) for name, node in raw.get("$defs", raw.get("definitions")).items()}
    for name, node in SCALARS.items():
        if name in table:
            table[name] = dict(node)
    return table | extra_schemas()


def merged(releases: list[str]) -> dict[str, Node]:
    table: dict[str, Node] = {}
    for release in releases:
        for name, node in definitions(release).items():
            table.setdefault(name, node)
    for name, defaults in DEFAULTS.items():
        for field, value in defaults.items():
            table[name]["properties"][field]["default"] = value
    declare(table, json.loads(GO_TYPES.read_text()))
    return table


def declare(table: dict[str, Node], go_types: dict[str, dict[str, str]]) -> None:
    """Add `x-go` to the properties that need it."""
    for name, fields in go_types.items():
        for field, declared in fields.items():
            node = table[name]["properties"].get(field)
            if node is None:
                continue
            effective = declared.removesuffix("?")
            if declared.endswith("?") and (declared.endswith("??") or "*" in declared or not is_struct(table, node)):
                effective = effective.removesuffix("?") + "?"  # Go writes a struct even when it is empty
            if effective != usual(table, node):
                node["x-go"] = effective


def is_struct(table: dict[str, Node], node: Node) -> bool:
    return table.get(node.get("$ref", ""), {}).get("type") == "object"


def usual(table: dict[str, Node], node: Node) -> str:
    """How an optional field of that schema is declared as a rule."""
    return f"{'*' if is_struct(table, node) else ''}{go_type(node)}?"


def go_type(node: Node) -> str:
    if "$ref" in node:
        return ".".join(node["$ref"].split(".")[-2:])
    match node.get("type"):
        case "array":
            return f"[]{go_type(node['items'])}"
        case "object" if "additionalProperties" in node:
            return f"map[string]{go_type(node['additionalProperties'])}"
        case "string":
            return "[]uint8" if node.get("format") == "byte" else "string"
        case "integer":
            return node.get("format", "int64")
        case "number":
            return "float64"
        case "boolean":
            return "bool"
    return "interface {}"


def write(table: dict[str, Node], target: Path) -> None:
    def dump(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    lines = [f"{dump(name)}:{dump(table[name])}" for name in sorted(table)]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", action="append", help="kubernetes-validate's release, best first")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    table = merged(options.release or RELEASES)
    write(table, options.output)
    print(f"{len(table)} definitions, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
