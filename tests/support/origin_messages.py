"""What an origin received: one HTTP/1 request, and the reader that takes it off a connection byte by byte as it came."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

HEAD_LIMIT = 1 << 20
PIECE = 1 << 16


class BadRequestError(Exception):
    """The client did not speak HTTP/1; the message says where."""


class ByteSource(Protocol):
    """Where requests are read from; whatever is read has been recorded."""

    async def read_until(self, separator: bytes) -> bytes:
        """Read up to and with `separator`."""
        raise NotImplementedError

    async def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes."""
        raise NotImplementedError


@dataclass
class Request:
    """One request as received. What belongs to the body grows while it is read; `complete` tells that its end was seen."""

    raw_head: bytes
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    connection_index: int
    raw_body: bytearray = field(default_factory=bytearray)
    """The body's bytes on the wire, chunk framing and trailers included."""
    body: bytearray = field(default_factory=bytearray)
    """The body without its framing. Both hold at most what the origin was told to keep."""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    length: int = 0
    """Bytes of the body without its framing, kept or not."""
    complete: bool = False
    digest: hashlib._Hash = field(default_factory=hashlib.sha256, repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each name in the target's query."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()}

    def get(self, name: str) -> str | None:
        """Return the values of a header joined by commas, None if it is absent."""
        values = [value for header, value in self.headers if header.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def announces_body(self) -> bool:
        """Whether a body, perhaps an empty one, follows the head."""
        return self.get("content-length") is not None or self.get("transfer-encoding") is not None

    def finish(self) -> None:
        """Note that the end was seen."""
        self.complete = True

    @property
    def keeps_alive(self) -> bool:
        """Whether the client expects the connection to go on."""
        options = (self.get("connection") or "").lower()
        return "keep-alive" in options if self.version == "HTTP/1.0" else "close" not in options


def parse_fields(block: bytes) -> list[tuple[str, str]]:
    """Parse header lines (without the empty line that ends them) into names as received and values without outer blanks."""
    fields = []
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(f"not a header line: {line!r}")
        fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    return fields


def parse_head(head: bytes, connection_index: int) -> Request:
    """Parse a request head with its final empty line."""
    line, _, rest = head.removesuffix(b"\r\n\r\n").partition(b"\r\n")
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError(f"not a request line: {line!r}")
    return Request(head, words[0], words[1], words[2], parse_fields(rest) if rest else [], connection_index)


class BodyReader:
    """Reads one request's body into the request, keeping at most `keep` bytes of it."""

    def __init__(self, source: ByteSource, request: Request, keep: int) -> None:
        self._source = source
        self._request = request
        self._keep = keep

    async def read(self) -> None:
        """Read to the end of the body; does nothing if it was reached before."""
        if self._request.complete:
            return
        if (self._request.get("transfer-encoding") or "").lower() == "chunked":
            await self._read_chunks()
        else:
            length = self._request.get("content-length") or "0"
            if not length.isdecimal():
                raise BadRequestError(f"not a length: {length!r}")
            await self._read_content(int(length))

    async def _read_content(self, length: int) -> None:
        while length:
            data = await self._source.read_exactly(min(length, PIECE))
            length -= len(data)
            self._keep_raw(data)
            self._keep_content(data)

    async def _read_chunks(self) -> None:
        while size := await self._read_size():
            await self._read_content(size)
            end = await self._source.read_exactly(2)
            self._keep_raw(end)
            if end != b"\r\n":
                raise BadRequestError(f"a chunk ends with {end!r}")
        while (line := await self._source.read_until(b"\r\n")) != b"\r\n":
            self._keep_raw(line)
            self._request.trailers += parse_fields(line[:-2])
        self._keep_raw(line)

    async def _read_size(self) -> int:
        line = await self._source.read_until(b"\r\n")
        self._keep_raw(line)
        try:
            return int(line[:-2].partition(b";")[0], 16)
        except ValueError as error:
            raise BadRequestError(f"not a chunk size: {line!r}") from error

    def _keep_raw(self, data: bytes) -> None:
        self._request.raw_body += data[: max(0, self._keep - len(self._request.raw_body))]

    def _keep_content(self, data: bytes) -> None:
        request = self._request
        request.length += len(data)
        request.digest.update(data)
        request.body += data[: max(0, self._keep - len(request.body))]


class Recorder:
    """A stream reader whose bytes are recorded as they are taken off it, at most `keep` of them."""

    def __init__(self, reader: asyncio.StreamReader, keep: int) -> None:
        self._reader = reader
        self._keep = keep
        self.received = bytearray()

    async def read_until(self, separator: bytes) -> bytes:
        """Read up to and with `separator`; raises IncompleteReadError at the end of the stream, having recorded what came."""
        try:
            return self._record(await self._reader.readuntil(separator))
        except asyncio.IncompleteReadError as error:
            self._record(error.partial)
            raise
        except asyncio.LimitOverrunError as error:
            raise BadRequestError(f"no {separator!r} within {HEAD_LIMIT} bytes") from error

    async def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes; raises IncompleteReadError at the end of the stream, having recorded what came."""
        try:
            return self._record(await self._reader.readexactly(count))
        except asyncio.IncompleteReadError as error:
            self._record(error.partial)
            raise

    async def read_some(self, count: int) -> bytes:
        """Read what there is, at most `count` bytes; `b""` at the end of the stream."""
        return self._record(await self._reader.read(count))

    def _record(self, data: bytes) -> bytes:
        self.received += data[: max(0, self._keep - len(self.received))]
        return data
