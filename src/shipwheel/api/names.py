"""What names, labels and other short texts may look like.

Rules of the form `is_x(value)` return complaints about a text, none when it is good, in upstream's words
(`k8s.io/apimachinery/pkg/util/validation` and `api/validate/content`). Rules `name_is_x(name, prefix)` judge an
object's name, or a `generateName` to which something will be appended; a kind's strategy names one of them.

The good case is tested first and fast: every object written passes here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from shipwheel.api.errors import FieldError, invalid, required

NameRule = Callable[[str, bool], list[str]]
"""(name, is it a prefix) -> complaints."""

DNS1123_LABEL_MAX_LENGTH = 63
DNS1123_SUBDOMAIN_MAX_LENGTH = 253


# How complaints are worded.


def byte_length(value: str) -> int:
    """Upstream measures texts in UTF-8."""
    return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))


def max_length_complaint(length: int, unit: str = "characters") -> str:
    return f"must be no more than {length} {unit}"


def regex_complaint(message: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


def range_complaint(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


# Patterns as complaints show them, and compiled.

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_UNDERSCORE = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_UNDERSCORE = rf"{_LABEL_UNDERSCORE}(\.{_LABEL_UNDERSCORE})*"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_PERCENT = "[0-9]+%"
_HTTP_HEADER = "[-A-Za-z0-9]+"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_ENV_VAR = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

_Match = Callable[[str], object]


def _compiled(pattern: str, flags: int = 0) -> _Match:
    """A test of a whole text; groups are only for show and cost time."""
    return re.compile(pattern.replace("(", "(?:"), flags).fullmatch


_label = _compiled(_LABEL)
_subdomain = _compiled(_SUBDOMAIN)
_subdomain_caseless = _compiled(_SUBDOMAIN, re.IGNORECASE | re.ASCII)
_subdomain_underscore = _compiled(_SUBDOMAIN_UNDERSCORE)
_wildcard = _compiled(_WILDCARD)
_dns1035 = _compiled(_DNS1035)
_key = _compiled(_KEY)
_c_identifier = _compiled(_C_IDENTIFIER)
_percent = _compiled(_PERCENT)
_http_header = _compiled(_HTTP_HEADER)
_http_path = re.compile(_HTTP_PATH).fullmatch
_env_var = _compiled(_ENV_VAR)
_relaxed_env_var = _compiled("[ -<>-~]+")
_config_key = _compiled(_CONFIG_KEY)
_port_name = _compiled("[-a-z0-9]+")
_decimal_integer = _compiled("0|-?[1-9][0-9]*")

_LABEL_COMPLAINT = regex_complaint(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character",
    _LABEL,
    *("my-name", "123-abc"),
)
_SUBDOMAIN_COMPLAINT = regex_complaint(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_CASELESS_COMPLAINT = regex_complaint(
    "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character",
    _SUBDOMAIN,
    "Example.com",
)
_UNDERSCORE_COMPLAINT = regex_complaint(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    "start and end with an alphanumeric character",
    _SUBDOMAIN_UNDERSCORE,
    "example.com",
)
_WILDCARD_COMPLAINT = regex_complaint(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD,
    "*.example.com",
)
_DNS1035_COMPLAINT = regex_complaint(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character",
    _DNS1035,
    *("my-name", "abc-123"),
)
_KEY_COMPLAINT = regex_complaint(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _KEY,
    *("MyName", "my.name", "123-abc"),
)
_LABEL_VALUE_COMPLAINT = regex_complaint(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character",
    f"({_KEY})?",
    *("MyValue", "my_value", "12345"),
)
_C_IDENTIFIER_COMPLAINT = regex_complaint(
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric "
    "characters or '_'",
    _C_IDENTIFIER,
    *("my_name", "MY_NAME", "MyName"),
)
_PERCENT_COMPLAINT = regex_complaint(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)
_HTTP_HEADER_COMPLAINT = regex_complaint(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HTTP_HEADER, "X-Header-Name"
)
_ENV_VAR_COMPLAINT = regex_complaint(
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must "
    "not start with a digit",
    _ENV_VAR,
    *("my.env-name", "MY_ENV.NAME", "MyEnvName1"),
)
_RELAXED_ENV_VAR_COMPLAINT = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_CONFIG_KEY_COMPLAINT = regex_complaint(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    *("key.name", "KEY_NAME", "key-name"),
)


def _judge(value: str, max_length: int, matches: _Match, complaint: str) -> list[str]:
    complaints = [max_length_complaint(max_length)] if byte_length(value) > max_length else []
    if not matches(value):
        complaints.append(complaint)
    return complaints


# Rules for texts.


def is_dns1123_label(value: str) -> list[str]:
    """A label of DNS (RFC 1123): namespaces, and most names inside objects."""
    if len(value) <= DNS1123_LABEL_MAX_LENGTH and _label(value):
        return []
    complaint = "must not contain dots" if _subdomain(value) else _LABEL_COMPLAINT
    return _judge(value, DNS1123_LABEL_MAX_LENGTH, _label, complaint)


def is_dns1123_subdomain(value: str) -> list[str]:
    """Labels of DNS joined by dots (RFC 1123): names of most kinds."""
    if len(value) <= DNS1123_SUBDOMAIN_MAX_LENGTH and _subdomain(value):
        return []
    return _judge(value, DNS1123_SUBDOMAIN_MAX_LENGTH, _subdomain, _SUBDOMAIN_COMPLAINT)


def is_dns1123_subdomain_caseless(value: str) -> list[str]:
    """The same with capitals: names of drivers."""
    complaints = [max_length_complaint(253, "bytes")] if byte_length(value) > 253 else []
    return complaints if _subdomain_caseless(value) else [*complaints, _CASELESS_COMPLAINT]


def is_dns1123_subdomain_with_underscore(value: str) -> list[str]:
    """The same with underscores: search domains of a pod."""
    return _judge(value, DNS1123_SUBDOMAIN_MAX_LENGTH, _subdomain_underscore, _UNDERSCORE_COMPLAINT)


def is_wildcard_dns1123_subdomain(value: str) -> list[str]:
    """`*.example.com` (RFC 1034, section 4.3.3)."""
    return _judge(value, DNS1123_SUBDOMAIN_MAX_LENGTH, _wildcard, _WILDCARD_COMPLAINT)


def is_dns1035_label(value: str) -> list[str]:
    """A label that starts with a letter (RFC 1035)."""
    return _judge(value, DNS1123_LABEL_MAX_LENGTH, _dns1035, _DNS1035_COMPLAINT)


def is_qualified_name(value: str) -> list[str]:
    """A label's key: a name, perhaps with a DNS subdomain and a slash before it."""
    prefix, slash, name = value.rpartition("/")
    if len(name) <= 63 and _key(name) and (not slash or (len(prefix) <= 253 and _subdomain(prefix))):
        return []
    if "/" in prefix:
        return [
            f"a valid label key {_KEY_COMPLAINT} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    complaints = []
    if slash and not prefix:
        complaints.append("prefix part must be non-empty")
    elif slash:
        if byte_length(prefix) > 253:
            complaints.append(f"prefix part {max_length_complaint(253, 'bytes')}")
        if not _subdomain(prefix):
            complaints.append(f"prefix part {_SUBDOMAIN_COMPLAINT}")
    if not name:
        complaints.append("name part must be non-empty")
    elif byte_length(name) > 63:
        complaints.append(f"name part {max_length_complaint(63, 'bytes')}")
    if not _key(name):
        complaints.append(f"name part {_KEY_COMPLAINT}")
    return complaints


def is_valid_label_value(value: str) -> list[str]:
    if not value or (len(value) <= 63 and _key(value)):
        return []
    complaints = [max_length_complaint(63, "bytes")] if byte_length(value) > 63 else []
    return complaints if _key(value) else [*complaints, _LABEL_VALUE_COMPLAINT]


def is_c_identifier(value: str) -> list[str]:
    return [] if _c_identifier(value) else [_C_IDENTIFIER_COMPLAINT]


def is_in_range(value: int, low: int, high: int) -> list[str]:
    return [] if low <= value <= high else [range_complaint(low, high)]


def is_valid_port_num(port: int) -> list[str]:
    return is_in_range(port, 1, 65535)


def is_valid_user_id(uid: int) -> list[str]:
    return is_in_range(uid, 0, 2**31 - 1)


def is_valid_group_id(gid: int) -> list[str]:
    return is_in_range(gid, 0, 2**31 - 1)


def is_valid_port_name(port: str) -> list[str]:
    """An IANA service name (RFC 6335), in small letters."""
    complaints = _judge(port, 15, _port_name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= letter <= "z" for letter in port):
        complaints.append("must contain at least one letter (a-z)")
    if "--" in port:
        complaints.append("must not contain consecutive hyphens")
    if port.startswith("-") or port.endswith("-"):
        complaints.append("must not begin or end with a hyphen")
    return complaints


def is_valid_percent(percent: str) -> list[str]:
    return [] if _percent(percent) else [_PERCENT_COMPLAINT]


def is_http_header_name(value: str) -> list[str]:
    return [] if _http_header(value) else [_HTTP_HEADER_COMPLAINT]


def is_env_var_name(value: str) -> list[str]:
    """The names of environment variables as they were before KEP-4369."""
    return ([] if _env_var(value) else [_ENV_VAR_COMPLAINT]) + _parent_directory(value)


def is_relaxed_env_var_name(value: str) -> list[str]:
    """Printable ASCII but `=` (KEP-4369): what containers may have today."""
    if not value:
        return ["environment variable name must be non-empty"]
    return [] if _relaxed_env_var(value) else [_RELAXED_ENV_VAR_COMPLAINT]


def is_config_map_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret; it may become a file's name."""
    return _judge(value, 253, _config_key, _CONFIG_KEY_COMPLAINT) + _parent_directory(value)


def _parent_directory(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []


def is_path_segment_name(name: str) -> list[str]:
    """What can stand between two slashes of a URL."""
    return [f"may not be '{name}'"] if name in (".", "..") else is_path_segment_prefix(name)


def is_path_segment_prefix(name: str) -> list[str]:
    return [f"may not contain '{each}'" for each in "/%" if each in name]


def is_decimal_integer(value: str) -> list[str]:
    """A whole number as people write it: no leading zero, no plus."""
    if not value:
        return ["must be non-empty"]
    return [] if _decimal_integer(value) else ["must be a valid decimal integer in canonical form"]


# Rules for objects' names.


def _masked(name: str) -> str:
    """A prefix may end in a dash: something will follow."""
    return name[:-2] + "a" if len(name) > 1 and name.endswith("-") else name


def name_is_dns_subdomain(name: str, prefix: bool = False) -> list[str]:
    return is_dns1123_subdomain(_masked(name) if prefix else name)


def name_is_dns_label(name: str, prefix: bool = False) -> list[str]:
    return is_dns1123_label(_masked(name) if prefix else name)


def name_is_dns1035_label(name: str, prefix: bool = False) -> list[str]:
    return is_dns1035_label(_masked(name) if prefix else name)


def name_is_path_segment(name: str, prefix: bool = False) -> list[str]:
    """The freest rule: roles and bindings, whose names hold colons."""
    return is_path_segment_prefix(name) if prefix else is_path_segment_name(name)


# Rules whose complaints are about different parts of the value, and so are field errors.


def is_fully_qualified_name(name: str, path: str) -> list[FieldError]:
    """At least three segments: signer names and the like."""
    if not name:
        return [required(path)]
    if complaints := is_dns1123_subdomain(name):
        return [invalid(path, name, ",".join(complaints))]
    if name.count(".") < 2:
        return [invalid(path, name, "should be a domain with at least three segments separated by dots")]
    return []


def is_fully_qualified_domain_name(name: str, path: str) -> list[FieldError]:
    """At least two segments, perhaps with a dot at the end."""
    if not name:
        return [required(path)]
    name = name.removesuffix(".")
    if complaints := is_dns1123_subdomain(name):
        return [invalid(path, name, ",".join(complaints))]
    if "." not in name:
        return [invalid(path, name, "should be a domain with at least two segments separated by dots")]
    for label in name.split("."):
        if complaints := is_dns1123_label(label):
            return [invalid(path, label, ",".join(complaints))]
    return []


def is_domain_prefixed_path(value: str, path: str) -> list[FieldError]:
    """`acme.io/foo`: a domain, a slash, and what may be a path in a URL."""
    if not value:
        return [required(path)]
    host, _, rest = value.partition("/")
    if not host or not rest:
        return [invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = [invalid(path, host, complaint) for complaint in is_dns1123_subdomain(host)]
    if not _http_path(rest):
        errors.append(invalid(path, rest, regex_complaint("Invalid path", _HTTP_PATH)))
    return errors


def is_domain_prefixed_key(key: str, path: str) -> list[FieldError]:
    """`acme.io/foo`: a label's key whose prefix is not optional."""
    if not key:
        return [required(path)]
    if complaints := is_qualified_name(key):
        return [invalid(path, key, complaint) for complaint in complaints]
    if "/" not in key:
        return [invalid(path, key, 'must be a domain-prefixed key (such as "acme.io/foo")')]
    return []
