"""The HTTPS server that programs are sent to: it answers each in the words that make it content."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator

from soth_mitm.doctor.http2_origin import Answer, serve_http2, speaks_http2
from soth_mitm.escaping import get_logger
from soth_mitm.tls.ca import CertificateAuthority, generate_ca
from soth_mitm.tls.leaf import LeafStore

log = get_logger("soth_mitm.doctor")

# No resolver knows a name below `.test` (RFC 6761), so a program that goes past the proxy finds nothing.
DOMAIN = "doctor.soth-mitm.test"
GREETING = b"soth-mitm doctor: this came through the proxy\n"
WHEEL = "soth_mitm_doctor-1.0-py3-none-any.whl"
READ_SECONDS = 30.0
MAX_HEAD_BYTES = 64 * 1024

_EMPTY_REPOSITORY = b"0" * 39 + b"1\trefs/heads/main\n"
_NO_BUCKETS = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Owner><ID>doctor</ID></Owner><Buckets/></ListAllMyBucketsResult>"
)


class DoctorOrigin:
    """An HTTPS server on the loopback, with a certificate of a CA that lives as long as it. A context manager.

    It speaks HTTP/2 and HTTP/1.1, so that each program meets the proxy in the protocol that it prefers.
    """

    def __init__(self) -> None:
        self.ca: CertificateAuthority = generate_ca("soth-mitm doctor's throw-away CA", validity_days=1)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self.port = 0

    async def __aenter__(self) -> DoctorOrigin:
        context = LeafStore(self.ca, validity_days=1).context_for(DOMAIN, alpn=("h2", "http/1.1"), mirror=[f"*.{DOMAIN}"])
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context, limit=MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *raised: object) -> None:
        assert self._server is not None
        self._server.close()
        serving = list(self._open.values())
        for writer in self._open:
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        try:
            async with asyncio.timeout(READ_SECONDS):
                if speaks_http2(writer):
                    await serve_http2(reader, writer, _answer_on_stream)
                else:
                    await self._answer(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError) as error:
            log.debug("a connection to the doctor's server ended early: %s", error)
        finally:
            del self._open[writer]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        host = next((line[5:].strip() for line in head.decode("latin-1").split("\r\n") if line.lower().startswith("host:")), "")
        kind, body = answer_for(target.partition("?")[0], host)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (kind, len(body)) + body)
        await writer.drain()


def _answer_on_stream(target: str, host: str) -> Answer:
    kind, body = answer_for(target.partition("?")[0], host)

    async def once() -> AsyncIterator[bytes]:
        yield body

    return Answer(kind, once())


def answer_for(path: str, host: str) -> tuple[bytes, bytes]:
    """Return the content type and the body for a path, as the program expects it that asks for such a path on `host`."""
    if path.endswith("/info/refs"):  # git, the protocol of plain files
        return b"text/plain", _EMPTY_REPOSITORY
    if path.endswith("/HEAD"):
        return b"text/plain", b"ref: refs/heads/main\n"
    if path.endswith(".whl"):
        return b"application/octet-stream", empty_wheel()
    if path == "/-/ping":  # npm
        return b"application/json", b"{}"
    if path == "/index/config.json":  # cargo, and then its search
        return b"application/json", json.dumps({"dl": f"https://{host}/dl", "api": f"https://{host}"}).encode()
    if path == "/api/v1/crates":
        return b"application/json", b'{"crates":[],"meta":{"total":0}}'
    if host.startswith("aws.") and path == "/":
        return b"application/xml", _NO_BUCKETS
    return b"text/plain", GREETING


def empty_wheel() -> bytes:
    """Return a Python package with nothing in it."""
    name = WHEEL.split("-py3")[0]
    metadata = "Metadata-Version: 2.1\nName: soth-mitm-doctor\nVersion: 1.0\n"
    wheel = "Wheel-Version: 1.0\nGenerator: soth-mitm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"METADATA": metadata, "WHEEL": wheel}
    record = "".join(f"{name}.dist-info/{file},,\n" for file in (*files, "RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, text in (*files.items(), ("RECORD", record)):
            archive.writestr(f"{name}.dist-info/{file}", text)
    return packed.getvalue()
