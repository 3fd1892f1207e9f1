"""Derive the table of built-in schemas from published packages.

    pip download --no-deps --no-binary :all: kubernetes-validate==1.21.0
    python tools/generate_schemas.py --legacy kubernetes-validate-1.21.0.tar.gz

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
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from extra_schemas import extra_schemas

Node = dict[str, Any]

RELEASE = "v1.36.0"
LEGACY_RELEASES = ("v1.21.0", "v1.16.0")
"""Where versions are taken from that today's release no longer has. The first that has a definition decides."""

LEGACY_PACKAGES = frozenset((
    "admissionregistration.v1beta1", "apps.v1beta1", "apps.v1beta2", "authentication.v1beta1",
    "authorization.v1beta1", "autoscaling.v2beta1", "autoscaling.v2beta2", "batch.v1beta1", "batch.v2alpha1",
    "certificates.v1beta1", "coordination.v1beta1", "discovery.v1beta1", "events.v1beta1", "extensions.v1beta1",
    "networking.v1beta1", "node.v1beta1", "policy.v1beta1", "rbac.v1beta1", "scheduling.v1beta1",
    "settings.v1alpha1", "storage.v1beta1",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1beta1",
))  # fmt: skip

TARGET = Path(__file__).parent.parent / "src/shipwheel/kinds/schemas.json"
GO_TYPES = Path(__file__).parent / "go_types.json"
ENUMS = Path(__file__).parent / "enums.json"

FOLDER, FILE = "kubernetes-json-schema", "_definitions.json"

PREFIX = "io.k8s.api."
META = "io.k8s.apimachinery.pkg."
REFERENCES = ("#/$defs/", "#/definitions/")

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

DROPPED = {"description", "enum", "oneOf", "$schema"}


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
            out[key] = short(value.removeprefix(REFERENCES[0]).removeprefix(REFERENCES[1]))
        elif key == "properties":
            out[key] = {name: clean(each) for name, each in sorted(value.items())}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = clean(value)
        else:
            out[key] = value
    return out


def definitions(document: bytes) -> dict[str, Node]:
    """All definitions of one release, by short name."""
    raw = json.loads(document)
    table = {short(name): clean(node) for name, node in raw.get("$defs", raw.get("definitions")).items()}
    return table | {name: dict(node) for name, node in SCALARS.items()}


def installed(release: str) -> bytes:
    """What the installed package has for a release."""
    return (files("kubernetes_validate") / FOLDER / f"{release}-local" / FILE).read_bytes()


def archived(archive: Path, release: str) -> bytes:
    """The same from a source archive of an older package."""
    with tarfile.open(archive) as tar:
        member = next(name for name in tar.getnames() if name.endswith(f"{FOLDER}/{release}-local/{FILE}"))
        found = tar.extractfile(member)
        assert found is not None
        return found.read()


def todays() -> dict[str, Node]:
    return definitions(installed(RELEASE)) | extra_schemas()


def legacy(archive: Path) -> dict[str, Node]:
    """The versions that are gone today, and nothing else of their releases."""
    table: dict[str, Node] = {}
    for release in LEGACY_RELEASES:
        for name, node in definitions(archived(archive, release)).items():
            if name.rpartition(".")[0] in LEGACY_PACKAGES:
                table.setdefault(name, node)
    return table


def grown(table: dict[str, Node], go_types: dict[str, dict[str, str]]) -> None:
    """Give old versions the fields that their Go types got after the release we have them from, so that an object
    read and written in an old version loses nothing. They are declared as in the stable version."""
    for name, facts in go_types.items():
        package, _, struct = name.rpartition(".")
        if package not in LEGACY_PACKAGES or "properties" not in table[name]:
            continue
        group = package.rpartition(".")[0]
        stable = [f"{each}.v1.{struct}" for each in ("apps", "networking") if group == "extensions"]
        for other in (*stable, f"{group}.v1.{struct}", f"{group}.v2.{struct}"):
            for field, node in table.get(other, {}).get("properties", {}).items():
                if field in facts:
                    table[name]["properties"].setdefault(field, dict(node))


def merged(archive: Path) -> dict[str, Node]:
    table = legacy(archive) | todays()
    go_types = json.loads(GO_TYPES.read_text())
    grown(table, go_types)
    for name, defaults in DEFAULTS.items():
        for field, value in defaults.items():
            table[name]["properties"][field]["default"] = value
    enumerate_values(table)
    declare(table, go_types)
    return table


def enumerate_values(table: dict[str, Node]) -> None:
    """Add what values a field can have, where the API's documents say so (`enums.json`)."""
    for name, fields in json.loads(ENUMS.read_text()).items():
        for path, values in fields.items():
            node = table[name]
            for step in path.split("/"):
                node = node[step]
            node["enum"] = values


_TELLING_EMPTY = {"HPAScalingRules.policies": "*[]v2.HPAScalingPolicy?"}
"""Lists of which an empty one is another thing than none: it is not defaulted, but refused."""


def declare(table: dict[str, Node], go_types: dict[str, dict[str, str]]) -> None:
    """Add `x-go` to the properties that need it."""
    for name, definition in table.items():
        facts = go_types.get(name, {})
        for field, node in definition.get("properties", {}).items():
            declared = (
                _TELLING_EMPTY.get(f"{name.rpartition('.')[2]}.{field}")
                or facts.get(field)
                or unknown(node, required=field in definition.get("required", ()))
            )
            effective = declared.removesuffix("?")
            if declared.endswith("?") and (declared.endswith("??") or "*" in declared or not is_struct(table, node)):
                effective = effective.removesuffix("?") + "?"  # Go writes a struct even when it is empty
            if effective != usual(table, node):
                node["x-go"] = effective


def unknown(node: Node, *, required: bool) -> str:
    """A field of a type that Go no longer has: no zero is lost."""
    return go_type(node) if required else f"*{go_type(node)}?"


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
    parser.add_argument("--legacy", type=Path, required=True, help="source archive of kubernetes-validate 1.21.0")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    table = merged(options.legacy)
    write(table, options.output)
    print(f"{len(table)} definitions, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
