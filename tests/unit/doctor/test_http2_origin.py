"""The HTTP/2 of the doctor's and the demo's servers, asked by the `h2` library over a connection in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from soth_mitm.doctor.http2_origin import Answer, serve_http2

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * 1000


async def pieces(*of: bytes) -> AsyncIterator[bytes]:
    for each in of:
        yield each


def respond(path: str, authority: str) -> Answer:
    if path == "/long":
        return Answer(b"application/octet-stream", pieces(LONG))
    return Answer(b"text/plain", pieces(authority.encode(), b" ", path.encode()))


class Client:
    """A connection to `serve_http2`, over the loopback."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.bodies: dict[int, bytes] = {}
        self.fields: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.gone_away = False

    async def __aenter__(self) -> Client:
        self._served = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve_http2(reader, writer, respond)
            finally:
                writer.close()
                self._served.set()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._server.sockets[0].getsockname()[1])
        self.h2.initiate_connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        await asyncio.wait_for(self._served.wait(), 10)
        self._server.close()

    def ask(self, number: int, path: str, *, end: bool = True) -> None:
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", path)]
        self.h2.send_headers(number, fields, end_stream=end)

    async def read_until_ended(self, *numbers: int) -> None:
        """Read until these streams have ended; give back what was read to the windows."""
        while not self.ended.issuperset(numbers):
            self.writer.write(self.h2.data_to_send())
            data = await asyncio.wait_for(self.reader.read(65_536), 10)
            assert data, "the server closed the connection"
            for event in self.h2.receive_data(data):
                match event:
                    case h2.events.ResponseReceived(stream_id=int(number), headers=list(headers)):
                        self.fields[number] = {str(name): str(value) for name, value in headers}
                    case h2.events.DataReceived(stream_id=int(number), data=bytes(piece), flow_controlled_length=int(length)):
                        self.bodies[number] = self.bodies.get(number, b"") + piece
                        self.h2.acknowledge_received_data(length, number)
                    case h2.events.StreamEnded(stream_id=int(number)):
                        self.ended.add(number)


async def test_each_stream_is_answered() -> None:
    async with Client() as client:
        client.ask(1, "/one")
        client.ask(3, "/two", end=False)
        client.h2.send_data(3, b"x" * 10_000, end_stream=True)
        await client.read_until_ended(1, 3)
        assert client.bodies == {1: b"a.test /one", 3: b"a.test /two"}
        assert client.fields[1] == {":status": "200", "content-type": "text/plain"}


async def test_a_body_longer_than_the_window_arrives() -> None:
    async with Client() as client:
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.ask(1, "/long")
        client.ask(3, "/short")
        await client.read_until_ended(1, 3)
        assert client.bodies[1] == LONG


async def test_a_client_that_resets_a_stream_ends_that_one_only() -> None:
    async with Client() as client:
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.ask(1, "/long")
        client.h2.reset_stream(1)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.ask(3, "/short")
        await client.read_until_ended(3)
        assert 1 not in client.bodies


async def test_a_client_that_breaks_the_protocol_gets_goaway() -> None:
    async with Client() as client:
        client.writer.write(client.h2.data_to_send() + b"\x00\x00\x00\x01\x00\x00\x00\x00\x00")
        said = b""
        while data := await asyncio.wait_for(client.reader.read(65_536), 10):
            said += data
        events = client.h2.receive_data(said)
        assert [event.error_code for event in events if isinstance(event, h2.events.ConnectionTerminated)] == [1]
