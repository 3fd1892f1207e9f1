"""OpenAPI v2 (Swagger): one document for everything. Older clients and client generators read it."""

from __future__ import annotations

import hashlib
from itertools import groupby

import orjson

from shipwheel.api.meta import Obj
from shipwheel.api.openapi.definitions import Definitions, finder
from shipwheel.api.openapi.names import tag
from shipwheel.api.openapi.operations import Operation, common, word
from shipwheel.api.openapi.parameters import Parameter
from shipwheel.api.openapi.roots import root_operations
from shipwheel.api.openapi.v3 import SECURITY, group_version_operations, schema_of
from shipwheel.api.scheme import Scheme


def build_v2(scheme: Scheme) -> Obj:
    """The document at `/openapi/v2`."""
    document = _Document(Definitions("v2", finder(scheme)))
    for operation in root_operations(scheme):
        document.add([operation], operation.tag)
    for gv in scheme.group_versions():
        for _, operations in groupby(group_version_operations(scheme, gv), key=lambda each: each.path):
            document.add(list(operations), tag(gv))
    return {
        "definitions": document.definitions.sorted(),
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "parameters": dict(sorted(document.parameters.items())),
        "paths": dict(sorted(document.paths.items())),
        "security": [{"BearerToken": []}],
        "securityDefinitions": SECURITY,
        "swagger": "2.0",
    }


class _Document:
    """The parts that grow: paths, and the parameters they share."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self.paths: dict[str, Obj] = {}
        self.parameters: dict[str, Obj] = {}
        self._names: dict[Parameter, str] = {}

    def add(self, operations: list[Operation], tag_name: str) -> None:
        shared = common(operations) if operations[0].parameters else set()
        item: Obj = {each.method: self._operation(each, shared, tag_name) for each in operations}
        if shared:
            item["parameters"] = self._parameters(shared)
        self.paths[operations[0].path] = item

    def _operation(self, operation: Operation, shared: set[Parameter], tag_name: str) -> Obj:
        out: Obj = {"consumes": list(operation.consumes)} if operation.consumes else {}
        out |= {"description": operation.description, "operationId": operation.id}
        parameters = self._parameters(set(operation.parameters) - shared)
        if operation.body is not None:
            body: Obj = {"in": "body", "name": "body"}
            if operation.body_required:
                body["required"] = True
            parameters.insert(0, body | {"schema": schema_of(operation.body, self.definitions)})
        if parameters:
            out["parameters"] = parameters
        out["produces"] = list(operation.produces)
        responses: Obj = {
            str(code): {"description": word(code), "schema": schema_of(body, self.definitions)}
            for code, body in operation.answers.items()
        }
        out["responses"] = responses | {"401": {"description": word(401)}}
        out["schemes"] = ["https"]
        out["tags"] = [tag_name]
        if operation.action:
            out["x-kubernetes-action"] = operation.action
        if operation.gvk is not None:
            gvk = operation.gvk
            out["x-kubernetes-group-version-kind"] = {"group": gvk.group, "kind": gvk.kind, "version": gvk.version}
        return out

    def _parameters(self, parameters: set[Parameter]) -> list[Obj]:
        ordered = sorted(parameters, key=lambda each: (each.name, each.place))
        return [{"$ref": f"#/parameters/{self._shared(each)}"} for each in ordered]

    def _shared(self, parameter: Parameter) -> str:
        """Its name among the parameters that the document writes only once."""
        name = self._names.get(parameter)
        if name is None:
            written: Obj = {"description": parameter.description} if parameter.description else {}
            written |= {"in": parameter.place, "name": parameter.name}
            if parameter.place == "path":
                written["required"] = True
            written |= {"type": parameter.type, "uniqueItems": True}
            digest = hashlib.sha256(orjson.dumps(written)).hexdigest()[:8]
            name = self._names[parameter] = f"{parameter.name}-{digest}"
            self.parameters[name] = written
        return name
