"""Derive what OpenAPI does not tell about the Go types behind the API: facts for `generate_schemas.py`.

    python tools/generate_go_types.py --root STAGING --legacy kubernetes-validate-1.21.0.tar.gz

STAGING is a folder with the published Go modules of the API (`k8s.io/api`, `k8s.io/apimachinery`,
`k8s.io/apiextensions-apiserver`, `k8s.io/kube-aggregator`). Only names and three properties of each field are
taken: what Go calls its type (error messages show it), whether it is a pointer (then zero differs from absent)
and whether it is written when it was not given; and the embedded struct that it comes from.

In `tools/go_types.json` a field reads `VolumeSource>*v1.HostPathVolumeSource?`: promoted from an embedded
VolumeSource, a pointer, omitted when empty (`??`: also when it is a struct of zeros).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from generate_schemas import legacy, todays

TARGET = Path(__file__).parent / "go_types.json"

ALIASES = {
    f"admissionregistration.{version}.{struct}": f"admissionregistration.v1.{struct}"
    for version in ("v1alpha1", "v1beta1")
    for struct in ("MatchCondition", "NamedRuleWithOperations")
}
"""Types that a version takes from another."""
GONE = {
    "autoscaling.v2beta1": "autoscaling.v2",
    "autoscaling.v2beta2": "autoscaling.v2",
    "batch.v2alpha1": "batch.v1beta1",
}
"""Packages that the modules no longer have, and where most of their types live on."""

_PLACES = (
    (re.compile(r"io\.k8s\.apimachinery\.pkg\.(.+)\.(\w+)"), "k8s.io/apimachinery/pkg"),
    (re.compile(r"io\.k8s\.apiextensions-apiserver\.pkg\.(.+)\.(\w+)"), "k8s.io/apiextensions-apiserver/pkg"),
    (re.compile(r"io\.k8s\.kube-aggregator\.pkg\.(.+)\.(\w+)"), "k8s.io/kube-aggregator/pkg"),
    (re.compile(r"(.+)\.(\w+)"), "k8s.io/api"),
)
_STRUCT = re.compile(r"^type (\w+) struct \{$")
_FIELD = re.compile(r'^\s+(?:(\w+)\s+)?([\w.*\[\]]+)\s+`.*?json:"([^"]*)"')
_NAMED = re.compile(r"^type (\w+) (string|\[\]string|int32|bool|map\[.*)$")


@dataclass(frozen=True)
class Field:
    json: str
    go_type: str
    pointer: bool
    omitted: str
    embedded: str = ""

    def __str__(self) -> str:
        promoted = f"{self.embedded}>" if self.embedded else ""
        return f"{promoted}{'*' if self.pointer else ''}{self.go_type}{self.omitted}"


class Package:
    """The structs of one Go package."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.structs: dict[str, list[str]] = {}
        self.names: set[str] = set()
        for path in sorted(folder.glob("*.go")):
            if path.name.startswith("zz_") or path.name.endswith(("_test.go", ".pb.go")):
                continue
            current: list[str] | None = None
            for line in path.read_text().splitlines():
                if match := _STRUCT.match(line):
                    current = self.structs.setdefault(match[1], [])
                    self.names.add(match[1])
                elif match := _NAMED.match(line):
                    self.names.add(match[1])
                elif line == "}":
                    current = None
                elif current is not None:
                    current.append(line)

    def fields(self, struct: str) -> Iterator[Field]:
        for line in self.structs[struct]:
            match = _FIELD.match(line)
            if match is None or match[3] == "-":
                continue
            name, *options = match[3].split(",")
            go_type = match[2]
            if not name and (match[1] is None or "inline" in options):
                inner = go_type.lstrip("*").split(".")[-1]
                if inner == "TypeMeta":
                    yield Field("kind", "string", False, "?", "TypeMeta")
                    yield Field("apiVersion", "string", False, "?", "TypeMeta")
                elif inner in self.structs:
                    for field in self.fields(inner):
                        yield Field(field.json, field.go_type, field.pointer, field.omitted, inner)
                continue
            yield Field(
                name,
                self.spell(go_type.removeprefix("*")),
                go_type.startswith("*"),
                "??" if "omitzero" in options else "?" if "omitempty" in options else "",
            )

    def spell(self, go_type: str) -> str:
        """As reflection prints it: `[]v1.Container`."""
        for prefix in ("[]", "*"):
            if go_type.startswith(prefix):
                return prefix + self.spell(go_type[len(prefix) :])
        if match := re.match(r"map\[([^]]+)\](.+)", go_type):
            return f"map[{self.spell(match[1])}]{self.spell(match[2])}"
        if "." in go_type:
            package, _, name = go_type.partition(".")
            return f"{re.sub(r'^(meta|core|auth[a-z]*)(?=v1)', '', package)}.{name}"
        if go_type == "byte":
            return "uint8"
        return f"{self.name}.{go_type}" if go_type in self.names else go_type


def alias(name: str) -> str:
    package, _, struct = name.rpartition(".")
    return ALIASES.get(name) or f"{GONE.get(package, package)}.{struct}"


def find(name: str, root: Path) -> tuple[Path, str] | None:
    for pattern, base in _PLACES:
        match = pattern.fullmatch(name)
        if match:
            folder = root / base / match[1].replace(".", "/")
            return (folder, match[2]) if folder.is_dir() else None
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--legacy", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    packages: dict[Path, Package] = {}
    facts: dict[str, dict[str, str]] = {}
    for name, node in sorted((legacy(options.legacy) | todays()).items()):
        place = find(alias(name), options.root)
        if place is None or not node.get("properties"):
            continue
        folder, struct = place
        if folder not in packages:
            packages[folder] = Package(folder)
        package = packages[folder]
        if struct not in package.structs:
            print(f"no struct for {name}")
            continue
        facts[name] = {field.json: str(field) for field in package.fields(struct)}
        missing = set(node["properties"]) - set(facts[name])
        if missing:
            print(f"{name}: not found: {sorted(missing)}")
    lines = [f"{json.dumps(name)}:{json.dumps(fields, separators=(',', ':'))}" for name, fields in facts.items()]
    options.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(facts)} structs")


if __name__ == "__main__":
    main()
