"""A container's environment: a pure function of its specification and of the objects it refers to.

Later sources override earlier ones: `envFrom`, then `env`; the variables of services fill in what is left. A value may
refer to variables before it by `$(NAME)`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from shipwheel.api.meta import Obj
from shipwheel.kubelet.downward import DownwardFault, PodFacts, field_value, resource_value
from shipwheel.kubelet.expansion import expand

_ENV_ASSIGNMENT = re.compile(
    r"""[ \t]*(?: \#[^\n]* | (?P<name>[^\s=\#][^\s=]*)=(?: '(?P<value>[^']*)'[ \t]*(?:\#[^\n]*)? | (?:[ \t][^\n]*)? ) )?
    (?: \n | \Z )""",
    re.VERBOSE,
)
"""One line of an environment file: blank, a comment, or an assignment. A space after `=` makes the value empty, as in a
shell."""


class EnvironmentFault(Exception):
    """The environment cannot be made; the message is what the container's status tells."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What an environment is made from. Objects are found by name in the pod's namespace; None is not found."""

    config_map: Callable[[str], Obj | None]
    secret: Callable[[str], Obj | None]
    facts: PodFacts = field(default_factory=PodFacts)
    services: Iterable[Obj] = ()
    """All services of the cluster."""
    read_env_file: Callable[[str, str], str] | None = None
    """(volume name, path) to the text of a file in a volume; OSError when it is not there."""


def environment(pod: Obj, container: Obj, sources: Sources) -> dict[str, str]:
    """The variables by name, in the order in which they are set; EnvironmentFault when a source is missing."""
    service_links = pod["spec"].get("enableServiceLinks", True)
    services = service_variables(sources.services, pod["metadata"].get("namespace", ""), service_links)
    made: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        made |= _from_object(source, sources)
    for variable in container.get("env") or ():
        value: str | None = variable.get("value") or ""
        if value:
            value = expand(value, made, services)
        elif variable.get("valueFrom"):
            value = _from_source(pod, container, variable["valueFrom"], sources)
        if value is not None:
            made[variable["name"]] = value
    return made | {name: value for name, value in services.items() if name not in made}


def _from_object(source: Obj, sources: Sources) -> dict[str, str]:
    """Every key of a ConfigMap or a Secret."""
    prefix = source.get("prefix", "")
    if "configMapRef" in source:
        found = _find(sources.config_map, "configmap", source["configMapRef"])
        data = (found or {}).get("data") or {}
    elif "secretRef" in source:
        found = _find(sources.secret, "secret", source["secretRef"])
        data = {key: decode_secret(value) for key, value in ((found or {}).get("data") or {}).items()}
    else:
        return {}
    return {prefix + key: data[key] for key in sorted(data)}


def _find(look_up: Callable[[str], Obj | None], kind: str, reference: Obj) -> Obj | None:
    found = look_up(reference.get("name", ""))
    if found is None and not reference.get("optional"):
        raise EnvironmentFault(f'{kind} "{reference.get("name", "")}" not found')
    return found


def _from_source(pod: Obj, container: Obj, source: Obj, sources: Sources) -> str | None:
    """The value of `valueFrom`; None when it is optional and not there."""
    namespace = pod["metadata"].get("namespace", "")
    try:
        if "fieldRef" in source:
            return field_value(pod, source["fieldRef"]["fieldPath"], sources.facts)
        if "resourceFieldRef" in source:
            return resource_value(pod, container, source["resourceFieldRef"], sources.facts)
    except DownwardFault as fault:
        raise EnvironmentFault(str(fault)) from fault
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        found = _find(sources.config_map, "configmap", reference)
        return _key(found, reference, f"ConfigMap {namespace}", lambda value: value)
    if "secretKeyRef" in source:
        reference = source["secretKeyRef"]
        found = _find(sources.secret, "secret", reference)
        return _key(found, reference, f"Secret {namespace}", decode_secret)
    if "fileKeyRef" in source:
        return _from_file(source["fileKeyRef"], sources)
    return ""


def _key(found: Obj | None, reference: Obj, where: str, decode: Callable[[str], str]) -> str | None:
    if found is None:
        return None
    value = (found.get("data") or {}).get(reference["key"])
    if value is not None:
        return decode(value)
    if reference.get("optional"):
        return None
    raise EnvironmentFault(f"couldn't find key {reference['key']} in {where}/{reference.get('name', '')}")


def decode_secret(value: str) -> str:
    return base64.b64decode(value).decode(errors="surrogateescape")


def _from_file(reference: Obj, sources: Sources) -> str | None:
    """A variable of a file in a volume (KEP-3721)."""
    if sources.read_env_file is None:
        raise EnvironmentFault(f'cannot find the volume "{reference["volumeName"]}" referenced by FileKeyRef')
    try:
        value = parse_env_file(sources.read_env_file(reference["volumeName"], reference["path"]), reference["key"])
    except (OSError, ValueError):
        raise EnvironmentFault("couldn't parse env file") from None
    if value:
        return value
    if reference.get("optional"):
        return None
    raise EnvironmentFault(f'environment variable key "{reference["key"]}" not found in file "{reference["path"]}"')


def parse_env_file(text: str, key: str) -> str:
    """The value of `KEY='value'` in a file of such assignments; empty when the key is not there. A value may span
    lines. ValueError for anything that is neither an assignment, a comment nor blank."""
    at = 0
    while at < len(text):
        match = _ENV_ASSIGNMENT.match(text, at)
        if match is None:
            raise ValueError("invalid environment variable format")
        if match["name"] == key:
            return match["value"] or ""
        at = match.end()
    return ""


def service_variables(services: Iterable[Obj], namespace: str, links: bool) -> dict[str, str]:
    """Variables that name the services of a namespace, and always the API server's service."""
    visible: dict[str, Obj] = {}
    for service in services:
        meta, spec = service["metadata"], service["spec"]
        if (spec.get("clusterIP") or "None") == "None":
            continue
        name = meta["name"]
        if meta.get("namespace") == "default" and name == "kubernetes":
            visible.setdefault(name, service)
        elif meta.get("namespace") == namespace and links:
            visible[name] = service
    made: dict[str, str] = {}
    for name in sorted(visible):
        made |= _variables_of(visible[name])
    return made


def _variables_of(service: Obj) -> Mapping[str, str]:
    prefix = _variable_name(service["metadata"]["name"])
    spec = service["spec"]
    address = spec["clusterIP"]
    ports = spec.get("ports") or []
    made = {f"{prefix}_SERVICE_HOST": address}
    if not ports:
        return made
    made[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            made[f"{prefix}_SERVICE_PORT_{_variable_name(port['name'])}"] = str(port["port"])
    host = f"[{address}]" if isinstance(ip_address(address), IPv6Address) else address
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{host}:{port['port']}"
        if index == 0:
            made[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        made[link] = url
        made[f"{link}_PROTO"] = protocol.lower()
        made[f"{link}_PORT"] = str(port["port"])
        made[f"{link}_ADDR"] = address
    return made


def _variable_name(text: str) -> str:
    return text.replace("-", "_").upper()
