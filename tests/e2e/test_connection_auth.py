"""NTLM and Negotiate: what a user proved on a connection is nobody else's, so the connection is its client's alone."""

from __future__ import annotations

import base64
import threading

import pytest

from soth_mitm import HandlerDecision, RawRequest
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import Answer, WireClient


def message(number: int, text: str = "") -> str:
    return "NTLM " + base64.b64encode(b"NTLMSSP\0%d%b" % (number, text.encode())).decode()


class NtlmOrigin:
    """Knows users by connection, as servers that speak NTLM do: three legs on one connection, and then no more questions."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.users: dict[int, str] = {}
        self.challenged: set[int] = set()
        self.served: list[tuple[int, str]] = []
        """The connection and the user of each request that was answered 200."""
        origin.script(self._answer)

    def _answer(self, connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        index, asked = connection.connection.index, request.get("authorization") or ""
        if asked == message(1):
            self.challenged.add(index)
            self._refuse(connection, message(2))
            return
        if asked.startswith("NTLM "):
            if index not in self.challenged:
                connection.send(b"HTTP/1.1 400 Nobody was challenged on this connection\r\nContent-Length: 0\r\n\r\n")
                return
            self.users[index] = base64.b64decode(asked.removeprefix("NTLM ")).decode().removeprefix("NTLMSSP\x003")
        user = self.users.get(index)
        if user is None:
            self._refuse(connection, "NTLM")
            return
        self.served.append((index, user))
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(user)}\r\n\r\n{user}".encode())

    @staticmethod
    def _refuse(connection: ScriptedConnection, challenge: str) -> None:
        connection.send(f"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode())


def log_in(client: WireClient, user: str) -> None:
    """The three legs."""
    first = client.request("/", "localhost")
    assert (first.status, first.get("www-authenticate")) == (401, "NTLM")
    second = client.request("/", "localhost", extra=f"Authorization: {message(1)}\r\n")
    assert (second.status, second.get("www-authenticate")) == (401, message(2))
    third = client.request("/", "localhost", extra=f"Authorization: {message(3, user)}\r\n")
    assert (third.status, third.text) == (200, user)


def ask(client: WireClient, path: str = "/") -> Answer:
    return client.request(path, "localhost")


@pytest.fixture
def ntlm(origin: Origin) -> NtlmOrigin:
    return NtlmOrigin(origin)


def test_each_client_is_who_it_proved_to_be(proxy: ProxyFactory, ntlm: NtlmOrigin) -> None:
    """Legs and requests of three clients, in turns: nobody's arrive on another's connection."""
    running = proxy()
    alice, bob, carol = (running.secured(ntlm.origin.port) for _ in range(3))
    with alice, bob, carol:
        assert ask(carol).status == 401
        log_in(alice, "alice")
        assert ask(carol).status == 401
        log_in(bob, "bob")
        for _ in range(5):
            assert (ask(alice).text, ask(bob).text, ask(carol).status) == ("alice", "bob", 401)
    assert len({index for index, _ in ntlm.served}) == 2
    for index, user in ntlm.served:
        assert ntlm.users[index] == user
    assert running.metrics().pool_pin_count == 3


def test_the_legs_go_over_one_connection_although_others_are_idle(proxy: ProxyFactory, ntlm: NtlmOrigin, origin: Origin) -> None:
    origin.script(lambda connection, request: connection.send(b"HTTP/1.1 204 No Content\r\n\r\n"), "/public")
    running = proxy()
    with running.secured(origin.port) as one, running.secured(origin.port) as two, running.secured(origin.port) as alice:
        one.send(b"GET /public HTTP/1.1\r\nHost: localhost\r\n\r\n")
        two.send(b"GET /public HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (one.read_answer().status, two.read_answer().status) == (204, 204)
        log_in(alice, "alice")
        assert ask(one, "/public").status == ask(two, "/public").status == 204
        assert ask(alice).text == "alice"
    legs = [request.connection_index for request in origin.requests if request.path == "/"]
    assert len(legs) == 4 and len(set(legs)) == 1
    publics = [request.connection_index for request in origin.requests if request.path == "/public"]
    assert set(publics[2:]).isdisjoint(legs)


def test_it_is_closed_with_its_client(proxy: ProxyFactory, ntlm: NtlmOrigin) -> None:
    running = proxy()
    with running.secured(ntlm.origin.port) as alice:
        log_in(alice, "alice")
        metrics = running.metrics()
        assert (metrics.upstream_connections, metrics.idle_upstream_connections) == (1, 0)
    ntlm.origin.wait_closed(1)
    running.wait_idle()
    assert running.metrics().upstream_connections == 0


def test_it_counts_among_the_connections_of_its_host(proxy: ProxyFactory, ntlm: NtlmOrigin) -> None:
    """Who waits for it gets another one once its client has left."""
    running = proxy(**{"connection_pool.max_connections_per_host": 1})
    alice = running.secured(ntlm.origin.port)
    with running.secured(ntlm.origin.port) as other:
        log_in(alice, "alice")
        other.send(b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.handler.wait("on_request", 4)
        assert ask(alice).text == "alice"
        alice.close()
        assert other.read_answer().status == 401
    assert [request.connection_index for request in ntlm.origin.requests] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_its_client_is_closed_when_it_closes(proxy: ProxyFactory, ntlm: NtlmOrigin, origin: Origin, reset: bool) -> None:
    running = proxy()
    with running.secured(origin.port) as alice:
        log_in(alice, "alice")
        connection = origin.connections[-1]
        origin.loop.call_soon_threadsafe(connection.cut if reset else connection.end)
        assert alice.read_to_end() == b""
    running.wait_idle()
    assert running.metrics().upstream_connections == 0


def test_words_that_nobody_asked_for_end_it(proxy: ProxyFactory, ntlm: NtlmOrigin, origin: Origin) -> None:
    running = proxy()
    with running.secured(origin.port) as alice:
        log_in(alice, "alice")
        origin.loop.call_soon_threadsafe(origin.connections[-1].writer.write, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert alice.read_to_end() == b""


def test_a_client_that_lost_it_is_told_so_and_not_served_as_a_stranger(proxy: ProxyFactory, ntlm: NtlmOrigin, origin: Origin) -> None:
    """Lost while the handler decides."""

    def decide(request: RawRequest) -> HandlerDecision:
        if request.path == "/late":
            origin.loop.call_soon_threadsafe(origin.connections[-1].cut)
            origin.wait_closed(1)
        return HandlerDecision.ALLOW

    running = proxy(Recording(decide))
    with running.secured(origin.port) as alice:
        log_in(alice, "alice")
        answer = ask(alice, "/late")
        assert (answer.status, answer.get("connection")) == (502, "close")
        assert "had authenticated on" in answer.text
        assert alice.read_to_end() == b""
    assert "/late" not in [request.path for request in origin.requests]
    assert running.handler.of("on_request")[-1].path == "/late"


def test_nothing_is_retried_on_another(proxy: ProxyFactory, ntlm: NtlmOrigin, origin: Origin) -> None:
    origin.script(lambda connection, request: connection.close(), "/drop")
    running = proxy()
    with running.secured(origin.port) as alice:
        log_in(alice, "alice")
        answer = ask(alice, "/drop")
        assert (answer.status, answer.get("connection")) == (502, "close")
        assert alice.read_to_end() == b""
    assert [request.path for request in origin.requests].count("/drop") == 1
    assert running.metrics().retry_count == 0


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_client_whose_last_response_it_was_is_told_to_close(proxy: ProxyFactory, ntlm: NtlmOrigin, origin: Origin, version: str) -> None:
    def last(connection: ScriptedConnection, request: Request) -> None:
        connection.send(f"HTTP/{version} 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlast".encode())
        connection.close()

    origin.script(last, "/last")
    running = proxy()
    with running.secured(origin.port) as alice:
        log_in(alice, "alice")
        answer = ask(alice, "/last")
        assert (answer.text, answer.get("connection")) == ("last", "close")
        assert alice.read_to_end() == b""


def test_a_blocked_request_leaves_it_as_it_is(proxy: ProxyFactory, ntlm: NtlmOrigin) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(403) if request.path == "/forbidden" else HandlerDecision.ALLOW

    running = proxy(Recording(decide))
    with running.secured(ntlm.origin.port) as alice:
        log_in(alice, "alice")
        assert ask(alice, "/forbidden").status == 403
        assert ask(alice).text == "alice"


def test_draining_closes_it(proxy: ProxyFactory, ntlm: NtlmOrigin) -> None:
    running = proxy()
    with running.secured(ntlm.origin.port) as alice:
        log_in(alice, "alice")
        running.handle.shutdown(5)
        assert alice.read_to_end() == b""
    ntlm.origin.wait_closed(1)


class TestWhatCounts:
    """By which headers a connection becomes its client's."""

    def pinned(self, running: Running, origin: Origin, authorization: str, status: str = "200 OK", challenges: str = "") -> bool:
        """Tell whether another client of the same origin gets another connection after such a request."""
        reply = f"HTTP/1.1 {status}\r\n{challenges}Content-Length: 0\r\n\r\n".encode()
        origin.script(lambda connection, request: connection.send(reply), "/x")
        with running.tunnel(origin.port) as client, running.tunnel(origin.port) as other:
            extra = f"Authorization: {authorization}\r\n" if authorization else ""
            assert client.request("/x", "localhost", extra=extra).status == int(status[:3])
            assert other.request("/bytes/1", "localhost").status == 200
        indexes = [request.connection_index for request in origin.requests]
        assert running.metrics().pool_pin_count == (indexes[0] != indexes[1])
        return indexes[0] != indexes[1]

    @pytest.mark.parametrize("authorization", ["NTLM TlRM", "ntlm TlRM", "Negotiate YII=", "NEGOTIATE YII=", "NTLM", "NTLM\tTlRM"])
    def test_requests(self, proxy: ProxyFactory, plain_origin: Origin, authorization: str) -> None:
        assert self.pinned(proxy(), plain_origin, authorization)

    @pytest.mark.parametrize("authorization", ["", "Basic TlRM", "Bearer NTLM", "NTLMv2 x", "Digest username=NTLM", "Negotiated x"])
    def test_other_requests(self, proxy: ProxyFactory, plain_origin: Origin, authorization: str) -> None:
        assert not self.pinned(proxy(), plain_origin, authorization)

    @pytest.mark.parametrize(
        "challenges",
        [
            "WWW-Authenticate: NTLM\r\n",
            "WWW-Authenticate: Negotiate YII=\r\n",
            'WWW-Authenticate: Basic realm="x"\r\nwww-authenticate: negotiate\r\n',
            'WWW-Authenticate: Basic realm="x", NTLM\r\n',
            "WWW-Authenticate: ,Negotiate,NTLM\r\n",
        ],
    )
    def test_challenges(self, proxy: ProxyFactory, plain_origin: Origin, challenges: str) -> None:
        assert self.pinned(proxy(), plain_origin, "", "401 Unauthorized", challenges)

    @pytest.mark.parametrize(
        ("status", "challenges"),
        [
            ("401 Unauthorized", 'WWW-Authenticate: Basic realm="NTLM"\r\n'),
            ("401 Unauthorized", "WWW-Authenticate: NTLMv2, Negotiated\r\n"),
            ("401 Unauthorized", "X-Authenticate: NTLM\r\n"),
            ("200 OK", "WWW-Authenticate: NTLM\r\n"),
            ("401 Unauthorized", ""),
        ],
    )
    def test_other_responses(self, proxy: ProxyFactory, plain_origin: Origin, status: str, challenges: str) -> None:
        assert not self.pinned(proxy(), plain_origin, "", status, challenges)

    def test_proxy_authorization_stops_here(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/1", "localhost", extra="Proxy-Authorization: NTLM TlRM\r\n").status == 200
        assert plain_origin.requests[0].get("proxy-authorization") is None
        assert running.metrics().pool_pin_count == 0


def test_on_the_proxy_port_other_origins_are_reached_meanwhile(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """One client connection, requests to two origins in turns: one of them knows the user by his connection."""
    ntlm = NtlmOrigin(plain_origin)
    running = proxy()
    with Origin(host="localhost") as other, running.client() as alice, running.client() as bob:
        host = f"localhost:{plain_origin.port}"

        def leg(client: WireClient, extra: str = "") -> Answer:
            answer = client.request(plain_origin.url("/"), host, extra=extra)
            assert client.request(other.url("/bytes/2"), f"localhost:{other.port}").status == 200
            return answer

        assert [leg(alice, extra).status for extra in ("", f"Authorization: {message(1)}\r\n")] == [401, 401]
        assert leg(bob).status == 401
        assert leg(alice, f"Authorization: {message(3, 'alice')}\r\n").text == "alice"
        assert (leg(alice).text, leg(bob).status) == ("alice", 401)
        assert {request.connection_index for request in other.requests} == {0}
    assert len({index for index, _ in ntlm.served}) == 1


def test_two_such_origins_in_turns_cost_the_first_connection(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """A client connection has one such upstream connection, so that nobody holds one in each of a thousand pools."""
    NtlmOrigin(plain_origin)
    running = proxy()
    with Origin(host="localhost") as second, running.client() as client:
        NtlmOrigin(second)
        assert client.request(plain_origin.url("/"), f"localhost:{plain_origin.port}").status == 401
        assert client.request(second.url("/"), f"localhost:{second.port}").status == 401
        plain_origin.wait_closed(1)
        assert client.request(plain_origin.url("/"), f"localhost:{plain_origin.port}").status == 401
        assert len(plain_origin.connections) == 2
    assert running.metrics().pool_pin_count == 3


def test_uploads_go_over_it_too_whatever_others_do(proxy: ProxyFactory, ntlm: NtlmOrigin) -> None:
    running = proxy()
    statuses: list[int] = []
    with running.secured(ntlm.origin.port) as alice, running.secured(ntlm.origin.port) as other:
        log_in(alice, "alice")
        thread = threading.Thread(target=lambda: statuses.extend(ask(other).status for _ in range(20)))
        thread.start()
        users = [alice.request("/", "localhost", "POST", bytes(100_000)).text for _ in range(20)]
        thread.join()
    assert (statuses, users) == ([401] * 20, ["alice"] * 20)
