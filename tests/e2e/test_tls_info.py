"""`ConnectionMeta.tls_info` against what both ends really negotiated."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Callable

import pytest

from soth_mitm import MitmConfig, TlsInfo
from soth_mitm.tls.client_hello import ClientHello, parse_client_hello
from soth_mitm.tls.fingerprint import ja3, ja4
from support.certs import TestCA, self_signed
from support.handshakes import client_hello_bytes
from support.http2_inside import Http2Client
from support.origin import Origin
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
UPSTREAM_FACTS = ("upstream_version", "upstream_cipher", "upstream_proto", "upstream_resumed", "upstream_certificate_sha256")


def limited(context: ssl.SSLContext, version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


def infos(running: Running) -> tuple[TlsInfo, TlsInfo]:
    """Return what the last request and its response say."""
    running.handler.wait("on_response")
    request, response = running.handler.requests[-1], running.handler.of("on_response")[-1]
    return request.connection_meta.tls_info, response.connection_meta.tls_info


@pytest.mark.parametrize(
    ("version", "ciphers"), [(TLS_1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"), (TLS_1_2, "ECDHE-ECDSA-CHACHA20-POLY1305"), (TLS_1_3, "DEFAULT")]
)
@pytest.mark.parametrize(("upstream_version", "upstream_ciphers"), [(TLS_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"), (TLS_1_3, "DEFAULT")])
@pytest.mark.parametrize("alpn", [[], ["http/1.1"], ["h2", "http/1.1"], ["imap"]], ids=["", "h1", "h2 h1", "imap"])
def test_both_sides_are_what_was_negotiated(
    proxy: ProxyFactory,
    origin_ca: TestCA,
    version: ssl.TLSVersion,
    ciphers: str,
    upstream_version: ssl.TLSVersion,
    upstream_ciphers: str,
    alpn: list[str],
) -> None:
    running = proxy()
    context = limited(running.client_context(), version, ciphers)
    context.set_alpn_protocols(alpn)
    served = limited(origin_ca.server_context(HOST, alpn=alpn), upstream_version, upstream_ciphers)
    with Origin(served, host=HOST) as origin, running.tunnel(origin.port) as client:
        client.start_tls(context)
        is_http2 = client.tls.selected_alpn_protocol() == "h2"
        answer = Http2Client.inside(client, origin.port).request("/bytes/3") if is_http2 else client.request("/bytes/3", HOST)
        assert answer.body == pattern(3)
        theirs = origin.connections[0].tls
        assert theirs is not None
        upstreams = (theirs.version(), theirs.cipher()[0], theirs.selected_alpn_protocol())
        clients = (client.tls.version(), client.tls.cipher()[0], client.tls.selected_alpn_protocol())
        request, response = infos(running)
        for info in (request, response):
            assert (info.version, info.cipher, info.negotiated_proto) == clients
            assert (info.sni, info.resumed) == (HOST, False)
        # nothing is known of an upstream that is dialled when the request is allowed
        assert [getattr(request, name) for name in UPSTREAM_FACTS] == [None] * 5
        assert (response.upstream_version, response.upstream_cipher, response.upstream_proto) == upstreams
        assert response.upstream_resumed is False
    assert clients[0] == f"TLSv1.{version - 0x0301}" and upstreams[0] == f"TLSv1.{upstream_version - 0x0301}"
    assert clients[2] == (None if alpn in ([], ["imap"]) else alpn[0])


def test_every_hook_of_a_flow_has_them(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    with running.secured(origin.port) as client:
        client.request("/sse/3/0", HOST)
    chunks = running.handler.wait("on_stream_chunk", 3)
    (response,) = running.handler.of("on_response")
    info = response.connection_meta.tls_info
    assert info.sni == HOST and info.upstream_version == "TLSv1.3"
    assert [chunk.connection_meta.tls_info for chunk in chunks] == [info] * 3
    assert {chunk.connection_meta.connection_id for chunk in chunks} == {chunk.connection_id for chunk in chunks}


@pytest.mark.parametrize("verify", [True, False])
def test_the_digest_is_that_of_the_served_certificate(proxy: ProxyFactory, origin_ca: TestCA, verify: bool) -> None:
    pair = origin_ca.intermediate().issue(HOST) if verify else self_signed(HOST)
    running = proxy(**{"upstream.verify_upstream_tls": verify})
    with Origin(origin_ca.server_context(pair=pair), host=HOST) as origin, running.secured(origin.port) as client:
        client.request("/bytes/3", HOST)
        end = b"-----END CERTIFICATE-----\n"
        der = ssl.PEM_cert_to_DER_cert((pair[0].partition(end)[0] + end).decode())
        client.request("/bytes/3", HOST)
        running.handler.wait("on_response", 2)
        # known to the second request
        for info in infos(running):
            assert info.upstream_certificate_sha256 == hashlib.sha256(der).hexdigest()


class TestFingerprints:
    @staticmethod
    def hello(context: ssl.SSLContext) -> ClientHello:
        hello = parse_client_hello(client_hello_bytes(context, HOST))
        assert isinstance(hello, ClientHello)
        return hello

    @pytest.mark.parametrize("ciphers", ["DEFAULT", "ECDHE+AESGCM"])
    def test_are_those_of_the_hello(self, proxy: ProxyFactory, origin: Origin, ciphers: str) -> None:
        running = proxy()
        context = running.client_context()
        context.set_ciphers(ciphers)
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            client.request("/bytes/3", HOST)
        for info in infos(running):
            assert (info.ja3, info.ja4) == (ja3(self.hello(context))[1], ja4(self.hello(context)))

    def test_are_left_out_when_not_wanted(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"tls.capture_fingerprint": False})
        with running.secured(origin.port) as client:
            client.request("/bytes/3", HOST)
        for info in infos(running):
            assert (info.ja3, info.ja4, info.sni) == (None, None, HOST)


def test_no_name_was_asked_for(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    with running.secured(origin.port, "127.0.0.1") as client:
        client.request("/bytes/3", HOST)
    for info in infos(running):
        assert info.sni is None and info.version == "TLSv1.3"


def test_nothing_is_known_before_the_handshake_and_without_one(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy()
    with running.tunnel(plain_origin.port) as client:
        client.request("/bytes/3", HOST)
    assert infos(running) == (None, None)
    assert [meta.tls_info for meta in running.handler.of("on_connection_open")] == [None]


def test_an_upstream_that_was_not_reached(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    running = proxy()
    with Origin(origin_ca.server_context(pair=origin_ca.issue_expired(HOST)), host=HOST) as origin, running.secured(origin.port) as client:
        assert client.request("/x", HOST).status == 502
    info = running.handler.requests[0].connection_meta.tls_info
    assert info.version == "TLSv1.3" and [getattr(info, name) for name in UPSTREAM_FACTS] == [None] * 5


class TestTheConnectionThatIsUsed:
    """Facts of the upstream's side are those of the connection that carried the request, not of another one to the same origin."""

    def test_another_connection_on_the_same_client_connection(
        self, proxy: ProxyFactory, origin_ca: TestCA, make_config: Callable[..., MitmConfig]
    ) -> None:
        running = proxy(**{"connection_pool.max_idle_per_host": 0})
        new = limited(origin_ca.server_context(HOST), TLS_1_2, "DEFAULT")
        with Origin(origin_ca.server_context(HOST), host=HOST) as origin:
            port = origin.port
            with contextlib.ExitStack() as stack:
                client = stack.enter_context(running.secured(port))
                client.request("/bytes/3", HOST)
                first = running.handler.wait("on_response")[0].connection_meta.tls_info
                origin.close()
                stack.enter_context(Origin(new, host=HOST, port=port))
                client.request("/bytes/3", HOST)
                second = running.handler.wait("on_response", 2)[1].connection_meta.tls_info
                client.request("/bytes/3", HOST)
                third = running.handler.wait("on_request", 3)[2].connection_meta.tls_info
        assert (first.upstream_version, second.upstream_version, third.upstream_version) == ("TLSv1.3", "TLSv1.2", "TLSv1.2")
        assert first.upstream_certificate_sha256 != second.upstream_certificate_sha256
        assert (first.version, first.ja4, first.sni) == (second.version, second.ja4, second.sni)

    def test_a_request_in_absolute_form(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.client() as client:
            self.ask(client, origin)
            request, response = infos(running)
            assert request is None
            assert (response.version, response.sni) == (None, None)
            assert response.upstream_version == "TLSv1.3" and len(response.upstream_certificate_sha256) == 64
            self.ask(client, origin)
            assert infos(running)[0] == response

    @staticmethod
    def ask(client: WireClient, origin: Origin) -> None:
        assert client.request(origin.url("/bytes/3"), f"{HOST}:{origin.port}").body == pattern(3)
