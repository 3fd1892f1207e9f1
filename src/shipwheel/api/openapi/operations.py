"""What can be done with each kind: the operations of the documents, before they are written in a dialect.

They follow from what a `Resource` declares (scope, verbs, subresources) and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from shipwheel.api.meta import GroupVersion, GroupVersionKind
from shipwheel.api.openapi.names import camel, prefix
from shipwheel.api.openapi.parameters import (
    BODY_WRITE,
    DELETE,
    LIST,
    NAMESPACE,
    PATCH,
    PATH,
    PRETTY,
    Parameter,
    of_options,
)
from shipwheel.api.resource import Resource, Subresource, Version
from shipwheel.api.schema import Schema

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
STATUS = META + "Status"
DELETE_OPTIONS = META + "DeleteOptions"
WATCH_EVENT = META + "WatchEvent"
PATCH_BODY = META + "Patch"

JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
STREAMS = (f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")
ANY = "*/*"
PATCH_TYPES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
               "application/strategic-merge-patch+json")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent or answered: a definition by name, a kind with its schema, or a list of it; or a text."""

    name: str = ""
    gvk: GroupVersionKind | None = None
    schema: Schema | None = None
    list_kind: str = ""


TEXT = Body()
"""A plain string."""


@dataclass(frozen=True, slots=True)
class Operation:
    path: str
    method: str
    id: str
    description: str
    action: str = ""
    gvk: GroupVersionKind | None = None
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    body_required: bool = True
    consumes: tuple[str, ...] = (ANY,)
    produces: tuple[str, ...] = (JSON, YAML, PROTOBUF)
    answers: dict[int, Body] = field(default_factory=dict)
    tag: str = ""


_WORDS = {200: "OK", 201: "Created", 202: "Accepted", 401: "Unauthorized"}


def word(code: int) -> str:
    return _WORDS[code]


def of_resource(resource: Resource, version: Version) -> Iterator[Operation]:
    """Everything at `/apis/GROUP/VERSION/.../PLURAL` and below."""
    yield from _Kind(resource, version).operations()


