from __future__ import annotations

from shipwheel.api import hashing
from shipwheel.api.names import is_dns1123_label

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def test_fnv_against_published_vectors() -> None:
    """From the FNV reference (Noll): test vectors of the 1a variant."""
    assert hashing.fnv1a_32(b"") == 0x811C9DC5
    assert hashing.fnv1a_32(b"a") == 0xE40C292C
    assert hashing.fnv1a_32(b"foobar") == 0xBF9CF968
    assert hashing.fnv1a_64(b"a") == 0xAF63DC4C8601EC8C
    assert hashing.fnv1a_64(b"foobar") == 0x85944171F73967E8


def test_a_template_hash_is_stable_across_releases_and_key_order() -> None:
    """Were this value to change, every Deployment would roll out anew after an upgrade."""
    assert hashing.pod_template_hash(TEMPLATE) == "77657c567c"
    assert hashing.pod_template_hash(dict(reversed(TEMPLATE.items()))) == hashing.pod_template_hash(TEMPLATE)


def test_collisions_and_changes_give_other_hashes() -> None:
    hashes = {hashing.pod_template_hash(TEMPLATE, count) for count in (None, 0, 1, 2)}
    hashes.add(hashing.pod_template_hash({**TEMPLATE, "spec": {}}))
    assert len(hashes) == 5
    assert all(is_dns1123_label(each) == [] for each in hashes)


def test_safe_encoding_has_no_vowels() -> None:
    assert hashing.safe_encode("0123456789") == "456789bcdf"
    assert set(hashing.safe_encode("".join(map(chr, range(256))))) <= set("bcdfghjklmnpqrstvwxz2456789")
