"""Where a webhook is: a URL, or a service in the cluster. Admission and conversion webhooks say it alike."""

from __future__ import annotations

from urllib.parse import urlsplit

from shipwheel.api.errors import invalid, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_subdomain, is_valid_port_num
from shipwheel.kinds.checks import Errors

_FORM = "; desired format: https://host[/path]"


def default_client_config(config: Obj | None) -> None:
    service = (config or {}).get("service")
    if service is not None and service.get("port") is None:
        service["port"] = 443


def check_client_config(config: Obj, path: str, errors: Errors) -> None:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        errors.append(required(path, "exactly one of url or service is required"))
    elif url is not None:
        _check_url(url, f"{path}.url", errors)
    else:
        check_webhook_service(service or {}, f"{path}.service", errors)


def _check_url(url: str, path: str, errors: Errors) -> None:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError as error:
        errors.append(required(path, f"url must be a valid URL: {error}{_FORM}"))
        return
    if parts.scheme != "https":
        errors.append(invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not host:
        errors.append(invalid(path, host, f"host must be specified{_FORM}"))
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        errors.append(invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errors.append(invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errors.append(invalid(path, parts.query, "query parameters are not permitted in the URL"))


def check_webhook_service(service: Obj, path: str, errors: Errors) -> None:
    # Upstream looks at the two in this order, and calls each by the other's name.
    for field, shown in (("namespace", "name"), ("name", "namespace")):
        if not service.get(field):
            errors.append(required(f"{path}.{shown}"))
    port = service.get("port", 0)
    complaints = is_valid_port_num(port)
    if complaints:
        errors.append(invalid(f"{path}.port", port, f"port is not valid: {', '.join(complaints)}"))
    if service.get("path"):
        _check_path(service["path"], f"{path}.path", errors)


def _check_path(text: str, path: str, errors: Errors) -> None:
    if text == "/":
        return
    if text == "//":
        errors.append(invalid(path, text, "segment[0] may not be empty"))
        return
    if not text.startswith("/"):
        errors.append(invalid(path, text, "must start with a '/'"))
    for index, step in enumerate(text[1:].removesuffix("/").split("/")):
        if not step:
            errors.append(invalid(path, text, f"segment[{index}] may not be empty"))
            continue
        for complaint in is_dns1123_subdomain(step):
            errors.append(invalid(path, text, f"segment[{index}]: {complaint}"))
