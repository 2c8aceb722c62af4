"""A kept upstream connection is looked at right before it is used again: what came since the loop last looked is seen then.

Each test does the upstream's part inside `on_request`, or inside `on_connect` where the kept connection has carried no request yet: with a
handler that decides about requests, nothing is dialled before one is allowed. A plain method holds the proxy's loop while it runs, so that
what arrives meanwhile lies in the system, unseen, when the request takes its connection. The requests are POST, which no retry would save.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import ConnectTarget, HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest, RawResponse
from soth_mitm.metrics import ProxyMetrics
from support.bare_server import BareConnection, BareServer
from support.certs import TestCA
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import Answer, WireClient

Act = Callable[[BareConnection], None]
# However slow the machine is, the kept connection is fresh enough for a POST
ANY_AGE: dict[str, object] = {"connection_pool.unsafe_reuse_idle_ms": 60_000}


class Meanwhile(InterceptHandler):
    """Lets something happen on the upstream's side during the decision on `/second`."""

    def __init__(self, server: BareServer, act: Act) -> None:
        self._server = server
        self._act = act

    def on_request(self, request: RawRequest) -> HandlerDecision:
        if request.path == "/second":
            self._act(self._server.connections[0])
        return HandlerDecision.ALLOW


class AtConnect(InterceptHandler):
    """Lets something happen on the upstream's side while it is asked where an https URL may go. It has no say about requests."""

    def __init__(self, server: BareServer, act: Act) -> None:
        self._server = server
        self._act = act

    def on_connect(self, target: ConnectTarget) -> None:
        if target.scheme == "https":
            self._act(self._server.connections[0])


def post_url(client: WireClient, port: int, path: str) -> Answer:
    """Have the proxy ask for an https URL."""
    return client.request(f"https://127.0.0.1:{port}{path}", f"127.0.0.1:{port}", "POST", b"")


@pytest.fixture
def plain_server() -> Iterator[BareServer]:
    with BareServer() as server:
        yield server


@pytest.fixture
def tls_server(origin_ca: TestCA) -> Iterator[BareServer]:
    with BareServer(origin_ca.server_context(HOST, "127.0.0.1")) as server:
        yield server


def post(client: WireClient, path: str) -> Answer:
    return client.request(path, HOST, "POST", b"")


def served_by_another(running: Running, client: WireClient) -> None:
    """Check that the second request went over a new connection, at its first attempt."""
    with client:
        assert post(client, "/first").text == "0"
        answer = post(client, "/second")
        assert (answer.status, answer.text) == (200, "1")
        assert post(client, "/third").text == "1"
    metrics = running.metrics()
    assert (metrics.pool_stale_count, metrics.retry_count, metrics.upstream_error_count, metrics.handler_panic_count) == (1, 0, 0, 0)
    assert (metrics.upstream_connections, metrics.idle_upstream_connections) == (1, 1)
    running.handle.shutdown(5)


def stray_byte(connection: BareConnection) -> None:
    connection.send(b"H")


