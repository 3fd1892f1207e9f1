"""Definitions of the API that its OpenAPI document leaves out, because they only occur in queries or in answers of
another form: options of `exec` and the like, Tables, metadata alone, aggregated discovery.

Written here by hand, a field as `name:type`, `*` for a list. What an option is for is said in our own words.
"""

from __future__ import annotations

from typing import Any

Node = dict[str, Any]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SCALARS: dict[str, Node] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "any": {},
}

_STREAM = {
    "stdin": ("bool", "Pass standard input on to the container."),
    "stdout": ("bool", "Send standard output of the container back."),
    "stderr": ("bool", "Send standard error of the container back."),
    "tty": ("bool", "Use a terminal."),
    "container": ("string", "Which container; the pod's only one when not said."),
}
_PROXY = {"path": ("string", "Path of the request to pass on, with its query.")}
_LIST = {
    "labelSelector": ("string", ""),
    "fieldSelector": ("string", ""),
    "watch": ("bool", ""),
    "allowWatchBookmarks": ("bool", ""),
    "resourceVersion": ("string", ""),
    "resourceVersionMatch": ("string", ""),
    "timeoutSeconds": ("int64", ""),
    "limit": ("int64", ""),
    "continue": ("string", ""),
    "sendInitialEvents": ("bool", ""),
}
_WRITE = {"dryRun": ("*string", ""), "fieldManager": ("string", ""), "fieldValidation": ("string", "")}

_KINDS: dict[str, dict[str, tuple[str, str]]] = {
    "core.v1.PodExecOptions": {**_STREAM, "command": ("*string", "The command and its arguments; no shell.")},
    "core.v1.PodAttachOptions": _STREAM,
    "core.v1.PodPortForwardOptions": {"ports": ("*int32", "Ports to forward; needed over WebSocket.")},
    "core.v1.PodProxyOptions": _PROXY,
    "core.v1.ServiceProxyOptions": _PROXY,
    "core.v1.NodeProxyOptions": _PROXY,
    "core.v1.PodLogOptions": {
        "container": ("string", "Whose log; the pod's only container when not said."),
        "follow": ("bool", "Stay and send what is written from now on."),
        "previous": ("bool", "The log of the container that ran before the present one."),
        "sinceSeconds": ("int64", "Only what was written in the last so many seconds."),
        "sinceTime": (META + "Time", "Only what was written after this time (RFC 3339)."),
        "timestamps": ("bool", "Begin each line with its time (RFC 3339 with nanoseconds)."),
        "tailLines": ("int64", "Only the last so many lines."),
        "limitBytes": ("int64", "At most so many bytes."),
        "insecureSkipTLSVerifyBackend": ("bool", "Do not check the certificate of the kubelet that has the log."),
        "stream": ("string", "'All', 'Stdout' or 'Stderr'."),
    },
    META + "ListOptions": _LIST,
    META + "GetOptions": {"resourceVersion": ("string", "")},
    META + "CreateOptions": _WRITE,
    META + "UpdateOptions": _WRITE,
    META + "PatchOptions": {**_WRITE, "force": ("bool", "")},
    META + "TableOptions": {"includeObject": ("string", "")},
    META + "PartialObjectMetadata": {"metadata": (META + "ObjectMeta", "")},
    META + "PartialObjectMetadataList": {
        "metadata": (META + "ListMeta", ""),
        "items": ("*" + META + "PartialObjectMetadata", ""),
    },
    META + "Table": {
        "metadata": (META + "ListMeta", ""),
        "columnDefinitions": ("*" + META + "TableColumnDefinition", ""),
        "rows": ("*" + META + "TableRow", ""),
    },
    "apidiscovery.v2.APIGroupDiscoveryList": {
        "metadata": (META + "ListMeta", ""),
        "items": ("*apidiscovery.v2.APIGroupDiscovery", ""),
    },
    "apidiscovery.v2.APIGroupDiscovery": {
        "metadata": (META + "ObjectMeta", ""),
        "versions": ("*apidiscovery.v2.APIVersionDiscovery", ""),
    },
}
_PARTS: dict[str, dict[str, tuple[str, str]]] = {
    META + "TableColumnDefinition": {
        "name": ("string", ""),
        "type": ("string", ""),
        "format": ("string", ""),
        "description": ("string", ""),
        "priority": ("int32", ""),
    },
    META + "TableRow": {
        "cells": ("*any", ""),
        "conditions": ("*" + META + "TableRowCondition", ""),
        "object": ("io.k8s.apimachinery.pkg.runtime.RawExtension", ""),
    },
    META + "TableRowCondition": {
        "type": ("string", ""),
        "status": ("string", ""),
        "reason": ("string", ""),
        "message": ("string", ""),
    },
    "apidiscovery.v2.APIVersionDiscovery": {
        "version": ("string", ""),
        "resources": ("*apidiscovery.v2.APIResourceDiscovery", ""),
        "freshness": ("string", ""),
    },
    "apidiscovery.v2.APIResourceDiscovery": {
        "resource": ("string", ""),
        "responseKind": (META + "GroupVersionKind", ""),
        "scope": ("string", ""),
        "singularResource": ("string", ""),
        "verbs": ("*string", ""),
        "shortNames": ("*string", ""),
        "categories": ("*string", ""),
        "subresources": ("*apidiscovery.v2.APISubresourceDiscovery", ""),
    },
    "apidiscovery.v2.APISubresourceDiscovery": {
        "subresource": ("string", ""),
        "responseKind": (META + "GroupVersionKind", ""),
        "acceptedTypes": ("*" + META + "GroupVersionKind", ""),
        "verbs": ("*string", ""),
    },
    META + "GroupVersionKind": {"group": ("string", ""), "version": ("string", ""), "kind": ("string", "")},
}
_GROUPS = {"core": "", "apidiscovery": "apidiscovery.k8s.io", "meta": "meta.k8s.io"}
_HEAD = {"apiVersion": ("string", ""), "kind": ("string", "")}


def _property(kind: str, text: str) -> Node:
    if kind.startswith("*"):
        node: Node = {"type": "array", "items": _property(kind[1:], "")}
    else:
        node = dict(_SCALARS.get(kind, {"$ref": kind}))
    return {"description": text, **node} if text else node


def extra_schemas() -> dict[str, Node]:
    """By short name, as OpenAPI."""
    table: dict[str, Node] = {}
    for name, fields in (_KINDS | _PARTS).items():
        *_, group, version, kind = name.split(".")
        if name in _KINDS:
            fields = _HEAD | fields  # noqa: PLW2901
        table[name] = {"type": "object", "properties": {key: _property(*fields[key]) for key in sorted(fields)}}
        if name in _KINDS:
            table[name]["x-kubernetes-group-version-kind"] = [
                {"group": _GROUPS[group], "kind": kind, "version": version}
            ]
    return table
