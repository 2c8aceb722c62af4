"""HTTP/2 for the origin of tests: a connection on which ALPN chose h2 is served here, by the same answers and scripts.

Each stream looks like a connection with one request. What is written to it is an HTTP/1 response, which is sent as HEADERS and DATA: so one
script serves both protocols. The `h2` library holds the proxy to the rules of RFC 9113.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from support.origin_answers import answer
from support.origin_messages import PIECE, Recorder, Request, parse_fields

if TYPE_CHECKING:
    from support.origin import Connection, Origin

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "trailer")
DEFAULT_SETTINGS = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100}


class Http2Stream:
    """One request and its response; what scripts and answers take for a connection."""

    def __init__(self, session: Http2Session, number: int, request: Request) -> None:
        self.session = session
        self.number = number
        self.request = request
        self.requests = [request]
        self.origin: Origin = session.connection.origin
        self.index = session.connection.index
        self.content = asyncio.StreamReader(PIECE)
        self.recorder = Recorder(self.content, self.origin.keep)
        self.reset_code: int | None = None
        """That the client sent."""
        self._response = ResponseWriter(self)

    async def serve(self) -> None:
        """Answer."""
        script = self.origin.script_of(self.request)
        try:
            if script is None:
                await answer(self, self.request)
            else:
                from support.origin import ScriptedConnection

                await self.origin.run_script(lambda: script(ScriptedConnection(self), self.request))  # type: ignore[arg-type]
        except (OSError, EOFError, h2.exceptions.ProtocolError):
            # its client left
            self.cut()

    async def read_body(self) -> None:
        """Read the request's body to its end."""
        request = self.request
        if not request.complete and (request.get("expect") or "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while data := await self.content.read(PIECE):
            request.length += len(data)
            request.digest.update(data)
            request.body += data[: max(0, self.origin.keep - len(request.body))]
        if self.reset_code is not None:
            raise ConnectionResetError("the client reset the stream")
        self.origin.changed(request.finish)

    async def write(self, data: bytes) -> None:
        """Send a part of an HTTP/1 response."""
        await self._response.write(data)

    def end(self) -> None:
        """The HTTP/1 connection would end here."""
        self._response.end()

    def cut(self) -> None:
        """Reset the stream."""
        self.session.reset(self.number, h2.errors.ErrorCodes.INTERNAL_ERROR)

    def half_close(self) -> None:
        """End our direction."""
        self.end()


class ResponseWriter:
    """Reads what is written as HTTP/1, and sends it on a stream."""

    def __init__(self, stream: Http2Stream) -> None:
        self._stream = stream
        self._buffer = b""
        self._left: int | None = 0
        """Of the content: a number, or None for as long as the connection lasts."""
        self._state = "head"

    async def write(self, data: bytes) -> None:
        self._buffer += data
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Use a part of the buffer; False when more is needed."""
        session, number = self._stream.session, self._stream.number
        match self._state:
            case "head":
                head, separator, rest = self._buffer.partition(b"\r\n\r\n")
                if not separator:
                    return False
                self._buffer = rest
                await self._send_head(head)
            case "content":
                data = self._buffer if self._left is None else self._buffer[: self._left]
                if not data:
                    return False
                self._buffer = self._buffer[len(data) :]
                if self._left is not None:
                    self._left -= len(data)
                await session.send(number, data, end=self._left == 0)
                if self._left == 0:
                    self._state = "over"
            case "size":
                line, separator, rest = self._buffer.partition(b"\r\n")
                if not separator:
                    return False
                self._buffer = rest
                self._left = int(line.partition(b";")[0], 16)
                self._state = "chunk" if self._left else "trailers"
            case "chunk":
                assert self._left is not None
                if len(self._buffer) < self._left + 2:
                    return False
                await session.send(number, self._buffer[: self._left])
                self._buffer = self._buffer[self._left + 2 :]
                self._state = "size"
            case "trailers":
                # the last line of a section without any is all there is of it
                if self._buffer.startswith(b"\r\n"):
                    await session.send(number, b"", end=True)
                    self._state, self._buffer = "over", self._buffer[2:]
                    return True
                section, separator, rest = self._buffer.partition(b"\r\n\r\n")
                if not separator:
                    return False
                session.head(number, [(name.lower(), value) for name, value in parse_fields(section)], end=True)
                self._state, self._buffer = "over", rest
            case "over":
                return False
        return True

    async def _send_head(self, head: bytes) -> None:
        line, _, rest = head.partition(b"\r\n")
        status = int(line.split(b" ")[1])
        fields = [(name.lower(), value) for name, value in (parse_fields(rest) if rest else [])]
        neutral = [(":status", str(status)), *((name, value) for name, value in fields if name not in HOP_BY_HOP)]
        if 100 <= status < 200:
            self._stream.session.head(self._stream.number, neutral)
            return
        named = dict(fields)
        length = named.get("content-length")
        if self._stream.request.method == "HEAD" or status in (204, 304) or length == "0":
            self._stream.session.head(self._stream.number, neutral, end=True)
            self._state = "over"
            return
        self._stream.session.head(self._stream.number, neutral)
        if named.get("transfer-encoding") == "chunked":
            self._state = "size"
        else:
            self._left = None if length is None else int(length)
            self._state = "content"

    def end(self) -> None:
        """Nothing more is written: complete, cut, or ended by that."""
        if self._state == "over":
            return
        if self._state == "content" and self._left is None:
            self._stream.session.end(self._stream.number)
        else:
            self._stream.cut()
        self._state = "over"


class Http2Session:
    """One connection that speaks HTTP/2."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.streams: dict[int, Http2Stream] = {}
        self.goaway: int | None = None
        """The code of the client's GOAWAY."""
        self.goaways: list[int] = []
        self.resets: list[tuple[int, int]] = []
        """Streams that the client reset, with their codes."""
        self.settings_acknowledged = 0
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until the connection ends."""
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={**DEFAULT_SETTINGS, **self.connection.origin.settings})
        self.h2.initiate_connection()
        self.flush()
        try:
            while data := await self.connection.recorder.read_some(PIECE):
                for event in self.h2.receive_data(data):
                    self._on_event(event)
                self.flush()
        finally:
            self.flush()
            for stream in self.streams.values():
                self._left(stream, -1)
            self._room.set()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def flush(self) -> None:
        """Write what the library has made."""
        data = self.h2.data_to_send()
        if data and not self.connection.writer.is_closing():
            self.connection.writer.write(data)

    def _on_event(self, event: Any) -> None:
        origin = self.connection.origin
        match event:
            case h2.events.RequestReceived():
                request = request_of(event.headers, self.connection.index)
                stream = self.streams[event.stream_id] = Http2Stream(self, event.stream_id, request)
                if event.stream_ended is not None:
                    request.finish()
                self.connection.requests.append(request)
                origin.changed(lambda: origin.requests.append(request))
                task = asyncio.create_task(stream.serve())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.streams[event.stream_id].content.feed_data(event.data)
            case h2.events.TrailersReceived():
                self.streams[event.stream_id].request.trailers += [(str(name), str(value)) for name, value in event.headers]
            case h2.events.StreamEnded():
                self.streams[event.stream_id].content.feed_eof()
            case h2.events.StreamReset():
                if event.remote_reset and event.stream_id in self.streams:
                    origin.changed(lambda: self.resets.append((event.stream_id, int(event.error_code))))
                    self._left(self.streams[event.stream_id], int(event.error_code))
                self._room.set()
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code)
                origin.changed(lambda: self.goaways.append(int(event.error_code)))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.set()
            case h2.events.SettingsAcknowledged():
                self.settings_acknowledged += 1

    @staticmethod
    def _left(stream: Http2Stream, code: int) -> None:
        if not stream.content.at_eof():
            stream.reset_code = code
            stream.content.feed_eof()

    def head(self, number: int, fields: list[tuple[str, str]], *, end: bool = False) -> None:
        """Send HEADERS."""
        self.h2.send_headers(number, fields, end_stream=end)
        self.flush()

    async def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send DATA as the client takes it."""
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                if self.connection.writer.is_closing():
                    raise ConnectionResetError("the client has gone")
                continue
            self.h2.send_data(number, data[:room], end_stream=end and len(data) <= room)
            data = data[room:]
            self.flush()
            await self.connection.writer.drain()
            if not data:
                return
        if end:
            self.end(number)

    def end(self, number: int) -> None:
        """Send END_STREAM."""
        self.h2.end_stream(number)
        self.flush()

    def reset(self, number: int, code: int) -> None:
        """Send RST_STREAM, unless the stream is over."""
        try:
            self.h2.reset_stream(number, code)
        except h2.exceptions.ProtocolError:
            return
        self.flush()


def request_of(headers: Any, index: int) -> Request:
    """Return a request as the origin of HTTP/1 has it; `raw_head` is the field list as text."""
    pairs = [(str(name), str(value)) for name, value in headers]
    pseudo = {name: value for name, value in pairs if name.startswith(":")}
    fields = [(name, value) for name, value in pairs if not name.startswith(":")]
    raw = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1")
    authority = [("host", pseudo[":authority"])] if ":authority" in pseudo else []
    return Request(raw, pseudo[":method"], pseudo.get(":path", ""), "HTTP/2", [*authority, *fields], index)
