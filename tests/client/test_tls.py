"""Which versions and ciphers a server offers."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.client.httpserver import server_tls
from shipwheel.client.ratelimit import TokenBucket
from shipwheel.client.serving import self_signed


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = Path(tmp_path_factory.mktemp("tls")) / "tls.pem"
    file.write_bytes(self_signed("host"))
    return str(file)


def test_versions(pem: str) -> None:
    assert server_tls(pem, pem).minimum_version == ssl.TLSVersion.TLSv1_2
    assert server_tls(pem, pem, minimum="VersionTLS13").minimum_version == ssl.TLSVersion.TLSv1_3
    with pytest.raises(ValueError, match='unknown tls version "soon"'):
        server_tls(pem, pem, minimum="soon")


def test_ciphers(pem: str) -> None:
    wanted = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    offered = {each["name"] for each in server_tls(pem, pem, ciphers=wanted).get_ciphers()}
    old = {each for each in offered if not each.startswith("TLS_")}
    assert old == {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"}
    with pytest.raises(ValueError, match="Cipher suite NONE not supported or doesn't exist"):
        server_tls(pem, pem, ciphers=["NONE"])


async def test_a_bucket_empties_and_fills() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, 3, clock)
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]
    await clock.advance(0.5)
    assert [bucket.try_take() for _ in range(2)] == [True, False]
