"""An upstream that speaks HTTP/2 with the `h2` library, with the interface of `support.multiplex.MuxPeer`.

The library holds the other side to the rules of RFC 9113: windows, states, header rules. What breaks one ends the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from h2.settings import SettingCodes, Settings

from soth_mitm._dataplane.http2.client import Http2ClientConnection
from soth_mitm.errors import WireError
from support.multiplex import CREDIT, HOP, PATIENCE, Message, MuxPeerStream, hang_up

CODES = {b"refused": h2.errors.ErrorCodes.REFUSED_STREAM, b"reset": h2.errors.ErrorCodes.CANCEL, b"no more": h2.errors.ErrorCodes.NO_ERROR}


def neutral_fields(message: Message) -> list[tuple[bytes, bytes]]:
    """The fields of a message as HTTP/2 has them, without pseudo-headers."""
    found = [(name.lower(), value) for name, value in message.fields]
    return [(name, value) for name, value in found if (name not in HOP or (name, value) == (b"te", b"trailers")) and name != b"host"]


def lines(pairs: Any) -> bytes:
    """Field lines, as HTTP/1 has them in trailers."""
    return b"".join(name + b": " + value + b"\r\n" for name, value in pairs)


class Http2UpstreamStream(MuxPeerStream):
    """One stream of an HTTP/2 connection."""

    peer: Any

    # --- what goes

    def give(self, count: int) -> None:
        """Give credit."""
        self.given += count
        self.peer.h2.increment_flow_control_window(count, self.number)
        self.peer.flush()

    def head(self, message: Message, *, last: bool = False) -> None:
        """Send a head."""
        pseudo = [(b":status", message.start.split(b" ")[1])]
        self.peer.h2.send_headers(self.number, pseudo + neutral_fields(message), end_stream=last)
        self.peer.flush()

    async def send(self, data: bytes) -> None:
        """Send content as there is credit for it."""
        connection = self.peer.h2
        while data and not (self.reset_by is not None or self.peer.closed):
            await self.until(lambda: self.room > 0 or self.reset_by is not None or self.peer.closed)
            count = min(len(data), self.room, 5000)
            if count <= 0 or self.reset_by is not None or self.peer.closed:
                return
            connection.send_data(self.number, data[:count])
            self.peer.flush()
            data = data[count:]
            with contextlib.suppress(ConnectionError):
                await self.peer.writer.drain()

    @property
    def room(self) -> int:
        """How much may be sent."""
        try:
            return int(self.peer.h2.local_flow_control_window(self.number))
        except h2.exceptions.ProtocolError:
            return 0

    def end(self, trailers: bytes = b"") -> None:
        """End the message."""
        if self.reset_by is not None or self.peer.closed:
            return
        if trailers:
            pairs = [line.partition(b":") for line in trailers.split(b"\r\n") if line]
            self.peer.h2.send_headers(self.number, [(name.lower(), value.strip()) for name, _, value in pairs], end_stream=True)
        else:
            self.peer.h2.end_stream(self.number)
        self.peer.flush()

    def reset(self, reason: bytes = b"reset") -> None:
        """End the stream; `reason` is a word of CODES or the name of a code."""
        code = CODES[reason] if reason in CODES else h2.errors.ErrorCodes[reason.decode()]
        self.peer.h2.reset_stream(self.number, code)
        self.peer.flush()


class Http2Upstream:
    """One connection. `on_stream` answers a stream that the other side opened."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_stream: Any,
        *,
        gives_credit: bool = True,
        max_streams: int = 100,
    ) -> None:
        self.reader, self.writer = reader, writer
        self.gives_credit = gives_credit
        self.streams: dict[int, Http2UpstreamStream] = {}
        self.closed = False
        self.frozen = False
        self.has_left = False
        self.goaway: h2.events.ConnectionTerminated | None = None
        self.pings = 0
        self.acknowledged = 0
        """How many of our SETTINGS."""
        self.fault: BaseException | None = None
        self._on_stream = on_stream
        self._tasks: set[asyncio.Task[None]] = set()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        values = {SettingCodes.INITIAL_WINDOW_SIZE: CREDIT, SettingCodes.MAX_CONCURRENT_STREAMS: max_streams}
        self.h2.local_settings = Settings(client=False, initial_values=values)
        self.h2.initiate_connection()
        # so that the connection's window is never what holds a stream up
        self.h2.increment_flow_control_window(1 << 30)
        self.flush()
        self.reading = asyncio.create_task(self._read())

    def flush(self) -> None:
        """Write what the library has made."""
        data = self.h2.data_to_send()
        if data and not self.writer.transport.is_closing():
            self.writer.write(data)

    def settings(self, **values: int) -> None:
        """Send SETTINGS."""
        self.h2.update_settings({SettingCodes[name.upper()]: value for name, value in values.items()})
        self.flush()

    def leave(self, last: int | None = None, code: int = 0) -> None:
        """Send GOAWAY. Nothing is read from now on but the end."""
        self.h2.close_connection(code, last_stream_id=last)
        self.flush()
        self.has_left = True

    def freeze(self) -> None:
        """Read no more, and so answer nothing."""
        self.frozen = True

    def say_last(self, number: int, content: bytes) -> None:
        """Answer a stream behind a GOAWAY, which the library does not: it takes the connection for closed."""
        block = self.h2.encoder.encode([(b":status", b"200")])
        head = struct.pack(">IBBI", len(block), 1, 4, number)[1:] + block
        self.writer.write(head + struct.pack(">IBBI", len(content), 0, 1, number)[1:] + content)

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(1 << 16):
                if self.frozen or self.has_left:
                    continue
                for event in self.h2.receive_data(data):
                    self._on_event(event)
                self.flush()
        except ConnectionError:
            pass
        except (AssertionError, h2.exceptions.ProtocolError) as error:
            self.fault = error
            self.flush()
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        for stream in self.streams.values():
            stream.wake()

    def _on_event(self, event: Any) -> None:
        number = getattr(event, "stream_id", None)
        match event:
            case h2.events.ConnectionTerminated():
                self.goaway = event
                self._wake()
            case h2.events.PingReceived():
                self.pings += 1
            case h2.events.SettingsAcknowledged():
                self.acknowledged += 1
            case h2.events.RequestReceived():
                stream = self.streams[number] = Http2UpstreamStream(self, number)  # type: ignore[arg-type]
                stream.message = request_of(event.headers)
                task = asyncio.create_task(self._on_stream(stream))
                self._tasks.add(task)
                task.add_done_callback(self._answered)
            case h2.events.DataReceived():
                stream = self.streams[event.stream_id]
                stream.content += event.data
                if stream.gives_credit and event.flow_controlled_length and event.stream_ended is None:
                    stream.given += event.flow_controlled_length
                    with contextlib.suppress(h2.exceptions.StreamClosedError):
                        self.h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self.streams[event.stream_id].trailers = lines(event.headers)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended = True
            case h2.events.StreamReset():
                code = event.error_code
                named = isinstance(code, h2.errors.ErrorCodes)
                name = next((word for word, value in CODES.items() if value == code and word == b"refused"), None)
                if event.stream_id in self.streams and event.remote_reset:
                    self.streams[event.stream_id].reset_by = name or (code.name.encode() if named else b"%d" % code)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._wake()
        if number in self.streams:
            self.streams[number].wake()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fault = task.exception()
            self._wake()

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


