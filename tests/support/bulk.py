"""Bodies of any size that nobody has to hold: an origin that makes them as they are taken and checks what it is sent, and a client's side.

    with BulkOrigin(ssl_context) as origin:
        client.send(b"GET /length/1000000 HTTP/1.1...")
        read_bulk(client.socket, 1000000)

Paths: `/length/<n>` and `/chunked/<n>` send n bytes; to a POST there the answer is `ok`, or what was wrong with the body, whose chunks must
be those that `bulk_pieces` makes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self, cast

import uvloop

BLOCK = bytes(range(251)) * 1024
_TWICE = BLOCK + BLOCK
# Small, so that what waits, waits in the proxy or is not sent yet, and a thousand connections do not use up the kernel's memory
SEND_BUFFER = 1 << 16


def expected(start: int, count: int) -> bytes:
    """Return `count` bytes of the body from `start` on, at most `len(BLOCK)`."""
    start %= len(BLOCK)
    return _TWICE[start : start + count]


def bulk_pieces(size: int, chunked: bool) -> Iterator[bytes]:
    """Yield the pieces of a body of `size` bytes, with their framing."""
    for start in range(0, size, len(BLOCK)):
        piece = BLOCK[: size - start]
        last = start + len(piece) == size
        yield b"%x\r\n%b\r\n%b" % (len(piece), piece, b"0\r\n\r\n" * last) if chunked else piece


def read_bulk(source: socket.socket, size: int, start: int = 0) -> None:
    """Read a body of `size` bytes, of which `start` were read before, and check each of them."""
    while start < size:
        data = source.recv(min(len(BLOCK), size - start))
        assert data, f"the stream ended {size - start} bytes early"
        assert data == expected(start, len(data)), f"wrong bytes behind {start}"
        start += len(data)


def read_bulk_chunks(source: socket.socket, size: int, buffered: bytes) -> None:
    """Read a body as `/chunked/<n>` sends it; `buffered` was read already."""
    stream = source.makefile("rb", buffering=len(BLOCK))
    ahead = buffered

    def take(count: int) -> bytes:
        nonlocal ahead
        taken, ahead = ahead[:count], ahead[count:]
        return taken + stream.read(count - len(taken))

    start = 0
    while start < size:
        count = min(len(BLOCK), size - start)
        line = b"%x\r\n" % count
        assert take(len(line)) == line
        assert take(count) == expected(start, count), f"wrong bytes behind {start}"
        assert take(2) == b"\r\n"
        start += count
    assert take(5) == b"0\r\n\r\n"


class _Bulk(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0
        self._chunked = False
        # of an upload: what is still to come of the piece that has begun, and the pieces behind it; None: none is under way
        self._piece = memoryview(b"")
        self._pieces: Iterator[bytes] | None = None
        self._wrong = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's have the type's methods but not its name
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._paused = False

    def abort(self) -> None:
        """Cut the connection, if it ever was one: TLS may have failed."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._pieces is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self._begin(head.decode("latin-1"))
        if self._pieces is not None:
            self._check(self._pieces, data)

    def _begin(self, head: str) -> None:
        method, path, _ = head.partition("\r\n")[0].split(" ")
        kind, size = path.strip("/").split("/")
        if method == "POST":
            self._wrong = ""
            self._pieces = bulk_pieces(int(size), kind == "chunked")
            self._piece = memoryview(next(self._pieces))
            return
        self._left, self._chunked = int(size), kind == "chunked"
        framing = "Transfer-Encoding: chunked" if self._chunked else f"Content-Length: {size}"
        self._transport.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        self._send()

    def _check(self, pieces: Iterator[bytes], data: bytes) -> None:
        while data and self._piece:
            count = min(len(data), len(self._piece))
            if data[:count] != self._piece[:count]:
                self._wrong = "wrong bytes"
            data = data[count:]
            self._piece = self._piece[count:] or memoryview(next(pieces, b""))
        if not self._piece:
            text = "too long" if data else self._wrong or "ok"
            self._pieces = None
            self._transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    def _send(self) -> None:
        while self._left and not self._paused:
            count = min(len(BLOCK), self._left)
            self._left -= count
            if self._chunked:
                self._transport.write(b"%x\r\n" % count)
            self._transport.write(BLOCK[:count])
            if self._chunked:
                self._transport.write(b"\r\n" if self._left else b"\r\n0\r\n\r\n")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send()


class BulkOrigin:
    """The origin, on a loop of its own thread; a context manager."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._context = ssl_context
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulk-origin")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        protocols: list[_Bulk] = []

        def accept() -> _Bulk:
            protocols.append(_Bulk())
            return protocols[-1]

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0, ssl=self._context, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for protocol in protocols:
            protocol.abort()
        await server.wait_closed()
