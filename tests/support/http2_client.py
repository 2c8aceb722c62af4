"""A client that speaks HTTP/2 with the h2 library, with the interface of `support.multiplex.MuxPeer`.

It announces windows of CREDIT for its streams, and gives its connection all credit at once. GOAWAY is kept from the library, which takes no
frame behind one.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from support.multiplex import CREDIT, HOP, Message, MuxPeerStream, hang_up

REFUSED = {h2.errors.ErrorCodes.REFUSED_STREAM: b"refused"}
FRAME_HEADER = 9
GOAWAY = 7


class Http2ClientStream(MuxPeerStream):
    """One request and its response."""

    peer: Any
    code: int | None = None
    fields: Any = None

    def head(self, message: Message, *, last: bool = False) -> None:
        """Send a head; the stream gets its number."""
        method, target, _ = message.start.split(b" ")
        host = message.get(b"host") or b""
        fields = [(b":method", method), (b":scheme", b"http"), (b":authority", host), (b":path", target)]
        fields += [(name.lower(), value) for name, value in message.fields if name.lower() not in {*HOP, b"host"}]
        self.send_fields(fields, last=last)

    def send_fields(self, fields: list[tuple[bytes, bytes]], *, last: bool) -> None:
        """Send a head as it stands; the stream gets its number."""
        self.number = self.peer.engine.get_next_available_stream_id()
        self.peer.streams[self.number] = self
        self.peer.engine.send_headers(self.number, fields, end_stream=last)
        self.peer.flush()

    def give(self, count: int) -> None:
        """Open the window."""
        self.given += count
        if not self.ended and self.reset_by is None:
            # which the library may have closed already, by what it read last
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                self.peer.engine.increment_flow_control_window(count, self.number)
            self.peer.flush()

    def window(self) -> int:
        """How much content may be sent."""
        return int(self.peer.engine.local_flow_control_window(self.number))

    async def send(self, data: bytes) -> None:
        """Send content as the windows allow."""
        while data and not (self.reset_by is not None or self.peer.closed):
            await self.until(lambda: self.reset_by is not None or self.peer.closed or self.window() > 0)
            if self.reset_by is not None or self.peer.closed:
                return
            count = min(len(data), self.window(), 5000)
            self.peer.engine.send_data(self.number, data[:count])
            self.peer.flush()
            data = data[count:]
            await self.peer.writer.drain()

    def end(self, trailers: bytes = b"") -> None:
        """End the message."""
        if self.reset_by is not None or self.peer.closed:
            return
        if trailers:
            lines = [line.partition(b":") for line in trailers.split(b"\r\n") if line]
            fields = [(name.lower(), value.strip()) for name, _, value in lines]
            self.peer.engine.send_headers(self.number, fields, end_stream=True)
        else:
            self.peer.engine.end_stream(self.number)
        self.peer.flush()

    def reset(self, reason: bytes = b"reset") -> None:
        """End the stream."""
        self.peer.engine.reset_stream(self.number, h2.errors.ErrorCodes.CANCEL)
        self.peer.flush()


class Http2Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.gives_credit = True
        self.streams: dict[int, Http2ClientStream] = {}
        self.goaways: list[tuple[int, int]] = []
        self.closed = False
        self.fault: BaseException | None = None
        config = h2.config.H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.engine: Any = h2.connection.H2Connection(config)
        settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: CREDIT, h2.settings.SettingCodes.ENABLE_PUSH: 0}
        self.engine.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.engine.initiate_connection()
        self._unread = b""
        self.flush()
        self.reading = asyncio.create_task(self._read())

    def flush(self) -> None:
        """Send what the library wants to send."""
        if not self.writer.transport.is_closing():
            self.writer.write(self.engine.data_to_send())

    def open(self) -> Http2ClientStream:
        """Make a stream; its head gives it a number."""
        return Http2ClientStream(self, 0)  # type: ignore[arg-type]

    async def ask(self, message: Message) -> Message:
        """Send a request and return its response."""
        stream = self.open()
        await stream.say(message)
        return await stream.whole()

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for event in self.engine.receive_data(self._without_goaways(data)):
                    self._on_event(event)
                self.flush()
        except ConnectionError:
            pass
        except (AssertionError, h2.exceptions.ProtocolError) as error:
            self.fault = error
        self.closed = True
        self._wake_all()

    def _without_goaways(self, data: bytes) -> bytes:
        self._unread += data
        frames = bytearray()
        while len(self._unread) >= FRAME_HEADER:
            length = FRAME_HEADER + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < length:
                break
            frame, self._unread = self._unread[:length], self._unread[length:]
            if frame[3] == GOAWAY:
                payload = frame[FRAME_HEADER:]
                self.goaways.append((int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))
            else:
                frames += frame
        return bytes(frames)

    def _wake_all(self) -> None:
        for stream in self.streams.values():
            stream.wake()

    def _on_event(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0)
        stream = self.streams.get(number or 0)
        if stream is None:
            if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
                self._wake_all()
            return
        if isinstance(event, h2.events.InformationalResponseReceived):
            stream.interims.append(_message(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            assert stream.message is None, "a second final head"
            stream.message = _message(event.headers)
            stream.fields = event.headers
        elif isinstance(event, h2.events.DataReceived):
            stream.content += event.data
            assert len(stream.content) <= stream.given, f"{len(stream.content)} bytes were sent, of {stream.given} that may be"
            if event.flow_controlled_length:
                self.engine.increment_flow_control_window(event.flow_controlled_length)
                # the last of a message needs no more
                if stream.gives_credit and not event.stream_ended:
                    stream.give(len(event.data))
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = b"".join(name + b": " + value + b"\r\n" for name, value in event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.code = event.error_code
            stream.reset_by = REFUSED.get(event.error_code, b"%d" % event.error_code)
        stream.wake()

    async def ended(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(20.0):
            await asyncio.wait([self.reading])

    async def close(self) -> None:
        """Close the connection; raise what went wrong on it."""
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        await hang_up(self.writer)
        if self.fault is not None:
            raise self.fault


def _message(fields: list[tuple[bytes, bytes]]) -> Message:
    status = int(dict(fields)[b":status"])
    rest = [(bytes(name), bytes(value)) for name, value in fields if not name.startswith(b":")]
    # HTTP/2 has no reason phrase
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return Message(b"HTTP/1.1 %d %b" % (status, phrase.encode()), rest)
