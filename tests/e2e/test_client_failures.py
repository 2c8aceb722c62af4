"""Clients that do not get through the TLS handshake with us: what they read, what the handler and the counters hear."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from soth_mitm import CertificateAuthority, MitmConfig, MitmProxyBuilder
from soth_mitm.errors import TlsFailedError
from soth_mitm.tls.failures import FailureClass
from support.certs import TestCA
from support.handshakes import client_hello_bytes, first_record
from support.hellos import alpn, handshake, hello_body, records, server_name
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
FATAL_ALERT = 21, 2


def client_failure(running: Running, *, handshakes: int = 0) -> TlsFailedError:
    """Return the only failure that was reported, which must be the client's and have been counted once."""
    running.handler.wait("on_connection_close")
    ((host, error),) = running.handler.of("on_tls_failure")
    assert (host, error.side) == (HOST, "client")
    metrics = running.metrics()
    assert (metrics.tls_client_failure_count, metrics.tls_client_handshake_count) == (1, handshakes)
    assert metrics.tls_client_failures_by_class == dict.fromkeys(FailureClass, 0) | {error.reason: 1}
    assert metrics.as_dict()[f"tls_client_failures_by_class.{error.reason}"] == 1
    assert metrics.tls_upstream_failure_count == sum(metrics.tls_upstream_failures_by_class.values()) == 0
    assert running.handler.names[-1] == "on_connection_close"
    return error


def still_works(running: Running, origin: Origin) -> None:
    with running.secured(origin.port) as client:
        assert client.request("/bytes/3", HOST).body == pattern(3)


def read_alert(client: WireClient) -> int:
    """Return the description of the fatal alert that is all the client reads before the end."""
    data = client.read_to_end()
    assert (data[0], data[5]) == FATAL_ALERT and len(data) == 7, data
    return data[6]


def flight(client: WireClient) -> bytes:
    """Read our answer to a TLS 1.2 hello up to ServerHelloDone."""
    data = b""
    while not data.endswith(b"\x0e\0\0\0"):
        data += client.socket.recv(65536)
    return data


def plain_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    return context


@contextlib.contextmanager
def shown_our_certificate(running: Running, origin: Origin) -> Iterator[WireClient]:
    """A client that has read our certificate and says what comes next."""
    with running.tunnel(origin.port) as client:
        client.send(client_hello_bytes(plain_context(), HOST))
        flight(client)
        yield client


class TestRefused:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_client_that_does_not_know_our_ca(
        self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA, version: ssl.TLSVersion
    ) -> None:
        running = proxy()
        stranger = origin_ca.client_context()
        stranger.maximum_version = version
        with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLCertVerificationError):
            client.start_tls(stranger)
        error = client_failure(running)
        assert (error.reason, error.detail, error.certificate_refused) == ("unknown_ca", "the peer sent the TLS alert unknown_ca", True)
        assert origin.requests == []
        still_works(running, origin)

    @pytest.mark.parametrize(
        ("description", "reason", "refused"),
        [
            (42, "unknown_ca", True),
            (46, "unknown_ca", True),
            (48, "unknown_ca", True),
            (45, "cert_validation", False),
            (49, "handshake", True),
            (40, "handshake", False),
            (80, "handshake", False),
        ],
    )
    def test_alerts(self, proxy: ProxyFactory, origin: Origin, description: int, reason: str, refused: bool) -> None:
        running = proxy()
        with shown_our_certificate(running, origin) as client:
            client.send(bytes((21, 3, 3, 0, 2, 2, description)))
            error = client_failure(running)
        assert (error.reason, error.certificate_refused) == (reason, refused)

    @pytest.mark.parametrize("leave", [WireClient.close, WireClient.reset, WireClient.end_writing])
    def test_leaving_without_a_word_after_our_certificate(
        self, proxy: ProxyFactory, origin: Origin, leave: Callable[[WireClient], None]
    ) -> None:
        running = proxy()
        with shown_our_certificate(running, origin) as client:
            leave(client)
            error = client_failure(running)
        assert (error.reason, error.certificate_refused) == ("eof_or_reset", True)
        still_works(running, origin)

    def test_an_alert_after_the_handshake(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        """Firefox and others complete the handshake before they have made up their mind."""
        running = proxy()
        context = running.client_context()
        context.keylog_filename = str(tmp_path / "keys")
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            secret = re.search(r"^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)", (tmp_path / "keys").read_text(), re.MULTILINE)
            assert secret is not None
            client.send_raw(first_record(bytes.fromhex(secret[1]), 21, bytes((2, 48))))
            error = client_failure(running, handshakes=1)
        assert (error.reason, error.detail, error.certificate_refused) == ("unknown_ca", "the peer sent the TLS alert unknown_ca", True)
        assert running.metrics().tls_client_abandoned_count == 0

    @pytest.mark.parametrize("leave", [WireClient.close, WireClient.reset])
    @pytest.mark.parametrize("version", VERSIONS)
    def test_leaving_after_the_handshake_without_a_request(
        self, proxy: ProxyFactory, origin: Origin, version: ssl.TLSVersion, leave: Callable[[WireClient], None]
    ) -> None:
        """GnuTLS, curl and aiohttp with a pinned key; browsers that connect ahead of need as well, so it is no failure."""
        running = proxy()
        context = running.client_context()
        context.maximum_version = version
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            leave(client)
            running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == []
        metrics = running.metrics()
        assert (metrics.tls_client_abandoned_count, metrics.tls_client_handshake_count, metrics.tls_client_failure_count) == (1, 1, 0)

    def test_a_request_is_no_abandonment_and_neither_is_our_own_leaving(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"timeouts.client_idle_ms": 500})
        still_works(running, origin)
        with running.secured(origin.port) as client:
            assert client.read_to_end() == b""
        running.wait_idle()
        with running.secured(origin.port) as client:
            running.handle.shutdown(5)
        assert running.metrics().tls_client_abandoned_count == 0


