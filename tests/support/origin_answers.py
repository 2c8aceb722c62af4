"""What an origin answers by path; see `Origin`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

from support.origin_messages import PIECE, Request

_CYCLE = bytes(range(251))  # a prime length, so that a shifted or repeated buffer shows


class Answering(Protocol):
    """The connection on which to answer."""

    async def read_body(self) -> None:
        """Read the request's body to its end, after `100 Continue` if the client waits for it."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client does not read."""
        raise NotImplementedError

    def end(self) -> None:
        """Close in an orderly way after what was sent."""
        raise NotImplementedError

    def cut(self) -> None:
        """Reset the connection now."""
        raise NotImplementedError


Answer = Callable[..., Awaitable[None]]
"""Called with the connection, the request and the numbers of the path."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def pattern(count: int) -> bytes:
    """Return the `count` bytes that `/bytes`, `/chunked`, `/close` and `/cut` send."""
    return (_CYCLE * (count // len(_CYCLE) + 1))[:count]


def head(status: int, *fields: tuple[str, str]) -> bytes:
    """Spell a response head."""
    lines = (f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n", *(f"{name}: {value}\r\n" for name, value in fields), "\r\n")
    return "".join(lines).encode("latin-1")


async def _send(connection: Answering, request: Request, body: bytes, *fields: tuple[str, str], status: int = 200) -> None:
    """Send a response with Content-Length, without the body if the method is HEAD."""
    if request.method == "HEAD":
        await connection.write(head(status, *fields, ("Content-Length", str(len(body)))))
        return
    await connection.write(head(status, *fields, ("Content-Length", str(len(body)))) + body[:PIECE])
    for start in range(PIECE, len(body), PIECE):
        await connection.write(body[start : start + PIECE])


async def echo(connection: Answering, request: Request) -> None:
    """Describe the request in JSON."""
    await connection.read_body()
    description = {
        "method": request.method,
        "path": request.target,
        "version": request.version,
        "headers": request.headers,
        "body_length": request.length,
        "body_sha256": request.digest.hexdigest(),
        "trailers": request.trailers,
        "connection": request.connection_index,
    }
    await _send(connection, request, json.dumps(description).encode(), ("Content-Type", "application/json"))


async def _bytes(connection: Answering, request: Request, count: int) -> None:
    await connection.read_body()
    await _send(connection, request, pattern(count), ("Content-Type", "application/octet-stream"))


async def _chunked(connection: Answering, request: Request, count: int, pieces: int) -> None:
    body, size = pattern(count), max(1, -(-count // max(1, pieces)))
    trailers = "trailers" in request.query
    await connection.read_body()
    await connection.write(head(200, ("Transfer-Encoding", "chunked"), *([("Trailer", "X-Sha256")] if trailers else [])))
    if request.method == "HEAD":
        return
    for start in range(0, count, size):
        piece = body[start : start + size]
        await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    trailer = f"X-Sha256: {hashlib.sha256(body).hexdigest()}\r\n" if trailers else ""
    await connection.write(f"0\r\n{trailer}\r\n".encode())


async def _close(connection: Answering, request: Request, count: int) -> None:
    await connection.read_body()
    await connection.write(head(200, ("Connection", "close")) + (b"" if request.method == "HEAD" else pattern(count)))
    connection.end()


async def _sse(connection: Answering, request: Request, count: int, milliseconds: int) -> None:
    await connection.read_body()
    await connection.write(head(200, ("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")))
    for number in range(count):
        event = f"id: {number}\nevent: tick\ndata: {json.dumps({'number': number})}\n\n".encode()
        await connection.write(b"%x\r\n%b\r\n" % (len(event), event))
        await asyncio.sleep(milliseconds / 1000)
    await connection.write(b"0\r\n\r\n")


async def _status(connection: Answering, request: Request, status: int) -> None:
    await connection.read_body()
    if status in (204, 304):
        await connection.write(head(status))
    else:
        await _send(connection, request, f"{status}\n".encode(), ("Content-Type", "text/plain"), status=status)


async def _slow(connection: Answering, request: Request, milliseconds: int) -> None:
    await connection.read_body()
    await asyncio.sleep(milliseconds / 1000)
    await echo(connection, request)


async def _interim(connection: Answering, request: Request) -> None:
    await connection.write(head(100) + head(103, ("Link", "</style.css>; rel=preload")))
    await echo(connection, request)


async def _cut(connection: Answering, request: Request, count: int) -> None:
    await connection.read_body()
    await connection.write(head(200, ("Content-Length", str(count))) + pattern(count)[: count // 2])
    connection.end()


async def _reset(connection: Answering, request: Request) -> None:
    await connection.read_body()
    connection.cut()


async def _early(connection: Answering, request: Request) -> None:
    await _send(connection, request, b"early\n")


ANSWERS: dict[tuple[str, int], Answer] = {
    ("bytes", 1): _bytes,
    ("chunked", 2): _chunked,
    ("close", 1): _close,
    ("sse", 2): _sse,
    ("status", 1): _status,
    ("slow", 1): _slow,
    ("interim", 0): _interim,
    ("cut", 1): _cut,
    ("reset", 0): _reset,
    ("early", 0): _early,
}


async def answer(connection: Answering, request: Request) -> None:
    """Answer by the path: its first part and how many numbers follow. A path that asks for nothing known is echoed."""
    name, *arguments = request.path.removeprefix("/").split("/")
    known = ANSWERS.get((name, len(arguments))) if all(map(str.isdecimal, arguments)) else None
    await (known or echo)(connection, request, *(map(int, arguments) if known else ()))
