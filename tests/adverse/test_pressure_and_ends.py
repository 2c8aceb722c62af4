"""Slow readers, early answers, odd ends, and records of every size."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable

import pytest

from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import ProxyFactory, Running

BIG = 32 << 20


def test_slow_reader_of_a_big_response_is_not_buffered_for(proxy: ProxyFactory, origin: Origin) -> None:
    """What the proxy holds while nobody reads is bounded, and every byte arrives once somebody does."""
    sent = 0

    def script(connection: ScriptedConnection, request: Request) -> None:
        nonlocal sent
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        while sent < BIG:
            connection.send(bytes(1 << 16))
            sent += 1 << 16

    origin.script(script, "/big")
    running = proxy(InterceptHandler())
    with running.secured(origin.port) as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_head().status == 200
        before = -1
        while before != sent:
            before = sent
            # three round trips through the proxy's loop, in which it moves whatever it can
            for _ in range(300):
                running.metrics()
        assert sent < BIG
        assert running.metrics().buffered_bytes < 1 << 20
        assert len(client.read_exactly(BIG)) == BIG
        assert client.request("/bytes/1", "localhost").status == 200


def test_early_answer_and_upstream_that_closes_ends_the_upload(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.close()

    plain_origin.script(script, "/up")
    running = proxy(Recording(), **{"body.buffer_request_bodies": False})
    with running.tunnel(plain_origin.port) as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc")
        assert client.read_answer().body == b"ok"
        client.send(bytes(100_000))
        assert client.read_to_end() == b""
    running.wait_idle()


def test_early_answer_then_the_rest_of_the_upload_then_the_next_request(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.read_body()

    plain_origin.script(script, "/up")
    running = proxy(Recording(), **{"body.buffer_request_bodies": False})
    with running.tunnel(plain_origin.port) as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        assert client.read_answer().body == b"ok"
        client.send(b"defghijGET /bytes/7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(client.read_answer().body) == 7
    (upload, _) = plain_origin.wait_requests(2)
    assert bytes(upload.body) == b"abcdefghij"
    assert len(plain_origin.connections) == 1


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("rest", "keys"),
    [
        (b"no size\r\n", {"body.buffer_request_bodies": False}),
        (b"", {"body.buffer_request_bodies": False, "timeouts.body_idle_ms": 500}),
        (b"800\r\n" + bytes(0x800), {"body.overflow": "reject", "body.max_size_bytes": 1000, "body.buffer_timeout_ms": 50}),
    ],
    ids=["malformed", "stops", "too-long"],
)
def test_early_answer_is_not_lost_when_the_rest_of_the_upload_is_refused(
    proxy: ProxyFactory, plain_origin: Origin, origin: Origin, secure: bool, rest: bytes, keys: dict[str, object]
) -> None:
    """A reset would throw it away in the client's system, where it may not have been read yet."""
    server = origin if secure else plain_origin

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        while connection.receive():
            pass

    server.script(script, "/up")
    running = proxy(Recording(), **keys)
    with (running.secured if secure else running.tunnel)(server.port) as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert client.read_answer().body == b"ok"
        client.send(rest)
        assert client.read_to_end() == b""
    running.wait_idle()
    assert running.metrics().cut_response_count == 0
    assert not server.requests[0].complete


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_request_does_not_wait_behind_an_upload_that_its_upstream_does_not_take(
    proxy: ProxyFactory, plain_origin: Origin, origin: Origin, secure: bool
) -> None:
    """An answer came early, and the last of the upload is still with us: the upstream may take it, but nobody else has to wait for that."""
    server, answered, taken = origin if secure else plain_origin, threading.Event(), threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.wait(answered)
        connection.read_body()
        taken.set()

    server.script(script, "/up")
    running = proxy(InterceptHandler())
    with (running.secured if secure else running.tunnel)(server.port) as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.read_answer().body == b"ok"
        # until the system takes no more of it; the head that is kept counts as well
        while running.metrics().buffered_bytes < 0x4000:
            client.send(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert len(client.request("/bytes/5", "localhost").body) == 5
        answered.set()
        assert taken.wait(10)
    assert [request.connection_index for request in server.requests] == [0, 1]
    assert server.wait_requests(2)[0].complete


def test_bytes_behind_a_response_never_answer_the_next_request(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    plain_origin.script(script, "/two")
    running = proxy(Recording())
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/two", "localhost").body == b"ok"
        # not kept until somebody looks at it
        assert running.metrics().upstream_connections == 0
        assert len(client.request("/bytes/9", "localhost").body) == 9


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "words",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\r\n"],
    ids=["100", "103", "200", "empty-line"],
)
def test_words_behind_an_early_answer_answer_nothing(
    proxy: ProxyFactory, plain_origin: Origin, origin: Origin, secure: bool, words: bytes
) -> None:
    """The rest of the upload still arrives; the next request goes over a connection that has not spoken out of turn."""
    server, said = origin if secure else plain_origin, threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert connection.receive_exactly(3) == b"abc"
        connection.send(words)
        said.set()
        assert connection.receive_exactly(7) == b"defghij"

    server.script(script, "/up")
    running = proxy(Recording(), **{"body.buffer_request_bodies": False})
    with (running.secured if secure else running.tunnel)(server.port) as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        assert client.read_answer().body == b"ok"
        assert said.wait(10)
        client.send(b"defghij" + b"GET /bytes/5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(client.read_answer().body) == 5
    assert len(server.connections) == 2


@pytest.mark.parametrize("secure", [False, True])
def test_last_bytes_of_a_switched_protocol_arrive_however_it_ends(
    proxy: ProxyFactory, plain_origin: Origin, origin: Origin, secure: bool
) -> None:
    """An upstream that leaves TLS without close_notify loses nothing of what it sent."""
    server = origin if secure else plain_origin

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert connection.receive_exactly(5) == b"hello"
        below = connection.connection.writer.get_extra_info("socket")
        connection.send(bytes(100_000) + b"bye")
        # FIN below the TLS layer
        below.shutdown(socket.SHUT_WR)

    server.script(script, "/ws")
    running = proxy(Recording())
    with (running.secured if secure else running.tunnel)(server.port) as client:
        client.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert client.read_head().status == 101
        client.send(b"hello")
        assert client.read_exactly(100_003).endswith(b"bye")
        client.close()
    running.wait_idle()


def test_waiting_request_gets_a_connection_whose_last_reader_was_slow(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(InterceptHandler(), **{"connection_pool.max_connections_per_host": 1, "connection_pool.max_idle_per_host": 1})
    slow, other = running.tunnel(plain_origin.port), running.tunnel(plain_origin.port)
    with slow, other:
        slow.send(b"GET /bytes/8000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.read_head().status == 200
        other.send(b"GET /bytes/5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        slow.read_exactly(8_000_000)
        assert len(other.read_answer().body) == 5
        assert slow.request("/bytes/1", "localhost").status == 200


def test_tls_in_single_bytes(proxy: ProxyFactory, origin: Origin) -> None:
    """Records that come a byte at a time, and several that come at once with the close_notify behind them."""
    running = proxy(Recording())
    client = running.tunnel(origin.port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = running.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")

    def dribble() -> None:
        for byte in outgoing.read():
            client.socket.sendall(bytes([byte]))

    def until(step: Callable[[], object]) -> object:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                dribble()
                data = client.socket.recv(1 << 16)
                assert data
                incoming.write(data)
            else:
                dribble()
                return result

    with client:
        until(engine.do_handshake)
        for byte in b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n":
            engine.write(bytes([byte]))
        answer = b""
        while not answer.endswith(b"\r\n\r\n" + b"x" * 3) and len(answer.partition(b"\r\n\r\n")[2]) < 3:
            answer += until(lambda: engine.read(65536))  # type: ignore[operator]
        engine.write(b"GET /bytes/4 HTTP/1.1\r\nHost: ")
        engine.write(b"localhost\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            engine.unwrap()
        client.socket.sendall(outgoing.read())
        rest = b""
        while data := client.socket.recv(1 << 16):
            rest += data
        assert rest
    assert [request.path for request in running.handler.requests] == ["/bytes/3", "/bytes/4"]
    assert len(origin.wait_requests(2)) == 2


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("moment", ["connected", "connect", "hello", "tls", "head", "upload", "waiting", "download"])
def test_client_that_vanishes(proxy: ProxyFactory, origin: Origin, moment: str, end: str) -> None:
    """At every moment of a connection: it is reported once, and nothing of it is left."""
    held = threading.Event()

    def wait(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" if moment == "waiting" else b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc")
        held.set()
        assert connection.receive() == b""

    origin.script(wait, "/wait")
    running = proxy(Recording(), **{"body.buffer_request_bodies": False})
    client = running.client()
    if moment == "connect":
        client.send(b"CONNECT localh")
    elif moment == "hello":
        client.connect(f"localhost:{origin.port}")
        client.send(b"\x16\x03\x01\x02\x00\x01")
    elif moment != "connected":
        client.close()
        client = running.secured(origin.port)
        if moment == "head":
            client.send(b"GET / HT")
        elif moment == "upload":
            client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            origin.wait_heads(1)
        elif moment != "tls":
            client.send(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.wait(10)
    getattr(client, end)()
    running.wait_idle()
    assert len(running.handler.of("on_connection_close")) == len(set(running.handler.of("on_connection_close")))
    assert len(running.handler.of("on_connection_close")) == len(running.handler.of("on_connection_open"))


def test_rejected_connection_reads_its_503(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(Recording(), **{"max_concurrent_flows": 1})
    with running.tunnel(plain_origin.port) as first, running.client() as second:
        second.send(b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n" + bytes(100_000))
        assert second.read_answer().status == 503
        assert first.request("/bytes/1", "localhost").status == 200


def test_on_the_loop_of_asyncio(make_config: Callable[..., MitmConfig], origin: Origin) -> None:
    """The proxy promises nothing that only uvloop keeps."""

    async def main() -> None:
        handler = Recording()
        async with MitmProxyBuilder(make_config(), handler).build() as handle:

            def traffic() -> None:
                class Loop:
                    port, ca_certificate_path = handle.port, handle.ca_certificate_path

                running = Running(Loop(), handler)  # type: ignore[arg-type]
                with running.secured(origin.port) as client:
                    assert len(client.request("/bytes/300000", "localhost").body) == 300_000
                    assert client.request("/echo", "localhost", "POST", bytes(300_000)).status == 200
                    client.send(b"GET /bytes/1 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
                    assert [client.read_answer().status for _ in range(3)] == [200] * 3
                    assert client.request("/close/10", "localhost").body
                with running.secured(origin.port) as client:
                    client.send(b"GET /bytes/100 HT")
                    client.reset()

            await asyncio.to_thread(traffic)
            # what it replaces is put away before the proxy is gone
            await handle.reload(handle.current_config())
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(handler.of("on_request")) == 6

    asyncio.run(main())


def test_answer_to_an_upload_inside_tls_is_never_lost(proxy: ProxyFactory, origin: Origin) -> None:
    """What the client was still sending lies undecrypted when the proxy says goodbye, and must not break the TLS engine."""
    running = proxy(Recording(), **{"body.overflow": "reject", "body.max_size_bytes": 1000})
    for _ in range(5):
        client = running.tunnel(origin.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = running.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with client:
            while True:
                try:
                    engine.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    client.socket.sendall(outgoing.read())
                    incoming.write(client.socket.recv(1 << 16))
            engine.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
            for _ in range(8):
                engine.write(bytes(10_000))
            client.socket.sendall(outgoing.read())
            answer = b""
            while data := client.socket.recv(1 << 16):
                incoming.write(data)
                # in the order of a peer that does not stop at once
                engine.write(bytes(100))
                client.socket.sendall(outgoing.read())
                try:
                    while piece := engine.read(1 << 16):
                        answer += piece
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLZeroReturnError:
                    client.end_writing()
            assert b" 413 " in answer
    running.wait_idle()
