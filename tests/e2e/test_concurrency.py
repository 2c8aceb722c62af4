"""Many connections at once, and the life of a proxy: draining, reloading, several in one loop, one in a thread."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import InterceptHandler, InvalidConfigError, MitmConfig, MitmProxyBuilder, MitmProxyHandle, ShutdownTimeoutError
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory
from support.wire_client import WireClient

CONNECTIONS = 2000
# a client's, the proxy's two and the origin's socket each, and what else is open
DESCRIPTORS = 4 * CONNECTIONS + 500


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"{DESCRIPTORS} descriptors are needed, and the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def fetch(port: int, target: str, context: ssl.SSLContext, all_open: asyncio.Barrier, opening: asyncio.Semaphore) -> bytes:
    """Open a connection through the proxy, wait until all are open, make a request."""
    async with opening:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await writer.start_tls(context, server_hostname=HOST)
    await all_open.wait()
    writer.write(f"GET /bytes/1000 HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.usefixtures("many_descriptors")
def test_two_thousand_connections_at_once(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(InterceptHandler(), max_concurrent_flows=CONNECTIONS, **{"timeouts.client_tls_handshake_ms": 60_000})
    context = running.client_context()

    async def talk() -> list[bytes]:
        opening, all_open = asyncio.Semaphore(100), asyncio.Barrier(CONNECTIONS)
        async with asyncio.timeout(90):
            return await asyncio.gather(
                *(fetch(running.port, f"{HOST}:{origin.port}", context, all_open, opening) for _ in range(CONNECTIONS))
            )

    answers = asyncio.run(talk())
    assert all(answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(pattern(1000)) for answer in answers)
    running.wait_idle()
    metrics = running.metrics()
    assert (metrics.total_connections, metrics.relayed_response_count, metrics.rejected_connection_count) == (CONNECTIONS, CONNECTIONS, 0)
    assert metrics.upstream_error_count == metrics.upstream_connect_error_count == 0


def test_connections_over_the_limit_are_answered_503(proxy: ProxyFactory) -> None:
    running = proxy(max_concurrent_flows=2)
    with running.client(), running.client():
        running.handler.wait("on_connection_open", 2)
        with running.client() as third:
            answer = third.read_answer()
            assert answer.status == 503 and "max_concurrent_flows" in answer.text
    running.wait_idle()
    with running.client():
        running.handler.wait("on_connection_open", 3)


def test_requests_over_the_pool_limit_wait_their_turn(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(**{"connection_pool.max_connections_per_host": 2})
    clients = [running.secured(origin.port) for _ in range(8)]
    for client in clients:
        client.send(f"GET /slow/20 HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
    assert [client.read_answer().status for client in clients] == [200] * 8
    for client in clients:
        client.close()
    assert len(origin.connections) <= 2


class Slow:
    """A path of an origin that answers when it is told to."""

    def __init__(self, origin: Origin) -> None:
        self.go_on = threading.Event()
        origin.script(self._answer, "/slow")

    def _answer(self, connection: ScriptedConnection, request: object) -> None:
        connection.wait(self.go_on)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")


def ask_slowly(client: WireClient, origin: Origin) -> None:
    client.send(f"GET /slow HTTP/1.1\r\nHost: localhost:{origin.port}\r\n\r\n".encode())
    origin.wait_heads(1)


class TestShutdown:
    def test_what_is_under_way_ends_and_what_is_idle_is_closed(self, proxy: ProxyFactory, origin: Origin) -> None:
        slow = Slow(origin)
        running = proxy()
        silent, tunnelled, idle, busy = running.client(), running.tunnel(origin.port), running.secured(origin.port), None
        idle.request("/bytes/3", "localhost")
        busy = running.secured(origin.port)
        origin.requests.clear()
        ask_slowly(busy, origin)
        stopping = threading.Thread(target=running.handle.shutdown, args=(10,))
        stopping.start()
        for client in (silent, tunnelled, idle):
            assert client.read_to_end() == b""
            client.close()
        with pytest.raises(ConnectionRefusedError):
            running.client()
        assert stopping.is_alive()
        slow.go_on.set()
        answer = busy.read_answer()
        assert (answer.body, answer.get("connection")) == (b"done", "close")
        assert busy.read_to_end() == b""
        busy.close()
        stopping.join(10)
        assert not stopping.is_alive()
        assert len(running.handler.of("on_connection_close")) == 4
        assert running.metrics().active_connections == 0

    def test_the_deadline_cuts_what_is_left_and_says_how_much(self, proxy: ProxyFactory, origin: Origin) -> None:
        slow = Slow(origin)
        running = proxy()
        with running.secured(origin.port) as busy, running.secured(origin.port):
            ask_slowly(busy, origin)
            with pytest.raises(ShutdownTimeoutError) as caught:
                running.handle.shutdown(0.05)
            assert (caught.value.aborted, caught.value.timeout) == (1, 0.05)
            with pytest.raises((OSError, EOFError)):
                busy.read_answer()
        slow.go_on.set()
        assert len(running.handler.of("on_connection_close")) == 2
        metrics = running.metrics()
        assert (metrics.active_connections, metrics.active_flows, metrics.upstream_connections) == (0, 0, 0)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems answer more connections than the backlog has room for")
    def test_a_dial_under_way_is_cut_with_its_client(self, proxy: ProxyFactory) -> None:
        running = proxy(destinations=("example.test:1",))
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as full,
            socket.create_connection(full.getsockname()),
            running.client() as client,
        ):
            target = f"127.0.0.1:{full.getsockname()[1]}"
            client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            running.handler.wait("on_connection_open")
            with pytest.raises(ShutdownTimeoutError) as caught:
                running.handle.shutdown(0.05)
            assert caught.value.aborted == 1
        assert len(running.handler.of("on_connection_close")) == 1

    def test_a_second_call_does_nothing(self, proxy: ProxyFactory) -> None:
        running = proxy()
        running.handle.shutdown()
        running.handle.shutdown()
        running.handle.wait_closed()


class TestReload:
    def test_applies_to_new_connections_only(self, proxy: ProxyFactory, origin: Origin, make_config: Callable[..., MitmConfig]) -> None:
        running = proxy()
        with running.secured(origin.port) as before:
            assert before.request("/bytes/3", "localhost").status == 200
            running.handle.reload(make_config(("example.test:443",), **{"interception.passthrough_unlisted": False}))
            assert running.handle.current_config().interception.destinations == ["example.test:443"]
            with running.client() as after:
                assert after.connect(f"localhost:{origin.port}").status == 403
            assert before.request("/bytes/3", "localhost").body == pattern(3)

    def test_is_refused_whole(self, proxy: ProxyFactory, origin: Origin, make_config: Callable[..., MitmConfig]) -> None:
        running = proxy()
        for keys, name in (({"bind": "127.0.0.1:1"}, "bind"), ({"body.max_size_bytes": 0}, "body.max_size_bytes")):
            with pytest.raises(InvalidConfigError) as caught:
                running.handle.reload(make_config(("example.test:443",), **keys))
            assert caught.value.key == name
        with running.secured(origin.port) as client:
            assert client.request("/bytes/3", "localhost").status == 200


class TestLoops:
    def test_three_proxies_in_one_loop(self, make_config: Callable[..., MitmConfig], origin: Origin) -> None:
        handlers = [Recording() for _ in range(3)]

        async def talk() -> None:
            proxies = [MitmProxyBuilder(make_config(), handler).build() for handler in handlers]
            async with proxies[0] as one, proxies[1] as two, proxies[2] as three:
                for handle in (one, two, three, one):
                    context = ssl.create_default_context(cafile=str(handle.ca_certificate_path))
                    await asyncio.to_thread(self._ask, handle.port, origin, context)

        asyncio.run(talk())
        assert [len(handler.requests) for handler in handlers] == [2, 1, 1]
        # a flow's number is its own among all proxies of the process
        assert len({request.flow_id for handler in handlers for request in handler.requests}) == 4
        assert [len(handler.of("on_connection_close")) for handler in handlers] == [2, 1, 1]

    @staticmethod
    def _ask(port: int, origin: Origin, context: ssl.SSLContext) -> None:
        with WireClient(port) as client:
            assert client.connect(f"localhost:{origin.port}").status == 200
            client.start_tls(context)
            assert client.request("/bytes/3", "localhost").body == pattern(3)

    def test_run_forever_ends_when_on_start_fails(self, make_config: Callable[..., MitmConfig]) -> None:
        handles: list[MitmProxyHandle] = []

        def fail(handle: MitmProxyHandle) -> None:
            handles.append(handle)
            raise RuntimeError("nowhere to print")

        with pytest.raises(RuntimeError, match="nowhere to print"):
            MitmProxyBuilder(make_config()).build().run_forever(fail)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", handles[0].port)).close()

    def test_run_serves_until_cancelled(self, make_config: Callable[..., MitmConfig]) -> None:
        async def talk() -> None:
            opened = asyncio.Event()

            class Handler:
                def on_connection_open(self, meta: object) -> None:
                    opened.set()

            with_port = make_config(bind=f"127.0.0.1:{free_port()}")
            serving = asyncio.create_task(MitmProxyBuilder(with_port, Handler()).build().run())
            async with asyncio.timeout(10):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", int(with_port.bind.rpartition(":")[2]))
                        break
                    except ConnectionRefusedError:
                        await asyncio.sleep(0)
                await opened.wait()
                serving.cancel()
                await asyncio.wait([serving])
                writer.close()
            assert serving.cancelled()

        asyncio.run(talk())

    def test_a_thread_ends_with_its_proxy(self, proxy: ProxyFactory, origin: Origin) -> None:
        before = set(threading.enumerate())
        running = proxy()
        with running.secured(origin.port) as client:
            assert client.request("/bytes/3", "localhost").status == 200
        running.handle.shutdown(5)
        started = [thread for thread in threading.enumerate() if thread not in before and not thread.name.startswith("origin")]
        assert started == []


def free_port() -> int:
    """Return a port that was free a moment ago; only for what cannot tell which one it got."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
