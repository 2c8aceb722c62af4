"""HTTP/1 exchanges by number: the same request and the same response whenever and wherever they are made.

    exchange(7).request, exchange(7).response     # bytes, as a client and an origin send them
    stripped(exchange(7).request)                 # as they are after a proxy

Every framing that keeps a connection open is among them, in every size up to 1 MiB, with fields that stop at a proxy and others that must
not be touched.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from support.origin_answers import pattern

STOPPING = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"proxy-authorization")
SIZES = (0, 1, 2, 10, 100, 1000, 4000, 16_383, 16_384, 16_385)
BIG = (65_535, 65_536, 65_537, 200_000, 1 << 20)
FIELDS = (
    b"X-Twice: 1\r\nx-twice:  2 \r\n",
    b"aCCEPT: */*\r\n",
    b"X-Empty:\r\n",
    b"X-Bytes: \xe4\xff\t!\r\n",
    b"Cookie: a=b; c=d\r\n",
    b"Authorization: Basic eDp5\r\n",
    b"Connection: X-Hop\r\nx-hOP: 1\r\nX-Hop: 2\r\n",
    b"Connection: keep-alive, Keep-Alive\r\nKeep-Alive: timeout=5\r\n",
    b"TE: trailers\r\n",
    b"Proxy-Connection: keep-alive\r\n",
)
STATUSES = (
    b"200 OK",
    b"200 OK",
    b"200 OK",
    b"201 Created",
    b"206 Partial",
    b"404 Not Found",
    b"500 ",
    b"204 No Content",
    b"304 Not Modified",
)
INTERIM = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 \r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n")
TYPES = (b"text/plain", b"application/json; charset=utf-8", b"application/x-ndjson", b"application/octet-stream")


@dataclass(frozen=True)
class NumberedExchange:
    """A request and its response on the wire; `sent` is the content of the request, `received` that of the response, decoded."""

    method: str
    request: bytes
    sent: bytes
    response: bytes
    received: bytes


def exchange(number: int) -> NumberedExchange:
    """Make one."""
    choice = random.Random(number)
    method = choice.choice(("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS"))
    sent = _content(choice) if method in ("POST", "PUT") or choice.random() < 0.1 else None
    head = f"{method} /{number}?a=b&a=%20 HTTP/1.1\r\nHost: localhost\r\n".encode() + _fields(choice)
    request = head + (b"\r\n" if sent is None else _framed(choice, sent))

    status, content = choice.choice(STATUSES), _content(choice)
    head = b"".join(choice.choices(INTERIM, k=choice.choice((0, 0, 0, 0, 0, 0, 1, 3)))) + b"HTTP/1.1 " + status + b"\r\n" + _fields(choice)
    head += b"Content-Type: " + choice.choice(TYPES) + b"\r\n"
    wire = content
    if choice.random() < 0.2:
        packer = zlib.compressobj(1, wbits=31)
        wire = packer.compress(content) + packer.flush()
        head += b"Content-Encoding: gzip\r\n"
    if status[:3] == b"204":
        return NumberedExchange(method, request, sent or b"", head + b"\r\n", b"")
    if method == "HEAD" or status[:3] == b"304":
        return NumberedExchange(method, request, sent or b"", head + b"Content-Length: %d\r\n\r\n" % len(wire), b"")
    return NumberedExchange(method, request, sent or b"", head + _framed(choice, wire), content)


def stripped(message: bytes) -> bytes:
    """Return a message without the fields of its last head that stop at a proxy, its body as it is (RFC 9110 section 7.6.1)."""
    start = 0
    while message[start:].startswith(b"HTTP/1.1 1"):
        start = message.index(b"\r\n\r\n", start) + 4
    end = message.index(b"\r\n\r\n", start)
    first, *lines = message[start:end].split(b"\r\n")
    pairs = [(line.partition(b":")[0].lower(), line) for line in lines]
    named = {option.strip().lower() for name, line in pairs if name == b"connection" for option in line.partition(b":")[2].split(b",")}
    kept = [line for name, line in pairs if name not in STOPPING and name not in named]
    return message[:start] + b"\r\n".join((first, *kept)) + message[end:]


def _content(choice: random.Random) -> bytes:
    return pattern(choice.choice(BIG) if choice.random() < 0.01 else choice.choice(SIZES))


def _fields(choice: random.Random) -> bytes:
    return b"".join(choice.sample(FIELDS, choice.randrange(5)))


def _framed(choice: random.Random, content: bytes) -> bytes:
    """Return the framing fields, the empty line and the body."""
    if choice.random() < 0.6:
        return b"Content-Length: %d\r\n\r\n" % len(content) + content
    pieces = []
    size = max(1, len(content) // choice.randrange(1, 9))
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        pieces.append(choice.choice((b"%x\r\n", b"%X\r\n", b"%08x\r\n", b'%x;name="a;b"\r\n')) % len(piece) + piece + b"\r\n")
    trailers = choice.choice((b"", b"", b"X-Sum: 1\r\n", b"x-a:  2 \r\nX-A: 3\r\nx-empty:\r\n"))
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + choice.choice((b"0\r\n", b"000;last\r\n")) + trailers + b"\r\n"