class TestNothingInCommon:
    def test_no_version(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"tls.min_version": "tls1.3"})
        with running.tunnel(origin.port) as client:
            client.send(client_hello_bytes(plain_context(), HOST))
            assert read_alert(client) == 70
        error = client_failure(running)
        assert (error.reason, error.certificate_refused) == ("handshake", False) and "unsupported protocol" in error.detail

    def test_no_cipher_suite(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        context = plain_context()
        context.set_ciphers("AES256-SHA")
        with running.tunnel(origin.port) as client:
            client.send(client_hello_bytes(context, HOST))
            assert read_alert(client) == 40
        error = client_failure(running)
        assert (error.reason, error.certificate_refused) == ("handshake", False) and "no shared cipher" in error.detail

    def test_no_alpn_protocol_is_no_obstacle(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        context = running.client_context()
        context.set_alpn_protocols(["h3", "imap"])
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            assert client.tls.selected_alpn_protocol() is None
            assert client.request("/bytes/3", HOST).body == pattern(3)


HELLO = client_hello_bytes(plain_context(ssl.TLSVersion.TLSv1_3), HOST)
TWO_SERVER_NAMES = records(handshake(hello_body(extensions=[server_name(b"a.example"), server_name(b"b.example")])))


class TestHellos:
    @pytest.mark.parametrize(
        ("data", "alert"),
        [
            (b"\x16\x03\x01\x00\x00", 10),
            (b"\x16\x03\x01\xff\xff" + bytes(100), 22),
            (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", 10),
            (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", 50),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", 50),
            (TWO_SERVER_NAMES, 47),
            (records(handshake(hello_body(extensions=[server_name(b"no host name")]))), 47),
            (records(handshake(hello_body(extensions=[server_name(b"a..b")]))), 112),
            (records(handshake(hello_body(extensions=[server_name(b"0x7f.1")]))), 112),
            (records(handshake(hello_body(extensions=[alpn(b"")]))), 50),
            (b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(37), 70),
            (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37), 70),
        ],
        ids=[
            "empty record",
            "record too long",
            "ServerHello",
            "message too long",
            "cut short",
            "two names",
            "no name",
            "empty label",
            "number",
            "empty ALPN",
            "SSLv2-style for TLS 1.0",
            "SSLv2",
        ],
    )
    def test_malformed_ones_get_an_alert(self, proxy: ProxyFactory, origin: Origin, data: bytes, alert: int) -> None:
        running = proxy()
        with running.tunnel(origin.port) as client:
            # what nobody reads any more does not keep the alert from arriving
            client.send(data + b"x" * 300_000)
            client.end_writing()
            assert read_alert(client) == alert
        error = client_failure(running)
        assert (error.reason, error.certificate_refused) in (("handshake", False), ("other", False)) and error.detail
        assert origin.connections == []

    @pytest.mark.parametrize("size", [1, 4, 5, 6, 40, len(HELLO) - 1])
    @pytest.mark.parametrize("leave", [WireClient.close, WireClient.end_writing])
    def test_leaving_in_the_middle(self, proxy: ProxyFactory, origin: Origin, size: int, leave: Callable[[WireClient], None]) -> None:
        running = proxy()
        with running.tunnel(origin.port) as client:
            client.send(HELLO[:size])
            leave(client)
            error = client_failure(running)
        assert (error.reason, error.certificate_refused) == ("eof_or_reset", False)
        assert origin.connections == []

    def test_stalling_in_the_middle(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"timeouts.client_tls_handshake_ms": 500})
        with running.tunnel(origin.port) as client:
            client.send(HELLO[:50])
            assert client.read_to_end() == b""
        error = client_failure(running)
        assert (error.reason, error.certificate_refused) == ("timeout", False)
        assert "timeouts.client_tls_handshake_ms" in error.detail

    def test_stalling_after_our_certificate(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"timeouts.client_tls_handshake_ms": 500})
        with shown_our_certificate(running, origin) as client:
            assert client.read_to_end() == b""
            error = client_failure(running)
        assert (error.reason, error.certificate_refused) == ("timeout", False)

    def test_leaving_before_the_first_byte(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        running.tunnel(origin.port).close()
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == [] and running.metrics().tls_client_failure_count == 0


class TestOtherProtocols:
    """What is not TLS is no TLS failure."""

    @staticmethod
    def greet(connection: ScriptedConnection) -> None:
        connection.send(b"SSH-2.0-origin\r\n")
        connection.send(b"heard " + connection.receive())
        connection.close()

    @staticmethod
    def greet_and_hear_out(connection: ScriptedConnection) -> None:
        """As `greet`, but closing with bytes unread would be a reset, which overtakes the answer."""
        connection.send(b"SSH-2.0-origin\r\n")
        connection.send(b"heard " + b"".join(iter(connection.receive, b"")))
        connection.close()

    @pytest.mark.parametrize("said", [b"SSH-2.0-client\r\n", b"SSH-2.0-client Debian-1\r\n", b"\x00\x01\x02\x03", b"PING\r\n"])
    def test_are_tunnelled_when_told_so(self, proxy: ProxyFactory, plain_origin: Origin, said: bytes) -> None:
        plain_origin.script_connections(self.greet)
        running = proxy(**{"interception.unknown_protocol": "tunnel"})
        with running.tunnel(plain_origin.port) as client:
            client.send(said)
            assert client.read_to_end() == b"SSH-2.0-origin\r\nheard " + said
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == []
        assert (running.metrics().unknown_protocol_count, running.metrics().tunnel_count) == (1, 1)

    def test_clients_that_wait_for_the_server_are_tunnelled_after_a_while(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.script_connections(self.greet_and_hear_out)
        running = proxy(**{"timeouts.client_first_bytes_ms": 500, "interception.unknown_protocol": "tunnel"})
        with running.tunnel(plain_origin.port) as client:
            assert client.read_exactly(16) == b"SSH-2.0-origin\r\n"
            client.send(b"QUIT\r\n")
            client.end_writing()
            assert client.read_to_end() == b"heard QUIT\r\n"
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == []

    @pytest.mark.parametrize("said", [b"SSH-2.0-client\r\n", b"\x00\x01\x02\x03", b"PING\r\n"])
    def test_are_refused_with_the_reason(self, proxy: ProxyFactory, plain_origin: Origin, said: bytes) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(said)
            answer = client.read_answer()
        assert answer.status == 400 and "interception.unknown_protocol is block" in answer.text
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == [] and plain_origin.connections == []
        assert (running.metrics().unknown_protocol_count, running.metrics().tunnel_count) == (1, 0)

    def test_a_client_that_says_nothing_is_left(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{"timeouts.client_first_bytes_ms": 200})
        with running.tunnel(plain_origin.port) as client:
            assert client.read_to_end() == b""
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == [] and plain_origin.connections == []

    @pytest.mark.parametrize("protocol", ["block", "tunnel"])
    @pytest.mark.parametrize("said", [b"E", b"SSH-2.0", b"\r\n"])
    def test_a_line_that_does_not_end_is_late(self, proxy: ProxyFactory, plain_origin: Origin, said: bytes, protocol: str) -> None:
        running = proxy(**{"timeouts.client_tls_handshake_ms": 200, "interception.unknown_protocol": protocol})
        with running.tunnel(plain_origin.port) as client:
            client.send(said)
            answer = client.read_answer()
        assert answer.status == 408 and "timeouts.client_tls_handshake_ms" in answer.text
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == [] and plain_origin.connections == []

    def test_plain_http_is_intercepted(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
        (request,) = running.handler.requests
        assert (request.scheme, request.connection_meta.tls_info) == ("http", None)
        assert running.handler.of("on_tls_failure") == []


def test_our_end_is_announced(proxy: ProxyFactory, origin: Origin) -> None:
    """close_notify comes before the end of the stream: the client does not forgive its absence."""
    running = proxy()
    for path in ("/close/3", "/bytes/3"):
        with running.secured(origin.port) as client:
            assert client.request(path, HOST, extra="Connection: close\r\n").body == pattern(3)
            assert client.read_to_end() == b""


def test_a_ca_that_has_run_out(make_config: Callable[..., MitmConfig], origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns by an alert that it is our fault."""
    cert_pem, key_pem = TestCA().issue_expired("old")
    certificate = x509.load_pem_x509_certificate(cert_pem)
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    ca = CertificateAuthority(cert_pem, key_pem, "old", certificate, key)
    handler = Recording()
    with MitmProxyBuilder(make_config(), handler).with_ca(ca).build().start_in_thread() as handle:
        with Running(handle, handler).tunnel(origin.port) as client:
            client.send(HELLO)
            assert read_alert(client) == 80
        error = client_failure(Running(handle, handler))
    assert (error.reason, error.certificate_refused) == ("other", False) and "expired" in error.detail
    assert any(record.levelname == "ERROR" and "expired" in record.message for record in caplog.records)
