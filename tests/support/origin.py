"""An origin for tests: it records what reaches it, to the byte, and answers by path or as a script says.

It speaks HTTP/1, and HTTP/2 on connections on which ALPN chooses h2.

    with Origin(ssl_context) as origin:
        ...                                   # a client talks to origin.port
        (request,) = origin.wait_requests(1)
        assert request.raw_head == b"GET / HTTP/1.1\r\n..."

Paths: `/bytes/<n>` · `/chunked/<n>/<pieces>` (`?trailers` adds one) · `/close/<n>` ends with the connection · `/sse/<n>/<interval_ms>` ·
`/status/<code>` · `/slow/<ms>` · `/interim` sends 100 and 103 first · `/cut/<n>` announces n bytes, sends half, closes · `/reset` ·
`/early` answers before it reads the upload · anything else is echoed as JSON.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from h2.exceptions import ProtocolError

from support.http2_origin import Http2Session
from support.origin_answers import answer
from support.origin_messages import HEAD_LIMIT, PIECE, BadRequestError, BodyReader, Recorder, Request, parse_head

_Value = TypeVar("_Value")
_SCRIPT_THREADS = 32
_TLS_SHUTDOWN_TIMEOUT = 1.0  # for a client that does not answer our close_notify
_LINGER_RESET = struct.pack("ii", 1, 0)

RequestScript = Callable[["ScriptedConnection", Request], object]
ConnectionScript = Callable[["ScriptedConnection"], object]


class ScriptFailedError(AssertionError):
    """A script raised something else than that its client had gone."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Remembers its transport."""

    made: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.made = transport
        super().connection_made(transport)


