"""Upstreams that break the rules of HTTP/2, as h2specd does: whatever they say, each exchange ends once, and the next one is served.

Numbers are those of the list of pitfalls: abuse (1 to 18) is guarded against on this side too.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest

from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from soth_mitm._dataplane.http2.settings import make_settings
from support.doubles import load_double
from support.http2_upstream import RealUpstreams
from support.multiplex import PATIENCE, Handler, Scene, get
from support.sessions import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

pytestmark = pytest.mark.anyio

OWN = make_frame(SETTINGS, 0, 0, make_settings({}, True))


def packed(*fields: tuple[bytes, bytes]) -> bytes:
    return HpackEncoder().encode_block([(name, value, False) for name, value in fields])


def block(*fields: tuple[bytes, bytes], status: bytes = b"200") -> bytes:
    return packed((b":status", status), *fields)


def head(*fields: tuple[bytes, bytes], status: bytes = b"200", end: bool = False, stream: int = 1) -> bytes:
    return make_frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(*fields, status=status))


def data(content: bytes, *, end: bool = False, stream: int = 1) -> bytes:
    return make_frame(DATA, END_STREAM if end else 0, stream, content)


def word(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


class RawUpstream:
    """An upstream that says `first` at once and `then` when a request has come, and then nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, then: bytes) -> None:
        self.reader, self.writer = reader, writer
        self.first, self.then = first, then
        self.got = b""
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(self.first)
            said = False
            while received := await self.reader.read(1 << 16):
                self.got += received
                # the request's HEADERS
                if not said and b"\x01\x05\x00\x00\x00\x01" in self.got:
                    said = True
                    self.writer.write(self.then)
        self.writer.close()

    async def close(self) -> None:
        """Close the connection."""
        self.reading.cancel()
        self.writer.close()


# what stands for the number of frames that use up a limit
MANY = 12_000

# what it says behind a request
STREAM_FAULTS: dict[str, bytes] = {
    "DATA before the head": data(b"x"),
    "a status that is no number": head(status=b"2x0", end=True),
    "status 101": head(status=b"101"),
    "no status": make_frame(HEADERS, END_HEADERS | END_STREAM, 1, packed((b"a", b"b"))),
    "a status twice": head((b":status", b"200"), end=True),
    "a pseudo-header of requests": head((b":path", b"/"), end=True),
    "a name in upper case": head((b"X-Name", b"v"), end=True),
    "a value with CR LF": head((b"x-name", b"v\r\nset-cookie: a"), end=True),
    "a name with a colon": head((b"x:name", b"v"), end=True),
    "Connection": head((b"connection", b"close"), end=True),
    "Transfer-Encoding": head((b"transfer-encoding", b"chunked"), end=True),
    "Content-Length and no content": head((b"content-length", b"3"), end=True),
    "an interim head that ends": head(status=b"103", end=True),
    "too many interim heads": head(status=b"103") * 65,
    "a window that grows too far": make_frame(WINDOW_UPDATE, 0, 1, word(0x7FFFFFFF)),
    "an increment of nothing": make_frame(WINDOW_UPDATE, 0, 1, word(0)),
    "a reset": make_frame(RST_STREAM, 0, 1, word(2)),
    "a reset without an error": make_frame(RST_STREAM, 0, 1, word(0)),
    "a code that nobody knows": make_frame(RST_STREAM, 0, 1, word(0xDEAD)),
}
CONNECTION_FAULTS: dict[str, bytes] = {
    "PUSH_PROMISE (63)": make_frame(PUSH_PROMISE, END_HEADERS, 1, word(2) + block()),
    "DATA on stream 0": make_frame(DATA, 0, 0, b"x"),
    "HEADERS on stream 0": make_frame(HEADERS, END_HEADERS, 0, block()),
    "HEADERS on an even stream": head(stream=2),
    "HEADERS on a stream that we did not open": head(stream=5),
    "DATA on an idle stream": data(b"x", stream=5),
    "RST_STREAM on an idle stream": make_frame(RST_STREAM, 0, 5, word(8)),
    "WINDOW_UPDATE on an idle stream": make_frame(WINDOW_UPDATE, 0, 5, word(8)),
    "a frame that is too long": struct.pack(">IBBI", 16385, DATA, 0, 1)[1:] + b"x" * 16385,
    "SETTINGS of 5 octets": make_frame(SETTINGS, 0, 0, b"\0\0\0\0\0"),
    "SETTINGS on a stream": make_frame(SETTINGS, 0, 1, b""),
    "an ACK with settings": make_frame(SETTINGS, ACK, 0, make_settings({}, True) or b"\0\3\0\0\0\1"),
    "ENABLE_PUSH (63)": make_frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 1)),
    "a window of 2^31": make_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x80000000)),
    "frames of 16383 octets": make_frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 16383)),
    "33 settings": make_frame(SETTINGS, 0, 0, struct.pack(">HI", 99, 1) * 33),
    "a PING of 7 octets": make_frame(PING, 0, 0, b"1234567"),
    "a PING on a stream": make_frame(PING, 0, 1, b"12345678"),
    "a GOAWAY on a stream": make_frame(GOAWAY, 0, 1, word(0, 0)),
    "a GOAWAY of 7 octets": make_frame(GOAWAY, 0, 0, b"1234567"),
    "a RST_STREAM of 3 octets": make_frame(RST_STREAM, 0, 1, b"123"),
    "a WINDOW_UPDATE of 3 octets": make_frame(WINDOW_UPDATE, 0, 1, b"123"),
    "padding that is longer than its frame": make_frame(DATA, PADDED, 1, b"\x20abc"),
    "CONTINUATION that goes on with nothing": make_frame(CONTINUATION, END_HEADERS, 1, block()),
    "a frame between those of a block": make_frame(HEADERS, 0, 1, block()) + make_frame(PING, 0, 0, b"12345678"),
    "a block that is no HPACK": make_frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    "an index that is not there": make_frame(HEADERS, END_HEADERS, 1, b"\xfe"),
    "a table that grows too far": make_frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03" + block()),
    "the connection's window grows too far": make_frame(WINDOW_UPDATE, 0, 0, word(0x7FFFFFFF)),
    "the connection's window grows by nothing": make_frame(WINDOW_UPDATE, 0, 0, word(0)),
    "PRIORITY_UPDATE of a server": make_frame(16, 0, 0, word(1) + b"u=1"),
    "a preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.1": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    # floods (4, 10, 11, 12)
    "CONTINUATION without end (4)": make_frame(HEADERS, 0, 1, block()) + make_frame(CONTINUATION, 0, 1, b"") * 20,
    "PRIORITY flood (11)": make_frame(PRIORITY, 0, 1, word(0) + b"\x10") * MANY,
    "unknown frames (11)": make_frame(0xBB, 0, 0, b"") * MANY,
    "empty DATA flood (12)": head() + data(b"") * MANY,
}


