"""Listening sockets: opened before anything else, so that a failure to do so is the caller's to see."""

import asyncio
import errno
import functools
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from soth_mitm.addresses import ANY_ADDRESS, is_loopback, parse_bind_address
from soth_mitm.config import MitmConfig
from soth_mitm.connection import SocketAddress
from soth_mitm.errors import BindError
from soth_mitm.proxy.forks import listeners
from soth_mitm.proxy.own_address import reaches

BACKLOG = 1024
_HINTS = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another `{key}` (port 0 takes a free one)",
    errno.EACCES: "this port needs privileges; choose one above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is always there",
}


def open_tcp(bind: str, key: str = "bind") -> socket.socket:
    """Return a socket that listens on `bind`, the value of `key`; `BindError` says what to do when that cannot be."""
    host, port = parse_bind_address(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family if family == socket.AF_INET6 else 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0]
        listening = socket.socket(address[0], socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(error, bind, key) from error
    try:
        if os.name == "posix":
            # elsewhere this option would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address[4])
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _refused(error, bind, key) from error
    return listening


def open_unix(path: Path, mode: int) -> socket.socket:
    """Return a socket that listens on `path`, with the file mode `mode`. Only a socket file without a listener is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # no client may connect between bind and chmod
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        os.chmod(path, mode)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if isinstance(error, BindError):
            raise
        raise _refused(error, str(path), "unix_socket_path") from error
    return listening


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(errno.EEXIST, f"cannot listen on {path}: a file that is no socket is there; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise BindError(errno.EADDRINUSE, f"cannot listen on {path}: another program listens there; stop it or choose another path")


def _refused(error: OSError, where: str, key: str) -> BindError:
    hint = _HINTS.get(error.errno or 0, "choose another address").format(key=key)
    return BindError(error.errno, f"cannot listen on {where}: {(error.strerror or str(error)).lower()}: {hint}")


class Listener:
    """The listening sockets of one proxy."""

    def __init__(self, sockets: list[socket.socket], unix_path: Path | None) -> None:
        self._sockets = sockets
        self._unix_path = unix_path
        self._unix_identity = None if unix_path is None else _identity(unix_path)
        self._servers: list[asyncio.Server] = []
        listeners.add(self)
        self.addresses: list[SocketAddress] = [listening.getsockname()[:2] for listening in sockets if listening.family != _AF_UNIX]

    @classmethod
    def open(cls, bind: str, unix_path: Path | None, unix_mode: int) -> "Listener":
        """Bind and listen. Raises `BindError`; then nothing stays open."""
        sockets = [open_tcp(bind)]
        if unix_path is not None:
            try:
                sockets.append(open_unix(unix_path, unix_mode))
            except BindError:
                sockets[0].close()
                raise
        return cls(sockets, unix_path)

    @classmethod
    def open_status(cls, config: MitmConfig) -> "Listener | None":
        """Bind and listen where the proxy tells of itself, None where it does not. Raises `BindError`; then nothing stays open."""
        bind = config.prometheus_bind
        if bind is None:
            return None
        listening = open_tcp(bind, "prometheus_bind")
        host = listening.getsockname()[0]
        if not (config.prometheus_open_to_network or is_loopback(host)):
            # a name that the system knows otherwise than its users
            listening.close()
            raise BindError(
                errno.EADDRNOTAVAIL,
                f"cannot listen on {bind}: that is {host}, which other machines may reach; set `prometheus_open_to_network`",
            )
        return cls([listening], None)

    async def serve(self, factory: Callable[[SocketAddress | None], asyncio.BaseProtocol]) -> None:
        """Begin to accept; `factory` makes each connection's protocol, given our end's address where all connections have the same."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            if listening.family == _AF_UNIX:
                self._servers.append(await loop.create_unix_server(functools.partial(factory, None), sock=listening, backlog=BACKLOG))
            else:
                address = listening.getsockname()[:2]
                local = None if address[0] in ANY_ADDRESS else address
                # the loops listen again, with a backlog of their own unless told one
                server = await loop.create_server(functools.partial(factory, local), sock=listening, backlog=BACKLOG)
                self._servers.append(server)

    def close(self) -> None:
        """Stop accepting; connections go on. A Unix socket's file is removed."""
        for server in self._servers:
            server.close()
        if not self._servers:
            for listening in self._sockets:
                listening.close()
        self._sockets = []
        if self._unix_path is not None and _identity(self._unix_path) == self._unix_identity:
            self._unix_path.unlink(missing_ok=True)

    def let_go(self, null: int) -> None:
        """Put the descriptor `null` in the place of each socket, in a child process."""
        for listening in self._sockets:
            os.dup2(null, listening.fileno(), inheritable=False)

    def is_ours(self, address: SocketAddress) -> bool:
        """Tell whether connecting to `address` would lead back to us. No name is looked up: the answer for one is no."""
        wanted, wanted_port = address
        for host, port in self.addresses:
            if port == wanted_port and reaches(wanted, host):
                return True
        return False


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tell one file from another that took its name."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


_AF_UNIX = getattr(socket, "AF_UNIX", None)