def request_of(headers: Any) -> Message:
    """A request as the double has it: Host first."""
    pseudo = {bytes(name): bytes(value) for name, value in headers if name.startswith(b":")}
    fields = [(bytes(name), bytes(value)) for name, value in headers if not name.startswith(b":")]
    start = pseudo[b":method"] + b" " + pseudo.get(b":path", b"") + b" HTTP/1.1"
    return Message(start, [(b"host", pseudo.get(b":authority", b"")), *fields])


class RealUpstreams:
    """In place of the double, for upstreams that speak HTTP/2: what a scene asks for. `connected` has what was told of each dial."""

    def __init__(self, double: Any) -> None:
        self.MuxServerConnection = double.MuxServerConnection
        if hasattr(double, "client_peer"):
            self.client_peer = double.client_peer
        self.told: list[BaseException | None] = []

    def dial(self, scene: Any, pool: Any, endpoint: Any) -> None:
        """Begin to speak over a new connection, which is the pool's when it is ready."""
        connection = Http2ClientConnection(endpoint, scene.settings)

        def ready(error: BaseException | None) -> None:
            self.told.append(error)
            if error is None:
                pool.connected(connection)
            else:
                pool.failed(error if isinstance(error, WireError) else WireError(str(error), side="upstream", status=502))

        scene.dialled.append(connection)
        connection.start(ready)

    def upstream_peer(self, scene: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Http2Upstream:
        """Make the other end of it."""
        return Http2Upstream(
            reader, writer, lambda stream: scene.answer(stream), gives_credit=scene.upstreams_give_credit, max_streams=scene.streams
        )
