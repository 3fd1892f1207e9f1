"""Ingresses of v1beta1 (in `extensions` and `networking.k8s.io`): a backend was a name and a port side by side, and
a path's type could be left out."""

from __future__ import annotations

from collections.abc import Callable

from shipwheel.api.meta import Obj

_Convert = Callable[[Obj], Obj]


def of_v1beta1(ingress: Obj) -> Obj:
    spec = dict(ingress.get("spec") or {})
    backend = spec.pop("backend", None)
    if backend is not None:
        spec["defaultBackend"] = _backend_of_v1beta1(backend)
    _convert_rules(spec, _path_of_v1beta1)
    return {**ingress, "spec": spec}


def to_v1beta1(ingress: Obj) -> Obj:
    spec = dict(ingress.get("spec") or {})
    backend = spec.pop("defaultBackend", None)
    if backend is not None:
        spec["backend"] = _backend_to_v1beta1(backend)
    _convert_rules(spec, _path_to_v1beta1)
    return {**ingress, "spec": spec}


def _convert_rules(spec: Obj, convert: _Convert) -> None:
    if not spec.get("rules"):
        return
    rules = []
    for rule in spec["rules"]:
        http = rule.get("http")
        paths = [convert(path) for path in (http or {}).get("paths") or ()]
        rules.append({**rule, "http": {**http, "paths": paths}} if http is not None else rule)
    spec["rules"] = rules


def _path_of_v1beta1(path: Obj) -> Obj:
    kind = path.get("pathType")
    return {
        **path,
        "pathType": "ImplementationSpecific" if kind is None else kind,
        "backend": _backend_of_v1beta1(path.get("backend") or {}),
    }


def _path_to_v1beta1(path: Obj) -> Obj:
    return {**path, "backend": _backend_to_v1beta1(path.get("backend") or {})}


def _backend_of_v1beta1(backend: Obj) -> Obj:
    converted = {key: value for key, value in backend.items() if key not in ("serviceName", "servicePort")}
    name, port = backend.get("serviceName", ""), backend.get("servicePort")
    if name or port:
        service: Obj = {"name": name} if name else {}
        if port:
            service["port"] = {"number" if isinstance(port, int) else "name": port}
        converted["service"] = service
    return converted


def _backend_to_v1beta1(backend: Obj) -> Obj:
    converted = {key: value for key, value in backend.items() if key != "service"}
    service = backend.get("service")
    if service is not None:
        port = service.get("port") or {}
        converted["serviceName"] = service.get("name", "")
        converted["servicePort"] = port.get("name") or port.get("number") or 0
    return converted
