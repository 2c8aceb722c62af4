"""An HTTPS origin that says what reached it and when: every byte of every connection, in one journal with what the handler was asked.

    journal = Journal()
    with Tap(journal, context) as tap:
        mark = journal.mark()
        ...                                  # a client talks through the proxy
        tap.assert_silence(mark)             # not a byte of TCP, read or unread
        journal.plain_since(mark)            # what came, without TLS

One thread serves all connections. Whatever it takes off a socket is in the journal before anybody else can look.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WAIT = 10.0


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Of a connection: `accepted`, `tcp` (how many bytes a read gave), `plain` (the bytes, without TLS), `answered` (the request), `ended`.
    Of a handler: what it notes itself.
    """

    kind: str
    value: Any
    connection: int = -1


class Journal:
    """What happened, in order, on whatever thread."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._changed = threading.Condition()

    def note(self, kind: str, value: object = None, connection: int = -1) -> None:
        with self._changed:
            self._entries.append(Entry(kind, value, connection))
            self._changed.notify_all()

    def mark(self) -> int:
        """Return where the journal ends now."""
        with self._changed:
            return len(self._entries)

    def since(self, mark: int, *kinds: str) -> list[Entry]:
        """Return the entries after `mark`, of these kinds, all when none is named."""
        with self._changed:
            return [entry for entry in self._entries[mark:] if not kinds or entry.kind in kinds]

    def plain_since(self, mark: int) -> bytes:
        """Return what came after `mark`, without TLS, on all connections."""
        return b"".join(entry.value for entry in self.since(mark, "plain"))

    def wait(self, mark: int, kind: str, count: int = 1) -> list[Entry]:
        """Wait for `count` entries of a kind after `mark`."""
        return self._wait(lambda: len(self.since(mark, kind)) >= count, lambda: self.since(mark, kind), f"{count} of {kind}")

    def wait_plain(self, mark: int, expected: bytes) -> None:
        """Wait until what came after `mark` is as long as `expected`; it must be the same."""
        self._wait(lambda: len(self.plain_since(mark)) >= len(expected), lambda: [], f"{len(expected)} bytes")
        assert self.plain_since(mark) == expected

    def _wait(self, reached: Callable[[], bool], result: Callable[[], list[Entry]], what: str) -> list[Entry]:
        with self._changed:
            if not self._changed.wait_for(reached, WAIT):
                raise TimeoutError(f"no {what} within {WAIT:g} s; the journal ends {self._entries[-5:]}")
            return result()


def message_end(data: bytes) -> int | None:
    """Return where the first HTTP/1 request in `data` ends, None while it is not complete. Forgiving: the proxy is the strict one."""
    head_end = data.find(b"\r\n\r\n") + 4
    if head_end == 3:
        return None
    fields = [line.lower().replace(b" ", b"") for line in data[:head_end].split(b"\r\n")]
    if b"transfer-encoding:chunked" not in fields:
        length = next((int(line[15:]) for line in fields if line.startswith(b"content-length:")), 0)
        return head_end + length if len(data) >= head_end + length else None
    at = head_end
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].split(b";")[0], 16)
        if size == 0:
            end = data.find(b"\r\n\r\n", line_end)
            return end + 4 if end >= 0 else None
        at = line_end + 2 + size + 2
    return None


class TapConnection:
    """One accepted connection. A responder calls `send` and `close`."""

    def __init__(self, tap: Tap, index: int, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.index = index
        self.socket = sock
        self.unread = b""
        self.head_seen = False
        self.closed = False
        self._tap = tap
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True) if context else None
        self._secured = context is None

    def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        if self._tls is None:
            self.socket.sendall(data)
        else:
            self._tls.write(data)
            self.socket.sendall(self._outgoing.read())

    def close(self) -> None:
        """Close in order."""
        if self._tls is not None and self._secured:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self.socket.sendall(self._outgoing.read())
        self.closed = True

    def take(self) -> bytes | None:
        """Read what the socket has and return it without TLS; None at the end of the connection."""
        data = self.socket.recv(1 << 18)
        if not data:
            return None
        self._tap.journal.note("tcp", len(data), self.index)
        if self._tls is None:
            return data
        self._incoming.write(data)
        plain = b""
        try:
            if not self._secured:
                self._tls.do_handshake()
                self._secured = True
            while piece := self._tls.read(1 << 18):
                plain += piece
            return plain or None
        except ssl.SSLWantReadError:
            return plain
        finally:
            if self._outgoing.pending:
                self.socket.sendall(self._outgoing.read())


Responder = Callable[[TapConnection, bytes], None]


def answer_ok(connection: TapConnection, request: bytes) -> None:
    """Answer 200."""
    connection.send(OK)


def continue_if_expected(connection: TapConnection, head: bytes) -> None:
    """Answer 100 to who waits for it."""
    if b"\r\nexpect: 100-continue\r\n" in head.lower():
        connection.send(CONTINUE)


class Tap:
    """The origin; use it as a context manager.

    `respond(connection, request)` answers each complete request, `at_head(connection, head)` is called before the body has come; both may
    be replaced.
    """

    def __init__(self, journal: Journal, context: ssl.SSLContext | None = None, host: str = "localhost") -> None:
        self.journal = journal
        self.respond: Responder = answer_ok
        self.at_head: Responder = continue_if_expected
        self.failure: Exception | None = None
        self._context = context
        self._host = host
        self._connections: dict[socket.socket, TapConnection] = {}
        self._accepted = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listening = socket.create_server((self._host, 0), family=family, backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._bell, self._ear = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="tap")
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bell.send(b"!")
        self._thread.join()
        for sock in [*self._connections, self._listening, self._ear, self._bell]:
            sock.close()
        self._selector.close()
        if kind is None and self.failure is not None:
            raise self.failure

    def _serve(self) -> None:
        while all(key.fileobj is not self._ear for key, _ in self._selector.select()):
            self.settle()

    def settle(self) -> None:
        """Take everything that waits in the sockets, whoever calls."""
        with self._lock:
            while readable := select.select([*self._connections, self._listening], [], [], 0)[0]:
                for sock in readable:
                    if sock is self._listening:
                        self._accept()
                    else:
                        self._read(self._connections[sock])

    def _accept(self) -> None:
        sock, _ = self._listening.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(WAIT)
        self.journal.note("accepted", None, self._accepted)
        self._connections[sock] = TapConnection(self, self._accepted, sock, self._context)
        self._accepted += 1
        self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, connection: TapConnection) -> None:
        try:
            plain = connection.take()
            if plain:
                self.journal.note("plain", plain, connection.index)
                connection.unread += plain
                self._answer(connection)
            if plain is None or connection.closed:
                self._forget(connection)
        except OSError:
            # reset by the proxy, which tests look for in the journal
            self._forget(connection)
        except Exception as error:
            self.failure = error
            self._forget(connection)

    def _answer(self, connection: TapConnection) -> None:
        while connection.unread and not connection.closed:
            end = message_end(connection.unread)
            if end is None:
                head, found, _ = connection.unread.partition(b"\r\n\r\n")
                if found and not connection.head_seen:
                    connection.head_seen = True
                    self.at_head(connection, head + found)
                return
            request, connection.unread = connection.unread[:end], connection.unread[end:]
            connection.head_seen = False
            self.respond(connection, request)
            self.journal.note("answered", request, connection.index)

    def _forget(self, connection: TapConnection) -> None:
        self.journal.note("ended", None, connection.index)
        self._selector.unregister(connection.socket)
        del self._connections[connection.socket]
        connection.socket.close()

    def assert_silence(self, mark: int) -> None:
        """Assert that nothing came after `mark`, not even a new connection."""
        self.settle()
        came = self.journal.since(mark, "accepted", "tcp", "plain", "ended")
        assert not came, came
