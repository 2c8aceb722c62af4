"""Which protocol is spoken with whom."""

from __future__ import annotations

import pytest

from soth_mitm.proxy import alpn
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.tls_info import UpstreamTlsInfo

BOTH = ("h2", "http/1.1")
SECURE, PLAIN = Origin("a.example", 443, "a.example", alpn=BOTH), Origin("a.example", 80)


def chose(protocol: str | None) -> UpstreamTlsInfo:
    return UpstreamTlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", protocol, False, None, ())


@pytest.mark.parametrize(
    ("client", "upstream"),
    [
        ((), ("http/1.1",)),
        (("http/1.1",), ("http/1.1",)),
        (("h2",), ("h2",)),
        (("h2", "http/1.1"), ("h2", "http/1.1")),
        (("http/1.1", "h2"), ("http/1.1", "h2")),
        (("h3", "h2", "http/1.1", "http/1.0"), ("h2", "http/1.1")),
        (("h2", "h2"), ("h2",)),
        (("imap",), ("http/1.1",)),
        (("H2",), ("http/1.1",)),
    ],
)
def test_an_upstream_is_offered_what_its_client_offers(client: tuple[str, ...], upstream: tuple[str, ...]) -> None:
    assert alpn.upstream_offer(client, BOTH) == upstream


@pytest.mark.parametrize("client", [(), ("h2",), ("h2", "http/1.1"), ("http/1.1",)])
def test_without_http2_there_is_one_offer(client: tuple[str, ...]) -> None:
    assert alpn.upstream_offer(client, alpn.spoken(False)) == ("http/1.1",)


@pytest.mark.parametrize(
    ("offer", "chosen", "protocol"),
    [
        (BOTH, "h2", "h2"),
        (BOTH, "http/1.1", "http/1.1"),
        (BOTH, None, "http/1.1"),
        (("h2",), "h2", "h2"),
        # it is not offered what it asks for, since its upstream does not speak it
        (("h2",), None, "http/1.1"),
        # its upstream was asked for another client
        (("http/1.1",), "h2", "http/1.1"),
    ],
)
def test_a_client_is_offered_what_its_upstream_chose(offer: tuple[str, ...], chosen: str | None, protocol: str) -> None:
    assert alpn.client_protocol(offer, SECURE, chose(chosen)) == protocol


def test_where_nothing_is_known_http2_comes_first_as_with_servers() -> None:
    assert [alpn.preferred(offer) for offer in (BOTH, BOTH[::-1], ("h2",), ("http/1.1",))] == ["h2", "h2", "h2", "http/1.1"]


def test_in_plain_text_nothing_is_negotiated() -> None:
    assert not alpn.speaks_http2(PLAIN, None)
    assert alpn.speaks_http2(PLAIN._replace(alpn=("h2",)), None)
    assert alpn.client_protocol(BOTH, PLAIN, None) == "http/1.1"
    assert alpn.client_protocol(("h2",), PLAIN._replace(alpn=("h2",)), None) == "h2"


def test_an_upstream_in_tls_of_which_nothing_is_known_is_not_taken_to_speak_http2() -> None:
    assert not alpn.speaks_http2(SECURE._replace(alpn=("h2",)), None)
