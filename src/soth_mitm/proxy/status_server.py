"""A small HTTP/1.1 server in a thread of its own: what a proxy tells of itself is told also while its loop is held up.

A connection carries one request. There are few of them, and a request and its answer have a deadline.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.addresses import is_address, is_loopback, parse_authority
from soth_mitm.errors import WireError
from soth_mitm.escaping import get_logger
from soth_mitm.proxy.listener import Listener

log = get_logger("soth_mitm.proxy")

MAX_CONNECTIONS = 16
MAX_HEAD_BYTES = 8192
MAX_FIELDS = 64
# For a request, the page that it asks for, and the client that takes it
CONNECTION_SECONDS = 10.0
# For a client that was answered before its request was complete
LINGER_SECONDS = 1.0
TEXT = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """What a request is answered with."""

    status: int
    content: bytes
    media_type: str = TEXT


MakePage = Callable[[str, str], Awaitable[Page]]
"""Makes the page of a path, without its query, for a client that says it accepts such media types."""


def line(status: int, text: str) -> Page:
    """Return a page of one line."""
    return Page(status, f"{text}\n".encode("utf-8", "backslashreplace"))


class StatusServer:
    """Serves the pages that `make_page` makes, on the sockets of `listener`."""

    def __init__(self, listener: Listener, make_page: MakePage) -> None:
        self.make_page = make_page
        # a page of another site can have its own name lead here (DNS rebinding), and would be read by that site then
        self.answers_names = not all(is_loopback(host) for host, _ in listener.addresses)
        self._listener = listener
        self._open: dict[StatusConnection, None] = {}
        self._all_gone = asyncio.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to serve."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="soth-mitm status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut what is open and end the thread, which takes milliseconds."""
        if self._loop is None or self._thread is None:
            self._listener.close()
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._listener.serve(lambda _: StatusConnection(self))
        await self._stop.wait()
        self._listener.close()
        for connection in list(self._open):
            connection.abort()
        while self._open:
            self._all_gone.clear()
            await self._all_gone.wait()

    def opened(self, connection: "StatusConnection") -> None:
        """A client connected. Where they are too many, one that has not asked for anything yet makes room, the oldest of them."""
        self._open[connection] = None
        if len(self._open) > MAX_CONNECTIONS:
            next(each for each in (*self._open, connection) if not each.has_asked).abort()

    def ended(self, connection: "StatusConnection") -> None:
        """A connection is over."""
        del self._open[connection]
        self._all_gone.set()


class StatusConnection(asyncio.Protocol):
    """One connection: a request, its answer, the end."""

    _transport: asyncio.Transport

    def __init__(self, server: StatusServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._reader = HeadReader(True, MAX_HEAD_BYTES, MAX_FIELDS)
        self._received = b""
        self._making: asyncio.Task[Page] | None = None
        self._is_answered = False

    @property
    def has_asked(self) -> bool:
        """Whether the request is here, well-formed or not."""
        return self._making is not None or self._is_answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deadline = self._loop.call_later(CONNECTION_SECONDS, self._late)
        self._server.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        if self._making is not None:
            self._making.cancel()
        self._server.ended(self)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.has_asked:
            # one request is answered, and nothing of what may follow is kept
            return
        self._received += data
        try:
            parsed = self._reader.feed(self._received)
        except WireError as error:
            self._answer(line(error.status, str(error)))
            return
        if parsed is not None:
            self._received = b""
            self._asked(parsed[0])

    def eof_received(self) -> bool:
        if self._is_answered:
            return False
        if self._making is None and self._received:
            self._answer(line(400, "the request ended within its head"))
        # a client may end its direction and wait for the answer
        return self.has_asked

    def _asked(self, head: Head) -> None:
        refusal = self._refusal(head)
        if refusal is not None:
            self._answer(refusal, allow="GET, HEAD" if refusal.status == 405 else "")
            return
        accept = ", ".join(value.decode("latin-1") for name, value in head.fields if name.lower() == b"accept")
        self._making = self._loop.create_task(self._make(head.path.partition("?")[0], accept))
        self._making.add_done_callback(lambda task: self._made(task, head.method != "HEAD"))

    async def _make(self, path: str, accept: str) -> Page:
        return await self._server.make_page(path, accept)

    def _refusal(self, head: Head) -> Page | None:
        facts = head.facts
        if head.method not in ("GET", "HEAD"):
            return line(405, f"{head.method} is not answered here; GET and HEAD are")
        if facts["chunked"] or facts["content_length"] > 0:
            return line(413, "no request here has content")
        if not self._server.answers_names and head.host is not None and not _names_this_machine(head.host):
            return line(
                421, "Host is neither an address nor localhost, and a name is not answered here (prometheus_bind is a loopback address)"
            )
        return None

    def _made(self, task: asyncio.Task[Page], with_content: bool) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._answer(task.result(), with_content=with_content)
            return
        log.error("a page of prometheus_bind could not be made; please report this", exc_info=error)
        self._answer(line(500, f"the page could not be made: {type(error).__name__}"), with_content=with_content)

    def _late(self) -> None:
        if self.has_asked:
            self.abort()
        else:
            self._answer(line(408, f"the request did not come within {CONNECTION_SECONDS:g} s"))

    def _answer(self, page: Page, *, with_content: bool = True, allow: str = "") -> None:
        if self._transport.is_closing():
            return
        is_early = self._making is None
        self._is_answered = True
        head = (
            f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\n"
            f"Date: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: {page.media_type}\r\n"
            f"Content-Length: {len(page.content)}\r\n"
            + (f"Allow: {allow}\r\n" if allow else "")
            + "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode("ascii") + (page.content if with_content else b""))
        # and wait for the client's end: what it may still send would reset the connection, and with it the answer on its way
        self._transport.write_eof()
        if is_early:
            self._deadline.cancel()
            self._deadline = self._loop.call_later(LINGER_SECONDS, self.abort)


def _names_this_machine(host: str) -> bool:
    try:
        name, _ = parse_authority(host, 80)
    except ValueError:
        return False
    return name == "localhost" or is_address(name)
