"""Names for kinds and resources, and the few questions everybody asks of an object's metadata.

Objects are plain dictionaries in the form of their JSON: they come from bytes and go back to bytes, for
every kind alike, custom ones included.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Obj = dict[str, Any]
"""An API object, or a part of one, as decoded from JSON."""


class GroupVersion(NamedTuple):
    group: str
    version: str

    def __str__(self) -> str:
        """`apiVersion` as objects carry it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @classmethod
    def parse(cls, text: str) -> GroupVersion:
        """Read an `apiVersion`; ValueError when it has more than one slash."""
        group, slash, version = text.rpartition("/")
        if "/" in group or (slash and not (group and version)):
            raise ValueError(f"unexpected GroupVersion string: {text}")
        return cls(group, version)


class GroupResource(NamedTuple):
    group: str
    resource: str

    def __str__(self) -> str:
        """`pods`, `deployments.apps`: as error messages and RBAC write it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


class GroupVersionKind(NamedTuple):
    group: str
    version: str
    kind: str

    @property
    def group_version(self) -> GroupVersion:
        return GroupVersion(self.group, self.version)

    @classmethod
    def of(cls, obj: Obj) -> GroupVersionKind:
        """Of an object; ValueError for an `apiVersion` that is none."""
        gv = GroupVersion.parse(obj.get("apiVersion") or "")
        return cls(gv.group, gv.version, obj.get("kind", ""))

    def __str__(self) -> str:
        """`apps/v1, Kind=Deployment`: as upstream's messages write it."""
        return f"{self.group_version}, Kind={self.kind}"

    @property
    def in_full(self) -> str:
        """The same with the slash that other messages of upstream's have for the core group too: `/v1, Kind=Pod`."""
        return f"{self.group}/{self.version}, Kind={self.kind}"


def name_of(obj: Obj) -> str:
    return obj["metadata"].get("name", "")


def namespace_of(obj: Obj) -> str:
    return obj["metadata"].get("namespace", "")


def uid_of(obj: Obj) -> str:
    return obj["metadata"].get("uid", "")


def key_of(obj: Obj) -> str:
    """`namespace/name`, or `name` of a cluster-scoped object: the work queues' key."""
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else meta["name"]


def split_key(key: str) -> tuple[str, str]:
    """The (namespace, name) of a `key_of`; namespace is empty for cluster-scoped objects."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def labels_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_being_deleted(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference whose `controller` is true, if there is one."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return reference
    return None


def owner_reference(owner: Obj, *, controller: bool = True, block_deletion: bool = True) -> Obj:
    """A reference to `owner`, which must carry apiVersion, kind and uid."""
    reference: Obj = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    if controller:
        reference["controller"] = True
    if block_deletion:
        reference["blockOwnerDeletion"] = True
    return reference


def condition(obj: Obj, kind: str) -> Obj | None:
    """The entry of `status.conditions` whose type is `kind`."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            return entry
    return None


def is_condition_true(obj: Obj, kind: str) -> bool:
    entry = condition(obj, kind)
    return entry is not None and entry.get("status") == "True"


class GroupVersionResource(NamedTuple):
    """What clients address: `/apis/apps/v1/deployments`."""

    group: str
    version: str
    resource: str

    @property
    def group_resource(self) -> GroupResource:
        return GroupResource(self.group, self.resource)

    @property
    def group_version(self) -> GroupVersion:
        return GroupVersion(self.group, self.version)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path; without `namespace` that of a cluster-scoped object or of all namespaces."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace:
            parts += ["namespaces", namespace]
        parts += [each for each in (self.resource, name, subresource) if each]
        return "/".join(parts)
