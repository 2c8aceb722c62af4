"""A connection of HTTP/2 on which the server is this process: the `h2` library frames, `respond` says what is sent.

For the origins of the doctor and of the demo, which serve a few requests. The proxy has an engine of its own (`_dataplane/http2`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
import h2.exceptions

READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with status 200."""

    content_type: bytes
    pieces: AsyncIterator[bytes]
    """Its body; each piece is sent when it comes."""


Respond = Callable[[str, str], Answer]
"""Gets path and authority of a request whose body has come, which is not kept."""


def speaks_http2(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the TLS handshake chose HTTP/2 (RFC 7301)."""
    secured = writer.get_extra_info("ssl_object")
    return secured is not None and secured.selected_alpn_protocol() == "h2"


async def serve_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond) -> None:
    """Serve until the client leaves or breaks the protocol. Raises `OSError` when the connection is lost."""
    await _Http2Connection(reader, writer, respond).serve()


class _Http2Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond) -> None:
        self._reader = reader
        self._writer = writer
        self._respond = respond
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self._asked: dict[int, tuple[str, str]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        # set when there may be room in a window
        self._room = asyncio.Event()

    async def serve(self) -> None:
        self._h2.initiate_connection()
        await self._flush()
        try:
            while data := await self._reader.read(READ_BYTES):
                try:
                    events = self._h2.receive_data(data)
                except h2.exceptions.ProtocolError:
                    await self._flush()  # the GOAWAY that says why
                    return
                for event in events:
                    self._take(event)
                await self._flush()
        finally:
            answering = list(self._answering.values())
            for task in answering:
                task.cancel()
            await asyncio.gather(*answering, return_exceptions=True)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(number), headers=list(headers)):
                fields = dict(headers)
                self._asked[number] = (fields.get(b":path", b"").decode("latin-1"), fields.get(b":authority", b"").decode("latin-1"))
            case h2.events.DataReceived(stream_id=int(number), flow_controlled_length=int(length)):
                self._h2.acknowledge_received_data(length, number)
            case h2.events.StreamEnded(stream_id=int(number)):
                task = asyncio.create_task(self._answer(number, *self._asked.pop(number)))
                self._answering[number] = task
                task.add_done_callback(lambda _: self._answering.pop(number))
            case h2.events.StreamReset(stream_id=int(number)):
                self._asked.pop(number, None)
                if number in self._answering:
                    self._answering[number].cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.set()

    async def _answer(self, number: int, path: str, authority: str) -> None:
        answer = self._respond(path, authority)
        try:
            self._h2.send_headers(number, [(b":status", b"200"), (b"content-type", answer.content_type)])
            async for piece in answer.pieces:
                await self._send(number, piece)
            self._h2.end_stream(number)
            await self._flush()
        except (OSError, h2.exceptions.ProtocolError):
            # the client left in the meantime, which `serve` notices
            return

    async def _send(self, number: int, data: bytes) -> None:
        while data:
            while not (room := min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)):
                self._room.clear()
                await self._room.wait()
            self._h2.send_data(number, data[:room])
            data = data[room:]
            await self._flush()

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()
