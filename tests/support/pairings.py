"""Clients and origins of both versions of HTTP behind one interface, in each pairing."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any

from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin
from support.running import HOST, Running
from support.wire_client import TIMEOUT, WireClient

PAIRINGS = [(client, upstream) for client in ("h1", "h2") for upstream in ("h1", "h2")]
Fields = Sequence[tuple[str, str]]


class PairedClient:
    """A client of either version, inside a CONNECT."""

    def __init__(self, running: Running, port: int, version: str) -> None:
        self.connection: WireClient = running.secured(port, HOST, *(["h2", "http/1.1"] if version == "h2" else ["http/1.1"]))
        assert (self.connection.tls.selected_alpn_protocol() == "h2") == (version == "h2")
        self.authority = f"{HOST}:{port}"
        self.h2 = Http2Client(self.connection.socket, self.authority) if version == "h2" else None

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, fields: Fields = ()) -> Any:
        """Send a request and return the answer."""
        return self.answer(self.begin(path, method, body, fields), method)

    def begin(self, path: str, method: str = "GET", body: bytes | None = None, fields: Fields = ()) -> int:
        """Send a request; the number of its stream, 0 on HTTP/1."""
        if self.h2 is not None:
            length = () if body is None else (("content-length", str(len(body))),)
            named = [*length, *((name.lower(), value) for name, value in fields)]
            number = self.h2.open(path, method=method, fields=named, end=body is None)
            if body is not None:
                self.h2.send(number, body, end=True)
            return number
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        lines += "" if body is None else f"Content-Length: {len(body)}\r\n"
        self.connection.send(f"{method} {path} HTTP/1.1\r\nHost: {self.authority}\r\n{lines}\r\n".encode() + (body or b""))
        return 0

    def answer(self, number: int, method: str = "GET") -> Any:
        """Read the answer to `begin`."""
        return self.connection.read_answer(method) if self.h2 is None else self.h2.answer(number)

    def has_heard(self, number: int) -> bool:
        """Tell whether anything of the answer to `begin` is here. What the proxy has sent before an answer that was read, is."""
        if self.h2 is not None:
            stream = self.h2.streams[number]
            return bool(stream.headers or stream.body or stream.over)
        self.connection.socket.setblocking(False)
        try:
            return bool(self.connection.buffered() or self.connection.socket.recv(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self.connection.socket.settimeout(TIMEOUT)

    def close(self) -> None:
        """Close the connection."""
        self.connection.socket.close()


def paired_origin(origin_ca: TestCA, version: str) -> Origin:
    """Return an origin of one version."""
    return Origin(origin_ca.server_context(HOST, alpn=["h2"] if version == "h2" else []), host=HOST)


PairedFactory = Callable[..., "tuple[Running, PairedClient, Origin]"]
