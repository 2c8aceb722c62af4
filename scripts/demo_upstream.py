"""The server that the demo talks to: HTTPS with a throw-away CA, a JSON endpoint, and one that streams like a language model."""

import asyncio
import json
import ssl

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
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                length = next((int(line.partition(":")[2]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                self.paths.append(path)
                if path.startswith("/v1/chat"):
                    await self._stream(writer)
                else:
                    await self._answer(writer, path)
        except (asyncio.IncompleteReadError, ConnectionError):
            # the proxy has closed a connection that it no longer keeps
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, path: str) -> None:
        body = json.dumps({"path": path, "models": ["small", "large"]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for word in [*WORDS, "[DONE]"]:
            event = f"data: {word if word == '[DONE]' else json.dumps({'delta': word})}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(SECONDS_PER_WORD)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
