"""The kinds an API server serves, and how to find one.

Custom resources come and go while the server runs, so the scheme can change; `generation` counts its changes,
and whoever derives something from all kinds (discovery, OpenAPI) keeps it until the count moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shipwheel.api.meta import GroupResource, GroupVersion, GroupVersionKind
from shipwheel.api.resource import Resource, Version


class Scheme:
    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self.generation = 0
        self._resources: dict[GroupResource, Resource] = {}
        self._paths: dict[tuple[str, str, str], tuple[Resource, Version]] = {}
        self._kinds: dict[GroupVersionKind, tuple[Resource, Version]] = {}
        self._preference: dict[str, list[str]] = {}
        for resource in resources:
            self.add(resource)

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._resources.values()))

    def add(self, resource: Resource) -> None:
        """Serve a kind; one of the same group and plural is replaced."""
        self.remove(resource.group_resource)
        self._resources[resource.group_resource] = resource
        for version in resource.versions:
            self._paths[version.group, version.version, resource.plural] = (resource, version)
            gvk = GroupVersionKind(version.group, version.version, resource.kind)
            self._kinds[gvk] = (resource, version)
            order = self._preference.setdefault(version.group, [])
            if version.version not in order:
                order.append(version.version)
        self.generation += 1

    def remove(self, key: GroupResource) -> None:
        """Serve a kind no longer; nothing happens when it was not served."""
        resource = self._resources.pop(key, None)
        if resource is None:
            return
        for version in resource.versions:
            self._paths.pop((version.group, version.version, resource.plural), None)
            self._kinds.pop(GroupVersionKind(version.group, version.version, resource.kind), None)
        self._preference = {}
        for each in self._resources.values():
            for version in each.versions:
                order = self._preference.setdefault(version.group, [])
                if version.version not in order:
                    order.append(version.version)
        self.generation += 1

    def at(self, group: str, version: str, plural: str) -> tuple[Resource, Version] | None:
        """The kind at `/apis/GROUP/VERSION/PLURAL`."""
        return self._paths.get((group, version, plural))

    def kind(self, gvk: GroupVersionKind) -> tuple[Resource, Version] | None:
        return self._kinds.get(gvk)

    def resource(self, key: GroupResource) -> Resource | None:
        return self._resources.get(key)

    def has_group(self, group: str) -> bool:
        return group in self._preference

    def group_versions(self) -> list[GroupVersion]:
        """Every group and version served, the core group first, versions by preference."""
        groups = sorted(self._preference)
        return [GroupVersion(group, version) for group in groups for version in self._preference[group]]

    def in_group_version(self, gv: GroupVersion) -> list[tuple[Resource, Version]]:
        found = [
            pair for (group, version, _), pair in self._paths.items()
            if group == gv.group and version == gv.version
        ]  # fmt: skip
        return sorted(found, key=lambda pair: pair[0].plural)
