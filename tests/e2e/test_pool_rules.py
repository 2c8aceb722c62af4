"""A pool is one origin under one TLS identity and one configuration: no request goes over a connection made under other rules."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soth_mitm import MitmConfig
from support.certs import TestCA, self_signed
from support.origin import Origin, Request, ScriptedConnection
from support.running import HOST, ProxyFactory, Running

MakeConfig = Callable[..., MitmConfig]


@pytest.fixture
def self_signed_origin(origin_ca: TestCA) -> Iterator[Origin]:
    with Origin(origin_ca.server_context(HOST, pair=self_signed(HOST)), host=HOST) as origin:
        yield origin


def status_of_a_new_client(running: Running, port: int) -> int:
    with running.secured(port) as client:
        return client.request("/bytes/3", HOST).status


class TestReload:
    def test_verification(self, proxy: ProxyFactory, self_signed_origin: Origin, make_config: MakeConfig) -> None:
        running = proxy(**{"upstream.verify_upstream_tls": False})
        with running.secured(self_signed_origin.port) as before:
            assert before.request("/bytes/3", HOST).status == 200
            assert running.metrics().idle_upstream_connections == 1
            running.handle.reload(make_config())
            assert status_of_a_new_client(running, self_signed_origin.port) == 502
            assert len(self_signed_origin.requests) == 1
            # who was there before goes on as he began, over the connection that was there
            assert before.request("/bytes/3", HOST).status == 200
        assert {request.connection_index for request in self_signed_origin.requests} == {0}

    def test_roots(self, proxy: ProxyFactory, origin: Origin, make_config: MakeConfig, tmp_path: Path) -> None:
        running = proxy()
        with running.secured(origin.port) as before:
            assert before.request("/bytes/3", HOST).status == 200
            others = tmp_path / "others.pem"
            others.write_bytes(TestCA("Other Root").cert_pem)
            running.handle.reload(make_config(**{"upstream.ca_bundle_path": str(others)}))
            assert status_of_a_new_client(running, origin.port) == 502
            assert len(origin.requests) == 1
            assert before.request("/bytes/3", HOST).status == 200

    def test_lowest_version(self, proxy: ProxyFactory, origin_ca: TestCA, make_config: MakeConfig) -> None:
        context = origin_ca.server_context(HOST)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with Origin(context, host=HOST) as origin:
            running = proxy()
            with running.secured(origin.port) as before:
                assert before.request("/bytes/3", HOST).status == 200
                running.handle.reload(make_config(**{"tls.min_version": "tls1.3"}))
                assert status_of_a_new_client(running, origin.port) == 502
                assert len(origin.requests) == 1

    def test_client_certificate(self, proxy: ProxyFactory, origin_ca: TestCA, make_config: MakeConfig, tmp_path: Path) -> None:
        context = origin_ca.server_context(HOST)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=origin_ca.cert_pem.decode())

        def who(connection: ScriptedConnection, request: Request) -> None:
            engine = connection.connection.tls
            assert engine is not None
            names = (engine.getpeercert() or {}).get("subjectAltName", (("", "nobody"),))
            name = str(names[0][1]).encode()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))

        def keys(name: str) -> dict[str, object]:
            directory = tmp_path / name
            directory.mkdir()
            files = origin_ca.write(directory, pair=origin_ca.issue_for_clients(f"{name}.test"))
            pattern = f"{HOST}:*"
            return {"upstream.client_cert_path": {pattern: str(files.cert)}, "upstream.client_key_path": {pattern: str(files.key)}}

        with Origin(context, host=HOST) as origin:
            origin.script(who)

            def asked_by_a_new_client() -> str:
                with running.secured(origin.port) as client:
                    return client.request("/", HOST).text

            running = proxy()
            with running.secured(origin.port) as nobody:
                assert nobody.request("/", HOST).text == "nobody"
                running.handle.reload(make_config(**keys("alice")))
                assert asked_by_a_new_client() == "alice.test"
                with running.secured(origin.port) as alice:
                    assert alice.request("/", HOST).text == "alice.test"
                    running.handle.reload(make_config(**keys("bob")))
                    assert asked_by_a_new_client() == "bob.test"
                    running.handle.reload(make_config())
                    assert asked_by_a_new_client() == "nobody"
                    assert (alice.request("/", HOST).text, nobody.request("/", HOST).text) == ("alice.test", "nobody")
            running.handle.shutdown(5)


class TestOneConfiguration:
    def test_a_name_is_part_of_it(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        """What was verified for one name does not carry requests for another, at the same address."""
        with Origin(origin_ca.server_context("one.test", "two.test"), host="127.0.0.1") as origin:
            running = proxy(destinations=("*:*",))
            for name in ("one.test", "two.test", "one.test"):
                with running.tunnel(origin.port, "127.0.0.1") as client:
                    client.start_tls(running.client_context(), name)
                    assert client.request("/bytes/1", name).status == 200
            assert [request.connection_index for request in origin.requests] == [0, 1, 0]
            assert [connection.sni for connection in origin.connections] == ["one.test", "two.test"]
            running.handle.shutdown(5)

    def test_a_client_certificate_is_part_of_it(
        self, proxy: ProxyFactory, origin_ca: TestCA, make_config: MakeConfig, tmp_path: Path
    ) -> None:
        """Two targets, one server name: the one with a certificate of ours shares nothing with the other."""
        context = origin_ca.server_context("shared.test")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=origin_ca.cert_pem.decode())
        files = origin_ca.write(tmp_path, pair=origin_ca.issue_for_clients("alice.test"))
        with Origin(context, host="127.0.0.1") as origin:
            known = {"127.0.0.1:*": str(files.cert)}
            running = proxy(
                destinations=("*:*",),
                **{"upstream.client_cert_path": known, "upstream.client_key_path": {"127.0.0.1:*": str(files.key)}},
            )
            for host in ("127.0.0.1", "localhost", "127.0.0.1", "localhost"):
                with running.tunnel(origin.port, host) as client:
                    client.start_tls(running.client_context(), "shared.test")
                    assert client.request("/bytes/1", "shared.test").status == 200
            assert [request.connection_index for request in origin.requests] == [0, 1, 0, 1]
            running.handle.shutdown(5)

    def test_plain_text_and_tls_share_nothing(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            assert client.request("/bytes/1", HOST).status == 200
        with running.tunnel(origin.port) as client:
            # the origin takes it for a broken handshake, and that is all that it hears of it
            client.send(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.read_answer().status == 502
        assert [request.path for request in origin.requests] == ["/bytes/1"]


class TestManyOrigins:
    """With room for few of them."""

    def test_a_pool_that_somebody_still_uses_is_the_origins_only_one(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """Its limit holds for all, and its connections are closed at the end, although there was no room to keep it."""
        go_on = threading.Event()

        def wait(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(go_on)
            connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

        plain_origin.script(wait, "/wait")
        one = {"connection_pool.max_connections_per_host": 1, "connection_pool.max_hosts": 1}
        running = proxy(**one, **{"connection_pool.max_idle_per_host": 0})
        with Origin(host=HOST) as other, running.client() as before, running.client() as after:
            first, second = f"{HOST}:{plain_origin.port}", f"{HOST}:{other.port}"
            assert before.request(plain_origin.url("/bytes/1"), first).status == 200
            plain_origin.wait_closed(1)
            assert after.request(other.url("/bytes/1"), second).status == 200
            other.wait_closed(1)
            for client, count in ((before, 3), (after, 4)):
                client.send(f"GET {plain_origin.url('/wait')} HTTP/1.1\r\nHost: {first}\r\n\r\n".encode())
                running.handler.wait("on_request", count)
            metrics = running.metrics()
            assert (metrics.upstream_connections, metrics.pool_wait_count) == (1, 1)
            go_on.set()
            assert (before.read_answer().status, after.read_answer().status) == (204, 204)
            running.handle.shutdown(5)

    def test_idle_connections_are_kept_for_so_many_origins(
        self, proxy: ProxyFactory, origin_ca: TestCA, make_config: Callable[..., MitmConfig]
    ) -> None:
        """Those of the origin asked for longest ago are closed first, and another connection is made when it is asked for again."""
        running = proxy(**{"connection_pool.max_hosts": 2})

        def ask(name: str) -> int:
            before = len(origin.connections)
            with running.tunnel(origin.port, "127.0.0.1") as client:
                client.start_tls(running.client_context(), f"{name}.example.test")
                assert client.request("/bytes/3", HOST).status == 200
            running.wait_idle()
            assert running.metrics().idle_upstream_connections <= running.handle.current_config().connection_pool.max_hosts
            return len(origin.connections) - before

        with Origin(origin_ca.server_context("*.example.test"), host="127.0.0.1") as origin:
            assert [ask(name) for name in "abab"] == [1, 1, 0, 0]
            assert [ask(name) for name in "caab"] == [1, 1, 0, 1]
            running.handle.reload(make_config(**{"connection_pool.max_hosts": 3}))
            assert [ask(name) for name in "abcabc"] == [1, 1, 1, 0, 0, 0]

    def test_a_connection_in_use_is_not_closed_to_make_room(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        go_on = threading.Event()

        def wait(connection: ScriptedConnection, request: Request) -> None:
            connection.wait(go_on)
            connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

        plain_origin.script(wait, "/wait")
        running = proxy(**{"connection_pool.max_hosts": 1})
        with running.client() as waiting, Origin(host=HOST) as one, Origin(host=HOST) as two:
            waiting.send(f"GET {plain_origin.url('/wait')} HTTP/1.1\r\nHost: {HOST}:{plain_origin.port}\r\n\r\n".encode())
            plain_origin.wait_heads(1)
            for other in (one, two, one):
                with running.client() as client:
                    assert client.request(other.url("/bytes/1"), f"{HOST}:{other.port}").status == 200
            go_on.set()
            assert waiting.read_answer().status == 204


class TestNames:
    @pytest.mark.parametrize(("milliseconds", "look_ups"), [(60_000, 1), (0, 3)])
    def test_addresses_are_remembered_as_long_as_the_key_says(
        self, proxy: ProxyFactory, plain_origin: Origin, milliseconds: int, look_ups: int
    ) -> None:
        running = proxy(**{"upstream.dns_cache_ms": milliseconds, "connection_pool.max_idle_per_host": 0})
        with running.tunnel(plain_origin.port) as client:
            for _ in range(3):
                assert client.request("/bytes/1", HOST).status == 200
        metrics = running.metrics()
        assert len(plain_origin.connections) == 3
        assert (metrics.dns_lookup_count, metrics.dns_cache_hit_count) == (look_ups, 3 - look_ups)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n"],
)
def test_a_connection_that_the_upstream_will_close_is_not_kept(proxy: ProxyFactory, plain_origin: Origin, answer: bytes) -> None:
    """Though it is open: the next request would be in a race with its end."""
    plain_origin.script(lambda connection, request: connection.send(answer + b"Content-Length: 2\r\n\r\nok"), "/last")
    running = proxy()
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/last", HOST, "POST", b"x").text == "ok"
        assert running.metrics().idle_upstream_connections == 0
        assert client.request("/bytes/3", HOST, "POST", b"x").status == 200
    assert [request.connection_index for request in plain_origin.requests] == [0, 1]
