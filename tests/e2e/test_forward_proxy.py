"""Requests in absolute-form on the proxy's port: each goes to its own origin, under its own decision, whatever came before it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from soth_mitm import HandlerDecision, RawRequest
from soth_mitm.proxy import generation
from soth_mitm.proxy.resolver import Resolver
from support.certs import TestCA, self_signed
from support.http2_inside import Http2Client
from support.origin import Origin
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.tap import Journal, Tap
from support.wire_client import Answer, WireClient


@pytest.fixture
def other_tap() -> Iterator[Tap]:
    """Another origin without TLS, with a journal of its own."""
    with Tap(Journal()) as running:
        yield running


def ask(client: WireClient, target: str, *fields: str, method: str = "GET", host: str | None = None, version: str = "1.1") -> Answer:
    """Send a request and read its answer; Host is what the target says unless it is given."""
    if host is None:
        host = target.partition("://")[2].partition("/")[0].partition("?")[0]
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}" if host else "", *fields]
    client.send("".join(f"{line}\r\n" for line in lines if line).encode("latin-1") + b"\r\n")
    return client.read_answer(method)


def seen(tap: Tap, mark: int = 0) -> bytes:
    """Return what an origin has read."""
    tap.settle()
    return tap.journal.plain_since(mark)


class TestOneConnection:
    """Keep-alive, several origins, several policies."""

    def test_each_request_goes_where_it_says(self, proxy: ProxyFactory, plain_tap: Tap, other_tap: Tap, tap: Tap) -> None:
        """Two origins that are intercepted, one by https, one that is not listed, and a handler that blocks one of them."""

        def decide(request: RawRequest) -> HandlerDecision:
            return HandlerDecision.block(403, "not there\n") if request.path == "/blocked" else HandlerDecision.ALLOW

        running = proxy(Recording(decide), destinations=(f"localhost:{plain_tap.port}", f"localhost:{tap.port}"))
        listed, unlisted, secure = (f"localhost:{at.port}" for at in (plain_tap, other_tap, tap))
        with running.client() as client:
            for turn in range(3):
                assert ask(client, f"http://{listed}/{turn}").status == 200
                assert ask(client, f"http://{unlisted}/{turn}").status == 200
                answer = ask(client, f"http://{listed}/blocked")
                assert (answer.status, answer.text, answer.get("connection")) == (403, "not there\n", None)
                assert ask(client, f"https://{secure}/{turn}").status == 200
                assert client.request(f"http://{unlisted}/up", unlisted, "POST", b"hello").status == 200
        for at, authority, extra in ((plain_tap, listed, ""), (other_tap, unlisted, "up"), (tap, secure, "")):
            expected = ""
            for turn in range(3):
                expected += f"GET /{turn} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
                if extra:
                    expected += f"POST /up HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 5\r\n\r\nhello"
            assert seen(at) == expected.encode()
        assert [request.url for request in running.handler.requests] == [
            url for turn in range(3) for url in (f"http://{listed}/{turn}", f"http://{listed}/blocked", f"https://{secure}/{turn}")
        ]
        assert [request.connection_meta.target for request in running.handler.requests[:3]] == [
            ("localhost", plain_tap.port),
            ("localhost", plain_tap.port),
            ("localhost", tap.port),
        ]
        assert running.metrics().total_connections == 1

    def test_what_is_not_listed_is_blocked_and_the_rest_goes_on(self, proxy: ProxyFactory, plain_tap: Tap, other_tap: Tap) -> None:
        running = proxy(destinations=(f"localhost:{plain_tap.port}",), **{"interception.passthrough_unlisted": False})
        with running.client() as client:
            for _ in range(2):
                assert ask(client, f"http://localhost:{plain_tap.port}/").status == 200
                answer = ask(client, f"http://localhost:{other_tap.port}/")
                assert (answer.status, answer.get("connection")) == (403, None)
                assert f"localhost:{other_tap.port}" in answer.text and "interception.passthrough_unlisted" in answer.text
        other_tap.assert_silence(0)
        assert len(running.handler.requests) == 2

    def test_a_blocked_upload_ends_it(self, proxy: ProxyFactory, plain_tap: Tap, other_tap: Tap) -> None:
        """The body of a request that nobody reads is not the next request."""
        running = proxy(destinations=(f"localhost:{plain_tap.port}",), **{"interception.passthrough_unlisted": False})
        smuggled = f"GET http://localhost:{plain_tap.port}/ HTTP/1.1\r\nHost: localhost:{plain_tap.port}\r\n\r\n"
        with running.client() as client:
            answer = client.request(f"http://localhost:{other_tap.port}/", f"localhost:{other_tap.port}", "POST", smuggled.encode())
            assert (answer.status, answer.get("connection")) == (403, "close")
            assert client.read_to_end() == b""
        plain_tap.assert_silence(0)

    def test_pipelined_to_several_origins(self, proxy: ProxyFactory, plain_tap: Tap, other_tap: Tap) -> None:
        for name, at in (("one", plain_tap), ("two", other_tap)):
            body = f"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{name}".encode()
            at.respond = lambda connection, request, body=body: connection.send(body)  # type: ignore[misc]
        running = proxy()
        order = [plain_tap, other_tap, other_tap, plain_tap]
        with running.client() as client:
            client.send(b"".join(b"GET http://localhost:%d/ HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % (at.port, at.port) for at in order))
            assert [client.read_answer().text for _ in order] == ["one", "two", "two", "one"]

    def test_connect_is_for_the_first_request(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        """Who asks for a tunnel later is told, and takes another connection."""
        with proxy().client() as client:
            assert ask(client, f"http://localhost:{plain_tap.port}/").status == 200
            answer = client.connect(f"localhost:{plain_tap.port}")
            assert (answer.status, answer.get("connection")) == (501, "close")
            assert client.read_to_end() == b""

    def test_an_empty_line_before_the_first_request(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        running = proxy()
        with running.client() as client:
            client.send(b"\r\n")
            assert ask(client, f"http://localhost:{plain_tap.port}/").status == 200
        with running.client() as client:
            client.send(b"\r\n")
            assert client.connect(f"localhost:{plain_tap.port}").status == 200
            assert client.request("/", "localhost").status == 200


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "line"),
        [
            ("http://{at}", "GET / HTTP/1.1"),
            ("http://{at}/", "GET / HTTP/1.1"),
            ("http://{at}?q=1", "GET /?q=1 HTTP/1.1"),
            ("http://{at}//a//b/../c?d=http://x/", "GET //a//b/../c?d=http://x/ HTTP/1.1"),
            ("HTTP://{at}/%41", "GET /%41 HTTP/1.1"),
        ],
    )
    def test_the_path_leaves_in_origin_form(self, proxy: ProxyFactory, plain_tap: Tap, target: str, line: str) -> None:
        authority = f"localhost:{plain_tap.port}"
        with proxy().client() as client:
            assert ask(client, target.format(at=authority)).status == 200
        assert seen(plain_tap) == f"{line}\r\nHost: {authority}\r\n\r\n".encode()

    @pytest.mark.parametrize(("target", "path"), [("http://{at}", "*"), ("http://{at}/", "/"), ("http://{at}?a", "/?a")])
    def test_options_of_a_whole_server(self, proxy: ProxyFactory, plain_tap: Tap, target: str, path: str) -> None:
        """RFC 9112 section 3.2.4."""
        running = proxy()
        with running.client() as client:
            assert ask(client, target.format(at=f"localhost:{plain_tap.port}"), method="OPTIONS").status == 200
            answer = ask(client, "*", method="OPTIONS", host=f"localhost:{plain_tap.port}")
            assert answer.status == 400 and "absolute-form" in answer.text
        assert seen(plain_tap).startswith(f"OPTIONS {path} HTTP/1.1\r\n".encode())
        assert running.handler.requests[0].path == path

    @pytest.mark.parametrize("host", ["localhost:1", "example.test", "localhost.:{port}"])
    def test_host_is_replaced_by_the_targets_authority(self, proxy: ProxyFactory, plain_tap: Tap, host: str) -> None:
        """RFC 9112 section 3.2.2: there is one host for the policy, the handler and the upstream."""
        running = proxy(destinations=("*:*",))
        at = f"localhost:{plain_tap.port}"
        with running.client() as client:
            assert ask(client, f"http://{at}/a", host=host.format(port=plain_tap.port)).status == 200
        assert seen(plain_tap).startswith(f"GET /a HTTP/1.1\r\nHost: {at}\r\n".encode())
        (request,) = running.handler.requests
        assert (request.authority, request.headers.get_all("host")) == (at, [at])

    def test_a_request_that_may_not_be_forwarded_is_answered_here(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        """RFC 9110 section 7.6.2; the handler has its say, and what is secret is not said to whoever asks."""
        running = proxy(destinations=("*:*",))
        at = f"http://localhost:{plain_tap.port}/a"
        host = f"localhost:{plain_tap.port}"
        with running.client() as client:
            fields = f"Host: {host}\r\nMax-Forwards: 0\r\nCookie: a=b\r\nAuthorization: x\r\nX: 1\r\n\r\n"
            client.send(f"TRACE {at} HTTP/1.1\r\n{fields}OPTIONS {at} HTTP/1.1\r\n{fields}".encode())
            answer = client.read_answer()
            assert (answer.status, answer.get("content-type")) == (200, "message/http")
            assert answer.text == f"TRACE {at} HTTP/1.1\r\nHost: {host}\r\nMax-Forwards: 0\r\nX: 1\r\n\r\n"
            answer = client.read_answer()
            assert (answer.status, answer.body) == (200, b"")
            client.send(f"TRACE {at} HTTP/1.1\r\nHost: {host}\r\nMax-Forwards: 2\r\n\r\n".encode())
            assert client.read_answer().status == 200
        assert seen(plain_tap) == f"TRACE /a HTTP/1.1\r\nHost: {host}\r\nMax-Forwards: 1\r\n\r\n".encode()
        assert [request.method for request in running.handler.requests] == ["TRACE", "OPTIONS", "TRACE"]

    @pytest.mark.parametrize(
        ("target", "host", "reason"),
        [
            ("http://user:secret@{at}/", "{at}", "the request target carries user information"),
            ("http://{at}/a#b", "{at}", "the request target carries a fragment"),
            ("http://{at}/", "", "Host is missing"),
            ("http:///", "{at}", "the host or port in the request target is not valid"),
            ("http://:{port}/", "{at}", "the host or port in the request target is not valid"),
            ("http://localhost:70000/", "localhost:70000", "the host or port in the request target is not valid"),
            ("http://[::1/", "{at}", "the host or port in the request target is not valid"),
            ("http://127.1:{port}/", "127.1:{port}", "neither a name nor an IPv4 address in four decimal parts"),
            ("http://0x7f000001:{port}/", "0x7f000001:{port}", "neither a name nor an IPv4 address in four decimal parts"),
            ("http://local%68ost:{port}/", "local%68ost:{port}", "a host that is not a name"),
            ("http://b\xfccher.example/", "xn--bcher-kva.example", "a byte that is not visible ASCII"),
            ("ftp://{at}/", "{at}", "no http or https URI"),
            ("*", "{at}", "this form of request target does not go with this method"),
            ("/", "{at}", "send the whole URL in the request line"),
            ("{at}", "{at}", "this form of request target does not go with this method"),
        ],
    )
    def test_what_could_be_read_in_two_ways_is_refused(
        self, proxy: ProxyFactory, plain_tap: Tap, target: str, host: str, reason: str
    ) -> None:
        names = {"at": f"localhost:{plain_tap.port}", "port": plain_tap.port}
        with proxy(destinations=("*:*",)).client() as client:
            answer = ask(client, target.format(**names), host=host.format(**names))
            assert answer.status == 400 and reason in answer.text and "\n" not in answer.text.removesuffix("\n")
            assert "secret" not in answer.text
        plain_tap.assert_silence(0)

    def test_hosts_are_one_whatever_their_spelling(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        """Policy, pool and handler see one host; the origin reads what the client wrote."""
        running = proxy(destinations=(f"LOCALHOST:{plain_tap.port}",), **{"interception.passthrough_unlisted": False})
        spellings = [f"{name}:{plain_tap.port}" for name in ("localhost", "LocalHost", "localhost.")]
        with running.client() as client:
            for spelling in spellings:
                assert ask(client, f"http://{spelling}/").status == 200
        assert {request.authority for request in running.handler.requests} == {f"localhost:{plain_tap.port}"}
        assert seen(plain_tap) == b"".join(f"GET / HTTP/1.1\r\nHost: {spelling}\r\n\r\n".encode() for spelling in spellings)
        assert len(plain_tap.journal.since(0, "accepted")) == 1

    def test_an_ipv6_literal(self, proxy: ProxyFactory, journal: Journal) -> None:
        with Tap(journal, host="::1") as at:
            running = proxy(destinations=("[::1]:*",), **{"interception.passthrough_unlisted": False})
            with running.client() as client:
                assert ask(client, f"http://[::1]:{at.port}/").status == 200
                assert ask(client, f"http://[0:0:0::0:1]:{at.port}/").status == 200
            with running.tunnel(at.port, "[::1]") as client:
                assert client.request("/", "[::1]").status == 200
        assert {request.url for request in running.handler.requests} == {f"http://[::1]:{at.port}/"}
        assert len(at.journal.since(0, "accepted")) == 1

    @pytest.mark.parametrize(
        ("target", "authority"),
        [
            ("http://[2001:db8::1]/", "[2001:db8::1]"),
            ("http://[2001:DB8::1]:80/", "[2001:db8::1]"),
            ("http://Example.TEST:80/", "example.test"),
            ("https://example.test:443/", "example.test"),
            ("https://example.test:80/", "example.test:80"),
            ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ],
    )
    def test_the_default_port_is_not_part_of_the_authority(self, proxy: ProxyFactory, target: str, authority: str) -> None:
        """And the pattern of an international name stands for its A-label."""
        running = proxy(
            Recording(lambda request: HandlerDecision.block(418)),
            destinations=("[2001:db8::1]:*", "example.test:*", "bücher.example:80"),
            **{"interception.passthrough_unlisted": False},
        )
        with running.client() as client:
            assert ask(client, target).status == 418
        (request,) = running.handler.requests
        assert (request.authority, request.url) == (authority, f"{target.partition(':')[0]}://{authority}/")

    @pytest.mark.parametrize(("port", "authority"), [(443, "[2001:db8::1]"), (444, "[2001:db8::1]:444")])
    def test_the_authority_inside_connect(self, proxy: ProxyFactory, port: int, authority: str) -> None:
        """Nothing is there to connect to; the handler is asked all the same."""
        keys = {"upstream.connect_timeout_ms": 50, "upstream.retry_on_failure": False}
        running = proxy(Recording(lambda request: HandlerDecision.block(418)), destinations=("*:*",), **keys)
        with running.tunnel(port, "[2001:db8::1]") as client:
            client.start_tls(running.client_context(), "2001:db8::1")
            assert client.request("/", authority).status == 418
        assert running.handler.requests[0].authority == authority


class TestHttps:
    """`https://` in the request line: we dial TLS, and verify."""

    def test_the_upstream_is_spoken_to_in_tls(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.client() as client:
            for host in ("localhost", "127.0.0.1"):
                assert ask(client, f"https://{host}:{origin.port}/bytes/3").body == b"\0\1\2"
        assert [connection.sni for connection in origin.connections] == ["localhost", None]
        (first, _) = running.handler.requests
        assert (first.scheme, first.url) == ("https", f"https://localhost:{origin.port}/bytes/3")
        assert running.metrics().tls_upstream_handshake_count == 2

    def test_it_shares_the_pool_with_intercepted_connections(self, proxy: ProxyFactory, origin: Origin) -> None:
        """With those of clients that offer the same: an upstream is offered both versions of HTTP here."""
        running = proxy()
        with running.tunnel(origin.port) as client:
            context = running.client_context()
            context.set_alpn_protocols(["h2", "http/1.1"])
            client.start_tls(context)
            assert Http2Client.inside(client, origin.port).request("/bytes/3").status == 200
        with running.client() as client:
            assert ask(client, f"https://localhost:{origin.port}/bytes/3").status == 200
        assert len(origin.connections) == 1

    def test_a_certificate_that_is_not_trusted(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(origin_ca.server_context("localhost", pair=self_signed("localhost")), host="localhost") as stranger:
            with proxy().client() as client:
                answer = ask(client, f"https://localhost:{stranger.port}/")
                assert answer.status == 502 and f"localhost:{stranger.port}" in answer.text
            assert stranger.requests == []

    def test_a_certificate_for_another_name(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(origin_ca.server_context("other.test"), host="localhost") as other:
            with proxy().client() as client:
                assert ask(client, f"https://localhost:{other.port}/").status == 502
            assert other.requests == []

    def test_plain_requests_do_not_get_its_connections(self, proxy: ProxyFactory, origin: Origin) -> None:
        """The same host and port by `http` is another origin, even if nobody there speaks it."""
        with proxy(**{"upstream.timeout_ms": 1000}).client() as client:
            assert ask(client, f"https://localhost:{origin.port}/bytes/3").status == 200
            assert ask(client, f"http://localhost:{origin.port}/bytes/3").status in (502, 504)
        assert len(origin.requests) == 1


class TestFields:
    def test_what_is_for_the_proxy_stays_here(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        running = proxy()
        fields = (
            "pROXY-aUTHORIZATION: Basic c2VjcmV0",
            "Proxy-Authorization:Bearer more",
            "PROXY-CONNECTION: keep-alive",
            "Connection: X-Mine, proxy-authorization, close-not,TE",
            "X-Mine: stays",
            "x-mine: stays too",
            "Te: trailers",
            "Keep-Alive: timeout=5",
            "X-Other: leaves",
        )
        authority = f"localhost:{plain_tap.port}"
        with running.client() as client:
            assert ask(client, f"http://{authority}/", *fields).status == 200
        assert seen(plain_tap) == f"GET / HTTP/1.1\r\nHost: {authority}\r\nX-Other: leaves\r\n\r\n".encode()
        # the handler sees the request as it came
        assert running.handler.requests[0].headers.get_all("proxy-authorization") == ["Basic c2VjcmV0", "Bearer more"]

    def test_inside_connect_too(self, proxy: ProxyFactory, tap: Tap) -> None:
        with proxy().secured(tap.port) as client:
            answer = client.request("/", "localhost", extra="PROXY-authorization: Basic c2VjcmV0\r\nProxy-Connection: close\r\nA: b\r\n")
            assert answer.status == 200
        assert seen(tap) == b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n\r\n"

    @pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding", "Expect", "Content-Type"])
    def test_nobody_takes_away_what_says_what_a_message_is(self, proxy: ProxyFactory, plain_tap: Tap, name: str) -> None:
        authority = f"localhost:{plain_tap.port}"
        framing = ["Transfer-Encoding: chunked"] if name == "Transfer-Encoding" else ["Content-Length: 5"]
        body = b"5\r\nhello\r\n0\r\n\r\n" if name == "Transfer-Encoding" else b"hello"
        lines = [f"POST http://{authority}/ HTTP/1.1", f"Host: {authority}", f"Connection: {name}", "Content-Type: text/plain", *framing]
        with proxy().client() as client:
            client.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)
            assert client.read_answer().status == 200
        head, _, rest = seen(plain_tap).partition(b"\r\n\r\n")
        assert rest == body
        assert head.split(b"\r\n")[1:] == [line.encode() for line in (lines[1], *lines[3:])]

    def test_trailers_flow_though_te_stops_here(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
        plain_tap.respond = lambda connection, request: connection.send(wire)
        running = proxy()
        with running.client() as client:
            answer = ask(client, f"http://localhost:{plain_tap.port}/", "TE: trailers", "Connection: TE")
            assert answer.trailers == [("X-Sum", "1")]
        assert running.handler.wait("on_response")[0].trailers.get("x-sum") == "1"

    def test_a_response_to_the_proxy_stays_here(self, proxy: ProxyFactory, plain_tap: Tap) -> None:
        wire = b"HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n"
        plain_tap.respond = lambda connection, request: connection.send(wire)
        with proxy().client() as client:
            answer = ask(client, f"http://localhost:{plain_tap.port}/")
            assert answer.headers == [("X-End", "1"), ("Content-Length", "0")]


class TestOurselves:
    """A request that would come back to us for ever is answered 508, by whatever name it finds us."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "0.0.0.0"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
    def test_by_absolute_form(self, proxy: ProxyFactory, host: str, scheme: str, listed: bool) -> None:
        running = proxy(destinations=("*:*",) if listed else ("example.test:1",))
        with running.client() as client:
            for _ in range(2):
                answer = ask(client, f"{scheme}://{host}:{running.port}/")
                assert answer.status == 508 and "this proxy itself" in answer.text
        assert running.metrics().total_connections == 1

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "0.0.0.0"])
    @pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
    def test_by_connect(self, proxy: ProxyFactory, host: str, listed: bool) -> None:
        running = proxy(destinations=("*:*",) if listed else ("example.test:1",))
        with running.client() as client:
            answer = client.connect(f"{host}:{running.port}")
            assert answer.status == 508 and "this proxy itself" in answer.text
            assert client.read_to_end() == b""
        assert running.metrics().total_connections == 1

    @pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "[::1]:0"])
    @pytest.mark.parametrize("way", ["http", "https", "connect", "tunnel"])
    def test_by_every_address_that_is_listened_on(self, proxy: ProxyFactory, bind: str, way: str) -> None:
        running: Running = proxy(bind=bind, destinations=("*:*",) if way != "tunnel" else ("example.test:1",))
        hosts = (
            ["[::1]", "[::]"] if bind == "[::1]:0" else ["127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "[::ffff:127.0.0.2]", "[::1]"]
        )
        for number, host in enumerate(hosts):
            with WireClient(running.port, "::1" if "::" in bind else "127.0.0.1") as client:
                target = f"{host}:{running.port}"
                answer = ask(client, f"{way}://{target}/") if way.startswith("http") else client.connect(target)
                assert answer.status == 508 and "this proxy itself" in answer.text, (host, answer)
            assert running.metrics().total_connections == number + 1

    @pytest.mark.parametrize("bind", ["127.0.0.1:0", "0.0.0.0:0"])
    def test_by_a_name_that_a_resolver_knows(self, proxy: ProxyFactory, bind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is told when the name has been looked up, which is not before the client has been told 200."""

        async def look_up(host: str) -> tuple[str, ...]:
            return ("192.0.2.1", "127.0.0.1")

        monkeypatch.setattr(generation, "Resolver", partial(Resolver, look_up=look_up))
        running: Running = proxy(bind=bind, destinations=("*:*",))
        with running.tunnel(running.port, "this-machine.test") as client:
            client.start_tls(running.client_context(), "this-machine.test")
            answer = client.request("/", "this-machine.test")
            assert answer.status == 508 and f"this-machine.test:{running.port} is this proxy itself" in answer.text
        with running.client() as client:
            assert ask(client, f"http://this-machine.test:{running.port}/").status == 508
        assert running.metrics().total_connections == 2
