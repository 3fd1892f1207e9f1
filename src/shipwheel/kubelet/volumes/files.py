"""Volumes of files that the kubelet writes: configMap, secret, downwardAPI and projected.

They differ only in where the files come from. They are kept in memory where possible (secrets must not reach a
disk), and written so that a reader sees all of an update or none of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.kubelet.volumes import atomic, ownership, payload
from shipwheel.kubelet.volumes.atomic import FileProjection, PayloadError
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError
from shipwheel.kubelet.volumes.payload import Files, default_mode

_DEFAULT_TOKEN_SECONDS = 3600

Collect = Callable[[Request, Host], Awaitable[Files]]


def _plugin(source: str, name: str, collect: Collect, *, in_memory: bool) -> Plugin:
    async def set_up(request: Request, host: Host) -> None:
        files = await collect(request, host)
        directory = request.path
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)
        mounter = host.mounter
        if in_memory and not mounter.is_mount_point(directory):
            size = f"size={host.memory_capacity}" if host.memory_capacity else ""
            mounter.mount("tmpfs", str(directory), "tmpfs", options=size)

        def set_permissions() -> None:
            if request.fs_group is not None:
                ownership.apply(directory, request.fs_group, read_only=True, policy="Always", chown=mounter.chown)

        try:
            atomic.write(
                directory,
                files,
                now=host.clock.now(),
                chown=mounter.chown,
                set_permissions=set_permissions,
            )
        except PayloadError as error:
            raise VolumeError(str(error)) from error

    return Plugin(source=source, name=name, set_up=set_up, refreshed=lambda request: True, read_only=True)


async def _config_map(request: Request, host: Host) -> Files:
    source = request.source
    optional = bool(source.get("optional"))
    obj = await _unless_optional(host.objects.config_map(request.namespace, source.get("name", "")), optional)
    return payload.of_config_map(obj, source.get("items"), default_mode(source), optional=optional)


async def _secret(request: Request, host: Host) -> Files:
    source = request.source
    optional = bool(source.get("optional"))
    obj = await _unless_optional(host.objects.secret(request.namespace, source.get("secretName", "")), optional)
    return payload.of_secret(obj, source.get("items"), default_mode(source), optional=optional)


async def _downward(request: Request, host: Host) -> Files:
    source = request.source
    return payload.of_downward(source.get("items") or [], request.pod, host.facts(request.pod), default_mode(source))


async def _projected(request: Request, host: Host) -> Files:
    """All sources together; every one that fails is named."""
    files: Files = {}
    failures: list[str] = []
    for source in request.source.get("sources") or ():
        try:
            files |= await _source(source, request, host)
        except (ApiError, VolumeError) as error:
            failures.append(str(error))
    if failures:
        raise VolumeError(failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")
    return files


async def _source(source: Obj, request: Request, host: Host) -> Files:
    mode = default_mode(request.source)
    # What proves an identity is for the pod's user or group only.
    private_mode = 0o600 if request.fs_user is not None or request.fs_group is not None else mode
    objects = host.objects
    if (part := source.get("configMap")) is not None:
        optional = bool(part.get("optional"))
        obj = await _unless_optional(objects.config_map(request.namespace, part.get("name", "")), optional)
        return payload.of_config_map(obj, part.get("items"), mode, optional=optional)
    if (part := source.get("secret")) is not None:
        optional = bool(part.get("optional"))
        obj = await _unless_optional(objects.secret(request.namespace, part.get("name", "")), optional)
        return payload.of_secret(obj, part.get("items"), mode, optional=optional)
    if (part := source.get("downwardAPI")) is not None:
        return payload.of_downward(part.get("items") or [], request.pod, host.facts(request.pod), mode)
    if (part := source.get("serviceAccountToken")) is not None:
        token = await objects.token(
            request.pod,
            audience=part.get("audience", ""),
            expiration_seconds=part.get("expirationSeconds") or _DEFAULT_TOKEN_SECONDS,
        )
        return {part["path"]: FileProjection(token.encode(), private_mode, request.fs_user)}
    if (part := source.get("clusterTrustBundle")) is not None:
        anchors = await objects.trust_anchors(
            name=part.get("name", ""),
            signer=part.get("signerName", ""),
            selector=part.get("labelSelector"),
            optional=bool(part.get("optional")),
        )
        return {part["path"]: FileProjection(anchors.encode(), private_mode, request.fs_user)}
    raise VolumeError(f"unsupported projected volume source: {', '.join(source) or 'none'}")


async def _unless_optional(found: Awaitable[Obj], optional: bool) -> Obj:
    """The object; an empty one when there is none and none is needed."""
    try:
        return await found
    except ApiError as error:
        if optional and error.code == 404:
            return {}
        raise


CONFIG_MAP = _plugin("configMap", "kubernetes.io/configmap", _config_map, in_memory=False)
SECRET = _plugin("secret", "kubernetes.io/secret", _secret, in_memory=True)
DOWNWARD_API = _plugin("downwardAPI", "kubernetes.io/downward-api", _downward, in_memory=True)
PROJECTED = _plugin("projected", "kubernetes.io/projected", _projected, in_memory=True)
