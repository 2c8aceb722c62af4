"""`max_connections_per_host`: who waits for a connection is served in turn, gives up when it is late or alone, and is never forgotten."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import MitmConfig
from soth_mitm.proxy import upstream_pools
from support.certs import TestCA
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

MANY = 24
LIMIT = "connection_pool.max_connections_per_host"


class Gate:
    """An origin whose answers wait until they are let through, one after another or all."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._permits = threading.Semaphore(0)
        origin.script(self._answer)

    def _answer(self, connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        assert self._permits.acquire(timeout=10), "the test let nothing through"
        if request.path == "/die":
            connection.reset()
            return
        body = request.path.encode()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def let_through(self, count: int = 1) -> None:
        self._permits.release(count)

    @property
    def paths(self) -> list[str]:
        """What arrived, in order."""
        return [request.path for request in self.origin.requests]


@pytest.fixture
def gate(plain_origin: Origin) -> Iterator[Gate]:
    gate = Gate(plain_origin)
    yield gate
    # a test that failed leaves scripts behind
    gate.let_through(100)


class Clients:
    """Clients of one origin, each of which asks for a path of its own."""

    def __init__(self, running: Running, gate: Gate) -> None:
        self._running = running
        self._gate = gate
        self.by_path: dict[str, WireClient] = {}

    def ask(self, *paths: str) -> None:
        """Let a new client ask for each path, one after another: each waits in the pool, or is with the origin, before the next asks."""
        for path in paths:
            client = self.by_path[path] = self._running.tunnel(self._gate.origin.port)
            client.send(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
            self._running.handler.wait("on_request", len(self.by_path))

    def answer(self, path: str) -> tuple[int, str]:
        """Return what a client is answered; it leaves then."""
        with self.by_path[path] as client:
            answer = client.read_answer()
            return answer.status, answer.text.strip()


@pytest.mark.parametrize("limit", [1, 2])
class TestTurns:
    def test_first_come_first_served(self, proxy: ProxyFactory, gate: Gate, limit: int) -> None:
        running = proxy(**{LIMIT: limit})
        clients = Clients(running, gate)
        paths = [f"/{number}" for number in range(MANY)]
        clients.ask(*paths)
        gate.origin.wait_heads(limit)
        metrics = running.metrics()
        assert (metrics.pool_wait_count, metrics.pool_miss_count, metrics.upstream_connections) == (MANY - limit, limit, limit)
        for served in range(limit, MANY):
            gate.let_through()
            gate.origin.wait_heads(served + 1)
        gate.let_through(limit)
        assert [clients.answer(path) for path in paths] == [(200, path) for path in paths]
        # with two connections, two requests are on their way at once, and which of them arrives first is the network's affair
        assert all(abs(gate.paths.index(path) - place) < limit for place, path in enumerate(paths))
        assert len(gate.origin.connections) == limit
        metrics = running.metrics()
        assert (metrics.pool_wait_count, metrics.upstream_error_count) == (MANY - limit, 0)

    def test_who_leaves_is_out_of_the_queue(self, proxy: ProxyFactory, gate: Gate, limit: int) -> None:
        running = proxy(**{LIMIT: limit})
        clients = Clients(running, gate)
        holding, leaving = [f"/held-{number}" for number in range(limit)], [f"/leaving-{number}" for number in range(6)]
        clients.ask(*holding)
        gate.origin.wait_heads(limit)
        clients.ask(*leaving, "/stays")
        for path in leaving:
            # a FIN alone is no farewell in plain text: it may be a client that has nothing more to say and listens
            clients.by_path[path].reset()
        running.handler.wait("on_connection_close", len(leaving))
        gate.let_through(limit + 1)
        assert clients.answer("/stays") == (200, "/stays")
        assert [clients.answer(path)[0] for path in holding] == [200] * limit
        assert sorted(gate.paths) == sorted([*holding, "/stays"])

    def test_who_leaves_tls_is_out_of_the_queue(self, proxy: ProxyFactory, origin: Origin, limit: int) -> None:
        gate = Gate(origin)
        running = proxy(**{LIMIT: limit})
        clients = [running.secured(origin.port) for _ in range(limit + 2)]
        for count, client in enumerate(clients, 1):
            client.send(f"POST /{count} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
            running.handler.wait("on_request", count)
        clients[limit].close()
        running.handler.wait("on_connection_close")
        gate.let_through(limit + 1)
        assert [client.read_answer().status for client in (*clients[:limit], clients[-1])] == [200] * (limit + 1)
        for client in clients:
            client.close()
        assert sorted(gate.paths) == sorted(f"/{count}" for count in range(1, limit + 3) if count != limit + 1)

    def test_a_connection_that_dies_in_use_makes_room(self, proxy: ProxyFactory, gate: Gate, limit: int) -> None:
        running = proxy(**{LIMIT: limit})
        clients = Clients(running, gate)
        holding = ["/die", *(f"/held-{number}" for number in range(limit - 1))]
        clients.ask(*holding)
        gate.origin.wait_heads(limit)
        waiting = [f"/waits-{number}" for number in range(4)]
        clients.ask(*waiting)
        gate.let_through(limit + len(waiting))
        assert clients.answer("/die")[0] == 502
        assert [clients.answer(path)[0] for path in [*holding[1:], *waiting]] == [200] * (limit - 1 + len(waiting))
        assert len(gate.origin.connections) == limit + 1

    def test_a_client_that_dies_in_use_makes_room(self, proxy: ProxyFactory, gate: Gate, limit: int) -> None:
        running = proxy(**{LIMIT: limit})
        clients = Clients(running, gate)
        holding = [f"/held-{number}" for number in range(limit)]
        clients.ask(*holding)
        gate.origin.wait_heads(limit)
        clients.ask("/waits")
        clients.by_path[holding[0]].reset()
        # with the other connections still held
        gate.origin.wait_heads(limit + 1)
        gate.let_through(limit + 1)
        assert clients.answer("/waits") == (200, "/waits")
        assert [clients.answer(path)[0] for path in holding[1:]] == [200] * (limit - 1)

    def test_who_is_late_is_told_so(self, proxy: ProxyFactory, gate: Gate, limit: int) -> None:
        times = {"upstream.connect_timeout_ms": 500, "timeouts.upstream_tls_handshake_ms": 500}
        running = proxy(**{LIMIT: limit}, **times)
        clients = Clients(running, gate)
        holding = [f"/held-{number}" for number in range(limit)]
        clients.ask(*holding)
        gate.origin.wait_heads(limit)
        clients.ask("/late")
        status, text = clients.answer("/late")
        assert (status, LIMIT in text) == (503, True)
        gate.let_through(limit)
        assert [clients.answer(path)[0] for path in holding] == [200] * limit
        assert "/late" not in gate.paths
        assert running.metrics().upstream_timeout_count == 1


def test_nothing_is_dialled_for_who_has_left(proxy: ProxyFactory, gate: Gate) -> None:
    running = proxy(**{LIMIT: 1})
    clients = Clients(running, gate)
    clients.ask("/die")
    gate.origin.wait_heads(1)
    clients.ask("/leaving")
    clients.by_path["/leaving"].reset()
    running.handler.wait("on_connection_close")
    gate.let_through()
    assert clients.answer("/die")[0] == 502
    metrics = running.metrics()
    assert (metrics.pool_miss_count, metrics.upstream_connections) == (1, 0)


def test_a_client_whose_origin_has_no_room_is_told_so(proxy: ProxyFactory, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its own TLS is answered the upstream is looked at again from time to time, and that waits no longer than a request does."""
    monkeypatch.setattr(upstream_pools, "INFO_SECONDS", 0.0)
    gate = Gate(origin)
    times = {"upstream.connect_timeout_ms": 500, "timeouts.upstream_tls_handshake_ms": 500}
    running = proxy(**{LIMIT: 1}, **times)
    with running.secured(origin.port) as holding:
        holding.send(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        origin.wait_heads(1)
        with running.secured(origin.port) as late:
            answer = late.request("/late", HOST)
            assert (answer.status, LIMIT in answer.text) == (503, True)
        gate.let_through()
        assert holding.read_answer().status == 200
        assert running.metrics().upstream_timeout_count == 1
        # there is room now
        with running.secured(origin.port) as next_one:
            gate.let_through()
            assert next_one.request("/next", HOST).status == 200
    assert gate.paths == ["/held", "/next"]


class TestFailingDials:
    def test_each_who_waits_hears_of_it(self, proxy: ProxyFactory) -> None:
        """One after another, because one connection is dialled at a time; nobody is left in the queue."""
        running = proxy(**{LIMIT: 1, "upstream.retry_delay_ms": 50})
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            clients = [running.tunnel(port, "127.0.0.1") for _ in range(6)]
            for client in clients:
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert [client.read_answer().status for client in clients] == [502] * 6
            for client in clients:
                client.close()
        running.wait_idle()
        metrics = running.metrics()
        assert (metrics.upstream_connect_error_count, metrics.upstream_connections) == (6, 0)

    def test_the_next_one_is_dialled_for(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        """The first handshake fails while others wait."""
        go_on, context = threading.Event(), origin_ca.server_context(HOST)
        refused: list[str | None] = []

        def refuse_the_first(engine: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            if refused:
                return None
            refused.append(name)
            go_on.wait(10)
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR

        context.sni_callback = refuse_the_first
        running = proxy(**{LIMIT: 1})
        with Origin(context, host=HOST) as origin:
            clients = [running.client() for _ in range(3)]
            for count, client in enumerate(clients, 1):
                client.send(f"GET https://{HOST}:{origin.port}/bytes/3 HTTP/1.1\r\nHost: {HOST}:{origin.port}\r\n\r\n".encode())
                running.handler.wait("on_request", count)
            go_on.set()
            assert [client.read_answer().status for client in clients] == [502, 200, 200]
            assert (refused, len(origin.connections)) == ([HOST], 2)
            for client in clients:
                client.close()
            running.handle.shutdown(5)


class TestReload:
    def test_more_room_is_used_at_once(self, proxy: ProxyFactory, gate: Gate, make_config: Callable[..., MitmConfig]) -> None:
        running = proxy(**{LIMIT: 1})
        clients = Clients(running, gate)
        paths = [f"/{number}" for number in range(4)]
        clients.ask(*paths)
        gate.origin.wait_heads(1)
        assert running.metrics().upstream_connections == 1
        running.handle.reload(make_config(**{LIMIT: 3}))
        # while nothing has been answered yet
        gate.origin.wait_heads(3)
        assert running.metrics().upstream_connections == 3
        gate.let_through(4)
        assert [clients.answer(path)[0] for path in paths] == [200] * 4
        assert len(gate.origin.connections) == 3

    def test_less_room_is_kept_as_connections_come_back(
        self, proxy: ProxyFactory, gate: Gate, make_config: Callable[..., MitmConfig]
    ) -> None:
        running = proxy(**{LIMIT: 3})
        clients = Clients(running, gate)
        paths = [f"/{number}" for number in range(6)]
        clients.ask(*paths)
        gate.origin.wait_heads(3)
        running.handle.reload(make_config(**{LIMIT: 1}))
        gate.let_through(2)
        # those that have answered, although requests wait for a connection
        gate.origin.wait_closed(2)
        assert len(gate.paths) == 3
        gate.let_through(4)
        assert [clients.answer(path)[0] for path in paths] == [200] * 6
        assert len(gate.origin.connections) == 3

    def test_idle_ones_over_the_new_number_are_closed(
        self, proxy: ProxyFactory, plain_origin: Origin, make_config: Callable[..., MitmConfig]
    ) -> None:
        running = proxy()
        gate = Gate(plain_origin)
        clients = [running.tunnel(plain_origin.port) for _ in range(3)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain_origin.wait_heads(3)
        gate.let_through(3)
        assert [client.read_answer().status for client in clients] == [200] * 3
        assert running.metrics().idle_upstream_connections == 3
        running.handle.reload(make_config(**{"connection_pool.max_idle_per_host": 1}))
        plain_origin.wait_closed(2)
        assert running.metrics().idle_upstream_connections == 1
        # those who were there before go on, over what was kept
        gate.let_through(3)
        assert [client.request("/", "localhost").status for client in clients] == [200] * 3
        assert len(plain_origin.connections) == 3
        for client in clients:
            client.close()


class TestSlowReaders:
    """Clients that do not read what they asked for, longer than what the system buffers for them."""

    SIZE = 6_000_000

    def begin(self, running: Running, origin: Origin) -> list[WireClient]:
        """Return as many clients as the pool has room for; each has asked, and reads nothing."""
        clients = [running.tunnel(origin.port) for _ in range(4)]
        for client in clients:
            client.send(f"GET /bytes/{self.SIZE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        origin.wait_heads(4)
        return clients

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    def test_they_starve_nobody(self, proxy: ProxyFactory, origin: Origin, plain_origin: Origin, tls: bool) -> None:
        running = proxy(**{LIMIT: 4, "connection_pool.read_ahead_bytes": 8 << 20, "max_in_flight_bytes": 256 << 20})
        slow = self.begin(running, plain_origin)
        if tls:
            for client in slow:
                client.close()
            slow = [running.secured(origin.port) for _ in range(4)]
            for client in slow:
                client.send(f"GET /bytes/{self.SIZE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            origin.wait_heads(4)
        with running.secured(origin.port) if tls else running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
        for client in slow:
            with client:
                assert client.read_answer().body == pattern(self.SIZE)
                # and the next request on it
                assert client.request("/bytes/5", HOST).body == pattern(5)
        running.wait_idle()

    @pytest.mark.parametrize(
        "keys",
        [
            {"connection_pool.read_ahead_bytes": 1 << 20},
            {"connection_pool.read_ahead_bytes": 8 << 20, "body.max_size_bytes": 10_000, "max_in_flight_bytes": 1 << 20},
        ],
    )
    def test_no_more_is_read_ahead_than_the_keys_say(self, proxy: ProxyFactory, plain_origin: Origin, keys: dict[str, object]) -> None:
        """Too long, or too little room for it: then the next one waits until somebody has read."""
        running = proxy(**{LIMIT: 4, **keys})
        slow = self.begin(running, plain_origin)
        with running.tunnel(plain_origin.port) as client:
            client.send(f"POST /bytes/3 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())
            running.handler.wait("on_request", 5)
            assert (running.metrics().pool_wait_count, len(plain_origin.requests)) == (1, 4)
            with slow.pop() as reader:
                assert reader.read_answer().body == pattern(self.SIZE)
            assert client.read_answer().body == pattern(3)
        for reader in slow:
            reader.close()
        running.wait_idle()
