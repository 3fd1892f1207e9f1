"""Rules for names: what is good, what is bad, and how that is said."""

from __future__ import annotations

import pytest

from shipwheel.api import ip, names

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
KEY = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        (names.is_dns1123_label, ["a", "0", "a-b", "a--b", "a" * 63]),
        (names.is_dns1123_subdomain, ["a", "a.b", "0.1", "a-b.c-d", ".".join(["a" * 63] * 3), "a" * 253]),
        (names.is_dns1123_subdomain_caseless, ["A.b"]),
        (names.is_dns1123_subdomain_with_underscore, ["_a.b_c"]),
        (names.is_wildcard_dns1123_subdomain, ["*.a", "*.a.b"]),
        (names.is_dns1035_label, ["a", "a0", "a-0"]),
        (names.is_qualified_name, ["a", "A_b.c-1", "a.b/C", "1", "x" * 63, f"{'a' * 253}/b"]),
        (names.is_valid_label_value, ["", "a", "A_b.c-1", "x" * 63]),
        (names.is_c_identifier, ["a", "_", "A_1"]),
        (names.is_valid_port_num, [1, 65535]),
        (names.is_valid_user_id, [0, 2**31 - 1]),
        (names.is_valid_group_id, [0, 2**31 - 1]),
        (names.is_valid_port_name, ["http", "a-1", "1a", "a" * 15]),
        (names.is_valid_percent, ["0%", "100%", "01%"]),
        (names.is_http_header_name, ["X-Header", "-"]),
        (names.is_env_var_name, ["A", "_", "-", ".x", "my.env-NAME_1"]),
        (names.is_relaxed_env_var_name, ["1A", " ", "a b!", "-", ".."]),
        (names.is_config_map_key, ["a", ".a", "a..b", "-", "x" * 253]),
        (names.is_path_segment_name, ["", "a:b", "..a", "a b"]),
        (names.is_path_segment_prefix, [".", ".."]),
        (names.is_decimal_integer, ["0", "-1", "10"]),
        (ip.is_valid_ip, ["1.2.3.4", "::", "fe80::abc", "2001:db8::1"]),
        (ip.is_valid_ip_for_legacy_field, ["FE80:0:0:0:0:0:0:0abc", "1.2.3.4"]),
        (ip.is_valid_cidr, ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/64"]),
        (ip.is_valid_cidr_for_legacy_field, ["FE80:0abc:0:0:0:0:0:0/64"]),
        (ip.is_valid_interface_address, ["192.168.1.5/24", "fd00::1/64"]),
    ],
)
def test_good(rule, good) -> None:
    for value in good:
        assert rule(value) == [], value


