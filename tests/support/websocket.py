"""WebSocket for tests: the opening handshake (RFC 6455 section 4), and frames that say exactly what a test wants."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
import zlib

from soth_mitm import InterceptHandler, StreamChunk
from support.origin import Request, ScriptedConnection
from support.recording import Recording

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x01\x02\x03\x04"
FIN, RSV1 = 0x80, 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


class Unread(Recording):
    """A handler that has no hook for messages."""

    on_stream_chunk = InterceptHandler.on_stream_chunk


class Slow(Recording):
    """Keeps each chunk until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        await super().on_stream_chunk(chunk)
        await asyncio.to_thread(self.go.wait, 30)


def ask(more: str = "", *, method: str = "GET", version: str = "13", key: str = KEY, host: str = "localhost") -> bytes:
    """Return a request that opens a WebSocket."""
    return (
        f"{method} /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
    ).encode()


def accept(request: Request, more: str = "") -> bytes:
    """Return the head that accepts the WebSocket, in the version of HTTP that it was asked for in."""
    if request.version == "HTTP/2":
        return f"HTTP/1.1 200 OK\r\n{more}\r\n".encode()
    key = (request.get("sec-websocket-key") or "").encode()
    digest = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {digest}\r\n{more}\r\n"
    ).encode()


def frame(bits: int, payload: bytes = b"", mask: bytes = b"") -> bytes:
    """Return one frame: `bits` are FIN, RSV and opcode, `mask` is b"" or the key of a client."""
    length, masked = len(payload), 0x80 if mask else 0
    if length < 126:
        head = bytes((bits, masked | length))
    elif length < 1 << 16:
        head = bytes((bits, masked | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((bits, masked | 127)) + length.to_bytes(8, "big")
    if mask:
        key = (mask * (length // 4 + 1))[:length]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
    return head + mask + payload


def closing(code: int, reason: bytes, mask: bytes = b"") -> bytes:
    """Return a Close with that code and reason."""
    return frame(FIN | CLOSE, code.to_bytes(2, "big") + reason, mask)


def unmasked(data: bytes) -> tuple[int, bytes]:
    """Return FIN and opcode, and the payload in the clear, of one short frame with a key."""
    assert data[1] & 0x80 and len(data) == 6 + (data[1] & 0x7F), data
    return data[0], bytes(octet ^ data[2 + at % 4] for at, octet in enumerate(data[6:]))


def compressed(payload: bytes) -> bytes:
    """Return `payload` as the message of a compressor that has sent nothing before (RFC 7692 section 7.2.1)."""
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def echo(connection: ScriptedConnection, request: Request) -> None:
    """Accept, and send back what comes as it is: for octets, not for clients of WebSocket."""
    connection.send(accept(request))
    while data := connection.receive():
        connection.send(data)
    connection.close()