@pytest.fixture(scope="session")
def doubled() -> Any:
    return load_double("multiplex")


async def served_after(doubled: Any, first: bytes, then: bytes, check: Callable[[Scene, Any, RawUpstream], None], **keys: Any) -> None:
    """Send a request to an upstream that answers so; the one after it goes to one that works."""
    double = RealUpstreams(doubled)
    honest = double.upstream_peer
    hostile: list[RawUpstream] = []

    def make(scene: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        if hostile:
            return honest(scene, reader, writer)
        hostile.append(RawUpstream(reader, writer, first, then))
        return hostile[0]

    double.upstream_peer = make  # type: ignore[method-assign,assignment]
    keys.setdefault("upstream__h2_header_stage_timeout_ms", 2000)
    async with Scene(double, "http1", "mux", Handler(), **keys) as scene:
        client = await scene.connect()
        async with asyncio.timeout(PATIENCE):
            answer = await client.ask(get())
            check(scene, answer, hostile[0])
            other = await scene.connect()
            if len(scene.dialled) == 1 and scene.pool.open:
                # the connection that has a fault of one stream goes on; not with this upstream
                scene.dialled[0].abort()
                await scene.until(lambda: scene.pool.open == 0, "the connection goes on")
            assert (await other.ask(get())).status == 200
        assert scene.pool.open == 1


@pytest.mark.parametrize("name", STREAM_FAULTS)
async def test_a_fault_of_one_stream(doubled: Any, name: str) -> None:
    def check(scene: Scene, answer: Any, upstream: RawUpstream) -> None:
        assert answer.status == 502
        assert scene.pool.open == 1 and not scene.dialled[0].open_streams, "the connection ended, or the stream did not"

    await served_after(doubled, OWN, STREAM_FAULTS[name], check)


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
async def test_a_fault_of_the_connection(doubled: Any, name: str) -> None:
    def check(scene: Scene, answer: Any, upstream: RawUpstream) -> None:
        assert answer.status == 502 or (answer.status == 200 and not answer.complete)
        assert scene.pool.open == 0
        assert scene.counters.retries == 0

    await served_after(doubled, OWN, CONNECTION_FAULTS[name], check)


@pytest.mark.parametrize("name", ["HTTP/1.1", "a preface", "PUSH_PROMISE (63)", "33 settings", "ENABLE_PUSH (63)"])
async def test_a_fault_before_the_settings(doubled: Any, name: str) -> None:
    def check(scene: Scene, answer: Any, upstream: RawUpstream) -> None:
        assert answer.status == 502 and scene.pool.open == 0

    await served_after(doubled, CONNECTION_FAULTS[name], b"", check)


async def test_settings_that_we_send_are_not_acknowledged(doubled: Any) -> None:
    def check(scene: Scene, answer: Any, upstream: RawUpstream) -> None:
        assert answer.status == 504 and scene.pool.open == 0

    await served_after(doubled, OWN, b"", check, http2__settings_timeout_ms=60)


async def test_rule_10_an_upstream_that_pings_and_does_not_read(doubled: Any) -> None:
    def check(scene: Scene, answer: Any, upstream: RawUpstream) -> None:
        assert answer.status in (502, 504)
        assert scene.arena.budget.held < 1 << 20

    flood = make_frame(PING, 0, 0, b"12345678") * 200_000
    await served_after(doubled, OWN, flood, check, http2__max_queued_replies=10)
