"""What a kind is: a schema, a strategy and a few declared facts.

Built-in kinds and custom resources are both described by `Resource` and take the same road through the API
server. A built-in only has a richer `Strategy`. Whatever is particular to a kind is said in its own module in
`kinds/`; nothing else names it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shipwheel.api.clock import Clock
from shipwheel.api.errors import FieldError
from shipwheel.api.meta import GroupResource, GroupVersion, GroupVersionKind, Obj
from shipwheel.api.schema import conform

if TYPE_CHECKING:
    from shipwheel.api.schema import Schema


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who sends a request (`authentication.k8s.io` UserInfo)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Attributes(NamedTuple):
    """What an authorizer is asked: may `user` do `verb` on this resource, or on this path?"""

    user: UserInfo
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    is_resource: bool = True
    label_selector: str = ""
    field_selector: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    allowed: bool
    reason: str = ""
    denied: bool = False
    """An authorizer said no outright (rather than having no opinion)."""


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What a strategy may know of the write it takes part in. Strategies have no other source of time."""

    user: UserInfo
    now: datetime
    resource: Resource
    subresource: str = ""
    dry_run: bool = False
    verb: str = "update"
    """`create`, `update`, `patch` or `delete`."""


class Strategy:
    """How objects of a kind are written: pure functions on the storage version's form.

    The registry calls, for a create: `default`, `prepare_for_create`, `validate`; for an update: `default`,
    `prepare_for_update`, `validate_update`; for an update of `status`: `default`, `prepare_for_status_update`,
    `validate_status_update`. Methods named `prepare_*` and `default` change their first argument in place.
    Metadata that every kind shares (names, labels, owner references, finalizers, immutability of uid and the
    like) is the registry's own affair, as is type checking and pruning by the schema.
    """

    allow_create_on_update = False
    """PUT of an object that does not exist creates it."""
    allow_unconditional_update = True
    """PUT without a resource version overwrites."""
    generate_name_max = 63
    name_rule: Callable[[str, bool], list[str]] | None = None
    """(name, is_prefix) -> complaints; None: a DNS subdomain."""
    tracks_generation = True
    """`metadata.generation` counts the changes of everything but metadata and status."""
    annotations_count = False
    """It counts those of annotations too."""
    returns_deleted = False
    """A DELETE that removes the object answers with it, rather than with a Status."""

    def default(self, obj: Obj) -> None:
        """Fill in what the schema's own defaults do not say."""

    def prepare_for_create(self, obj: Obj, ctx: WriteContext) -> None:
        """Drop what a client may not set. The base empties `status` if the kind has that subresource."""
        if ctx.resource.custom:
            if ctx.resource.has_status:
                obj.pop("status", None)
        elif ctx.resource.has_status:
            obj["status"] = conform(ctx.resource.storage.schema.properties["status"], {})

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        if ctx.resource.has_status:
            keep(new, old, "status")

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        """The base keeps everything but status (and managed fields) as it was."""
        metadata = dict(old["metadata"])
        for key in ("managedFields", "resourceVersion"):
            if key in new["metadata"]:
                metadata[key] = new["metadata"][key]
            else:
                metadata.pop(key, None)
        status = new.get("status")
        new.clear()
        new.update(old)
        new["metadata"] = metadata
        new.pop("status", None)
        if status is not None:
            new["status"] = status

    def validate(self, obj: Obj) -> list[FieldError]:
        return []

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new)

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return []

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        """Texts for `Warning` headers on create (`old` is None) and update."""
        return []

    def grace_period(self, obj: Obj, requested: int | None) -> int | None:
        """Seconds that a deletion waits for the object's end to be confirmed (by another delete with 0), or
        None when the kind is deleted at once. Pods wait."""
        return None

    def holds_deletion(self, obj: Obj) -> bool:
        """Whether something of the kind's own, besides finalizers, keeps an object that is to be deleted (a
        namespace's `spec.finalizers`)."""
        return False

    def mark_deleted(self, obj: Obj, ctx: WriteContext) -> None:
        """Change an object whose deletion begins but has to wait (a namespace's phase), in place."""

    def refuse_deletion(self, obj: Obj) -> str:
        """Why this object may not be deleted now (text of a 403 or 409), empty when it may."""
        return ""

    async def before_create(self, obj: Obj, server: Server, ctx: WriteContext) -> Callable[[], None] | None:
        """Take what the object needs of shared means (addresses, ports), after `prepare_for_create`. The
        function returned gives it back if the write fails."""
        return None

    async def before_update(self, new: Obj, old: Obj, server: Server, ctx: WriteContext) -> Callable[[], None] | None:
        """The same for an update."""
        return None

    async def after_update(self, new: Obj, old: Obj, server: Server) -> None:
        """Give back what the object had and has no more; the update is written."""

    async def after_delete(self, obj: Obj, server: Server) -> None:
        """Give back what `before_create` took."""