@pytest.mark.parametrize(
    ("rule", "value", "complaints"),
    [
        (names.is_dns1123_label, "", [LABEL]),
        (names.is_dns1123_label, "A", [LABEL]),
        (names.is_dns1123_label, "a\n", [LABEL]),
        (names.is_dns1123_label, "-a", [LABEL]),
        (names.is_dns1123_label, "a.b", ["must not contain dots"]),
        (names.is_dns1123_label, "a" * 64, ["must be no more than 63 characters"]),
        (names.is_dns1123_label, "é" * 32, ["must be no more than 63 characters", LABEL]),
        (names.is_dns1123_subdomain, "a..b", [SUBDOMAIN]),
        (names.is_dns1123_subdomain, "a" * 254, ["must be no more than 253 characters"]),
        (names.is_dns1123_subdomain, "_" * 254, ["must be no more than 253 characters", SUBDOMAIN]),
        (names.is_qualified_name, "", ["name part must be non-empty", f"name part {KEY}"]),
        (names.is_qualified_name, "/a", ["prefix part must be non-empty"]),
        (names.is_qualified_name, "A/b", [f"prefix part {SUBDOMAIN}"]),
        (names.is_qualified_name, "a/", ["name part must be non-empty", f"name part {KEY}"]),
        (names.is_qualified_name, "x" * 64, ["name part must be no more than 63 bytes"]),
        (names.is_qualified_name, f"{'a' * 254}/b", ["prefix part must be no more than 253 bytes"]),
        (
            names.is_qualified_name,
            "a/b/c",
            [f"a valid label key {KEY} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"],
        ),
        (names.is_valid_label_value, "x" * 64, ["must be no more than 63 bytes"]),
        (names.is_valid_port_num, 0, ["must be between 1 and 65535, inclusive"]),
        (names.is_valid_user_id, -1, ["must be between 0 and 2147483647, inclusive"]),
        (
            names.is_valid_port_name,
            "-1--1-1-1-1-1-1-",
            [
                "must be no more than 15 characters",
                "must contain at least one letter (a-z)",
                "must not contain consecutive hyphens",
                "must not begin or end with a hyphen",
            ],
        ),
        (
            names.is_valid_port_name,
            "A",
            [
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "must contain at least one letter (a-z)",
            ],
        ),
        (names.is_config_map_key, "..", ["must not be '..'"]),
        (names.is_config_map_key, ".", ["must not be '.'"]),
        (names.is_config_map_key, "..a", ["must not start with '..'"]),
        (names.is_relaxed_env_var_name, "", ["environment variable name must be non-empty"]),
        (
            names.is_relaxed_env_var_name,
            "a=b",
            ["a valid environment variable name must consist only of printable ASCII characters other than '='"],
        ),
        (names.is_path_segment_name, "..", ["may not be '..'"]),
        (names.is_path_segment_name, "a/%", ["may not contain '/'", "may not contain '%'"]),
        (names.is_decimal_integer, "", ["must be non-empty"]),
        (names.is_decimal_integer, "-0", ["must be a valid decimal integer in canonical form"]),
        (names.is_decimal_integer, "07", ["must be a valid decimal integer in canonical form"]),
        (ip.is_valid_ip, "1.2.3", ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
        (ip.is_valid_ip, "fe80::1%eth0", ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
        (ip.is_valid_ip, "1.2.3.256", ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
        (ip.is_valid_ip, "1.2.3.04", ["must not have leading 0s"]),
        (ip.is_valid_ip, "::ffff:1.2.3.4", ["must not be an IPv4-mapped IPv6 address"]),
        (ip.is_valid_ip, "FE80:0::1", ['must be in canonical form ("fe80::1")']),
        (ip.is_valid_cidr, "1.2.3.4", ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]),
        (ip.is_valid_cidr, "1.2.3.4/33", ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]),
        (ip.is_valid_cidr, "010.0.0.0/8", ["must not have leading 0s in IP or prefix length"]),
        (ip.is_valid_cidr, "10.0.0.0/08", ["must not have leading 0s in IP or prefix length"]),
        (ip.is_valid_cidr, "10.1.0.0/8", ["must not have bits set beyond the prefix length"]),
        (ip.is_valid_cidr, "::ffff:1.2.3.0/120", ["must not have an IPv4-mapped IPv6 address"]),
        (ip.is_valid_cidr, "FD00::/64", ['must be in canonical form ("fd00::/64")']),
        (ip.is_valid_interface_address, "10.1.0.0/08", ['must be in canonical form ("10.1.0.0/8")']),
        (ip.is_valid_interface_address, "::ffff:1.2.3.4/120", ['must be in canonical form ("1.2.3.4/24")']),
    ],
)
def test_bad(rule, value, complaints) -> None:
    assert rule(value) == complaints


def test_lenient_address_fields() -> None:
    assert ip.is_valid_ip_for_legacy_field("010.002.003.004", strict=False) == []
    assert ip.is_valid_cidr_for_legacy_field("10.1.0.0/08", strict=False) == []
    assert ip.ip_warnings("1.2.3.4", "f") == []
    assert ip.ip_warnings("010.2.3.4", "f") == ['f: non-standard IP address "010.2.3.4" is invalid: use "10.2.3.4"']
    assert ip.ip_warnings("::ffff:1.2.3.4", "f") == [
        'f: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4"'
    ]
    assert ip.ip_warnings("FD00::1", "f") == [
        'f: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")'
    ]
    assert ip.cidr_warnings("10.0.0.0/8", "f") == []
    assert ip.cidr_warnings("10.1.2.3/8", "f") == [
        'f: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)'
    ]
    assert ip.cidr_warnings("10.0.0.0/08", "f") == [
        'f: non-standard CIDR value "10.0.0.0/08" is invalid: use "10.0.0.0/8"'
    ]
    assert ip.cidr_warnings("FD00::/64", "f") == [
        'f: IPv6 CIDR value "FD00::/64" should be in RFC 5952 canonical format ("fd00::/64")'
    ]


def test_a_prefix_may_end_in_a_dash() -> None:
    assert names.name_is_dns_subdomain("web-", True) == []
    assert names.name_is_dns_subdomain("web-", False) == [SUBDOMAIN]
    assert names.name_is_dns_label("-", True) == [LABEL]
    assert names.name_is_dns1035_label("a-", True) == []
    assert names.name_is_path_segment("..", True) == []
    assert names.name_is_path_segment("..", False) == ["may not be '..'"]


@pytest.mark.parametrize(
    ("rule", "value", "texts"),
    [
        (names.is_fully_qualified_name, "", ["p: Required value"]),
        (names.is_fully_qualified_name, "a.b.c", []),
        (
            names.is_fully_qualified_name,
            "a.b",
            ['p: Invalid value: "a.b": should be a domain with at least three segments separated by dots'],
        ),
        (names.is_fully_qualified_domain_name, "a.b.", []),
        (
            names.is_fully_qualified_domain_name,
            "a",
            ['p: Invalid value: "a": should be a domain with at least two segments separated by dots'],
        ),
        (names.is_domain_prefixed_path, "acme.io/a/b", []),
        (names.is_domain_prefixed_path, "", ["p: Required value"]),
        (
            names.is_domain_prefixed_path,
            "acme.io",
            ['p: Invalid value: "acme.io": must be a domain-prefixed path (such as "acme.io/foo")'],
        ),
        (names.is_domain_prefixed_key, "acme.io/a", []),
        (
            names.is_domain_prefixed_key,
            "a",
            ['p: Invalid value: "a": must be a domain-prefixed key (such as "acme.io/foo")'],
        ),
    ],
)
def test_rules_that_name_fields(rule, value, texts) -> None:
    assert [str(error) for error in rule(value, "p")] == texts