def stray_response(connection: BareConnection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")


def bytes_and_end(connection: BareConnection) -> None:
    connection.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    connection.end()


class TestPlain:
    @pytest.mark.parametrize("act", [BareConnection.end, BareConnection.reset, stray_byte, stray_response, bytes_and_end])
    def test_is_not_used(self, proxy: ProxyFactory, plain_server: BareServer, act: Act) -> None:
        running = proxy(Meanwhile(plain_server, act), **ANY_AGE)
        served_by_another(running, running.tunnel(plain_server.port, "127.0.0.1"))

    def test_what_is_alive_is_used(self, proxy: ProxyFactory, plain_server: BareServer) -> None:
        running = proxy(Meanwhile(plain_server, lambda connection: None), **ANY_AGE)
        with running.tunnel(plain_server.port, "127.0.0.1") as client:
            assert [post(client, path).text for path in ("/first", "/second", "/third")] == ["0", "0", "0"]
        metrics = running.metrics()
        assert (metrics.pool_miss_count, metrics.pool_hit_count, metrics.pool_stale_count) == (1, 2, 0)
        running.handle.shutdown(5)

    @pytest.mark.parametrize("act", [BareConnection.end, stray_response])
    def test_is_not_given_to_a_request_that_waits(self, proxy: ProxyFactory, plain_server: BareServer, act: Act) -> None:
        """Straight from the request before, without having been idle."""

        class Handler(Recording):
            async def on_response(self, response: RawResponse) -> None:
                if response.request.path == "/first":
                    act(plain_server.connections[0])

        running = proxy(Handler(), **{"connection_pool.max_connections_per_host": 1})
        first, second = (running.tunnel(plain_server.port, "127.0.0.1") for _ in range(2))
        plain_server.go_on.clear()
        for client, path, count in ((first, "/first", 1), (second, "/second", 2)):
            client.send(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
            running.handler.wait("on_request", count)
        plain_server.go_on.set()
        with first, second:
            assert (first.read_answer().text, second.read_answer().text) == ("0", "1")
        metrics = running.metrics()
        assert (metrics.pool_stale_count, metrics.pool_wait_count, metrics.retry_count, metrics.handler_panic_count) == (1, 1, 0, 0)
        running.handle.shutdown(5)


class TestTls:
    @pytest.mark.parametrize(
        "act", [BareConnection.end, BareConnection.reset, BareConnection.send_close_notify, stray_byte, BareConnection.send_half_a_record]
    )
    def test_is_not_used(self, proxy: ProxyFactory, tls_server: BareServer, act: Act) -> None:
        running = proxy(Meanwhile(tls_server, act), **ANY_AGE)
        served_by_another(running, running.secured(tls_server.port, "127.0.0.1"))

    def test_a_session_ticket_is_no_stray_byte(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with late_tickets(origin_ca) as server:
            running = proxy(AtConnect(server, BareConnection.finish_handshake), **ANY_AGE)
            with running.secured(server.port, "127.0.0.1", "h2", "http/1.1"), running.client() as client:
                assert [post_url(client, server.port, path).text for path in ("/second", "/third")] == ["0", "0"]
            used_all_along(running.metrics())
            running.handle.shutdown(5)

    @pytest.mark.parametrize("act", [BareConnection.end, stray_byte])
    def test_what_stands_behind_a_ticket_counts(self, proxy: ProxyFactory, origin_ca: TestCA, act: Act) -> None:
        def ticket_and_more(connection: BareConnection) -> None:
            connection.finish_handshake()
            act(connection)

        with late_tickets(origin_ca) as server:
            running = proxy(AtConnect(server, ticket_and_more), **ANY_AGE)
            with running.secured(server.port, "127.0.0.1", "h2", "http/1.1"), running.client() as client:
                assert [post_url(client, server.port, path).text for path in ("/second", "/third")] == ["1", "1"]
            metrics = running.metrics()
            assert (metrics.pool_stale_count, metrics.retry_count, metrics.handler_panic_count) == (1, 0, 0)
            running.handle.shutdown(5)

    def test_what_is_found_there_does_not_touch_what_the_client_has_sent_meanwhile(
        self, proxy: ProxyFactory, tls_server: BareServer
    ) -> None:
        """The look comes in the middle of the client's own read, of which the rest is still in TLS."""
        body = bytes(150_000)

        def decide(request: RawRequest) -> HandlerDecision:
            if request.path == "/other":
                # the proxy's loop waits for this, and then reads at once what the client sent
                client.send(f"TTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                tls_server.connections[0].send(bytes(63_000))
                return HandlerDecision.block(204)
            return HandlerDecision.block(204) if request.path == "/first" else HandlerDecision.ALLOW

        running = proxy(Recording(decide), **{"body.buffer_request_bodies": False}, **ANY_AGE)
        with running.secured(tls_server.port, "127.0.0.1") as client, running.client() as other:
            assert post(client, "/zeroth").text == "0"
            # after which the system lets it send more at once
            for _ in range(30):
                client.send(f"GET /first HTTP/1.1\r\nHost: {HOST}\r\nX-Long: {'x' * 60_000}\r\n\r\n".encode() * 10)
                assert [client.read_answer().status for _ in range(10)] == [204] * 10
            client.send(b"POST /second H")
            assert other.request(f"http://localhost:{tls_server.port}/other", f"localhost:{tls_server.port}").status == 204
            assert client.read_answer().text == "1"
            assert post(client, "/third").text == "1"
        metrics = running.metrics()
        assert (metrics.pool_stale_count, metrics.bytes_to_upstreams > len(body)) == (1, True)
        running.handle.shutdown(5)


def late_tickets(origin_ca: TestCA) -> BareServer:
    """A server with which the client's handshake ends long before its own, so that its tickets come when the test wants."""
    return BareServer(origin_ca.server_context(HOST, "127.0.0.1"), hold_finished=True)


def used_all_along(metrics: ProxyMetrics) -> None:
    assert (metrics.pool_miss_count, metrics.pool_stale_count, metrics.retry_count, metrics.handler_panic_count) == (1, 0, 0, 0)


class TestAnotherLoop:
    """The standard library's loops find their reads taken, too."""

    def _ask(self, config: MitmConfig, server: BareServer, act: Act) -> tuple[list[str], ProxyMetrics]:
        async def talk() -> tuple[list[str], ProxyMetrics]:
            async with MitmProxyBuilder(config, AtConnect(server, act)).build() as handle:
                context = ssl.create_default_context(cafile=str(handle.ca_certificate_path))
                # so that its upstream is offered the same as that of a URL
                context.set_alpn_protocols(["h2", "http/1.1"])
                answers = await asyncio.to_thread(self._client, handle.port, server.port, context)
                return answers, handle.metrics()

        return asyncio.run(talk())

    @staticmethod
    def _client(port: int, upstream: int, context: ssl.SSLContext) -> list[str]:
        with WireClient(port) as before, WireClient(port) as client:
            assert before.connect(f"127.0.0.1:{upstream}").status == 200
            before.start_tls(context, "127.0.0.1")
            return [post_url(client, upstream, path).text for path in ("/second", "/third")]

    def test_a_session_ticket(self, make_config: Callable[..., MitmConfig], origin_ca: TestCA) -> None:
        with late_tickets(origin_ca) as server:
            answers, metrics = self._ask(make_config(**ANY_AGE), server, BareConnection.finish_handshake)
        assert answers == ["0", "0"]
        used_all_along(metrics)

    def test_an_end(self, make_config: Callable[..., MitmConfig], tls_server: BareServer) -> None:
        answers, metrics = self._ask(make_config(**ANY_AGE), tls_server, BareConnection.end)
        assert answers == ["1", "1"]
        assert (metrics.pool_stale_count, metrics.retry_count, metrics.handler_panic_count) == (1, 0, 0)
