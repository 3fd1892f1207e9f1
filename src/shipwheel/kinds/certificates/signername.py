"""Names of signers: a domain and a path, `example.com/my-signer`."""

from __future__ import annotations

from shipwheel.api.errors import invalid, required, too_long
from shipwheel.api.names import is_dns1123_label, is_dns1123_subdomain
from shipwheel.kinds.checks import Errors, Rule

_MAX_DOMAIN = 253
_MAX_PATH = _MAX_DOMAIN + 63 + 1


def check_signer_name(name: str, path: str, errors: Errors) -> None:
    if not name:
        errors.append(required(path))
        return
    parts = name.split("/")
    if len(parts) != 2:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errors.append(invalid(path, name, detail))
        return
    domain, rest = parts
    if len(domain) > _MAX_DOMAIN:
        errors.append(too_long(path, _MAX_DOMAIN))
    _check_labels(domain, is_dns1123_label, path, errors)
    if "." not in domain:
        detail = "should be a domain with at least two segments separated by dots"
        errors.append(invalid(path, domain, detail))
    _check_labels(rest, is_dns1123_subdomain, path, errors)
    if len(name) > _MAX_DOMAIN + _MAX_PATH + 1:
        errors.append(too_long(path, _MAX_DOMAIN + _MAX_PATH + 1))


def _check_labels(text: str, rule: Rule, path: str, errors: Errors) -> None:
    """Complain of the first label that is wrong."""
    for label in text.split("."):
        complaints = rule(label)
        if complaints:
            errors += [invalid(path, text, f'validating label "{label}": {each}') for each in complaints]
            return
