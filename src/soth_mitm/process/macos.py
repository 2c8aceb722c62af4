"""macOS: every process is asked for its TCP sockets (libproc, through psutil), those that owned a connection lately first.

The system has no index from a connection to its process. Other users' processes can be asked by root only.
"""

from __future__ import annotations

import plistlib
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import PurePath
from typing import Protocol
from xml.parsers.expat import ExpatError

import psutil

from soth_mitm.connection import ProcessInfo, SocketAddress
from soth_mitm.process import identity
from soth_mitm.process.address import pack_host

_SOL_LOCAL = 0
_LOCAL_PEERPID = 2
_RECENT_OWNERS = 32


class ListedConnection(Protocol):
    """A connection as psutil lists it; an end that is not connected is an empty tuple."""

    @property
    def laddr(self) -> tuple[str, int] | tuple[()]: ...
    @property
    def raddr(self) -> tuple[str, int] | tuple[()]: ...


class MacProcesses:
    """Which process holds a socket, and who that process is. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, None] = OrderedDict()  # the latest owner at the end

    def find_owner(self, local: SocketAddress, remote: SocketAddress) -> int | None:
        """Return a process that holds the client's end of the connection from `remote` to our `local`, None if none is visible."""
        with self._lock:
            recent = list(reversed(self._recent))
        pid = self._first_holding(recent, remote, local)
        if pid is None:
            known = set(recent)
            pid = self._first_holding((pid for pid in sorted(psutil.pids(), reverse=True) if pid not in known), remote, local)
        if pid is not None:
            with self._lock:
                self._recent[pid] = None
                self._recent.move_to_end(pid)
                if len(self._recent) > _RECENT_OWNERS:
                    self._recent.popitem(last=False)
        return pid

    def find_recent_owner(self, local: SocketAddress, remote: SocketAddress) -> tuple[int, str] | None:
        """Return None: every question here takes a search."""
        return None

    def connection_ended(self, remote: SocketAddress) -> None:
        """Nothing is remembered of connections."""

    def peer_pid(self, sock: socket.socket) -> int | None:
        """Return the process that connected a Unix socket."""
        pid: int = struct.unpack("i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))[0]
        return pid or None

    def start_token(self, pid: int) -> str | None:
        """Return a text that changes when `pid` is reused, None if there is no such process."""
        return identity.start_token(pid)

    def describe(self, pid: int) -> ProcessInfo | None:
        """Return who `pid` is, None if it is gone."""
        return identity.describe(pid, bundle_id_of)

    def close(self) -> None:
        """Nothing is kept open."""

    def _first_holding(self, pids: Iterable[int], client: SocketAddress, peer: SocketAddress) -> int | None:
        for pid in pids:
            try:
                connections = psutil.Process(pid).net_connections("tcp")
            except psutil.Error:  # ended, or not ours to read
                continue
            if holds(connections, client, peer):
                return pid
        return None


def holds(connections: Iterable[ListedConnection], client: SocketAddress, peer: SocketAddress) -> bool:
    """Tell whether one of `connections` goes from `client` to `peer`, IPv4-mapped addresses counting as IPv4."""
    wanted = (client[1], peer[1], pack_host(client[0]), pack_host(peer[0]))
    for connection in connections:
        if not connection.laddr or not connection.raddr:
            continue
        (host, port), (peer_host, peer_port) = connection.laddr, connection.raddr
        if (port, peer_port) == wanted[:2] and (pack_host(host), pack_host(peer_host)) == wanted[2:]:
            return True
    return False


def bundle_id_of(executable: str) -> str | None:
    """Return the identifier of the innermost application bundle that holds `executable`, None if there is none that can be read."""
    bundle = next((parent for parent in PurePath(executable).parents if parent.suffix == ".app"), None)
    if bundle is None:
        return None
    try:
        with open(bundle / "Contents" / "Info.plist", "rb") as file:
            properties = plistlib.load(file)
    except (OSError, ValueError, ExpatError):  # InvalidFileException is a ValueError
        return None
    identifier = properties.get("CFBundleIdentifier") if isinstance(properties, dict) else None
    return identifier if isinstance(identifier, str) else None
