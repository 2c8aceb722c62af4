"""Windows: the owner of a connection stands in the table of TCP connections (GetExtendedTcpTable); psutil tells who it is."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys

from soth_mitm.connection import ProcessInfo, SocketAddress
from soth_mitm.process import identity
from soth_mitm.process.address import map_to_v6, pack_host

_AF_INET = 2
_AF_INET6 = 23
_TCP_TABLE_OWNER_PID_CONNECTIONS = 4
_ERROR_INSUFFICIENT_BUFFER = 122
_ATTEMPTS = 8  # the table may grow between being measured and being read

# Ports are two bytes in network order, and what the other two bytes of their field hold is not defined.
_ROW_V4 = struct.Struct("<4x4s2s2x4s2s2xI")  # state, local address and port, remote address and port, pid
_ROW_V6 = struct.Struct("<16s4x2s2x16s4x2s2x4xI")  # the same with scopes after the addresses and the state before the pid


class WindowsProcesses:
    """Which process holds a socket, and who that process is. Thread-safe: it keeps nothing between calls."""

    def find_owner(self, local: SocketAddress, remote: SocketAddress) -> int | None:
        """Return the process that the system names as owner of the client's end of the connection from `remote` to our `local`."""
        if len(pack_host(remote[0])) == 4:
            owner = owner_in_table(_connection_table(_AF_INET), remote, local, v6=False)
            if owner is not None:
                return owner
        return owner_in_table(_connection_table(_AF_INET6), remote, local, v6=True)

    def find_recent_owner(self, local: SocketAddress, remote: SocketAddress) -> tuple[int, str] | None:
        """Return None: every question here takes a search."""
        return None

    def connection_ended(self, remote: SocketAddress) -> None:
        """Nothing is remembered of connections."""

    def peer_pid(self, sock: socket.socket) -> int | None:
        """Return None: Python has no Unix sockets on Windows."""
        return None

    def start_token(self, pid: int) -> str | None:
        """Return a text that changes when `pid` is reused, None if there is no such process."""
        return identity.start_token(pid)

    def describe(self, pid: int) -> ProcessInfo | None:
        """Return who `pid` is, None if it is gone."""
        return identity.describe(pid)

    def close(self) -> None:
        """Nothing is kept open."""


def owner_in_table(table: bytes, client: SocketAddress, peer: SocketAddress, *, v6: bool) -> int | None:
    """Find who owns the connection from `client` to `peer` in a MIB_TCPTABLE_OWNER_PID or, with `v6`, a MIB_TCP6TABLE_OWNER_PID.

    IPv4 addresses are looked up in the IPv6 table in IPv4-mapped form. A connection that only waits to be forgotten has no owner.
    """
    row = _ROW_V6 if v6 else _ROW_V4
    host, peer_host = pack_host(client[0]), pack_host(peer[0])
    if v6:
        host, peer_host = map_to_v6(host), map_to_v6(peer_host)
    wanted = (host, client[1].to_bytes(2, "big"), peer_host, peer[1].to_bytes(2, "big"))
    (count,) = struct.unpack_from("<I", table)
    for *ends, pid in row.iter_unpack(memoryview(table)[4 : 4 + count * row.size]):
        if tuple(ends) == wanted:
            return int(pid) or None
    return None


def _connection_table(family: int) -> bytes:
    if sys.platform != "win32":
        raise OSError(errno.ENOTSUP, "GetExtendedTcpTable exists on Windows only")
    get_table = ctypes.windll.iphlpapi.GetExtendedTcpTable
    size = ctypes.c_ulong(32768)
    for _ in range(_ATTEMPTS):
        buffer = ctypes.create_string_buffer(size.value)
        code: int = get_table(buffer, ctypes.byref(size), False, family, _TCP_TABLE_OWNER_PID_CONNECTIONS, 0)
        if code == 0:
            return buffer.raw
        if code != _ERROR_INSUFFICIENT_BUFFER:
            raise ctypes.WinError(code)
    raise OSError(errno.ENOBUFS, f"the table of TCP connections grew faster than it could be read {_ATTEMPTS} times")