def keep(new: Obj, old: Obj, *names: str) -> None:
    """Let the named fields of `new` be those of `old`."""
    for name in names:
        if name in old:
            new[name] = old[name]
        else:
            new.pop(name, None)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the Table that kubectl prints. `value(obj, now)` is text, a number, a bool or None.

    `priority` 0 is always shown; 1 only with `-o wide`. The first column of every kind is `Name`.
    """

    name: str
    value: Callable[[Obj, datetime], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    moment: Callable[[Obj], str | None] | None = None
    """Of a column that says how long ago something was: when that was. Everything else in a row can be kept."""


@dataclass(frozen=True)
class Version:
    """One way a kind is served: under a group and version, in that version's form.

    `to_storage` and `from_storage` turn an object of this form into the storage version's and back, in place
    or anew; None where the two are the same but for `apiVersion` (which the registry sets).
    """

    group: str
    version: str
    schema: Schema
    to_storage: Callable[[Obj], Obj] | None = None
    from_storage: Callable[[Obj], Obj] | None = None
    deprecation: str = ""
    """Text of the `Warning` header; empty when the version is not deprecated."""
    removed_in: str = ""
    """The release since which upstream no longer serves this version (`1.22`); empty while it does."""
    columns: tuple[Column, ...] | None = None
    """Where they differ from the resource's."""
    subresources: frozenset[str] | None = None
    """Names of the subresources this version has; None: all."""
    check: Callable[[Obj, Obj | None], list[FieldError]] | None = None
    """What this version asks beyond the strategy's `validate`, of (new, old) in the storage version's form; old
    is None on create."""
    field_labels: Mapping[str, str] | None = None
    """What it calls the resource's `selectable` fields: its own names, and those it stands for. None: the same."""
    orphans: bool = False
    """A deletion through this version leaves dependents alone when the client does not say."""

    @cached_property
    def group_version(self) -> GroupVersion:
        return GroupVersion(self.group, self.version)

    @cached_property
    def api_version(self) -> str:
        return str(self.group_version)


@dataclass(frozen=True, slots=True)
class Subresource:
    """`pods/log` and the like.

    `update` and `read` are for those that are a view of the object (status, scale, resize): `read` makes the
    view, `update` puts a changed view into the object. `call` handles everything else: it is given the request
    and answers it with an object, or with a `Stream`.
    """

    name: str
    verbs: tuple[str, ...]
    """RBAC and discovery verbs: `get`, `update`, `patch`, `create`, ..."""
    kind: GroupVersionKind | None = None
    """Of the body; None: the resource's own."""
    schema: Schema | None = None
    """Of the body, where `kind` is another."""
    also: tuple[GroupVersionKind, ...] = ()
    """Versions of the past that a body may be in as well; their form is the same."""
    read: Callable[[Obj], Obj] | None = None
    update: Callable[[Obj, Obj], Obj] | None = None
    """(view, object) -> changed object."""
    applied: Callable[[Obj], Obj] | None = None
    """What an applied view says of the object: it is the object's fields that have owners."""
    columns: tuple[Column, ...] = ()
    """Of a view that is of another kind than the object."""
    strategy: Strategy | None = None
    """Its `prepare_for_update` and `validate_update` replace the resource's. None: for `status`, the resource's
    `*_status_update`; for others the resource's own."""
    call: Callable[[Server, Call], Awaitable[Any]] | None = None
    connect: bool = False
    """`call` is reached by any method, and takes options from the query (exec, attach, portforward, proxy)."""


