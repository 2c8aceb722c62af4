"""The server that the demo talks to: HTTPS with a throw-away CA, a JSON endpoint, and one that streams like a language model.

It speaks HTTP/2 and HTTP/1.1: curl takes the first, and a client that cannot is served with the second.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator

from soth_mitm.doctor.http2_origin import Answer, serve_http2, speaks_http2

WORDS = "The proxy saw each of these words before you did .".split()
SECONDS_PER_WORD = 0.25


class Upstream:
    """Listens on a free port of 127.0.0.1; `paths` is what it was asked for."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.paths: list[str] = []
        self._context = context

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if speaks_http2(writer):
                await serve_http2(reader, writer, self._respond)
            else:
                await self._serve_http1(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy has closed a connection that it no longer keeps
        finally:
            writer.close()

    async def _serve_http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next((int(line.partition(":")[2]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
            await reader.readexactly(length)
            answer = self._respond(head.split(" ", 2)[1], "")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % answer.content_type)
            async for piece in answer.pieces:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    def _respond(self, path: str, _: str) -> Answer:
        self.paths.append(path)
        return Answer(b"text/event-stream", _words()) if path.startswith("/v1/chat") else Answer(b"application/json", _models(path))


async def _models(path: str) -> AsyncIterator[bytes]:
    yield json.dumps({"path": path, "models": ["small", "large"]}).encode()


async def _words() -> AsyncIterator[bytes]:
    for word in [*WORDS, "[DONE]"]:
        yield f"data: {word if word == '[DONE]' else json.dumps({'delta': word})}\n\n".encode()
        await asyncio.sleep(SECONDS_PER_WORD)
