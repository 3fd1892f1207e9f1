"""API services: groups and versions, and who serves them."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import FieldError, invalid, not_supported, required
from shipwheel.api.meta import Obj, condition
from shipwheel.api.names import (
    is_dns1035_label,
    is_dns1123_subdomain,
    is_path_segment_name,
    is_valid_port_num,
    name_is_path_segment,
)
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import Errors, check_rule
from shipwheel.kinds.columns import AGE, NAME, dig
from shipwheel.kinds.core.keyeddata import encoded_size
from shipwheel.kinds.declare import STATUS, older, served

_MAX_GROUP_PRIORITY = 20000
_MAX_VERSION_PRIORITY = 1000


class APIServiceStrategy(Strategy):
    allow_unconditional_update = False
    tracks_generation = False
    name_rule = staticmethod(name_is_path_segment)

    def default(self, api_service: Obj) -> None:
        service = (api_service.get("spec") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443

    def prepare_for_create(self, api_service: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(api_service, ctx)
        if (api_service.get("spec") or {}).get("service") is None:
            api_service["status"]["conditions"] = [
                {
                    "type": "Available",
                    "status": "True",
                    "lastTransitionTime": rfc3339(ctx.now),
                    "reason": "Local",
                    "message": "Local APIServices are always available",
                }
            ]

    def validate(self, api_service: Obj) -> list[FieldError]:
        errors: Errors = []
        spec, name = api_service.get("spec") or {}, api_service["metadata"].get("name", "")
        group, version = spec.get("group", ""), spec.get("version", "")
        wanted = f"{version}.{group}"
        if name and name != wanted and not is_path_segment_name(name):
            detail = f'must be `spec.version+"."+spec.group`: "{wanted}"'
            errors.append(invalid("metadata.name", name, detail))
        if group:
            check_rule(is_dns1123_subdomain, group, "spec.group", errors)
        elif version != "v1":
            detail = "only v1 may have an empty group and it better be legacy kube"
            errors.append(required("spec.group", detail))
        check_rule(is_dns1035_label, version, "spec.version", errors)
        for field, most in (
            ("groupPriorityMinimum", _MAX_GROUP_PRIORITY),
            ("versionPriority", _MAX_VERSION_PRIORITY),
        ):
            priority = spec.get(field, 0)
            if not 0 < priority <= most:
                errors.append(invalid(f"spec.{field}", priority, f"must be positive and less than {most}"))
        if spec.get("service") is None:
            _check_local(spec, errors)
        else:
            _check_remote(spec, spec["service"], errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        statuses = ("True", "False", "Unknown")
        return [
            not_supported(f"status.conditions[{index}].status", each.get("status", ""), statuses)
            for index, each in enumerate((new.get("status") or {}).get("conditions") or ())
            if each.get("status") not in statuses
        ]


def _check_local(spec: Obj, errors: Errors) -> None:
    bundle = spec.get("caBundle")
    if bundle:
        shown = f"{encoded_size({'': bundle})} bytes"
        errors.append(invalid("spec.caBundle", shown, "local APIServices may not have a caBundle"))
    if spec.get("insecureSkipTLSVerify"):
        detail = "local APIServices may not have insecureSkipTLSVerify"
        errors.append(invalid("spec.insecureSkipTLSVerify", True, detail))


def _check_remote(spec: Obj, service: Obj, errors: Errors) -> None:
    for field in ("namespace", "name"):
        if not service.get(field):
            errors.append(required(f"spec.service.{field}"))
    port = service.get("port", 0)
    complaints = is_valid_port_num(port)
    if complaints:
        errors.append(invalid("spec.service.port", port, f"port is not valid: {', '.join(complaints)}"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        errors.append(invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))


def _service(obj: Obj, now: datetime) -> str:
    service = dig(obj, "spec", "service")
    return f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"


def _available(obj: Obj, now: datetime) -> str:
    state = condition(obj, "Available")
    if state is None:
        return "Unknown"
    status = state.get("status", "")
    return status if status == "True" or not state.get("reason") else f"{status} ({state['reason']})"


RESOURCES = (
    Resource(
        kind="APIService",
        plural="apiservices",
        singular="apiservice",
        categories=("api-extensions",),
        namespaced=False,
        versions=(
            served("apiregistration.k8s.io", "v1", "APIService"),
            older(
                "apiregistration.k8s.io",
                "v1beta1",
                "APIService",
                since="1.19",
                until="1.22",
                replacement="apiregistration.k8s.io/v1",
            ),
        ),
        strategy=APIServiceStrategy(),
        columns=(NAME, Column("Service", _service), Column("Available", _available), AGE),
        subresources=(STATUS,),
        storage_prefix="apiregistration.k8s.io/apiservices",
    ),
)