class Connection:
    """One accepted connection. `received` are the client's bytes (after TLS), `tls` the TLS object once the handshake is done."""

    def __init__(self, origin: Origin, index: int, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        self.origin = origin
        self.index = index
        self.peer = peer
        self.requests: list[Request] = []
        self.tls: ssl.SSLObject | None = None
        self.http2: Http2Session | None = None
        """Where ALPN chose h2, or the origin speaks it without asking."""
        self.error: Exception | None = None
        """Why the connection ended, None if both sides were content."""
        self.closed = threading.Event()
        self._sock = sock
        self._recorder: Recorder | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._body: BodyReader | None = None

    @property
    def received(self) -> bytes:
        """Every byte that was read from the client so far, up to what the origin keeps."""
        return bytes(self._recorder.received) if self._recorder else b""

    @property
    def sni(self) -> str | None:
        """The name that the client asked for in its ClientHello."""
        return getattr(self.tls, "asked_name", None)

    @property
    def recorder(self) -> Recorder:
        """What to read from; only after the handshake."""
        assert self._recorder is not None
        return self._recorder

    @property
    def writer(self) -> asyncio.StreamWriter:
        """What to write to; only after the handshake."""
        assert self._writer is not None
        return self._writer

    async def serve(self, context: ssl.SSLContext | None) -> None:
        """Serve until the connection ends; what goes wrong is kept in `error`."""
        try:
            await self._open(context)
            script = self.origin.connection_script
            if script is not None:
                await self.origin.run_script(partial(script, ScriptedConnection(self)))
            elif self.tls is not None and self.tls.selected_alpn_protocol() == "h2" or self.origin.prior_knowledge:
                self.http2 = Http2Session(self)
                await self.http2.serve()
            else:
                await self._serve_requests()
        except (OSError, EOFError, BadRequestError, ScriptFailedError, ProtocolError) as error:
            self.error = error
        finally:
            await self._leave()

    async def _leave(self) -> None:
        try:
            if self._writer is None:
                self._sock.close()
            else:
                self.end()
                await self._writer.wait_closed()
        except OSError as error:
            self.error = self.error or error
        finally:
            self.origin.changed(self.closed.set)

    async def _open(self, context: ssl.SSLContext | None) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(HEAD_LIMIT, loop)
        protocol = _Protocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, self._sock, ssl=context, ssl_shutdown_timeout=_TLS_SHUTDOWN_TIMEOUT if context else None
            )
        except asyncio.CancelledError:
            # right behind a handshake: asyncio would say goodbye in TLS, for longer than its loop lasts
            if protocol.made is not None:
                protocol.made.abort()
            raise
        self._recorder = Recorder(reader, self.origin.keep)
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self.tls = transport.get_extra_info("ssl_object")

    async def _serve_requests(self) -> None:
        while not self.writer.is_closing():
            try:
                head = await self.recorder.read_until(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                return
            request = parse_head(head, self.index)
            self._body = BodyReader(self.recorder, request, self.origin.keep)
            self.origin.changed(partial(self._add, request))
            script = self.origin.script_of(request)
            if script is not None:
                await self.origin.run_script(partial(script, ScriptedConnection(self), request))
            else:
                await answer(self, request)
            if self.writer.is_closing():
                return
            await self._finish_body(request)
            if not request.keeps_alive:
                return

    def _add(self, request: Request) -> None:
        if not request.announces_body:
            request.finish()
        self.requests.append(request)
        self.origin.requests.append(request)

    async def read_body(self) -> None:
        """Read the current request's body to its end, after `100 Continue` if the client waits for it."""
        request = self.requests[-1]
        if not request.complete and (request.get("expect") or "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._finish_body(request)

    async def _finish_body(self, request: Request) -> None:
        assert self._body is not None
        if not request.complete:
            await self._body.read()
            self.origin.changed(request.finish)

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client does not read."""
        self.writer.write(data)
        await self.writer.drain()

    def end(self) -> None:
        """Close in an orderly way after what was sent."""
        # asyncio's TLS transport, closed twice, cannot be aborted any more
        if self._writer is not None and not self._writer.is_closing():
            self._writer.close()

    def cut(self) -> None:
        """Reset the connection now, whatever was not sent yet being lost."""
        if self._writer is not None:
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self._writer.transport.abort()

    def abort(self) -> None:
        """Drop the connection, whatever was not sent yet being lost."""
        if self._writer is not None:
            self._writer.transport.abort()

    def half_close(self) -> None:
        """End our direction of a plain connection."""
        self.writer.write_eof()


class ScriptedConnection:
    """What a script does with its connection. All methods block; a script runs in a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        self._do(self.connection.write(data))

    def receive(self, count: int = PIECE) -> bytes:
        """Return what the client sends, at most `count` bytes; `b""` once it has ended its direction."""
        return self._do(self.connection.recorder.read_some(count))

    def receive_exactly(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        return self._do(self.connection.recorder.read_exactly(count))

    def read_body(self) -> bytes:
        """Read the request's body to its end and return what was kept of it."""
        self._do(self.connection.read_body())
        return bytes(self.connection.requests[-1].body)

    def wait(self, event: threading.Event, timeout: float = 10.0) -> None:
        """Wait until the test sets `event`."""
        if not event.wait(timeout):
            raise AssertionError(f"the test did not set the script's event within {timeout:g} s")

    def close(self) -> None:
        """Close in an orderly way after what was sent."""
        self._do(self._call(self.connection.end))

    def half_close(self) -> None:
        """End our direction of a plain connection; the client may go on."""
        self._do(self._call(self.connection.half_close))

    def reset(self) -> None:
        """Reset the connection now."""
        self._do(self._call(self.connection.cut))

    async def _call(self, function: Callable[[], None]) -> None:
        function()

    def _do(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        return asyncio.run_coroutine_threadsafe(work, self.connection.origin.loop).result()


class Origin:
    """The origin; use it as a context manager. `keep` bounds the bytes remembered of each connection and of each body."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0, keep: int = 16 << 20) -> None:
        self.host = host
        self.keep = keep
        self.connections: list[Connection] = []
        """All accepted connections in order, also those whose TLS handshake failed."""
        self.requests: list[Request] = []
        """All requests whose head was read, in order."""
        self.connection_script: ConnectionScript | None = None
        self.prior_knowledge = False
        """Whether connections without TLS speak HTTP/2."""
        self.settings: dict[int, int] = {}
        """What HTTP/2 connections announce besides."""
        self.script_failures: list[ScriptFailedError] = []
        self._context = ssl_context
        self._scripts: dict[str | None, RequestScript] = {}
        self._condition = threading.Condition()
        self._running_scripts: set[Future[object]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self.port = port
        if ssl_context is not None and ssl_context.sni_callback is None:
            ssl_context.sni_callback = _remember_name

    def __enter__(self) -> Origin:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=4096)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._executor = ThreadPoolExecutor(_SCRIPT_THREADS, "origin-script")
        self.loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, name="origin")
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close; raises what a script failed with, unless the test is failing already."""
        self.close()
        if kind is None and self.script_failures:
            raise self.script_failures[0]

    def close(self) -> None:
        """Stop listening, drop all connections and end the thread; what was recorded stays. May be called again."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def url(self, path: str = "/") -> str:
        """Return the URL of `path` here."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._context is None else 'https'}://{host}:{self.port}{path}"

    def script(self, script: RequestScript, path: str | None = None) -> None:
        """Let `script(connection, request)` answer requests for `path` (None: all) from now on; it is called once the head was read."""
        self._scripts[path] = script

    def script_connections(self, script: ConnectionScript | None) -> None:
        """Let `script(connection)` have connections accepted from now on, after the TLS handshake and before anything is read."""
        self.connection_script = script

    def wait_connections(self, count: int, timeout: float = 10.0) -> list[Connection]:
        """Wait until `count` connections were accepted; return them all."""
        return self._wait(lambda: self.connections, count, timeout, "accepted connections")

    def wait_closed(self, count: int, timeout: float = 10.0) -> list[Connection]:
        """Wait until `count` connections have ended; return those that have."""
        return self._wait(lambda: [item for item in self.connections if item.closed.is_set()], count, timeout, "ended connections")

    def wait_heads(self, count: int, timeout: float = 10.0) -> list[Request]:
        """Wait until the heads of `count` requests were read; return the requests."""
        return self._wait(lambda: self.requests, count, timeout, "request heads")

    def wait_requests(self, count: int, timeout: float = 10.0) -> list[Request]:
        """Wait until `count` requests were read to the end; return those that were."""
        return self._wait(lambda: [item for item in self.requests if item.complete], count, timeout, "complete requests")

    def _wait(self, items: Callable[[], list[_Value]], count: int, timeout: float, what: str) -> list[_Value]:
        with self._condition:
            if not self._condition.wait_for(lambda: len(items()) >= count, timeout):
                errors = [item.error for item in self.connections if item.error is not None]
                raise TimeoutError(f"{len(items())} of {count} {what} after {timeout:g} s; errors: {errors}")
            return list(items())

    def changed(self, change: Callable[[], object]) -> None:
        """Apply a change and wake whoever waits for it."""
        with self._condition:
            change()
            self._condition.notify_all()

    def script_of(self, request: Request) -> RequestScript | None:
        """Return the script that answers `request`."""
        return self._scripts.get(request.path, self._scripts.get(None))

    async def run_script(self, script: Callable[[], object]) -> None:
        """Run a script in a thread of its own, to its end."""
        future = self._executor.submit(script)
        self._running_scripts.add(future)
        future.add_done_callback(self._running_scripts.discard)
        done = asyncio.wrap_future(future)
        done.add_done_callback(asyncio.Future.exception)  # looked at here even if we are cancelled and nobody else looks
        await asyncio.wait([done])
        error = done.exception()
        if isinstance(error, OSError | EOFError):  # the client has gone
            raise error
        if error is not None:
            failure = ScriptFailedError(f"a script of the origin raised {error!r}")
            self.script_failures.append(failure)
            raise failure from error

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())
        self._executor.shutdown()

    async def _serve(self) -> None:
        self.loop.add_reader(self._listener, self._accept)
        await self._stop.wait()
        self.loop.remove_reader(self._listener)
        # A task that is cancelled before its first step, or between the steps in which asyncio wires up a transport, closes nothing.
        for _ in range(5):
            await asyncio.sleep(0)
        for connection in self.connections:
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()
        # Scripts see their connection end, and must be let go on to their own end while this loop still runs for them.
        await asyncio.gather(*map(asyncio.wrap_future, self._running_scripts), return_exceptions=True)

    def _accept(self) -> None:
        # Not sock_accept: what that has accepted is lost, and stays open, when it is cancelled.
        try:
            sock, peer = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        connection = Connection(self, len(self.connections), sock, peer)
        self.changed(partial(self.connections.append, connection))
        task = self.loop.create_task(connection.serve(self._context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _remember_name(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
    tls.asked_name = name  # type: ignore[attr-defined]