@dataclass(frozen=True)
class Resource:
    """A kind as the API serves it."""

    kind: str
    plural: str
    versions: tuple[Version, ...]
    """In order of preference. The first is the storage version unless `storage_version` says otherwise."""
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    strategy: Strategy = field(default_factory=Strategy)
    columns: tuple[Column, ...] = ()
    row_conditions: Callable[[Obj], Sequence[Obj]] | None = None
    """What an object's row in a Table says of the object as a whole (TableRowCondition)."""
    subresources: tuple[Subresource, ...] = ()
    selectable: Mapping[str, Callable[[Obj], str]] = field(default_factory=dict)
    """Field selectors beyond metadata.name and metadata.namespace."""
    unknown_field: str = "field label not supported: {field}"
    """How other field selectors are refused, where there are some; kinds say it differently. May name the `gvk`."""
    verbs: tuple[str, ...] = (
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
    )  # fmt: skip
    storage_prefix: str = ""
    """Under /registry/; empty: the plural (with the group before it for custom resources)."""
    storage_version: GroupVersion | None = None
    custom: bool = False
    """Made by a CustomResourceDefinition: unknown fields follow the schema, list items carry their kind."""
    call: Callable[[Server, Call], Awaitable[Any]] | None = None
    """For kinds that are only answered, never stored (the reviews): create goes here."""
    expires: bool = False
    """Objects go away by themselves, some time after they were last written (events)."""
    system_namespace_exempt: bool = False
    html_safe: bool = False
    """Its JSON is escaped as Go does it: clients compare it byte by byte (controller revisions)."""

    @cached_property
    def storage(self) -> Version:
        if self.storage_version is None:
            return self.versions[0]
        return next(v for v in self.versions if v.group_version == self.storage_version)

    @cached_property
    def group(self) -> str:
        return self.versions[0].group

    @cached_property
    def group_resource(self) -> GroupResource:
        return GroupResource(self.group, self.plural)

    @cached_property
    def gvk(self) -> GroupVersionKind:
        """Of the storage version."""
        storage = self.storage
        return GroupVersionKind(storage.group, storage.version, self.kind)

    @cached_property
    def type_meta(self) -> bytes:
        """What precedes the metadata in the stored form: `{"kind":"Pod","apiVersion":"v1",`."""
        return b'{"kind":"%b","apiVersion":"%b",' % (self.kind.encode(), self.storage.api_version.encode())

    @cached_property
    def has_status(self) -> bool:
        return any(sub.name == "status" for sub in self.subresources)

    @cached_property
    def prefix(self) -> str:
        return self.storage_prefix or (f"{self.group}/{self.plural}" if self.custom else self.plural)

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)

    def key(self, namespace: str, name: str) -> str:
        """Where an object is stored: `/registry/pods/default/web`."""
        return f"/registry/{self.prefix}/{namespace}/{name}" if self.namespaced else (f"/registry/{self.prefix}/{name}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a subresource, or to a kind without storage, that answers by itself."""

    user: UserInfo
    resource: Resource
    version: Version
    namespace: str
    name: str
    verb: str
    method: str
    body: Obj | None = None
    """Decoded and defaulted; None for `connect`."""
    path: str = ""
    """What follows the subresource in the URL: `/metrics` of `pods/x/proxy/metrics`."""
    query: Sequence[tuple[str, str]] = ()
    dry_run: bool = False
    request: Any = None
    """The HTTP request itself, for those that stream (`apiserver.http.Request`)."""

    @property
    def target(self) -> str:
        """What a proxy asks of the other side: `path`, and the query as it came."""
        query = self.request.raw_query
        return f"{self.path}?{query}" if query else self.path

    def option(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.query if key == name), default)

    def options(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def flag(self, name: str) -> bool:
        return self.option(name) in ("1", "t", "T", "true", "TRUE", "True")


class Server(Protocol):
    """What the API server offers to the kinds' own code (subresource calls, `before_create`, admission).

    Objects given out are fresh copies in the storage version's form.
    """

    clock: Clock

    def resource(self, group: str, plural: str) -> Resource:
        """The kind, or ApiError 404."""

    async def get(self, resource: GroupResource, namespace: str, name: str) -> Obj:
        """Raises ApiError NotFound."""

    def peek(self, resource: GroupResource, namespace: str, name: str) -> Obj | None:
        """The object as the watch cache holds it; shared, so not to be changed."""

    def peek_all(self, resource: GroupResource, namespace: str = "") -> list[Obj]:
        """All objects as the watch cache holds them; shared, so not to be changed."""

    async def create(self, resource: GroupResource, namespace: str, obj: Obj, *, user: UserInfo) -> Obj:
        """Through defaulting, admission and validation like any client's."""

    async def change(
        self,
        resource: GroupResource,
        namespace: str,
        name: str,
        change: Callable[[Obj], Obj | None],
        *,
        user: UserInfo,
        dry_run: bool = False,
        subresource: str = "",
    ) -> str:
        """Read, let `change` alter the object (None: leave it), write, and repeat when somebody else was
        faster; returns the resource version. Validation is the strategy's for an update (or for that of
        `subresource`); no admission."""

    async def delete(
        self,
        resource: GroupResource,
        namespace: str,
        name: str,
        options: Obj,
        *,
        user: UserInfo,
        dry_run: bool = False,
    ) -> Obj:
        """With `DeleteOptions`, as a client would."""

    async def authorize(self, attributes: Attributes) -> Decision:
        """Ask the authorizers."""

    async def authenticate_token(
        self, token: str, audiences: Sequence[str]
    ) -> tuple[UserInfo | None, Sequence[str], str]:
        """(user, audiences it is good for, error): TokenReview's question."""

    def issue_token(self, claims: Obj, *, audiences: Sequence[str], lifetime: int) -> tuple[str, datetime]:
        """Sign a service-account token with these private claims; returns it and when it expires."""

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[list[Obj], list[Obj], bool]:
        """(resource rules, non-resource rules, incomplete) for SelfSubjectRulesReview."""

    def means(self, name: str) -> Any:
        """A shared allocator by name: `service-ips`, `node-ports` (see apiserver.allocators)."""

    async def to_node(self, node: str, path: str, call: Call) -> Any:
        """Pass the request on to the kubelet of `node` at `path`, streams and upgrades included."""

    async def to_address(self, scheme: str, host: str, port: int, path: str, call: Call) -> Any:
        """Pass the request on to an address inside the cluster (the `proxy` subresources)."""
