"""Clients and upstreams that speak the wire format of tests/doubles/multiplex.pyx or plain HTTP/1, and the data plane between them.

Each peer holds the other side to its credit, and remembers what it was told of each stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from soth_mitm import HandlerDecision, MitmConfig
from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters
from soth_mitm._dataplane.http1.client import Http1ClientConnection
from soth_mitm._dataplane.http1.server import Http1ServerConnection
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm._dataplane.upstream.pool import OriginPool
from soth_mitm.config.schema import specs
from soth_mitm.connection import ConnectionMeta, TcpV4
from soth_mitm.errors import WireError
from soth_mitm.proxy.calls import HandlerCalls, HandlerReports
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.protocols import ClientEndpoint, UpstreamEndpoint
from soth_mitm.proxy.settings import make_settings

CREDIT = 16384
FAMILY = TcpV4(("127.0.0.1", 8080), ("127.0.0.1", 50000))
HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"transfer-encoding", b"trailer"}
PATIENCE = 20.0


@dataclass
class Message:
    """A message, without its framing. `complete` is false where it was cut."""

    start: bytes
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    content: bytes = b""
    trailers: bytes = b""
    complete: bool = True

    @property
    def head(self) -> bytes:
        """The head as HTTP/1 writes it."""
        return b"\r\n".join([self.start, *(name + b": " + value for name, value in self.fields), b"", b""])

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start.split(b" ")[1])

    def get(self, name: bytes) -> bytes | None:
        """The value of a field, or None."""
        return next((value for this, value in self.fields if this.lower() == name.lower()), None)


def parsed(head: bytes) -> Message:
    """Read a head."""
    start, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = (line.partition(b":")[::2] for line in lines if line)
    return Message(start, [(name, value.strip(b" \t")) for name, value in pairs])


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection; what its peer does not take is lost."""
    if writer.transport.get_write_buffer_size():
        writer.transport.abort()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


