"""Cipher suites and what may be spoken over them."""

from __future__ import annotations

import ssl

import pytest

from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.ciphers import permits_http2
from soth_mitm.tls.leaf import LeafStore


@pytest.mark.parametrize(
    "cipher",
    [
        "AES128-GCM-SHA256",
        "AES128-SHA",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA",
        "DHE-RSA-AES256-SHA",
        "ECDHE-RSA-CAMELLIA128-SHA256",
        "ADH-AES128-GCM-SHA256",
        "ECDHE-RSA-NULL-SHA",
        "ECDHE-RSA-RC4-SHA",
        "PSK-AES128-GCM-SHA256",
        None,
    ],
)
def test_suites_that_http2_forbids(cipher: str | None) -> None:
    """RFC 9113 appendix A, and what says nothing of itself."""
    assert not permits_http2("TLSv1.2", cipher)


@pytest.mark.parametrize(
    "cipher",
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-CCM8",
        "ECDHE-ECDSA-ARIA128-GCM-SHA256",
    ],
)
def test_suites_that_it_does_not(cipher: str) -> None:
    assert permits_http2("TLSv1.2", cipher)


def test_every_suite_of_later_versions_will_do() -> None:
    assert permits_http2("TLSv1.3", "TLS_AES_128_CCM_8_SHA256")


def test_clients_are_offered_no_suite_that_it_forbids() -> None:
    """So whatever a client chooses, HTTP/2 may be spoken over it."""
    context = LeafStore(generate_ca("a test", validity_days=1)).context_for("a.example", alpn=("h2",))
    suites = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert len(suites) >= 4 and all(permits_http2("TLSv1.2", suite) for suite in suites)


def test_what_the_library_offers_at_all_is_told_apart() -> None:
    """Every suite that HTTP/2 is spoken over has an ephemeral key and authenticates what it encrypts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    for cipher in context.get_ciphers():
        if cipher["protocol"] != "TLSv1.3":
            is_good = cipher["aead"] and cipher["kea"].startswith(("kx-ecdhe", "kx-dhe")) and cipher["auth"] != "auth-null"
            assert permits_http2("TLSv1.2", cipher["name"]) == is_good, cipher["name"]