class _Kind:
    """One kind in one version. Kept as an object because every operation mentions the same few facts."""

    def __init__(self, resource: Resource, version: Version) -> None:
        gv = version.group_version
        self.resource, self.version = resource, version
        self.gvk = GroupVersionKind(version.group, version.version, resource.kind)
        self.root = root(gv)
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        self.collection = f"{self.root}{scope}/{resource.plural}"
        self.item = f"{self.collection}/{{name}}"
        self.prefix = prefix(gv)
        self.scope = "Namespaced" if resource.namespaced else ""
        self.produces = (JSON, YAML) if resource.custom else (JSON, YAML, PROTOBUF)
        self.streams = STREAMS[:1] if resource.custom else STREAMS
        self.object = Body(gvk=self.gvk, schema=version.schema)
        self.list = Body(gvk=self.gvk, schema=version.schema, list_kind=resource.list_kind or f"{resource.kind}List")
        self.name = Parameter("name", "path", description=f"name of the {resource.kind}")
        self.where = (NAMESPACE, PRETTY) if resource.namespaced else (PRETTY,)

    def operations(self) -> Iterator[Operation]:
        verbs = self.resource.verbs
        for verb in ("create", "delete", "deletecollection", "get", "list", "patch", "update"):
            if verb in verbs:
                yield getattr(self, f"_{verb}")()
        if "list" in verbs and self.resource.namespaced:
            yield self._list(everywhere=True)
        if "watch" in verbs:
            yield from self._watches()
        for sub in self.resource.subresources:
            if self.version.subresources is None or sub.name in self.version.subresources:
                yield from self._subresource(sub)

    def _make(self, path: str, method: str, verb: str, name: str, description: str, **facts: object) -> Operation:
        given = {"gvk": self.gvk, "action": method, "produces": self.produces, **facts}
        return Operation(path, method, f"{verb}{self.prefix}{name}", description, **given)  # type: ignore[arg-type]

    def _create(self) -> Operation:
        return self._make(
            self.collection, "post", "create", f"{self.scope}{self.gvk.kind}", f"create {_a(self.gvk.kind)}",
            parameters=(*BODY_WRITE, *self.where), body=self.object,
            answers=dict.fromkeys((200, 201, 202), self.object),
        )  # fmt: skip

    def _get(self) -> Operation:
        return self._make(
            self.item, "get", "read", f"{self.scope}{self.gvk.kind}", f"read the specified {self.gvk.kind}",
            parameters=(self.name, *self.where), answers={200: self.object},
        )  # fmt: skip

    def _update(self) -> Operation:
        return self._make(
            self.item, "put", "replace", f"{self.scope}{self.gvk.kind}", f"replace the specified {self.gvk.kind}",
            parameters=(*BODY_WRITE, self.name, *self.where), body=self.object,
            answers=dict.fromkeys((200, 201), self.object),
        )  # fmt: skip

    def _patch(self) -> Operation:
        return self._make(
            self.item, "patch", "patch", f"{self.scope}{self.gvk.kind}",
            f"partially update the specified {self.gvk.kind}",
            parameters=(*PATCH, self.name, *self.where), body=Body(PATCH_BODY), consumes=self._patch_types(),
            answers=dict.fromkeys((200, 201), self.object),
        )  # fmt: skip

    def _patch_types(self) -> tuple[str, ...]:
        return PATCH_TYPES[:-1] if self.resource.custom else PATCH_TYPES

    def _delete(self) -> Operation:
        answer = self.object if self.resource.strategy.returns_deleted else Body(STATUS)
        return self._make(
            self.item, "delete", "delete", f"{self.scope}{self.gvk.kind}", f"delete {_a(self.gvk.kind)}",
            parameters=(*DELETE, self.name, *self.where), body=Body(DELETE_OPTIONS), body_required=False,
            answers=dict.fromkeys((200, 202), answer),
        )  # fmt: skip

    def _deletecollection(self) -> Operation:
        parameters = {each.name: each for each in (*DELETE, *LIST) if each.name not in ("watch", "allowWatchBookmarks")}
        return self._make(
            self.collection, "delete", "delete", f"Collection{self.scope}{self.gvk.kind}",
            f"delete collection of {self.gvk.kind}", action="deletecollection",
            parameters=(*parameters.values(), *self.where), body=Body(DELETE_OPTIONS), body_required=False,
            answers={200: Body(STATUS)},
        )  # fmt: skip

    def _list(self, *, everywhere: bool = False) -> Operation:
        path = f"{self.root}/{self.resource.plural}" if everywhere else self.collection
        name = f"{self.gvk.kind}ForAllNamespaces" if everywhere else f"{self.scope}{self.gvk.kind}"
        return self._make(
            path, "get", "list", name, f"list or watch objects of kind {self.gvk.kind}", action="list",
            parameters=(*LIST, *((PRETTY,) if everywhere else self.where)),
            produces=(*self.produces, *self.streams), answers={200: self.list},
        )  # fmt: skip

    def _watches(self) -> Iterator[Operation]:
        scope = "/namespaces/{namespace}" if self.resource.namespaced else ""
        base = f"{self.root}/watch"
        kind, plural = self.gvk.kind, self.resource.plural
        lists = (
            "watch individual changes to a list of "
            f"{kind}. deprecated: use the 'watch' parameter with a list operation instead."
        )
        single = (
            f"watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list "
            "operation instead, filtered to a single item with the 'fieldSelector' parameter."
        )

        def make(path: str, name: str, description: str, action: str, where: tuple[Parameter, ...]) -> Operation:
            return self._make(
                path, "get", "watch", name, description, action=action, parameters=(*LIST, *where),
                produces=(*self.produces, *self.streams), answers={200: Body(WATCH_EVENT)},
            )  # fmt: skip

        yield make(f"{base}{scope}/{plural}", f"{self.scope}{kind}List", lists, "watchlist", self.where)
        if "get" in self.resource.verbs:
            path = f"{base}{scope}/{plural}/{{name}}"
            yield make(path, f"{self.scope}{kind}", single, "watch", (self.name, *self.where))
        if self.resource.namespaced:
            yield make(f"{base}/{plural}", f"{kind}ListForAllNamespaces", lists, "watchlist", (PRETTY,))

    # --- Subresources

    def _subresource(self, sub: Subresource) -> Iterator[Operation]:
        if sub.connect and sub.kind is not None:
            yield from self._connect(sub, sub.kind)
            return
        gvk = sub.kind or self.gvk
        body = self.object if sub.kind is None else Body(gvk=gvk, schema=sub.schema)
        named = Parameter("name", "path", description=f"name of the {gvk.kind}")
        path = f"{self.item}/{sub.name}"
        suffix = f"{self.scope}{self.gvk.kind}{camel(sub.name)}"
        of = f"{sub.name} of the specified {self.gvk.kind}"
        everything = (named, *self.where)
        if sub.connect:
            options = self._options(f"{self.gvk.kind}{camel(sub.name)}Options")
            yield self._make(
                path, "get", "read", suffix, f"read {of}", parameters=(*options, *everything),
                produces=(*self.produces, "text/plain"), answers={200: TEXT},
            )  # fmt: skip
            return
        for verb in sub.verbs:
            match verb:
                case "get":
                    yield self._make(
                        path, "get", "read", suffix, f"read {of}", gvk=gvk, parameters=everything, answers={200: body}
                    )
                case "update":
                    yield self._make(
                        path, "put", "replace", suffix, f"replace {of}", gvk=gvk,
                        parameters=(*BODY_WRITE, *everything), body=body, answers=dict.fromkeys((200, 201), body),
                    )  # fmt: skip
                case "patch":
                    yield self._make(
                        path, "patch", "patch", suffix, f"partially update {of}", gvk=gvk,
                        parameters=(*PATCH, *everything), body=Body(PATCH_BODY), consumes=self._patch_types(),
                        answers=dict.fromkeys((200, 201), body),
                    )  # fmt: skip
                case "create":
                    yield self._make(
                        path, "post", "create", suffix, f"create {sub.name} of {_a(self.gvk.kind)}", gvk=gvk,
                        parameters=(*BODY_WRITE, *everything), body=body,
                        answers=dict.fromkeys((200, 201, 202), body),
                    )  # fmt: skip

    def _options(self, kind: str) -> tuple[Parameter, ...]:
        """The query parameters that are the fields of an options kind, published beside the kind itself."""
        package = self.version.schema.name.rpartition(".")[0]
        return of_options(self.version.schema.find(f"{package}.{kind}"))

    def _connect(self, sub: Subresource, gvk: GroupVersionKind) -> Iterator[Operation]:
        named = Parameter("name", "path", description=f"name of the {gvk.kind}")
        where = tuple(each for each in self.where if each is not PRETTY)
        options = self._options(gvk.kind)
        by_path = any(each.name == "path" for each in options)
        for tail, suffix, more in (("", "", ()), ("/{path}", "WithPath", (PATH,)))[: 2 if by_path else 1]:
            for method in _CONNECT_ALL if by_path else _CONNECT_STREAM:
                yield self._make(
                    f"{self.item}/{sub.name}{tail}", method, "connect",
                    f"{camel(method)}{self.scope}{self.gvk.kind}{camel(sub.name)}{suffix}",
                    f"connect {method.upper()} requests to {sub.name} of {self.gvk.kind}",
                    gvk=gvk, action="connect", parameters=(*options, *more, named, *where), produces=(ANY,),
                    answers={200: TEXT},
                )  # fmt: skip


_CONNECT_ALL = ("delete", "get", "head", "options", "patch", "post", "put")
_CONNECT_STREAM = ("get", "post")


def root(gv: GroupVersion) -> str:
    return f"/apis/{gv.group}/{gv.version}" if gv.group else f"/api/{gv.version}"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def common(operations: Iterable[Operation]) -> set[Parameter]:
    """Parameters of all the operations at a path, which are said once for the path."""
    sets = [set(each.parameters) for each in operations]
    return set.intersection(*sets) if sets else set()
