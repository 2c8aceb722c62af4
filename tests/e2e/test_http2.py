"""HTTP/2 on either side of the proxy: which protocol is chosen when, what a client is refused, and how connections end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soth_mitm import ConnectDecision, HandlerDecision, InterceptHandler, MitmConfig, ShutdownTimeoutError
from soth_mitm.proxy import upstream_pools
from support.certs import TestCA
from support.http2_inside import Http2Answer, Http2Client, http2_client
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Observing, Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

BOTH = ["h2", "http/1.1"]
H2_ONLY = ["h2"]
MISDIRECTED = 421
REFUSED_STREAM = 7
HTTP_1_1_REQUIRED = 13


@contextlib.contextmanager
def serving(origin_ca: TestCA, *alpn: str, **how: Any) -> Iterator[Origin]:
    """An origin that chooses from `alpn`; without any it is HTTP/1 that does not negotiate."""
    context = origin_ca.server_context(HOST, "127.0.0.1", alpn=alpn)
    with Origin(context, host=HOST, **how) as origin:
        yield origin


@pytest.fixture
def h2_origin(origin_ca: TestCA) -> Iterator[Origin]:
    """An HTTPS origin that speaks HTTP/2 where it is offered."""
    with serving(origin_ca, *BOTH) as origin:
        yield origin


def shaken(running: Running, port: int, alpn: list[str]) -> tuple[WireClient, str | None]:
    """Return a client that has done its handshake, and what ALPN chose."""
    client = running.tunnel(port)
    context = running.client_context()
    context.set_alpn_protocols(alpn)
    client.start_tls(context)
    return client, client.tls.selected_alpn_protocol()


def offered(origin: Origin) -> str | None:
    """What the origin chose on its newest connection."""
    tls = origin.connections[-1].tls
    assert tls is not None
    return tls.selected_alpn_protocol()


class TestWhoSpeaksWhat:
    """The upstream is offered what its client offers; the client is offered what the upstream chose."""

    @pytest.mark.rule(47)
    @pytest.mark.parametrize("upstream", [BOTH, ["http/1.1", "h2"], H2_ONLY, ["http/1.1"], []], ids=",".join)
    @pytest.mark.parametrize("client", [BOTH, ["http/1.1"], []], ids=",".join)
    def test_an_upstream_that_may_be_reached_ahead(
        self, proxy: ProxyFactory, origin_ca: TestCA, client: list[str], upstream: list[str]
    ) -> None:
        running = proxy(Observing())
        both_speak_h2 = "h2" in client and upstream and "h2" in upstream and upstream[0] == "h2"
        with serving(origin_ca, *upstream) as origin:
            connection, chosen = shaken(running, origin.port, client)
            with connection:
                assert (chosen == "h2") == bool(both_speak_h2)
                if both_speak_h2:
                    answer: Any = Http2Client.inside(connection, origin.port).request("/bytes/70000")
                else:
                    answer = connection.request("/bytes/70000", f"{HOST}:{origin.port}")
                assert (answer.status, answer.body) == (200, pattern(70_000))
            (response,) = running.handler.wait("on_response")
            info = response.connection_meta.tls_info
            assert (info.negotiated_proto, info.upstream_proto) == (chosen, offered(origin))
            assert response.request.http_version == ("HTTP/2" if both_speak_h2 else "HTTP/1.1")
            assert origin.requests[0].version == ("HTTP/2" if both_speak_h2 else "HTTP/1.1")
            assert len(origin.connections) == 1

    @pytest.mark.rule(26, 47)
    def test_the_first_client_of_an_upstream_that_is_not_known_speaks_what_it_would_rather(
        self, proxy: ProxyFactory, origin_ca: TestCA
    ) -> None:
        """Nothing may be dialled before on_request has allowed a request; then its requests are translated."""
        running = proxy()
        with serving(origin_ca, "http/1.1") as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                assert origin.connections == []
                answer = client.request("/chunked/70000/7?trailers")
                assert (answer.status, answer.body) == (200, pattern(70_000))
                assert answer.trailers is not None and answer.trailers[0][0] == "x-sha256"
                body = pattern(100_000)
                assert client.request("/x", method="POST", body=body).status == 200
            assert [request.version for request in origin.requests] == ["HTTP/1.1"] * 2
            assert bytes(origin.requests[1].body) == body
            # the next one is offered what the upstream speaks
            running.wait_idle()
            connection, chosen = shaken(running, origin.port, BOTH)
            with connection:
                assert chosen == "http/1.1"

    def test_the_first_client_of_an_upstream_that_speaks_http2(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        for _ in range(2):
            connection, client = http2_client(running, h2_origin.port)
            with connection:
                assert client.request("/bytes/70000").body == pattern(70_000)
        assert {request.version for request in h2_origin.requests} == {"HTTP/2"} and len(h2_origin.connections) == 1

    @pytest.mark.parametrize("upstream", [BOTH, ["http/1.1"]], ids=",".join)
    def test_many_requests_at_once_for_an_upstream_that_is_not_known(
        self, proxy: ProxyFactory, origin_ca: TestCA, upstream: list[str]
    ) -> None:
        """The first connection says what it speaks; they share it if that is HTTP/2."""
        running = proxy()
        with serving(origin_ca, *upstream) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                numbers = [client.open(f"/bytes/{count}") for count in range(30)]
                assert [client.answer(number).body for number in numbers] == [pattern(count) for count in range(30)]
            assert len(origin.connections) <= (2 if "h2" in upstream else 30)

    @pytest.mark.parametrize("handler", [Observing, Recording])
    def test_many_clients_at_once_of_an_upstream_that_is_not_known(
        self, proxy: ProxyFactory, h2_origin: Origin, handler: Callable[[], Any]
    ) -> None:
        running = proxy(handler())
        failures: list[BaseException] = []

        def fetch() -> None:
            try:
                connection, client = http2_client(running, h2_origin.port)
                with connection:
                    assert client.request("/bytes/9").body == pattern(9)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=fetch) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert len(h2_origin.connections) <= 2

    @pytest.mark.rule(47)
    def test_a_client_of_http1_is_given_http1(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        with running.secured(h2_origin.port) as client:
            assert client.request("/bytes/9", f"{HOST}:{h2_origin.port}").body == pattern(9)
        assert offered(h2_origin) == "http/1.1"

    def test_unless_a_key_says_otherwise(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(**{"http2.for_http1_clients": True})
        with running.secured(h2_origin.port) as client:
            for _ in range(2):
                assert client.request("/bytes/9", f"{HOST}:{h2_origin.port}").body == pattern(9)
        assert offered(h2_origin) == "h2"
        # and a client of HTTP/2 shares the connection
        connection, client2 = http2_client(running, h2_origin.port)
        with connection:
            assert client2.request("/bytes/9").body == pattern(9)
        assert len(h2_origin.connections) == 1

    def test_a_url_with_https_is_fetched_over_http2(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        with running.client() as client:
            answer = client.request(h2_origin.url("/bytes/9"), f"{HOST}:{h2_origin.port}")
            assert (answer.version, answer.body) == ("HTTP/1.1", pattern(9))
        assert h2_origin.requests[0].version == "HTTP/2"

    def test_without_http2(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(Observing(), http2_enabled=False)
        connection, chosen = shaken(running, h2_origin.port, BOTH)
        with connection:
            assert chosen == "http/1.1"
            assert connection.request("/bytes/9", f"{HOST}:{h2_origin.port}").status == 200
        assert offered(h2_origin) == "http/1.1"

    def test_an_upstream_that_is_plain_by_the_configuration(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Observing(), **{"upstream.connect_to": [f"{HOST}:*=http://127.0.0.1:{plain_origin.port}"]})
        connection, chosen = shaken(running, plain_origin.port, BOTH)
        with connection:
            assert chosen == "http/1.1"
            assert connection.request("/bytes/9", f"{HOST}:{plain_origin.port}").body == pattern(9)

    def test_a_plain_upstream_of_a_client_that_speaks_nothing_but_http2(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """As gRPC without TLS behind `upstream.connect_to`."""
        plain_origin.prior_knowledge = True
        running = proxy(Observing(), **{"upstream.connect_to": [f"{HOST}:*=http://{HOST}:{plain_origin.port}"]})
        connection, client = http2_client(running, plain_origin.port, alpn=H2_ONLY)
        with connection:
            assert client.request("/bytes/9").body == pattern(9)
        assert plain_origin.requests[0].version == "HTTP/2"


class TestNoAgreement:
    """A client that gets no protocol of its own leaves; that says nothing about our certificate."""

    LEARNS = {"tls.learn_bypass": True, "tls.bypass_after_failures": 2}

    def test_it_is_no_refusal_of_the_certificate(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Observing(), **self.LEARNS)
        with serving(origin_ca, "http/1.1") as origin:
            for _ in range(3):
                # an origin that is strict about it refuses the handshake: the client is told so in its own protocol
                connection, chosen = shaken(running, origin.port, H2_ONLY)
                connection.close()
                running.wait_idle()
                assert chosen is None
        assert running.metrics().tls_client_refusal_count == running.metrics().tls_bypasses == 0
        assert running.handler.of("on_tls_failure") == []

    def test_leaving_in_the_middle_of_the_handshake_is_none_either(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Observing(), **self.LEARNS)
        with serving(origin_ca, "http/1.1") as origin:
            with running.secured(origin.port) as client:
                client.request("/x", HOST)
            for count in range(3):
                context = running.client_context()
                context.set_alpn_protocols(H2_ONLY)
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                engine = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
                with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLWantReadError):
                    try:
                        engine.do_handshake()
                    finally:
                        client.send(outgoing.read())
                        client.read_exactly(700)
                running.handler.wait("on_tls_failure", count + 1)
        assert not any(error.certificate_refused for _, error in running.handler.of("on_tls_failure"))
        assert running.metrics().tls_client_refusal_count == running.metrics().tls_bypasses == 0


class TestMemory:
    def test_what_turns_out_wrong_costs_a_translation_and_is_replaced(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Observing(), **{"connection_pool.max_idle_per_host": 0})
        with serving(origin_ca, *BOTH) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                assert client.request("/bytes/9").body == pattern(9)
                port = origin.port
                origin.close()
                with serving(origin_ca, "http/1.1", port=port) as older:
                    answer = client.request("/bytes/9")
                    assert (answer.status, answer.body) == (200, pattern(9))
                    assert older.requests[0].version == "HTTP/1.1"
                    connection2, chosen = shaken(running, port, BOTH)
                    with connection2:
                        assert chosen == "http/1.1"

    def test_the_other_way_round(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Observing(), **{"connection_pool.max_idle_per_host": 0})
        with serving(origin_ca, "http/1.1") as origin:
            connection, chosen = shaken(running, origin.port, BOTH)
            with connection:
                assert chosen == "http/1.1"
                port = origin.port
                connection.request("/bytes/9", f"{HOST}:{port}")
                origin.close()
                with serving(origin_ca, *BOTH, port=port) as newer:
                    assert connection.request("/bytes/9", f"{HOST}:{port}").body == pattern(9)
                    assert newer.requests[0].version == "HTTP/2"
                    connection2, client = http2_client(running, port)
                    with connection2:
                        assert client.request("/bytes/9").body == pattern(9)

    def test_the_offer_is_part_of_it(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        """What a client of HTTP/1 has learnt is not what a client of HTTP/2 is told."""
        running = proxy(Observing())
        with running.secured(h2_origin.port) as client:
            client.request("/bytes/9", f"{HOST}:{h2_origin.port}")
        connection, http2 = http2_client(running, h2_origin.port)
        with connection:
            assert http2.request("/bytes/9").status == 200

    def test_it_is_forgotten_after_a_while(self, proxy: ProxyFactory, h2_origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upstream_pools, "INFO_SECONDS", 0.0)
        running = proxy(Observing(), **{"connection_pool.max_idle_per_host": 0})
        for count in (1, 2):
            connection, client = http2_client(running, h2_origin.port)
            connection.close()
            running.wait_idle()
            assert len(h2_origin.connections) == count


class TestSuites:
    """RFC 9113 section 9.2.2: TLS 1.2 suites that HTTP/2 forbids are not combined with it."""

    @staticmethod
    def weak(origin_ca: TestCA) -> ssl.SSLContext:
        context = origin_ca.server_context(HOST, alpn=BOTH)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        return context

    @pytest.mark.rule(62)
    def test_such_an_upstream_is_spoken_to_in_http1(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Observing())
        with Origin(self.weak(origin_ca), host=HOST) as origin:
            connection, chosen = shaken(running, origin.port, BOTH)
            with connection:
                assert chosen == "http/1.1"
                assert connection.request("/bytes/9", f"{HOST}:{origin.port}").body == pattern(9)
            assert [request.version for request in origin.requests] == ["HTTP/1.1"]

    @pytest.mark.rule(62)
    def test_also_where_it_is_reached_after_the_client(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy()
        with Origin(self.weak(origin_ca), host=HOST) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                assert client.request("/bytes/9").body == pattern(9)
            assert [request.version for request in origin.requests] == ["HTTP/1.1"]

    def test_a_client_with_tls_1_2(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(Observing())
        client = running.tunnel(h2_origin.port)
        context = running.client_context()
        context.set_alpn_protocols(BOTH)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with client:
            client.start_tls(context)
            assert client.tls.selected_alpn_protocol() == "h2"
            assert Http2Client.inside(client, h2_origin.port).request("/bytes/9").body == pattern(9)


class TestUpstreamsThatFail:
    """The client is offered its own list, so that it can read why."""

    @pytest.mark.parametrize("handler", [Observing, Recording])
    def test_it_reads_the_502_in_its_own_protocol(self, proxy: ProxyFactory, origin_ca: TestCA, handler: Callable[[], Any]) -> None:
        running = proxy(handler())
        with Origin(origin_ca.server_context(pair=origin_ca.issue_expired(HOST)), host=HOST) as origin:
            connection, client = http2_client(running, origin.port)
            with connection:
                answer = client.request("/x")
                assert answer.status == 502 and "expired" in answer.text

    def test_no_settings_in_time(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(Observing(), **{"http2.settings_timeout_ms": 100})
        h2_origin.script_connections(lambda connection: list(iter(connection.receive, b"")))
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            answer = client.request("/x")
            assert answer.status == 504 and "http2.settings_timeout_ms" in answer.text

    def test_an_upstream_that_leaves_before_its_settings(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(Observing())
        h2_origin.script_connections(lambda connection: connection.close())
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/x").status == 502
        assert running.metrics().upstream_connect_error_count >= 1


class TestForeignNames:
    """A browser sends requests for other names over a connection whose certificate is good for them."""

    @pytest.mark.rule(60)
    def test_it_is_told_to_open_another(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            for authority in ("other.example", f"{HOST}:1", f"127.0.0.1:{h2_origin.port}"):
                answer = client.request("/x", authority=authority)
                assert answer.status == MISDIRECTED and "http2.misdirected" in answer.text
            # in whatever spelling, its own name is served
            for authority in (f"{HOST}:{h2_origin.port}", f"LOCALHOST:{h2_origin.port}"):
                assert client.request("/bytes/9", authority=authority).status == 200
        assert len(h2_origin.requests) == 2
        assert running.metrics().refused_name_count == running.metrics().http2_misdirected == 3

    def test_or_the_policy_decides(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        keys = {"interception.blocked": ["blocked.example:*"], "interception.passthrough_unlisted": False}
        running = proxy(**{"http2.misdirected": "allow", **keys})
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/bytes/9", authority=f"127.0.0.1:{h2_origin.port}").status == 200
            assert client.request("/x", authority="blocked.example").status == MISDIRECTED
            assert client.request("/x", authority="unlisted.example").status == MISDIRECTED
        assert len(h2_origin.requests) == 1

    def test_http1_is_judged_as_before(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        with running.secured(h2_origin.port) as client:
            assert client.request("/bytes/9", f"127.0.0.1:{h2_origin.port}").status == 200


class TestPlainText:
    """The preface inside a CONNECT, as gRPC without TLS sends it."""

    @staticmethod
    def client(running: Running, port: int) -> tuple[WireClient, Http2Client]:
        connection = running.tunnel(port)
        return connection, Http2Client.inside(connection, port, scheme="http")

    def test_it_is_intercepted_on_both_sides(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        plain_origin.prior_knowledge = True
        running = proxy()
        connection, client = self.client(running, plain_origin.port)
        with connection:
            assert client.request("/bytes/70000").body == pattern(70_000)
        (request,) = running.handler.requests
        assert (request.http_version, request.scheme, request.path) == ("HTTP/2", "http", "/bytes/70000")
        assert [request.version for request in plain_origin.requests] == ["HTTP/2"]

    def test_a_block_is_a_block(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(Recording(lambda request: HandlerDecision.block(451, b"no")))
        connection, client = self.client(running, plain_origin.port)
        with connection:
            answer = client.request("/x")
            assert (answer.status, answer.body) == (451, b"no")
        assert plain_origin.connections == []

    def test_other_names_are_refused(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        connection, client = self.client(proxy(), plain_origin.port)
        with connection:
            assert client.request("/x", authority="other.example").status == MISDIRECTED
        assert plain_origin.connections == []

    @pytest.mark.parametrize("cut", [1, 5, 14, 18, 23])
    def test_a_preface_in_pieces(self, proxy: ProxyFactory, plain_origin: Origin, cut: int) -> None:
        plain_origin.prior_knowledge = True
        running = proxy()
        ours, theirs = socket.socketpair()
        with running.tunnel(plain_origin.port) as connection, ours, theirs:
            whole = Http2Client(ours, f"{HOST}:{plain_origin.port}", "http")
            opening = theirs.recv(1 << 16)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(opening[:cut])
            threading.Event().wait(0.05)
            connection.send(opening[cut:])
            whole.socket = connection.socket
            assert whole.request("/bytes/9").body == pattern(9)

    def test_without_http2_it_is_refused(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        with proxy(http2_enabled=False).tunnel(plain_origin.port) as client:
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert client.read_answer().status == 400
        assert plain_origin.connections == []


class TestRefusals:
    def test_a_blocked_target_is_explained_in_http2(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(**{"interception.explain_blocks": True, "interception.blocked": [f"{HOST}:*"]})
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            for _ in range(2):
                answer = client.request("/x")
                assert answer.status == 403 and "interception.blocked" in answer.text
        assert h2_origin.connections == []

    def test_so_is_one_in_plain_text(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{"interception.explain_blocks": True, "interception.blocked": [f"{HOST}:*"]})
        with running.tunnel(plain_origin.port) as connection:
            assert Http2Client.inside(connection, plain_origin.port, scheme="http").request("/x").status == 403

    def test_a_name_that_on_connect_blocks(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        class Guard(Recording):
            def on_connect(self, target: Any) -> ConnectDecision | None:
                return ConnectDecision.block("not this one") if target.host == "127.0.0.1" else None

        running = proxy(Guard(), **{"http2.misdirected": "allow"})
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            answers = [client.open("/bytes/9", authority=authority) for authority in (f"127.0.0.1:{h2_origin.port}", None)] * 2
            assert [client.answer(number).status for number in answers] == [403, 200] * 2
        assert len(h2_origin.requests) == 1


class TestStreamsThatAreRefused:
    @pytest.mark.parametrize("secured", [True, False])
    def test_a_scheme_that_is_not_the_connections(
        self, proxy: ProxyFactory, h2_origin: Origin, plain_origin: Origin, secured: bool
    ) -> None:
        running = proxy()
        if secured:
            connection, client = http2_client(running, h2_origin.port)
            client.scheme = "http"
        else:
            connection, client = TestPlainText.client(running, plain_origin.port)
            client.scheme = "https"
        with connection:
            answer = client.request("/bytes/9")
            assert answer.status == MISDIRECTED and "scheme" in answer.text
        assert h2_origin.requests == [] and plain_origin.connections == [] and running.handler.requests == []

    def test_a_connect(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            number = client.h2.get_next_available_stream_id()
            client.streams[number] = Http2Answer()
            client.h2.send_headers(number, [(":method", "CONNECT"), (":authority", client.authority)])
            client.flush()
            assert client.head(number).status == 501
            assert client.request("/bytes/9").status == 200
        assert [request.method for request in h2_origin.requests] == ["GET"]

    @pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
    def test_a_login_that_belongs_to_a_connection(self, proxy: ProxyFactory, origin_ca: TestCA, scheme: str) -> None:
        def challenge(connection: Any, request: Any) -> None:
            connection.send(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: %b\r\nContent-Length: 0\r\n\r\n" % scheme.encode())

        with serving(origin_ca, "http/1.1") as origin:
            origin.script(challenge, "/secret")
            running = proxy()
            connection, client = http2_client(running, origin.port)
            with connection:
                answer = client.request("/secret")
                assert answer.reset == HTTP_1_1_REQUIRED and not answer.headers
                assert client.request("/bytes/9").status == 200

    def test_a_slot_is_taken_until_its_hook_has_returned(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        going, started = threading.Event(), threading.Semaphore(0)

        async def held(request: Any) -> HandlerDecision:
            if request.path == "/held":
                started.release()
                # a cancelled hook ends when it wants to
                while not going.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.to_thread(going.wait, 20)
            return HandlerDecision.ALLOW

        running = proxy(Recording(held), http2_max_concurrent_streams=2)
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            for _ in range(2):
                number = client.open("/held")
                assert started.acquire(timeout=10)
                client.h2.reset_stream(number, 8)
                client.flush()
            assert client.request("/bytes/9").reset == REFUSED_STREAM
            going.set()
            # no metric says when the hooks of flows that are over have returned
            answer, until = client.request("/bytes/9"), time.monotonic() + 10
            while answer.reset == REFUSED_STREAM and time.monotonic() < until:
                answer = client.request("/bytes/9")
            assert answer.status == 200
        assert [request.target for request in h2_origin.requests] == ["/bytes/9"]


class TestEnds:
    def test_each_connection_is_reported_once(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        for _ in range(3):
            connection, client = http2_client(running, h2_origin.port)
            with connection:
                for number in [client.open(f"/bytes/{count}") for count in range(10)]:
                    assert client.answer(number).status == 200
        closed = running.handler.wait("on_connection_close", 3)
        assert len(set(closed)) == len(closed) == 3 == len(running.handler.of("on_connection_open"))
        running.wait_idle()

    def test_a_shutdown_says_goodbye_and_lets_streams_finish(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        going, started = threading.Event(), threading.Event()

        def slow(connection: Any, request: Any) -> None:
            started.set()
            connection.wait(going)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        h2_origin.script(slow, "/slow")
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            number = client.open("/slow")
            assert started.wait(10)
            ending = threading.Thread(target=lambda: running.handle.shutdown(10))
            ending.start()
            while not client.goaways:
                client.read()
            assert client.goaways[0] == (2**31 - 1, 0)
            going.set()
            assert client.answer(number).body == b"ok"
            client.read_to_end()
            assert client.goaways[-1] == (number, 0)
            ending.join()
        assert running.handler.of("on_connection_close") and not h2_origin.connections[0].http2.resets  # type: ignore[union-attr]

    def test_an_idle_connection_ends_at_once(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/bytes/9").status == 200
            ending = threading.Thread(target=lambda: running.handle.shutdown(5))
            ending.start()
            client.read_to_end()
            connection.close()
            ending.join()
        assert {code for _, code in client.goaways} == {0}

    def test_a_client_that_answers_nothing_does_not_hold_a_shutdown(
        self, proxy: ProxyFactory, h2_origin: Origin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is given a second for the PING of the first GOAWAY: longer waits would outlast `timeouts.drain_ms`."""
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/bytes/9").status == 200
            monkeypatch.setattr(client, "flush", lambda: None)
            ending = threading.Thread(target=lambda: running.handle.shutdown(8))
            ending.start()
            client.socket.settimeout(3.5)
            while len(client.goaways) < 2:
                client.read()
            assert [last for last, _ in client.goaways] == [2**31 - 1, 1]
        ending.join()

    def test_what_does_not_finish_is_cut_and_counted(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        going = threading.Event()
        started = threading.Event()

        def hang(connection: Any, request: Any) -> None:
            started.set()
            connection.wait(going)

        h2_origin.script(hang, "/hang")
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            client.open("/hang")
            assert started.wait(10)
            with pytest.raises(ShutdownTimeoutError, match=r"1 connection\(s\) were still open"):
                running.handle.shutdown(0.2)
            going.set()
            client.read_to_end()

    @pytest.mark.parametrize("count", [1, 20])
    def test_a_client_that_cuts_its_connection_with_streams_open(self, proxy: ProxyFactory, h2_origin: Origin, count: int) -> None:
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            for _ in range(count):
                number = client.open("/x", method="POST", fields=[("expect", "100-continue")], end=False)
                while not client.streams[number].interim:
                    client.read()
            connection.reset()
        running.wait_idle()
        assert h2_origin.requests == [] and running.handler.requests == []
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/bytes/9").status == 200

    def test_a_reload_is_for_new_connections(self, proxy: ProxyFactory, h2_origin: Origin, make_config: Callable[..., MitmConfig]) -> None:
        running = proxy(Observing())
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/bytes/9").status == 200
            running.handle.reload(make_config(**{"http2_enabled": False}))
            # under the configuration that it began with
            assert client.request("/bytes/9").status == 200
            assert len(h2_origin.connections) == 1
            connection2, chosen = shaken(running, h2_origin.port, BOTH)
            with connection2:
                assert chosen == "http/1.1"
        running.wait_idle()
        # the pools of a configuration that is not used any more are closed
        h2_origin.wait_closed(1)

    def test_a_handler_that_sees_nothing(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy(InterceptHandler())
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            numbers = [client.open(f"/bytes/{count * 1000}") for count in range(30)]
            assert [len(client.answer(number).body) for number in numbers] == [count * 1000 for count in range(30)]


class TestMetrics:
    """What is counted of HTTP/2; what sessions count by themselves is in tests/core/test_h2_counters.py."""

    def test_connections_streams_and_resets(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        going, started = threading.Event(), threading.Event()

        def slow(connection: Any, request: Any) -> None:
            started.set()
            connection.wait(going)

        h2_origin.script(slow, "/slow")
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            number = client.open("/slow")
            assert started.wait(10)
            metrics = running.metrics()
            assert (metrics.http2_client_connections, metrics.http2_upstream_connections) == (1, 1)
            assert (metrics.http2_streams, metrics.http2_streams_total) == (2, 2)
            client.h2.reset_stream(number, 8)
            client.flush()
            running.wait_idle("http2_streams")
            going.set()
        running.wait_idle()
        metrics = running.metrics()
        assert metrics.http2_client_connections == 0
        assert metrics.http2_resets_received_by_code["CANCEL"] == metrics.http2_resets_sent_by_code["CANCEL"] == 1
        assert metrics.flows_by_pairing == {"h1h1": 0, "h1h2": 0, "h2h1": 0, "h2h2": 1}

    @pytest.mark.parametrize("client", ["h1", "h2"])
    @pytest.mark.parametrize("upstream", ["h1", "h2"])
    def test_pairings(self, proxy: ProxyFactory, origin_ca: TestCA, client: str, upstream: str) -> None:
        running = proxy(**{"http2.for_http1_clients": True})
        with serving(origin_ca, *(["http/1.1"] if upstream == "h1" else H2_ONLY)) as origin:
            alpn = ["http/1.1"] if client == "h1" else BOTH
            connection, chosen = shaken(running, origin.port, alpn)
            with connection:
                assert (chosen == "h2") == (client == "h2")
                if client == "h2":
                    assert Http2Client.inside(connection, origin.port).request("/bytes/9").status == 200
                else:
                    assert connection.request("/bytes/9", f"{HOST}:{origin.port}").status == 200
        pairings = running.metrics().flows_by_pairing
        assert {name for name, count in pairings.items() if count} == {client + upstream}

    def test_why_connections_end(self, proxy: ProxyFactory, h2_origin: Origin) -> None:
        running = proxy()
        connection, client = http2_client(running, h2_origin.port)
        with connection:
            assert client.request("/bytes/9").status == 200
            # DATA on a stream that was never opened
            connection.socket.sendall(b"\0\0\0\0\0\0\0\0\x63")
            client.read_to_end()
        reasons = running.metrics().http2_goaways_sent_by_reason
        assert {name: count for name, count in reasons.items() if count} == {"protocol_error": 1}
