"""A server on blocking sockets that answers each request, and between two of them sends what a test says: at once, from any thread."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from support.arrival import PATIENCE_MS, wait_arrival
from support.wire_client import RESET_ON_CLOSE


class BareConnection:
    """One accepted connection. Each answer's body is the number of the connection, counted from 0."""

    def __init__(
        self, sock: socket.socket, index: int, context: ssl.SSLContext | None, hold_finished: bool, go_on: threading.Event
    ) -> None:
        self._go_on = go_on
        self._socket = sock
        self._index = index
        self._peer = sock.getpeername()
        self._lock = threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = context.wrap_bio(self._incoming, self._outgoing, server_side=True) if context else None
        self._secured = context is None
        self._hold_finished = hold_finished
        self._has_sent = False
        self._kept = b""
        self._plain = b""

    # --- its own thread

    def serve(self) -> None:
        """Answer until either side ends the connection."""
        with self._socket:
            try:
                while data := self._socket.recv(1 << 16):
                    self._go_on.wait(PATIENCE_MS / 1000)
                    with self._lock:
                        self._take(data)
            except OSError:
                # reset, by us or by the peer
                return

    def _take(self, data: bytes) -> None:
        if self._engine is None:
            self._plain += data
        elif self._hold_finished and self._has_sent:
            self._kept += data
            return
        else:
            self._incoming.write(data)
            self._step()
        while b"\r\n\r\n" in self._plain:
            self._plain = self._plain.partition(b"\r\n\r\n")[2]
            body = str(self._index).encode()
            self._put(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def _step(self) -> None:
        assert self._engine is not None
        try:
            if not self._secured:
                self._engine.do_handshake()
                self._secured = True
            while piece := self._engine.read(1 << 16):
                self._plain += piece
        except ssl.SSLWantReadError:
            pass
        self._flush()

    def _put(self, data: bytes) -> None:
        if self._engine is None:
            self._socket.sendall(data)
        else:
            self._engine.write(data)
            self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._has_sent = True
            self._socket.sendall(data)

    # --- what a test does, from another thread; each returns when the peer's system has what was sent

    def send(self, data: bytes) -> None:
        """Send bytes, inside TLS if it is spoken."""
        with self._lock:
            self._put(data)
        wait_arrival(self._peer)

    def send_half_a_record(self) -> None:
        """Send the beginning of a TLS record and no more."""
        assert self._engine is not None
        with self._lock:
            self._engine.write(b"x")
            self._socket.sendall(self._outgoing.read()[:9])
        wait_arrival(self._peer)

    def finish_handshake(self) -> None:
        """Let the engine have the client's last flight, which was kept from it: it answers with session tickets."""
        with self._lock:
            self._hold_finished = False
            self._incoming.write(self._kept)
            self._step()
        wait_arrival(self._peer)

    def send_close_notify(self) -> None:
        """Send close_notify and leave TCP open."""
        assert self._engine is not None
        with self._lock:
            try:
                self._engine.unwrap()
            except ssl.SSLWantReadError:
                pass
            self._flush()
        wait_arrival(self._peer)

    def end(self) -> None:
        """Send FIN, without a word of TLS."""
        self._socket.shutdown(socket.SHUT_WR)
        wait_arrival(self._peer)

    def reset(self) -> None:
        """Send RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        # wakes the thread, which closes the socket
        self._socket.shutdown(socket.SHUT_RD)
        wait_arrival(self._peer)


class BareServer:
    """Accepts connections; use it as a context manager.

    While `go_on` is cleared, nothing is answered. With `hold_finished`, the last flight of the first TLS client's handshake is kept from
    the engine until `finish_handshake`.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, hold_finished: bool = False) -> None:
        self.connections: list[BareConnection] = []
        self._context = context
        self._hold_finished = hold_finished
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self.go_on = threading.Event()
        self.go_on.set()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            accepted, _ = self._listener.accept()
            if self._stopping:
                accepted.close()
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            index = len(self.connections)
            connection = BareConnection(accepted, index, self._context, self._hold_finished and index == 0, self.go_on)
            self.connections.append(connection)
            self._start(connection.serve)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop accepting. Connections end when their clients leave, which a test has to see to first."""
        self._stopping = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a client of this server is still there"
        self._listener.close()
