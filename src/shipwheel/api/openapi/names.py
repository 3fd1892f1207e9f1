"""How upstream names things in OpenAPI documents: definitions, tags and operations.

Generated clients are made of these names, so they may not differ.
"""

from __future__ import annotations

from shipwheel.api.meta import GroupVersion, GroupVersionKind


def _words(group: str) -> list[str]:
    return (group or "core").removesuffix(".k8s.io").split(".")


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def tag(gv: GroupVersion) -> str:
    """`rbacAuthorization_v1`."""
    first, *rest = _words(gv.group)
    return f"{first}{''.join(map(_capital, rest))}_{gv.version}"


def prefix(gv: GroupVersion) -> str:
    """What the operations of a group and version share: `RbacAuthorizationV1`."""
    return "".join(map(_capital, _words(gv.group))) + _capital(gv.version)


def group_prefix(group: str) -> str:
    """`RbacAuthorization`, for operations on the group itself."""
    return "".join(map(_capital, _words(group)))


def group_tag(group: str) -> str:
    first, *rest = _words(group)
    return first + "".join(map(_capital, rest))


def definition_name(gvk: GroupVersionKind) -> str:
    """`com.example.stable.v1.CronTab` of a custom kind."""
    return ".".join((*reversed(gvk.group.split(".")), gvk.version, gvk.kind))


def camel(name: str) -> str:
    """`Status` of the subresource `status`."""
    return _capital(name)
