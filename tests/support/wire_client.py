"""A client on a blocking socket that says exactly what a test wants, and reads HTTP/1 answers without forgiving anything."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from support.origin_messages import parse_fields

# A busy machine may stand still for some seconds; the proxy's own deadlines begin at ten, and no test is to pass thanks to one of them
TIMEOUT = 9.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Answer:
    """One response: `body` without its framing, `raw` as it came."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    raw: bytes = b""
    trailers: list[tuple[str, str]] | None = None

    def get(self, name: str) -> str | None:
        """Return the values of a header joined by commas, None if it is absent."""
        values = [value for header, value in self.headers if header.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def text(self) -> str:
        return self.body.decode()


class WireClient:
    """One connection to the proxy. `recv` and friends raise `EOFError` where the stream ends too early."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket: socket.socket = socket.create_connection((host, port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    @classmethod
    def to_unix(cls, path: Path) -> Self:
        """Return a client of a Unix socket."""
        client = cls.__new__(cls)
        client.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.socket.settimeout(TIMEOUT)
        try:
            client.socket.connect(str(path))
        except OSError:
            client.socket.close()
            raise
        client._buffer = b""
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.socket.close()

    @property
    def tls(self) -> ssl.SSLSocket:
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def send_raw(self, data: bytes) -> None:
        """Send `data` on the socket itself, past the TLS engine; the connection is good for nothing else then."""
        raw = socket.socket(fileno=os.dup(self.socket.fileno()))
        with raw:
            raw.sendall(data)

    def connect(self, target: str) -> Answer:
        """CONNECT to `target` and return the proxy's answer."""
        self.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        return self.read_answer("CONNECT")

    def start_tls(self, context: ssl.SSLContext, name: str | None = "localhost", session: ssl.SSLSession | None = None) -> None:
        """Do the client's handshake; `name` None asks for no name."""
        self.socket = context.wrap_socket(self.socket, server_hostname=name, suppress_ragged_eofs=False, session=session)

    def request(self, target: str, host: str, method: str = "GET", body: bytes | None = None, extra: str = "") -> Answer:
        """Send a request, framed by Content-Length when it has a body, and read the answer."""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        self.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}{extra}\r\n".encode() + (body or b""))
        return self.read_answer(method)

    # --- reading

    def _more(self) -> bool:
        data = self.socket.recv(1 << 16)
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def buffered(self) -> bytes:
        """Take what was read and not asked for yet; the rest comes from `socket`."""
        return self._take(len(self._buffer))

    def read_until(self, separator: bytes) -> bytes:
        """Read up to and with `separator`."""
        while (end := self._buffer.find(separator)) < 0:
            if not self._more():
                raise EOFError(f"the stream ended after {self._buffer[:200]!r}")
        return self._take(end + len(separator))

    def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes."""
        pieces, missing = [self._take(count)], count
        missing -= len(pieces[0])
        while missing:
            data = self.socket.recv(min(missing, 1 << 18))
            if not data:
                raise EOFError(f"the stream ended {missing} bytes early")
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def read_to_end(self) -> bytes:
        """Read until the peer ends its direction in order."""
        pieces = [self._take(len(self._buffer))]
        while data := self.socket.recv(1 << 18):
            pieces.append(data)
        return b"".join(pieces)

    def read_head(self) -> Answer:
        """Read a status line and its fields."""
        head = self.read_until(b"\r\n\r\n")
        line, _, fields = head[:-4].partition(b"\r\n")
        version, status, reason = line.decode("latin-1").split(" ", 2)
        return Answer(int(status), reason, version, parse_fields(fields) if fields else [])

    def read_answer(self, method: str = "GET") -> Answer:
        """Read a response to its end."""
        answer = self.read_head()
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200 or (method == "CONNECT" and answer.status == 200):
            return answer
        if answer.get("transfer-encoding") == "chunked":
            pieces = list(self._chunks(answer))
            answer.body = b"".join(pieces)
        elif (length := answer.get("content-length")) is not None:
            answer.raw = answer.body = self.read_exactly(int(length))
        else:
            answer.raw = answer.body = self.read_to_end()
        return answer

    def _chunks(self, answer: Answer) -> Iterator[bytes]:
        while True:
            line = self.read_until(b"\r\n")
            answer.raw += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data = self.read_exactly(size + 2)
            answer.raw += data
            yield data[:-2]
        trailers = b""
        while (line := self.read_until(b"\r\n")) != b"\r\n":
            trailers += line
        answer.raw += trailers + b"\r\n"
        answer.trailers = parse_fields(trailers[:-2]) if trailers else []

    # --- leaving

    def end_writing(self) -> None:
        """Send FIN and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        """Close the socket without a word of TLS."""
        self.socket.close()
