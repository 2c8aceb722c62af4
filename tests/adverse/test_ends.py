"""How connections and tunnels end: in halves, with readers that are late, with peers that read nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from soth_mitm.proxy import settings
from support.certs import TestCA
from support.leaks import DescriptorWatch, open_descriptors, what_remains
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
ASK = b"GET /tcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
GOODBYE = 0.02
NOTHING_LISTED = {"destinations": ("example.test:1",)}


class TlsPeer:
    """One end of a TLS connection that can end its direction and read on, as the sockets of the ssl module cannot."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        self.socket = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine = context.wrap_bio(self.incoming, self.outgoing, server, None if server else HOST)
        self._until(self.engine.do_handshake)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _flush(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def _until(self, step: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(1 << 16)
                if not data:
                    raise EOFError("no close_notify") from None
                self.incoming.write(data)
            else:
                self._flush()
                return result

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 16):
            self.engine.write(data[start : start + (1 << 16)])
            self._flush()

    def receive(self) -> bytes:
        """Return what came; nothing after close_notify."""
        try:
            return self._until(lambda: self.engine.read(1 << 16)) or b""
        except ssl.SSLZeroReturnError:
            return b""

    def receive_all(self) -> bytes:
        pieces = []
        while data := self.receive():
            pieces.append(data)
        return b"".join(pieces)

    def end(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.engine.unwrap()
        self._flush()


@pytest.fixture
def quick_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the proxy wait only this long for last bytes to move."""
    monkeypatch.setattr(settings, "LINGER_SECONDS", GOODBYE)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server that does nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


def room_for_little(running: Running) -> WireClient:
    """Return a client of a proxy for whom the kernel holds next to nothing in either direction, so that the proxy has to."""
    for number in (number for number, target in open_descriptors().items() if target.startswith("socket:")):
        with socket.socket(fileno=os.dup(number)) as found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == running.port:
                # those that it accepts inherit it
                found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = running.client()
    client.socket.close()
    client.socket = socket.socket()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.settimeout(5)
    client.socket.connect(("127.0.0.1", running.port))
    return client


def read_late(client: WireClient) -> bytes:
    """Read to the end, having slept for longer than a goodbye lasts."""
    time.sleep(5 * GOODBYE)
    return client.read_to_end()


@pytest.mark.skipif(not open_descriptors(), reason="the proxy's listening socket is found through /proc")
@pytest.mark.usefixtures("quick_goodbyes")
class TestLateReaders:
    """What they read last lies with the proxy, whose other side has ended long ago."""

    SIZE = 20_000

    def test_of_the_last_bytes_of_a_tunnel(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def send(connection: ScriptedConnection) -> None:
            connection.receive(1)
            connection.send(pattern(self.SIZE))
            connection.close()

        plain_origin.script_connections(send)
        with room_for_little(proxy(**NOTHING_LISTED)) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(b"x")
            client.end_writing()
            plain_origin.wait_closed(1)
            assert read_late(client) == pattern(self.SIZE)

    def test_of_the_last_bytes_of_a_switched_protocol(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def send(connection: ScriptedConnection, request: Request) -> None:
            connection.send(SWITCH + pattern(self.SIZE))
            connection.close()

        plain_origin.script(send, "/tcp")
        with room_for_little(proxy()) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(ASK)
            client.end_writing()
            plain_origin.wait_closed(1)
            assert read_late(client) == SWITCH + pattern(self.SIZE)

    @pytest.mark.parametrize("path", [f"/bytes/{SIZE}", f"/close/{SIZE}"])
    def test_of_the_last_answer(self, proxy: ProxyFactory, plain_origin: Origin, path: str) -> None:
        running = proxy()
        with room_for_little(running) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            running.handler.wait("on_response")
            assert read_late(client).partition(b"\r\n\r\n")[2] == pattern(self.SIZE)

    def test_of_the_answer_to_a_refused_upload(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % self.SIZE + pattern(self.SIZE))
            connection.close()

        plain_origin.script(refuse, "/up")
        running = proxy(**{"body.buffer_request_bodies": False})
        with room_for_little(running) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc")
            running.handler.wait("on_response")
            assert read_late(client).partition(b"\r\n\r\n")[2] == pattern(self.SIZE)


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 20001\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e21\r\n",
    "nonsense": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.skipif(not open_descriptors(), reason="the proxy's listening socket is found through /proc")
class TestAnswersThatAreCut:
    """What was relayed before the cut arrives, however late it is read; and the client can tell that it is not all."""

    SIZE = 20_000

    @pytest.mark.parametrize("framing", CUT)
    def test_in_plain_text(self, proxy: ProxyFactory, plain_origin: Origin, framing: str) -> None:
        relayed = threading.Event()
        wire = CUT[framing] + pattern(self.SIZE)

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(wire)
            connection.wait(relayed)
            if framing == "nonsense":
                connection.send(b"no size")
            elif framing == "until close":
                connection.reset()
            else:
                connection.close()

        plain_origin.script(answer, "/x")
        running = proxy(Recording())
        with room_for_little(running) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            while running.metrics().bytes_to_clients < len(wire):
                pass
            relayed.set()
            while running.metrics().cut_response_count == 0:
                pass
            body = wire.partition(b"\r\n\r\n")[2]
            assert client.read_exactly(len(body)) == body
            if framing == "until close":
                with pytest.raises(ConnectionResetError):
                    client.read_to_end()
            else:
                assert client.read_to_end() == b""
        running.wait_idle()

    @pytest.mark.parametrize("framing", ["length", "chunked", "nonsense", "until close"])
    def test_inside_tls(self, proxy: ProxyFactory, origin: Origin, framing: str) -> None:
        """There the end of the connection without close_notify tells it, whatever the framing."""
        wire = CUT[framing] + pattern(self.SIZE)

        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(wire + b"no size" * (framing == "nonsense"))
            if framing != "nonsense":
                origin.loop.call_soon_threadsafe(connection.connection.abort)

        origin.script(answer, "/x")
        running = proxy(Recording())
        with running.secured(origin.port) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            body = wire.partition(b"\r\n\r\n")[2]
            assert client.read_exactly(len(body)) == body
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                client.read_to_end()
        running.wait_idle()

    def test_a_body_that_begins_with_nonsense_is_answered_502(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """As long as nothing of it was sent: here it comes with its head."""
        bad = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        plain_origin.script(lambda connection, request: connection.send(bad), "/x")
        running = proxy(Recording())
        with running.tunnel(plain_origin.port) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
            for _ in range(2):
                answer = client.read_answer()
                assert answer.status == 502 and "a chunk does not begin with its size" in answer.text
        assert running.handler.of("on_response") == []

    def test_a_client_that_never_reads_what_was_cut_is_let_go(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def answer(connection: ScriptedConnection, request: Request) -> None:
            connection.send(CUT["length"] + pattern(self.SIZE))
            connection.close()

        plain_origin.script(answer, "/x")
        running = proxy(Recording(), **{"timeouts.body_idle_ms": 50})
        with room_for_little(running) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            client.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            running.handler.wait("on_connection_close")
            running.wait_idle()


class TestPeersThatReadNothing:
    @pytest.mark.usefixtures("quick_goodbyes")
    def test_an_upstream_holds_no_connection_open(self, proxy: ProxyFactory, listening: socket.socket) -> None:
        """The client is gone, and what it sent lies in our buffer."""
        running = proxy(**NOTHING_LISTED, **{"timeouts.tunnel_idle_ms": 50, "timeouts.body_idle_ms": 50})
        with running.client():
            # the first one opens what is kept, such as a socket to ask the system about processes
            running.handler.wait("on_connection_open")
        running.handler.wait("on_connection_close")
        watch = DescriptorWatch()
        client = running.tunnel(listening.getsockname()[1])
        accepted, _ = listening.accept()
        with accepted:
            # the silence may end the tunnel before the client has given up
            client.socket.settimeout(0.05)
            with pytest.raises(OSError):
                client.send(bytes(64 << 20))
            client.close()
            running.handler.wait("on_connection_close", 2)
            left = what_remains(lambda: {number: name for number, name in watch.added().items() if number != accepted.fileno()})
            assert not left, left

    @pytest.mark.usefixtures("quick_goodbyes")
    def test_a_client_holds_no_connection_open(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        def send(connection: ScriptedConnection) -> None:
            connection.send(bytes(300_000))
            connection.close()

        plain_origin.script_connections(send)
        running = proxy(**NOTHING_LISTED, **{"timeouts.tunnel_idle_ms": 50, "timeouts.body_idle_ms": 50})
        with room_for_little(running) as client:
            assert client.connect(f"localhost:{plain_origin.port}").status == 200
            running.handler.wait("on_connection_close")
            running.wait_idle()


class TestHalves:
    def test_a_client_inside_tls_may_end_first(self, proxy: ProxyFactory, origin_ca: TestCA, listening: socket.socket) -> None:
        heard: list[bytes] = []

        def serve() -> None:
            with TlsPeer(listening.accept()[0], origin_ca.server_context(HOST), server=True) as server:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += server.receive()
                server.send(SWITCH)
                heard.append(data.partition(b"\r\n\r\n")[2] + server.receive_all())
                # the client has ended; this is still for it
                server.send(pattern(500_000))
                server.end()
                server.receive()

        serving = threading.Thread(target=serve)
        serving.start()
        running = proxy(Recording())
        with TlsPeer(running.tunnel(listening.getsockname()[1]).socket, running.client_context(), server=False) as client:
            client.send(ASK + pattern(300_000))
            client.end()
            assert client.receive_all() == SWITCH + pattern(500_000)
        serving.join()
        assert heard == [pattern(300_000)]
        running.wait_idle()

    def test_an_upstream_inside_tls_may_end_first(self, proxy: ProxyFactory, origin_ca: TestCA, listening: socket.socket) -> None:
        heard: list[bytes] = []

        def serve() -> None:
            with TlsPeer(listening.accept()[0], origin_ca.server_context(HOST), server=True) as server:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += server.receive()
                server.send(SWITCH + pattern(300_000))
                server.end()
                heard.append(data.partition(b"\r\n\r\n")[2] + server.receive_all())

        serving = threading.Thread(target=serve)
        serving.start()
        running = proxy(Recording())
        with TlsPeer(running.tunnel(listening.getsockname()[1]).socket, running.client_context(), server=False) as client:
            client.send(ASK)
            assert client.receive_all() == SWITCH + pattern(300_000)
            client.send(pattern(500_000))
            client.end()
            client.receive()
        serving.join()
        assert heard == [pattern(500_000)]
        running.wait_idle()

    @pytest.mark.parametrize("secure", [False, True])
    def test_last_bytes_of_a_client_arrive(self, proxy: ProxyFactory, plain_origin: Origin, origin: Origin, secure: bool) -> None:
        """Its connection is closed right behind them, inside TLS without close_notify."""
        server = origin if secure else plain_origin
        received: list[bytes] = []

        def collect(connection: ScriptedConnection, request: Request) -> None:
            connection.send(SWITCH)
            while data := connection.receive():
                received.append(data)

        server.script(collect, "/tcp")
        running = proxy(Recording())
        with (running.secured if secure else running.tunnel)(server.port) as client:
            client.send(ASK)
            assert client.read_head().status == 101
            client.send(pattern(1_000_000))
        server.wait_closed(1)
        assert b"".join(received) == pattern(1_000_000)
        running.wait_idle()
