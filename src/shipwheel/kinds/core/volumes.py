"""The volumes of a pod."""

from __future__ import annotations

from typing import Any

from shipwheel.api.errors import duplicate, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_dns_subdomain
from shipwheel.api.quantity import parse
from shipwheel.kinds.checks import Errors, check_label, check_local_path
from shipwheel.kinds.core.claimspec import check_claim_template, default_claim_spec
from shipwheel.kinds.core.env import (
    VOLUME_FIELDS,
    check_field_selector,
    check_resource_selector,
    default_divisor,
    default_field_selector,
)
from shipwheel.kinds.core.images import default_pull_policy
from shipwheel.kinds.core.volumesources import (
    ISCSI_NAME,
    MANY_TYPES,
    check_inline_csi,
    check_mode,
    check_source,
)

DEFAULT_MODE = 0o644
_TOKEN_LIFETIME = 3600
_TOKEN_RANGE = (10 * 60, 1 << 32)
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")

# In the order in which upstream looks at them: the first one given is the volume, others are too many.
_KINDS = (
    "emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi",
    "glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc",
    "flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk",
    "storageos", "projected", "scaleIO", "csi", "ephemeral", "image",
)  # fmt: skip


# Defaults


def default_volumes(volumes: list[Obj]) -> None:
    for volume in volumes:
        if len(volume) < 2:
            volume["emptyDir"] = {}
            continue
        for kind, source in volume.items():
            fill = _DEFAULTS.get(kind)
            if fill is not None and source is not None:
                fill(source)


def _default_mode(source: Obj) -> None:
    if source.get("defaultMode") is None:
        source["defaultMode"] = DEFAULT_MODE


def _default_host_path(source: Obj) -> None:
    if source.get("type") is None:
        source["type"] = ""


def _default_downward_api(source: Obj) -> None:
    _default_mode(source)
    for item in source.get("items") or ():
        _default_file(item)


def _default_file(item: Obj) -> None:
    default_field_selector(item.get("fieldRef"))
    default_divisor(item.get("resourceFieldRef"))


def _default_projected(source: Obj) -> None:
    _default_mode(source)
    for each in source.get("sources") or ():
        token = each.get("serviceAccountToken")
        if token is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = _TOKEN_LIFETIME
        for item in (each.get("downwardAPI") or {}).get("items") or ():
            _default_file(item)


def _default_ephemeral(source: Obj) -> None:
    template = source.get("volumeClaimTemplate")
    if template is not None:
        default_claim_spec(template.setdefault("spec", {}))


def _default_image(source: Obj) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = default_pull_policy(source.get("reference", ""))


_DEFAULTS = {
    "secret": _default_mode,
    "configMap": _default_mode,
    "downwardAPI": _default_downward_api,
    "projected": _default_projected,
    "hostPath": _default_host_path,
    "ephemeral": _default_ephemeral,
    "image": _default_image,
}


# Validation


