"""Derive the table of protobuf field numbers from the published proto definitions.

    python tools/generate_protobuf.py --root STAGING

No package registry we know of carries the definitions of current releases, so STAGING is a folder with the
published Go modules of the API (`k8s.io/api` and so on), each with its `generated.proto` beside the Go types. Only
facts are taken: names, numbers and types; and from the Go types, how a field is called in JSON and which messages
are spread into the object around them.

`src/shipwheel/kinds/protobuf.json` has a line for each message, in the notation of `shipwheel.api.protobuf`:
`name=1:type`, `[type]`, `{key:type}`. `^` before a name: the message's fields stand in the object itself.
`TypeMeta`: in JSON there are also `kind` and `apiVersion`, which protobuf carries outside.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

TARGET = Path(__file__).parent.parent / "src/shipwheel/kinds/protobuf.json"

ROOTS = ("k8s.io/api", "k8s.io/apimachinery/pkg", "k8s.io/apiextensions-apiserver/pkg", "k8s.io/kube-aggregator/pkg")
SKIPPED = {"testapigroup", "imagepolicy"}
SCALARS = {"string", "bool", "int32", "int64", "uint32", "uint64", "double", "float"}

_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(?:(optional|repeated|required) ([\w.]+)|map<(\w+), ([\w.]+)>) (\w+) = (\d+)", re.MULTILINE)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_TAGS = re.compile(r"`(?P<tags>[^`]*)`")
_JSON = re.compile(r'json:"([^"]*)"')
_PROTO_NAME = re.compile(r'protobuf:"[^"]*name=(\w+)')


def short(package: str, name: str) -> str:
    """As definitions are called in `schemas.json`."""
    full = ".".join(("io.k8s", *package.removeprefix("k8s.io.").replace("_", "-").split("."), name))
    return full.removeprefix("io.k8s.api.")


def json_names(folder: Path) -> dict[str, dict[str, str]]:
    """For each Go struct of a package: protobuf name to JSON name, empty where the field is spread."""
    structs: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.go")):
        if path.name.startswith("zz_") or path.name.endswith(("_test.go", ".pb.go")):
            continue
        for match in _STRUCT.finditer(path.read_text()):
            names = structs.setdefault(match[1], {})
            for line in match[2].splitlines():
                tags = _TAGS.search(line)
                found = _JSON.search(tags["tags"]) if tags else None
                if found is None or tags is None:
                    continue
                name = found[1].partition(",")[0]
                proto = _PROTO_NAME.search(tags["tags"])
                embedded = line.split()[0].rpartition(".")[2]
                if proto is not None:
                    names[proto[1]] = proto[1] if name == "-" else name
                elif not name:
                    names["TypeMeta" if embedded == "TypeMeta" else embedded[:1].lower() + embedded[1:]] = ""
    return structs


def read(proto: Path) -> dict[str, str]:
    text = re.sub(r"//.*", "", proto.read_text())
    package = _PACKAGE.search(text)
    if package is None:
        return {}
    names = json_names(proto.parent)
    return {
        short(package[1], match[1]): fields(package[1], match[2], names.get(match[1], {}))
        for match in _MESSAGE.finditer(text)
    }


def fields(package: str, body: str, names: dict[str, str]) -> str:
    def kind(text: str) -> str:
        if text in SCALARS:
            return text
        if text == "bytes":
            return "base64"
        owner, _, name = text.lstrip(".").rpartition(".")
        return short(owner or package, name)

    words = ["TypeMeta"] if "TypeMeta" in names else []
    for match in _FIELD.finditer(body):
        label, item, key, value, name, number = match.groups()
        if key:
            declared = f"{{{key}:{kind(value)}}}"
        else:
            declared = f"[{kind(item)}]" if label == "repeated" else kind(item)
        called = names.get(name, name)
        words.append(f"{called or '^' + name}={number}:{declared}")
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    table: dict[str, str] = {}
    for root in ROOTS:
        for proto in sorted((options.root / root).rglob("generated.proto")):
            if not SKIPPED & set(proto.parts):
                table |= read(proto)
    lines = [f"{json.dumps(name)}:{json.dumps(table[name])}" for name in sorted(table)]
    options.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(table)} messages, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