class MuxPeerStream:
    """One stream as a peer sees it. What changes it wakes whoever awaits `until`."""

    def __init__(self, peer: MuxPeer, number: int) -> None:
        self.peer = peer
        self.number = number
        self.interims: list[Message] = []
        self.message: Message | None = None
        self.content = bytearray()
        self.trailers = b""
        self.ended = False
        self.reset_by: bytes | None = None
        self.gives_credit = peer.gives_credit
        self.given = CREDIT
        self.credit = CREDIT
        self._waiters: list[asyncio.Future[None]] = []

    # --- what comes

    def on_frame(self, kind: bytes, payload: bytes) -> None:
        """Take one frame."""
        assert not self.ended or kind in b"RC", f"{kind!r} behind the end of stream {self.number}"
        if kind in b"Hh":
            message = parsed(payload)
            if message.start.startswith(b"HTTP/1.1 1"):
                self.interims.append(message)
            else:
                assert self.message is None, "a second final head"
                self.message = message
                self.ended = kind == b"h"
        elif kind == b"D":
            assert self.message is not None
            self.content += payload
            assert len(self.content) <= self.given, f"{len(self.content)} bytes were sent, of {self.given} that may be"
            if self.gives_credit:
                self.give(len(payload))
        elif kind == b"E":
            assert self.message is not None
            self.ended, self.trailers = True, payload
        elif kind == b"R":
            self.reset_by = payload
        elif kind == b"C":
            self.credit += int.from_bytes(payload, "big")
        self.wake()

    def wake(self) -> None:
        """Something has changed."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, done: Callable[[], object]) -> None:
        """Wait for that to be true."""
        async with asyncio.timeout(PATIENCE):
            while not done():
                assert self.peer.fault is None, self.peer.fault
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended or self.reset_by is not None or self.peer.closed

    async def whole(self) -> Message:
        """The message, when it has ended in whatever way."""
        await self.until(lambda: self.over)
        message = self.message or Message(b"")
        message.content, message.trailers, message.complete = bytes(self.content), self.trailers, self.ended
        return message

    # --- what goes

    def give(self, count: int) -> None:
        """Give credit."""
        self.given += count
        self.peer.write(b"C", self.number, count.to_bytes(4, "big"))

    def head(self, message: Message, *, last: bool = False) -> None:
        """Send a head."""
        self.peer.write(b"h" if last else b"H", self.number, message.head)

    async def send(self, data: bytes) -> None:
        """Send content as there is credit for it."""
        while data and not (self.reset_by is not None or self.peer.closed):
            await self.until(lambda: self.credit > 0 or self.reset_by is not None or self.peer.closed)
            count = min(len(data), self.credit, 5000)
            self.credit -= count
            self.peer.write(b"D", self.number, data[:count])
            data = data[count:]
            await self.peer.writer.drain()

    def end(self, trailers: bytes = b"") -> None:
        """End the message."""
        self.peer.write(b"E", self.number, trailers)

    def reset(self, reason: bytes = b"reset") -> None:
        """End the stream."""
        self.peer.write(b"R", self.number, reason)

    async def say(self, message: Message) -> None:
        """Send a whole message."""
        bare = not message.content and not message.trailers
        self.head(message, last=bare)
        if not bare:
            await self.send(message.content)
            self.end(message.trailers)


class MuxPeer:
    """One connection. `on_stream` answers a stream that the other side opened."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_stream: Any = None, *, gives_credit: bool = True
    ) -> None:
        self.reader, self.writer = reader, writer
        self.gives_credit = gives_credit
        self.streams: dict[int, MuxPeerStream] = {}
        self.closed = False
        self.fault: BaseException | None = None
        self._on_stream = on_stream
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.reading = asyncio.create_task(self._read())

    def write(self, kind: bytes, number: int, payload: bytes) -> None:
        """Send a frame."""
        if not self.writer.transport.is_closing():
            self.writer.write(struct.pack(">cII", kind, number, len(payload)) + payload)

    def open(self) -> MuxPeerStream:
        """Make a stream."""
        self._last += 1
        stream = self.streams[self._last] = MuxPeerStream(self, self._last)
        return stream

    async def ask(self, message: Message) -> Message:
        """Send a request and return its response."""
        stream = self.open()
        # an answer may come before all is sent
        await stream.say(message)
        return await stream.whole()

    async def _read(self) -> None:
        try:
            while True:
                kind, number, length = struct.unpack(">cII", await self.reader.readexactly(9))
                payload = await self.reader.readexactly(length)
                stream = self.streams.get(number)
                if stream is None:
                    if self._on_stream is None or kind not in (b"H", b"h"):
                        assert kind == b"R", f"{kind!r} on stream {number}, which is not open"
                        continue
                    stream = self.streams[number] = MuxPeerStream(self, number)
                    stream.on_frame(kind, payload)
                    task = asyncio.create_task(self._on_stream(stream))
                    self._tasks.add(task)
                    task.add_done_callback(self._answered)
                    continue
                stream.on_frame(kind, payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except AssertionError as error:
            self.fault = error
        self.closed = True
        for stream in self.streams.values():
            stream.wake()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fault = task.exception()
            for stream in self.streams.values():
                stream.wake()

    async def ended(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([self.reading])

    async def close(self) -> None:
        """Close the connection; raise what went wrong on it."""
        for task in [*self._tasks, self.reading]:
            task.cancel()
        await asyncio.gather(*self._tasks, self.reading, return_exceptions=True)
        await hang_up(self.writer)
        if self.fault is not None:
            raise self.fault


class Http1Peer:
    """One HTTP/1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.interims: list[Message] = []

    async def head(self) -> Message:
        """Read a head."""
        async with asyncio.timeout(PATIENCE):
            return parsed(await self.reader.readuntil(b"\r\n\r\n"))

    async def body(self, message: Message, *, bodiless: bool = False) -> Message:
        """Read what follows a head."""
        response = message.start.startswith(b"HTTP/")
        chunked = (message.get(b"transfer-encoding") or b"").lower() == b"chunked"
        length = message.get(b"content-length")
        try:
            async with asyncio.timeout(PATIENCE):
                if bodiless or (response and message.status in (204, 304)):
                    pass
                elif chunked:
                    while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                        message.content += await self.reader.readexactly(size)
                        assert await self.reader.readexactly(2) == b"\r\n"
                    while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                        message.trailers += line
                elif length is not None:
                    message.content = await self.reader.readexactly(int(length))
                elif response:
                    message.content = await self.reader.read(-1)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            message.content += getattr(error, "partial", b"")
            message.complete = False
        return message

    async def message(self, *, bodiless: bool = False) -> Message:
        """Read a message."""
        message = await self.head()
        while message.start.startswith(b"HTTP/1.1 1"):
            self.interims.append(message)
            message = await self.head()
        return await self.body(message, bodiless=bodiless)

    async def ask(self, message: Message) -> Message:
        """Send a request and return its response."""
        await self.say(message)
        return await self.message(bodiless=message.start.startswith(b"HEAD "))

    async def say(self, message: Message) -> None:
        """Send a message in the framing that its head announces."""
        self.writer.write(message.head)
        if message.get(b"transfer-encoding") is not None:
            for start in range(0, len(message.content), 5000):
                piece = message.content[start : start + 5000]
                self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.writer.write(b"0\r\n%b\r\n" % message.trailers)
        else:
            self.writer.write(message.content)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def close(self) -> None:
        """Close the connection."""
        await hang_up(self.writer)


class Accepted(ClientEndpoint):
    """A client's endpoint that begins to serve when it is connected."""

    begin: Callable[[ClientEndpoint], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.begin(self)


class Handler:
    """Allows everything, and remembers what it was shown."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.responses: list[Any] = []

    def on_request(self, request: Any) -> Any:
        self.requests.append((request, request.body))
        return HandlerDecision.ALLOW

    def on_response(self, response: Any) -> None:
        self.responses.append(response)


class Scene:
    """The data plane between real sockets. `clients` and `upstreams` are "mux" or "http1"; an upstream may be "gone", and refuses."""

    def __init__(self, double: Any, clients: str, upstreams: str, handler: object = None, *, streams: int = 100, **keys: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.double, self.client_kind, self.upstream_kind, self.streams = double, clients, upstreams, streams
        config = MitmConfig()
        config.interception.destinations.append("a.example:*")
        for name, value in keys.items():
            specs(MitmConfig)[name.replace("__", ".")].write(config, value)
        self.config = config
        self.arena = Arena(config.max_http_head_bytes)
        self.counters = Counters()
        self.deadlines = Deadlines(self.loop)
        reports = HandlerReports(lambda error: None)
        self.calls = HandlerCalls(handler, config, self.loop, self.deadlines, HookCounters(), reports)
        self.settings: Any = make_settings(config, self.arena, self.counters, self.calls.hooks, self.deadlines, reports)
        self.served: list[Any] = []
        self.ends = 0
        self.dialled: list[Any] = []
        self.accepted: list[MuxPeer | Http1Peer] = []
        self.upstreams_give_credit = True
        self.answer: Callable[[Any], Awaitable[None]] = self.echo
        self.seen: list[Message] = []
        # what is not read lies in the proxy then, and not in sockets
        self.sockets_are_small = False
        self._peers: list[Any] = []
        self._dials: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Scene:
        self._upstream = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        self._proxy = await self.loop.create_server(self._serve, "127.0.0.1", 0)
        pools = self.config.connection_pool
        self.pool = OriginPool(
            "an origin",
            self._dial,
            self.counters,
            self.deadlines.after(pools.idle_timeout_ms),
            self.deadlines.after(min(1000, pools.idle_timeout_ms)),
            max_open=pools.max_connections_per_host,
            max_idle=pools.max_idle_per_host,
        )
        return self

    async def __aexit__(self, *failure: object) -> None:
        faults: list[BaseException] = []
        await self._close_all(self._peers, faults)
        if failure[0] is None:
            await self.until(lambda: self.ends == len(self.served), "a connection of a client does not end")
        self.pool.limit(self.pool.max_open, 0)
        await self._close_all(self.accepted, faults)
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for connection in [*self.served, *self.dialled]:
            connection.abort()
        self._proxy.close()
        self._upstream.close()
        # what was told to close does so in a turn of the loop
        await asyncio.sleep(0.01)
        await self.calls.close()
        self.deadlines.close()
        if failure[0] is None:
            assert not faults, faults
            assert self.counters.active_flows == 0
            await self.until(lambda: self.pool.open == 0, "a connection of the pool does not end")
            assert self.pool.waiting_count == 0 and self.pool.dialling == 0
            await self.until(lambda: self.arena.budget.held == 0, "memory is held")

    async def _close_all(self, peers: list[Any], faults: list[BaseException]) -> None:
        for peer in peers:
            try:
                await peer.close()
            except (AssertionError, TimeoutError) as fault:
                faults.append(fault)

    async def until(self, done: Callable[[], object], what: str) -> None:
        """Wait for what no event tells."""
        end = self.loop.time() + PATIENCE
        while not done():
            assert self.loop.time() < end, what
            await asyncio.sleep(0.002)

    def _make_small(self, transport: asyncio.BaseTransport, buffer: int) -> None:
        if self.sockets_are_small:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 32768)

    # --- the proxy

    def _serve(self) -> Accepted:
        endpoint = Accepted(self.arena, AwaitableEndpoint(self.loop))
        endpoint.begin = self._begin
        return endpoint

    def _begin(self, endpoint: ClientEndpoint) -> None:
        AwaitableEndpoint(self.loop).attach(endpoint)
        self._make_small(endpoint.transport, socket.SO_SNDBUF)
        make = self.double.MuxServerConnection if self.client_kind == "mux" else Http1ServerConnection
        route = Route(self.pool, ConnectionMeta(uuid4(), FAMILY), "http", "a.example")
        connection = make(self.settings, endpoint, self._ended, router=lambda *_: route)
        self.served.append(connection)
        connection.start()

    def _ended(self) -> None:
        self.ends += 1

    def _dial(self, pool: OriginPool) -> None:
        dial = self.loop.create_task(self._connect(pool))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _connect(self, pool: OriginPool) -> None:
        try:
            if self.upstream_kind == "gone":
                raise ConnectionRefusedError
            port = self._upstream.sockets[0].getsockname()[1]
            intake = AwaitableEndpoint(self.loop)
            transport, endpoint = await self.loop.create_connection(lambda: UpstreamEndpoint(self.arena, intake), "127.0.0.1", port)
            self._make_small(transport, socket.SO_SNDBUF)
        except OSError:
            pool.failed(WireError("cannot connect", side="upstream", status=502))
            return
        except asyncio.CancelledError:
            pool.failed(WireError("cancelled", side="upstream", status=502))
            raise
        intake.attach(endpoint)
        if self.upstream_kind == "mux" and hasattr(self.double, "dial"):
            self.double.dial(self, pool, endpoint)
            return
        if self.upstream_kind == "mux":
            connection = self.double.MuxClientConnection(endpoint, self.streams)
        else:
            connection = Http1ClientConnection(endpoint)
        self.dialled.append(connection)
        pool.connected(connection)

    # --- the upstream

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._make_small(writer.transport, socket.SO_RCVBUF)
        if self.upstream_kind == "mux":
            make = getattr(self.double, "upstream_peer", None)
            if make is not None:
                mux = make(self, reader, writer)
            else:
                mux = MuxPeer(reader, writer, lambda stream: self.answer(stream), gives_credit=self.upstreams_give_credit)
            self.accepted.append(mux)
            await asyncio.wait([mux.reading])
            return
        peer = Http1Peer(reader, writer)
        self.accepted.append(peer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.answer(peer)

    async def request(self, peer: Any) -> Message:
        """Read a whole request of a stream or an HTTP/1 connection."""
        message: Message = await (peer.whole() if isinstance(peer, MuxPeerStream) else peer.message())
        self.seen.append(message)
        return message

    async def echo(self, peer: Any) -> None:
        """Answer with the content of the request."""
        request = await self.request(peer)
        await peer.say(response(request.content))

    # --- clients

    async def connect(self) -> Any:
        """Connect a client."""
        port = self._proxy.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        self._make_small(writer.transport, socket.SO_RCVBUF)
        make = getattr(self.double, "client_peer", MuxPeer) if self.client_kind == "mux" else Http1Peer
        peer = make(reader, writer)
        self._peers.append(peer)
        return peer


def response(content: bytes, *fields: tuple[bytes, bytes], status: bytes = b"200 OK") -> Message:
    """Make a response with Content-Length."""
    return Message(b"HTTP/1.1 " + status, [*fields, (b"Content-Length", b"%d" % len(content))], content)


def get(target: bytes = b"/", *fields: tuple[bytes, bytes], method: bytes = b"GET") -> Message:
    """Make a request without content."""
    return Message(method + b" " + target + b" HTTP/1.1", [(b"Host", b"a.example"), *fields])


def post(content: bytes, *fields: tuple[bytes, bytes], method: bytes = b"POST", target: bytes = b"/") -> Message:
    """Make a request with Content-Length."""
    return Message(
        method + b" " + target + b" HTTP/1.1", [(b"Host", b"a.example"), *fields, (b"Content-Length", b"%d" % len(content))], content
    )
