"""Names in TLS: what the client asks for decides the certificate that it sees and the one that the upstream has to show."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509

from support.certs import TestCA
from support.handshakes import client_hello_bytes
from support.hellos import records
from support.openssl import OpenSsl
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Observing, Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

LONG = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 48, "example.test"])
IDNA = "xn--bcher-kva.example.test"
NAMES = [HOST, "127.0.0.1", "*.example.test", LONG, "_svc.a_b.example.test", "*.xn--bcher-kva.example.test"]


@pytest.fixture
def named(origin_ca: TestCA) -> Iterator[Origin]:
    """An origin at 127.0.0.1 with many names."""
    with Origin(origin_ca.server_context(*NAMES), host="127.0.0.1") as origin:
        yield origin


def leaf_names(client: WireClient) -> list[object]:
    """Return the alternative names of the certificate that the client was shown."""
    der = client.tls.getpeercert(binary_form=True)
    assert der is not None
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.value for name in names]


def secured(running: Running, port: int, target: str, name: str | None) -> WireClient:
    """Return a client that said CONNECT `target` and then asked for `name` (None: for nothing, and it does not look)."""
    context = running.client_context()
    if name is None:
        context.check_hostname = False
    client = running.tunnel(port, target)
    client.start_tls(context, name)
    return client


@pytest.mark.parametrize("name", ["api.example.test", LONG, "_svc.a_b.example.test", IDNA])
def test_leaf_and_verification_follow_the_name_that_was_asked_for(proxy: ProxyFactory, named: Origin, name: str) -> None:
    running = proxy()
    with secured(running, named.port, "127.0.0.1", name) as client:
        assert leaf_names(client)[0] == name
        assert client.request("/bytes/3", HOST).body == pattern(3)
    assert named.connections[0].sni == name
    (request,) = running.handler.requests
    assert request.connection_meta.target == ("127.0.0.1", named.port)
    assert (request.connection_meta.tls_info.sni, request.authority) == (name, f"{HOST}:{named.port}")


def test_the_targets_name_does_not_help_an_upstream_that_lacks_the_one_asked_for(proxy: ProxyFactory, named: Origin) -> None:
    running = proxy()
    with secured(running, named.port, "127.0.0.1", "elsewhere.test") as client:
        answer = client.request("/x", HOST)
        assert answer.status == 502 and "not valid for 'elsewhere.test'" in answer.text and "elsewhere.test at 127.0.0.1" in answer.text
    assert named.requests == []


def test_other_names_of_the_upstream_are_mirrored(proxy: ProxyFactory, named: Origin) -> None:
    with secured(proxy(Observing()), named.port, "127.0.0.1", "api.example.test") as client:
        expected = ["api.example.test", *NAMES]
        expected[expected.index("127.0.0.1")] = ipaddress.ip_address("127.0.0.1")
        assert leaf_names(client) == expected


@pytest.mark.parametrize(("target", "name"), [("localhost", "localhost"), ("LOCALHOST", "localhost"), ("localhost.", "localhost")])
def test_without_a_name_it_is_the_targets(proxy: ProxyFactory, named: Origin, target: str, name: str) -> None:
    with secured(proxy(), named.port, target, None) as client:
        assert leaf_names(client)[0] == name
        assert client.request("/bytes/3", HOST).body == pattern(3)
    assert named.connections[-1].sni == name


@pytest.mark.parametrize("spelling", ["::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:ffff:127.0.0.1"])
def test_an_ipv4_mapped_address_is_certified_as_the_client_compares_it(proxy: ProxyFactory, named: Origin, spelling: str) -> None:
    """For the policy, the pool and the upstream it is the IPv4 address that it maps."""
    running = proxy(destinations=("127.0.0.1:*",))
    with running.tunnel(named.port, f"[{spelling}]") as client:
        # verifies the address as well
        client.start_tls(running.client_context(), spelling)
        assert leaf_names(client)[:2] == [ipaddress.ip_address(spelling), ipaddress.ip_address("127.0.0.1")]
        assert client.request("/bytes/3", HOST).body == pattern(3)
    with secured(running, named.port, "127.0.0.1", "127.0.0.1") as client:
        assert leaf_names(client)[0] == ipaddress.ip_address("127.0.0.1")
        assert ipaddress.ip_address(spelling) not in leaf_names(client)
    assert [request.connection_meta.target[0] for request in running.handler.requests] == ["127.0.0.1"]


def element(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content


OURS = element(0x82, HOST.encode())
URI = element(0x86, b"http://\xe9/x")
SAN, AIA, CRL = "2.5.29.17", "1.3.6.1.5.5.7.1.1", "2.5.29.31"


@pytest.mark.parametrize(
    ("oid", "content"),
    [
        (SAN, element(0x30, OURS + element(0x82, b"m\xfcnchen.example"))),
        (SAN, element(0x30, OURS + element(0x81, b"j\xfcrgen@example.com"))),
        (SAN, element(0x30, OURS + URI)),
        (AIA, element(0x30, element(0x30, element(6, bytes.fromhex("2b06010505073001")) + URI))),
        (CRL, element(0x30, element(0x30, element(0xA0, element(0xA0, URI))))),
    ],
    ids=["DNS name", "e-mail address", "URI", "AIA", "CRL distribution point"],
)
def test_a_certificate_with_a_name_that_is_not_utf8(proxy: ProxyFactory, origin_ca: TestCA, oid: str, content: bytes) -> None:
    """It is valid for the name asked for, and that is what counts."""
    context = origin_ca.server_context(pair=origin_ca.issue(HOST, raw=[(oid, content)]))
    running = proxy()
    with Origin(context, host=HOST) as odd, running.secured(odd.port) as client:
        assert client.request("/bytes/3", HOST).body == pattern(3)
        assert leaf_names(client) == [HOST]
    (response,) = running.handler.wait("on_response")
    assert response.connection_meta.tls_info.upstream_certificate_sha256 is not None


def test_an_address_is_an_address(proxy: ProxyFactory, named: Origin) -> None:
    running = proxy()
    with secured(running, named.port, "127.0.0.1", "127.0.0.1") as client:
        assert leaf_names(client)[0] == ipaddress.ip_address("127.0.0.1")
        assert client.request("/bytes/3", HOST).body == pattern(3)
    assert named.connections[0].sni is None and running.handler.requests[0].connection_meta.tls_info.sni is None


def test_an_ipv6_address(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    running = proxy(destinations=("[::1]:*",))
    with Origin(origin_ca.server_context("::1"), host="::1") as origin, running.client() as client:
        assert client.connect(f"[::1]:{origin.port}").status == 200
        client.start_tls(running.client_context(), "::1")
        assert leaf_names(client)[0] == ipaddress.ip_address("::1")
        assert client.request("/bytes/3", f"[::1]:{origin.port}").body == pattern(3)
        assert running.handler.requests[0].connection_meta.target == ("::1", origin.port)


def test_an_address_where_a_name_belongs(proxy: ProxyFactory, named: Origin) -> None:
    """RFC 6066 forbids it; clients do it all the same."""
    running = proxy()
    with OpenSsl.client(running.port, named.port, running.ca_path, "-servername", "127.0.0.1", "-verify_ip", "127.0.0.1") as client:
        client.say(b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.expect(b"HTTP/1.1 200 OK", b"\r\n\r\n" + pattern(3))
    assert named.connections[0].sni is None
    assert running.handler.requests[0].connection_meta.tls_info.sni == "127.0.0.1"


def test_spellings_of_a_name(proxy: ProxyFactory, named: Origin) -> None:
    running = proxy()
    for spelling in ("API.Example.TEST", "api.example.test."):
        with OpenSsl.client(running.port, named.port, running.ca_path, "-servername", spelling) as client:
            client.say(b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.expect(b"HTTP/1.1 200 OK")
    assert {connection.sni for connection in named.connections} == {"api.example.test"}
    assert {request.connection_meta.tls_info.sni for request in running.handler.requests} == {"api.example.test"}
    assert running.metrics().leaf_minted_count == 1


class TestPolicy:
    """A connection is allowed what both its target and the name that it asks for are allowed."""

    @staticmethod
    def strict(proxy: ProxyFactory, *destinations: str) -> Running:
        return proxy(destinations=destinations, **{"interception.passthrough_unlisted": False})

    def test_a_blocked_name_behind_an_allowed_target(self, proxy: ProxyFactory, named: Origin) -> None:
        running = self.strict(proxy, "127.0.0.1:*")
        with secured(running, named.port, "127.0.0.1", "api.example.test") as client:
            for _ in range(2):
                answer = client.request("/x", HOST)
                assert answer.status == 403 and answer.text.startswith(f"destination_not_allowed: api.example.test:{named.port} is not")
                assert "the TLS handshake asks for that name" in answer.text
        running.wait_idle()
        assert named.connections == [] and running.handler.requests == [] and running.handler.of("on_tls_failure") == []

    @pytest.mark.parametrize("name", ["api.example.test", IDNA])
    def test_an_allowed_name_behind_an_allowed_target(self, proxy: ProxyFactory, named: Origin, name: str) -> None:
        running = self.strict(proxy, "127.0.0.1:*", "api.example.test:*", "bücher.example.test:*")
        with secured(running, named.port, "127.0.0.1", name) as client:
            assert client.request("/bytes/3", name).body == pattern(3)

    def test_an_allowed_name_for_another_port(self, proxy: ProxyFactory, named: Origin) -> None:
        running = self.strict(proxy, "127.0.0.1:*", "api.example.test:1")
        with secured(running, named.port, "127.0.0.1", "api.example.test") as client:
            assert client.request("/x", HOST).status == 403

    def test_a_blocked_target_with_an_allowed_name(self, proxy: ProxyFactory, named: Origin) -> None:
        running = self.strict(proxy, "api.example.test:*")
        with running.client() as client:
            assert client.connect(f"127.0.0.1:{named.port}").status == 403

    def test_an_unlisted_name_is_intercepted_where_unlisted_ones_are_tunnelled(self, proxy: ProxyFactory, named: Origin) -> None:
        running = proxy(destinations=("127.0.0.1:*",))
        with secured(running, named.port, "127.0.0.1", "api.example.test") as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
        assert len(running.handler.requests) == 1


class TestTunnels:
    """The target is 127.0.0.1, tunnelled because it is not listed, or because the handler says so."""

    LISTED = "api.example.test"

    def running(self, proxy: ProxyFactory, **keys: object) -> Running:
        return proxy(destinations=(f"{self.LISTED}:*", "www.example.test:1"), **keys)

    def goes_through(self, running: Running, named: Origin, origin_ca: TestCA, name: str | None) -> None:
        context = origin_ca.client_context()
        if name is None:
            context.check_hostname = False
        with running.tunnel(named.port, "127.0.0.1") as client:
            client.start_tls(context, name)
            assert client.request("/bytes/3", HOST).body == pattern(3)
        assert running.handler.requests == []
        assert (running.metrics().refused_name_count, running.metrics().tunnel_count) == (0, 1)

    def is_refused(self, running: Running, named: Origin, name: str) -> None:
        with running.tunnel(named.port, "127.0.0.1") as client, pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            client.start_tls(running.client_context(), name)
        ((host, error),) = running.handler.wait("on_tls_failure")
        assert (host, error.side, error.reason) == ("127.0.0.1", "client", "handshake")
        assert f"asks for {name}" in error.detail and "interception.check_names" in error.detail
        running.handler.wait("on_connection_close")
        metrics = running.metrics()
        assert (metrics.refused_name_count, metrics.tunnel_count, metrics.bytes_to_upstreams) == (1, 0, 0)
        assert [connection.sni for connection in named.connections] in ([], [None])

    @pytest.mark.parametrize("name", [None, "127.0.0.1", "other.example.test", "www.example.test"])
    def test_names_that_are_tunnelled_as_well(self, proxy: ProxyFactory, named: Origin, origin_ca: TestCA, name: str | None) -> None:
        self.goes_through(self.running(proxy), named, origin_ca, name)

    @pytest.mark.parametrize("name", [LISTED, "API.example.test"])
    def test_a_listed_name(self, proxy: ProxyFactory, named: Origin, name: str) -> None:
        self.is_refused(self.running(proxy), named, name.lower())

    def test_a_listed_name_when_names_are_not_checked(self, proxy: ProxyFactory, named: Origin, origin_ca: TestCA) -> None:
        running = self.running(proxy, **{"interception.check_names": "off"})
        self.goes_through(running, named, origin_ca, self.LISTED)

    @pytest.mark.parametrize("names", ["strict", "off"])
    def test_a_name_that_is_blocked_in_any_case(self, proxy: ProxyFactory, named: Origin, names: str) -> None:
        running = self.running(proxy, **{"interception.check_names": names, "interception.blocked": ["other.example.test:*"]})
        self.is_refused(running, named, "other.example.test")

    def handler_tunnels(self, proxy: ProxyFactory, *destinations: str) -> Running:
        keys = {"interception.passthrough_unlisted": False}
        return proxy(Recording(intercept=lambda _: False), destinations=("127.0.0.1:*", *destinations), **keys)

    @pytest.mark.parametrize("name", [None, "127.0.0.1"])
    def test_the_target_where_the_handler_tunnels_it(self, proxy: ProxyFactory, named: Origin, origin_ca: TestCA, name: str | None) -> None:
        self.goes_through(self.handler_tunnels(proxy), named, origin_ca, name)

    def test_a_blocked_name_where_the_handler_tunnels(self, proxy: ProxyFactory, named: Origin) -> None:
        self.is_refused(self.handler_tunnels(proxy), named, "other.example.test")

    def test_another_listed_name_where_the_handler_tunnels(self, proxy: ProxyFactory, named: Origin) -> None:
        self.is_refused(self.handler_tunnels(proxy, "api.example.test:*"), named, self.LISTED)

    @pytest.mark.parametrize(
        "disguise",
        [
            lambda hello: b"\x15\x03\x01\x00\x02\x01\x5a" + hello,
            lambda hello: b"\x16\x02\x01" + hello[3:],
            lambda hello: b"\x16\x03\x01\x00\x00" + hello,
            lambda hello: records(hello[5:], 1),
        ],
        ids=["a warning before", "version 2.1", "an empty record before", "512 records"],
    )
    def test_in_disguise(self, proxy: ProxyFactory, named: Origin, disguise: Callable[[bytes], bytes]) -> None:
        running = self.running(proxy)
        with running.tunnel(named.port, "127.0.0.1") as client:
            client.send(disguise(client_hello_bytes(running.client_context(), self.LISTED)))
            assert client.read_to_end() == b"\x15\x03\x01\x00\x02\x02\x70"
        assert running.metrics().refused_name_count == 1

    def test_in_single_bytes(self, proxy: ProxyFactory, named: Origin) -> None:
        running = self.running(proxy)
        with running.tunnel(named.port, "127.0.0.1") as client:
            hello = client_hello_bytes(running.client_context(), self.LISTED)
            for at in range(len(hello)):
                client.send(hello[at : at + 1])
            assert client.read_to_end() == b"\x15\x03\x01\x00\x02\x02\x70"
        assert running.metrics().bytes_to_upstreams == 0

    def test_a_server_that_speaks_first_is_heard_before(self, proxy: ProxyFactory, plain_origin: Origin, origin_ca: TestCA) -> None:
        def greet(connection: ScriptedConnection) -> None:
            connection.send(b"220 ready\r\n")
            connection.send(b"heard " + b"".join(iter(connection.receive, b"")))
            connection.close()

        plain_origin.script_connections(greet)
        running = self.running(proxy)
        with running.tunnel(plain_origin.port) as client:
            assert client.read_exactly(11) == b"220 ready\r\n"
            client.send(client_hello_bytes(running.client_context(), self.LISTED))
            assert client.read_to_end() == b"\x15\x03\x01\x00\x02\x02\x70"
        with running.tunnel(plain_origin.port) as client:
            assert client.read_exactly(11) == b"220 ready\r\n"
            client.send(b"EHLO me\r\n")
            client.end_writing()
            assert client.read_to_end() == b"heard EHLO me\r\n"
        with running.tunnel(plain_origin.port) as client:
            client.end_writing()
            assert client.read_to_end() == b"220 ready\r\nheard "

    def test_a_hello_that_does_not_end(self, proxy: ProxyFactory, named: Origin) -> None:
        running = self.running(proxy, **{"timeouts.client_tls_handshake_ms": 200})
        with running.tunnel(named.port, "127.0.0.1") as client:
            client.send(client_hello_bytes(running.client_context(), self.LISTED)[:-1])
            assert client.read_to_end() == b""
        ((_, error),) = running.handler.wait("on_tls_failure")
        assert error.reason == "timeout" and running.metrics().bytes_to_upstreams == 0
