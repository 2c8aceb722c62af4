"""Serves a view on a loopback address, until a signal ends it."""

import asyncio
import contextlib
import errno
import socket
from types import FrameType

import uvicorn

from soth_mitm.addresses import format_host_port, is_loopback, parse_bind_address
from soth_mitm.errors import BindError
from soth_mitm.views.access import Sessions
from soth_mitm.views.server import View
from soth_mitm.views.source import FlowSource

BACKLOG = 64


class _Server(uvicorn.Server):
    """Ends streams of changes when it is told to end."""

    def __init__(self, config: uvicorn.Config, view: View) -> None:
        super().__init__(config)
        self._view = view
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. It is not raised again afterwards: it has done what it was for."""
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """End, from any thread."""
        self.should_exit = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._view.end)


def open_view_socket(bind: str) -> socket.socket:
    """Return a socket that listens on `bind`, a loopback address. Raises `BindError`, which says what to do."""
    host, port = parse_bind_address(bind)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise BindError(error.errno, f"the view cannot listen on {bind}: {error.strerror}") from error
    if not is_loopback(str(address[0])):
        raise BindError(
            errno.EADDRNOTAVAIL,
            f"the view cannot listen on {bind}: other machines may reach it, and flows hold what programs say. It listens on a loopback "
            "address only, such as 127.0.0.1; from another machine, forward the port (ssh -L)",
        )
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if socket.SO_REUSEADDR and hasattr(socket, "AF_UNIX"):
            # on Windows this option would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        hint = (
            "another program listens there; choose another --port, 0 takes a free one"
            if error.errno == errno.EADDRINUSE
            else "choose another"
        )
        raise BindError(error.errno, f"the view cannot listen on {bind}: {(error.strerror or str(error)).lower()}: {hint}") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Return where a view listens, without the secret."""
    host, port = listening.getsockname()[:2]
    return f"http://{format_host_port(host, port)}/"


class ViewServer:
    """Serves the view of `source` on `listening`, which is closed at the end; `source` is the caller's to close then."""

    def __init__(self, source: FlowSource, listening: socket.socket) -> None:
        self._source = source
        self._listening = listening
        self._sessions = Sessions()
        self._server: _Server | None = None
        self._is_stopped = False
        self.address = address_of(listening)
        """Where it is, without the secret."""
        self.url = f"{self.address}#secret={self._sessions.secret}"
        """What opens it, once and within 5 minutes."""

    async def serve(self) -> None:
        """Serve until SIGINT or SIGTERM, or until `stop`."""
        host, port = self._listening.getsockname()[:2]
        view = View(self._source, self._sessions)
        config = uvicorn.Config(
            view.app(host, port),
            # a proxy in between is not asked who the client is, and no header says what this is
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            http="h11",
            h11_max_incomplete_event_size=16_384,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config, view)
        if self._is_stopped:
            self._server.stop()
        view.watch()
        with self._listening:
            await self._server.serve(sockets=[self._listening])

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._is_stopped = True
        if self._server is not None:
            self._server.stop()
