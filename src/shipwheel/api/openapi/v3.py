"""OpenAPI v3: a document for each group and version (KEP-2896)."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from shipwheel.api.meta import GroupVersion, Obj
from shipwheel.api.openapi.definitions import Definitions, finder
from shipwheel.api.openapi.names import prefix, tag
from shipwheel.api.openapi.operations import (
    JSON,
    META,
    PROTOBUF,
    TEXT,
    YAML,
    Body,
    Operation,
    common,
    of_resource,
    root,
    word,
)
from shipwheel.api.openapi.parameters import Parameter
from shipwheel.api.openapi.roots import root_operations
from shipwheel.api.scheme import Scheme

SECURITY = {
    "BearerToken": {
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    }
}


def group_version_operations(scheme: Scheme, gv: GroupVersion) -> list[Operation]:
    """Everything that can be done in a group and version, by path."""
    operations = [
        Operation(
            f"{root(gv)}/", "get", f"get{prefix(gv)}APIResources", "get available resources",
            consumes=(JSON, YAML, PROTOBUF), answers={200: Body(f"{META}APIResourceList")},
        )
    ]  # fmt: skip
    for resource, version in scheme.in_group_version(gv):
        operations += of_resource(resource, version)
    return sorted(operations, key=lambda each: (each.path, each.method))


def build_v3(scheme: Scheme, gv: GroupVersion) -> Obj:
    """The document at `/openapi/v3/apis/GROUP/VERSION`."""
    definitions = Definitions("v3", finder(scheme), group_version=gv)
    operations = group_version_operations(scheme, gv)
    paths = {}
    for path, group in groupby(operations, key=lambda each: each.path):
        paths[path] = _path(list(group), tag(gv), definitions)
    return _document(paths, definitions)


def build_v3_root(scheme: Scheme, path: str) -> Obj:
    """The document of what is no resource, at `/openapi/v3/apis`, `/openapi/v3/version` and so on. KeyError when there
    is no such path."""
    operation = next((each for each in root_operations(scheme) if each.path == f"/{path}/"), None)
    if operation is None:
        raise KeyError(path)
    definitions = Definitions("v3", finder(scheme))
    return _document({operation.path: _path([operation], operation.tag, definitions)}, definitions)


def _document(paths: Obj, definitions: Definitions) -> Obj:
    return {
        "components": {"schemas": definitions.sorted(), "securitySchemes": SECURITY},
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "openapi": "3.0.0",
        "paths": paths,
    }


def _path(operations: list[Operation], tag_name: str, definitions: Definitions) -> Obj:
    shared = common(operations)
    item: Obj = {each.method: _operation(each, shared, tag_name, definitions) for each in operations}
    if shared:
        item["parameters"] = _parameters(shared)
    return item


def _operation(operation: Operation, shared: set[Parameter], tag_name: str, definitions: Definitions) -> Obj:
    out: Obj = {"description": operation.description, "operationId": operation.id}
    own = set(operation.parameters) - shared
    if own:
        out["parameters"] = _parameters(own)
    if operation.body is not None:
        schema = schema_of(operation.body, definitions)
        out["requestBody"] = {"content": {media: {"schema": schema} for media in operation.consumes}}
        if operation.body_required:
            out["requestBody"]["required"] = True
    responses: dict[str, Any] = {}
    for code, body in operation.answers.items():
        schema = schema_of(body, definitions)
        responses[str(code)] = {
            "content": {media: {"schema": schema} for media in sorted(operation.produces)},
            "description": word(code),
        }
    responses["401"] = {"description": word(401)}
    out["responses"] = responses
    out["tags"] = [tag_name]
    if operation.action:
        out["x-kubernetes-action"] = operation.action
    if operation.gvk is not None:
        gvk = operation.gvk
        out["x-kubernetes-group-version-kind"] = {"group": gvk.group, "kind": gvk.kind, "version": gvk.version}
    return out


def _parameters(parameters: set[Parameter]) -> list[Obj]:
    return [_parameter(each) for each in sorted(parameters, key=lambda each: (each.name, each.place))]


def _parameter(parameter: Parameter) -> Obj:
    out: Obj = {"description": parameter.description} if parameter.description else {}
    out |= {"in": parameter.place, "name": parameter.name}
    if parameter.place == "path":
        out["required"] = True
    return out | {"schema": {"type": parameter.type, "uniqueItems": True}}


def schema_of(body: Body, definitions: Definitions) -> Obj:
    if body == TEXT:
        return {"type": "string"}
    if body.name:
        return definitions.reference(body.name)
    assert body.gvk is not None
    if body.schema is None:
        raise KeyError(f"no schema for {body.gvk}")
    if body.list_kind:
        return definitions.list_of(body.gvk, body.schema, body.list_kind)
    return definitions.kind(body.gvk, body.schema)