def check_volumes(
    volumes: list[Obj], path: str, errors: Errors, *, pod_name: str = "", is_pod: bool = True
) -> dict[str, Obj]:
    """Returns the good ones by name. `pod_name` is empty in templates; `is_pod` is False there."""
    claims_made = {f"{pod_name}-{volume.get('name', '')}" for volume in volumes if "ephemeral" in volume and pod_name}
    good: dict[str, Obj] = {}
    for index, volume in enumerate(volumes):
        here = f"{path}[{index}]"
        name = volume.get("name", "")
        wrong: Errors = []
        _check_volume(volume, here, wrong, pod_name=pod_name, is_pod=is_pod)
        if not name:
            wrong.append(required(f"{here}.name"))
        else:
            check_label(name, f"{here}.name", wrong)
        if name in good:
            wrong.append(duplicate(f"{here}.name", name))
        if wrong:
            errors += wrong
        else:
            good[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in claims_made:
            detail = "must not reference a PVC that gets created for an ephemeral volume"
            errors.append(invalid(f"{here}.persistentVolumeClaim.claimName", claim, detail))
    return good


def _check_volume(volume: Obj, path: str, errors: Errors, *, pod_name: str, is_pod: bool) -> None:
    if len(volume) == 2:  # as nearly always: a name and a source
        given = [kind for kind in volume if kind != "name" and volume[kind] is not None]
    else:
        given = [kind for kind in _KINDS if volume.get(kind) is not None]
    if not given:
        errors.append(required(path, "must specify a volume type"))
        return
    kind, *others = given
    source = volume[kind]
    check = _CHECKS.get(kind)
    if check is not None:
        check(source, f"{path}.{kind}", errors)
    else:
        check_source(kind, source, path, errors)
    for other in others:
        errors.append(forbidden(f"{path}.{other}", MANY_TYPES))
    name = volume.get("name", "")
    if kind == "iscsi":
        portal = source.get("targetPortal", "")
        if source.get("initiatorName") is not None and len(f"{name}:{portal}") > 64:
            errors.append(invalid(f"{path}.name", name, ISCSI_NAME))
    elif kind == "ephemeral" and pod_name and name:
        claim = f"{pod_name}-{name}"
        for complaint in name_is_dns_subdomain(claim):
            errors.append(invalid(f"{path}.name", name, f'PVC name "{claim}": {complaint}'))
    elif kind == "image" and is_pod and not source.get("reference"):
        errors.append(required(f"{path}.image.reference"))


def _empty_dir(source: Obj, path: str, errors: Errors) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and parse(limit).nanos < 0:
        errors.append(forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _secret(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("secretName"):
        errors.append(required(f"{path}.secretName"))
    check_mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
    _check_items(source, path, errors)


def _config_map(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("name"):
        errors.append(required(f"{path}.name"))
    check_mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
    _check_items(source, path, errors)


def _check_items(source: Obj, path: str, errors: Errors) -> None:
    for index, item in enumerate(source.get("items") or ()):
        here = f"{path}.items[{index}]"
        for field in ("key", "path"):
            if not item.get(field):
                errors.append(required(f"{here}.{field}"))
        check_local_path(item.get("path", ""), f"{here}.path", errors)
        check_mode(item.get("mode"), f"{here}.mode", errors)


def _downward_api(source: Obj, path: str, errors: Errors) -> None:
    check_mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
    for item in source.get("items") or ():
        _check_downward_file(item, path, errors)


def _check_downward_file(item: Obj, path: str, errors: Errors) -> None:
    if not item.get("path"):
        errors.append(required(f"{path}.path"))
    check_local_path(item.get("path", ""), f"{path}.path", errors)
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        check_field_selector(field, VOLUME_FIELDS, f"{path}.fieldRef", errors)
        if resource is not None:
            detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid(path, "resource", detail))
    elif resource is not None:
        check_resource_selector(resource, f"{path}.resourceFieldRef", errors, in_volume=True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    check_mode(item.get("mode"), f"{path}.mode", errors)


def _csi(source: Obj, path: str, errors: Errors) -> None:
    check_inline_csi(source, path, errors)


def _ephemeral(source: Obj, path: str, errors: Errors) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        errors.append(required(f"{path}.volumeClaimTemplate"))
    else:
        check_claim_template(template, f"{path}.volumeClaimTemplate", errors)


def _image(source: Obj, path: str, errors: Errors) -> None:
    policy = source.get("pullPolicy")
    if not policy:
        errors.append(required(f"{path}.pullPolicy"))
    elif policy not in _PULL_POLICIES:
        errors.append(not_supported(f"{path}.pullPolicy", policy, _PULL_POLICIES))


# Projected volumes


def _projected(source: Obj, path: str, errors: Errors) -> None:
    check_mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
    taken: set[str] = set()

    def take(file: str | None, shown: str | None = None) -> None:
        """Files of all sources lie in one directory, so each has a path of its own."""
        if file and file in taken:
            errors.append(invalid(path, file if shown is None else shown, "conflicting duplicate paths"))
        taken.add(file or "")

    for index, each in enumerate(source.get("sources") or ()):
        here = f"{path}.sources[{index}]"
        for kind in ("secret", "configMap"):
            if (keys := each.get(kind)) is not None:
                if not keys.get("name"):
                    errors.append(required(f"{here}.{kind}.name"))
                _check_items(keys, f"{here}.{kind}", errors)
                for item in keys.get("items") or ():
                    take(item.get("path"), keys.get("name", ""))
        if (downward := each.get("downwardAPI")) is not None:
            for item in downward.get("items") or ():
                _check_downward_file(item, f"{here}.downwardAPI", errors)
                take(item.get("path"))
        if (token := each.get("serviceAccountToken")) is not None:
            _check_token(token, here, path, errors)
        if sum(value is not None for value in each.values()) > 1:
            errors.append(forbidden(here, f"{MANY_TYPES} per source"))


def _check_token(token: Obj, source_path: str, path: str, errors: Errors) -> None:
    seconds = token.get("expirationSeconds", 0)
    here = f"{source_path}.serviceAccountToken.expirationSeconds"
    shortest, longest = _TOKEN_RANGE
    if seconds < shortest:
        errors.append(invalid(here, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > longest:
        errors.append(invalid(here, seconds, "may not specify a duration larger than 2^32 seconds"))
    if not token.get("path"):
        errors.append(required(f"{path}.path"))
    else:
        check_local_path(token["path"], f"{path}.path", errors)


_CHECKS: dict[str, Any] = {
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward_api,
    "projected": _projected,
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}
