"""IP addresses and networks as API fields hold them (KEP-4858).

New fields take the canonical text only (`is_valid_ip`, `is_valid_cidr`). Fields older than that rule take every
text that means one thing (`..._for_legacy_field`), and warn where another spelling is preferred.

Texts are read as sloppily as upstream reads them, so that the complaint says what is wrong: leading zeros are
dropped first, and complained about after.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_LEADING_ZEROS = re.compile(r"(?<![0-9A-Fa-f])0+(?=[0-9A-Fa-f])")
_PREFIX_LENGTH = re.compile("[0-9]{1,4}").fullmatch


@lru_cache(maxsize=1024)
def parse_ip(text: str) -> Address | None:
    """Read an address, leading zeros and all; None when it is none. Zones (`%eth0`) are refused."""
    if "%" in text:
        return None
    try:
        return ip_address(_LEADING_ZEROS.sub("", text))
    except ValueError:
        return None


def parse_cidr(text: str) -> tuple[Address, int] | None:
    """Read `address/length` in the same manner; bits beyond the length are kept."""
    host, _, length = text.partition("/")
    address = parse_ip(host)
    if address is None or not _PREFIX_LENGTH(length) or int(length) > address.max_prefixlen:
        return None
    return address, int(length)


def canonical_ip(address: Address) -> str:
    """RFC 5952; an IPv4 address in IPv6 clothes is shown as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def canonical_cidr(address: Address, length: int) -> str:
    """The network, without the bits beyond the length."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped and length >= 96:
        address, length = address.ipv4_mapped, length - 96
    return str(ip_network((address, length), strict=False))


def _has_leading_zeros(text: str) -> bool:
    return (
        any(len(each) > 1 and each[0] == "0" for each in text.split("."))
        if ":" not in text
        else any(len(each) > 4 for each in text.split(":") if "." not in each)
        or ("." in text and _has_leading_zeros(text.rpartition(":")[2]))
    )


def _is_mapped(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def is_valid_ip_for_legacy_field(text: str, *, strict: bool = True) -> list[str]:
    """An address for a field older than the strict rules; `strict=False` for values that were stored before."""
    address = parse_ip(text)
    if address is None:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    complaints = []
    if strict and _has_leading_zeros(text):
        complaints.append("must not have leading 0s")
    elif strict and _is_mapped(address):
        complaints.append("must not be an IPv4-mapped IPv6 address")
    return complaints


def is_valid_ip(text: str) -> list[str]:
    """An address in canonical form."""
    if complaints := is_valid_ip_for_legacy_field(text):
        return complaints
    canonical = str(parse_ip(text))
    return [] if canonical == text else [f'must be in canonical form ("{canonical}")']


def is_valid_cidr_for_legacy_field(text: str, *, strict: bool = True) -> list[str]:
    """A network for a field older than the strict rules."""
    parsed = parse_cidr(text)
    if parsed is None:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    if not strict:
        return []
    address, length = parsed
    host, _, written = text.partition("/")
    if _has_leading_zeros(host) or written != str(length):
        return ["must not have leading 0s in IP or prefix length"]
    if _is_mapped(address):
        return ["must not have an IPv4-mapped IPv6 address"]
    if ip_network((address, length), strict=False).network_address != address:
        return ["must not have bits set beyond the prefix length"]
    return []


def is_valid_cidr(text: str) -> list[str]:
    """A network in canonical form."""
    if complaints := is_valid_cidr_for_legacy_field(text):
        return complaints
    parsed = parse_cidr(text)
    assert parsed
    canonical = canonical_cidr(*parsed)
    return [] if canonical == text else [f'must be in canonical form ("{canonical}")']


def is_valid_interface_address(text: str) -> list[str]:
    """An address with the length of its network (`192.168.1.5/24`), in canonical form."""
    parsed = parse_cidr(text)
    if parsed is None:
        return ["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"]
    address, length = parsed
    if _is_mapped(address) and length > 32:
        length -= 96
    canonical = f"{canonical_ip(address)}/{length}"
    return [] if canonical == text else [f'must be in canonical form ("{canonical}")']


def ip_warnings(text: str, path: str) -> list[str]:
    """What to say of a legacy field's address that is not written in the standard form."""
    address = parse_ip(text)
    if address is None:
        return []
    if _has_leading_zeros(text) or _is_mapped(address):
        return [f'{path}: non-standard IP address {json.dumps(text)} is invalid: use "{canonical_ip(address)}"']
    if address.version == 6 and str(address) != text:
        return [f'{path}: IPv6 address {json.dumps(text)} should be in RFC 5952 canonical format ("{address}")']
    return []


def cidr_warnings(text: str, path: str) -> list[str]:
    """The same for a network."""
    parsed = parse_cidr(text)
    if parsed is None:
        return []
    address, length = parsed
    canonical = canonical_cidr(address, length)
    host, _, written = text.partition("/")
    warnings = []
    if canonical_ip(address) != canonical.partition("/")[0]:
        bits = 32 if address.version == 4 else 128
        warnings.append(
            f"{path}: CIDR value {json.dumps(text)} is ambiguous in this context "
            f'(should be "{canonical}" or "{canonical_ip(address)}/{bits}"?)'
        )
    if _has_leading_zeros(host) or written != str(length) or _is_mapped(address):
        warnings.append(f'{path}: non-standard CIDR value {json.dumps(text)} is invalid: use "{canonical}"')
    if not warnings and address.version == 6 and f"{address}/{length}" != text:
        warnings.append(
            f'{path}: IPv6 CIDR value {json.dumps(text)} should be in RFC 5952 canonical format ("{address}/{length}")'
        )
    return warnings
