"""Linux: from a connection's addresses to the socket's inode (sock_diag, else /proc/net/tcp), from the inode to its owner (/proc/*/fd).

The first step asks the kernel for exactly one socket. The second has no index in the kernel: descriptors must be compared one by one.
So the places at which a client's socket was held lately are asked first, then the rest of those processes, then those of the socket's
user, the newest first, because a short-lived client is the usual stranger.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from soth_mitm.connection import ProcessInfo, SocketAddress
from soth_mitm.process._linux.sock_diag import SockDiag
from soth_mitm.process._linux.socket_owners import RecentSocketOwners
from soth_mitm.process.address import interface_of, map_to_v6, pack_host
from soth_mitm.process.naming import is_interpreter, program_name, script_of


class SocketEntry(NamedTuple):
    """What the kernel tells of a socket that a process holds."""

    inode: int
    uid: int


class Holding(NamedTuple):
    """A process and the number of the descriptor at which it holds a socket."""

    pid: int
    descriptor: str


class ProcessStat(NamedTuple):
    """The fields of /proc/<pid>/stat that matter here."""

    name: str
    parent_pid: int
    start_token: str


class LinuxProcesses:
    """Which process holds a socket, and who that process is. Thread-safe; `close` closes the few files that it keeps open.

    `proc` is where procfs is mounted. What we may not read (other users' processes, unless we are root) is as good as absent.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._recent = RecentSocketOwners(os.fsencode(proc))
        self._diag = SockDiag()
        self._diag_usable = True
        self._diag_proved = False

    def find_owner(self, local: SocketAddress, remote: SocketAddress) -> int | None:
        """Return the process that opened the connection from `remote` to our `local`, None if it is not on this machine or not visible.

        Of a socket that processes share after a fork the topmost of their line is the owner: sockets pass from parent to child, and keep
        their descriptor's number on the way. The socket must be held now: one that its process has closed belongs to nobody.
        """
        entry = self._client_socket(remote, local)
        if entry is None or entry.inode == 0:
            return None
        link = f"socket:[{entry.inode}]"
        found = self._recent.find(entry.inode, hash(remote))
        if found is not None:
            return found[0]
        pids = self._recent.pids()
        holding = self._first_holding(pids, link) or self._search(pids, link, entry.uid)
        if holding is None:
            return None
        pid = self._opener(holding, link)
        self._recent.note(pid, int(holding.descriptor), hash(remote))
        return pid

    def find_recent_owner(self, local: SocketAddress, remote: SocketAddress) -> tuple[int, str] | None:
        """Return pid and start token of the owner, if it is one of those found lately; within some ten microseconds, without a search."""
        if not self._diag_proved:
            return None
        end = _end(remote, local)
        return None if end is None else self._recent.find_connection(self._diag, *end, hash(remote))

    def connection_ended(self, remote: SocketAddress) -> None:
        """Expect the next connection of the same process where the one from `remote` was held."""
        self._recent.connection_closed(hash(remote))

    def close(self) -> None:
        """Close what is kept open."""
        self._diag.close()
        self._recent.close()

    def peer_pid(self, sock: socket.socket) -> int | None:
        """Return the process that connected a Unix socket, None if it lives in a pid namespace that we cannot see."""
        if sys.platform != "linux":
            raise OSError(errno.ENOTSUP, "SO_PEERCRED exists on Linux only")
        pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid or None

    def start_token(self, pid: int) -> str | None:
        """Return a text that changes when `pid` is reused or executes another program, None if there is no such process."""
        stat = self._stat(pid)
        return stat and stat.start_token

    def describe(self, pid: int) -> ProcessInfo | None:
        """Return who `pid` is, None if it is gone."""
        stat = self._stat(pid)
        if stat is None:
            return None
        executable = self._executable(pid)
        argv = [os.fsdecode(word) for word in (self._read(f"{pid}/cmdline") or b"").removesuffix(b"\0").split(b"\0")]
        parent_name = self._read(f"{stat.parent_pid}/comm") if stat.parent_pid else None
        name = (executable or stat.name).removesuffix(" (deleted)")
        script = script_of(name, argv)
        script_path = None if script is None else self._real_path(pid, script)
        return ProcessInfo(
            pid=pid,
            exe_name=program_name(name, argv, lambda path: self._real_path(pid, path)),
            exe_path=executable,
            parent_pid=stat.parent_pid or None,
            parent_process_name=None if parent_name is None else os.fsdecode(parent_name).rstrip("\n"),
            uid=parse_uid(self._read(f"{pid}/status") or b""),
            interpreter_path=executable if executable is not None and is_interpreter(name) else None,
            script_path=script_path if script_path is not None and os.path.isfile(script_path) else None,
        )

    def _executable(self, pid: int) -> str | None:
        """Return the path of the executable: the kernel's, changed so that it equals no path of ours that is another file.

        Any user may make a namespace in which a file of its own is mounted at `/usr/bin/git`; the kernel's path is the one in there.
        """
        link = f"{self._proc}/{pid}/exe"
        try:
            path, run = os.readlink(link), os.stat(link)
        except OSError:  # gone, not ours to read, or nowhere
            return self._link(f"{pid}/exe")
        try:
            same = os.path.samestat(os.stat(path), run)
        except OSError:
            same = False
        return path if same or path.endswith(" (deleted)") else f"{self._proc}/{pid}/root{path}"

    def _client_socket(self, client: SocketAddress, peer: SocketAddress) -> SocketEntry | None:
        if self._diag_usable:
            try:
                found = self._ask(client, peer)
            except OSError:
                self._diag_usable = False
            else:
                self._diag_proved = self._diag_proved or found is not None
                # Until it has answered once, "no such socket" may also mean that tcp_diag is not loaded: the error number is the same.
                if self._diag_proved:
                    return found and SocketEntry(*found)
        tables = ("net/tcp", "net/tcp6") if len(pack_host(client[0])) == 4 else ("net/tcp6",)
        for table in tables:
            entry = find_in_table(self._read(table) or b"", client, peer, mapped=table == "net/tcp6")
            if entry is not None:
                return entry
        return None

    def _ask(self, client: SocketAddress, peer: SocketAddress) -> tuple[int, int] | None:
        end = _end(client, peer)
        return None if end is None else self._diag.ask(*end)

    def _search(self, searched: Iterable[int], link: str, uid: int) -> Holding | None:
        """Search the processes of the socket's user, then, if we are root, the others: a process may have changed its user since."""
        pids = {int(name) for name in os.listdir(self._proc) if name.isdecimal()}.difference(searched)
        others: list[int] = []
        holding = self._first_holding(self._of_user(sorted(pids, reverse=True), uid, others), link)
        if holding is None and sys.platform != "win32" and os.geteuid() == 0:
            holding = self._first_holding(others, link)
        return holding

    def _of_user(self, pids: Iterable[int], uid: int, others: list[int]) -> Iterator[int]:
        for pid in pids:
            try:
                owner = os.stat(f"{self._proc}/{pid}").st_uid
            except OSError:  # it has ended
                continue
            if owner == uid:
                yield pid
            else:
                others.append(pid)

    def _first_holding(self, pids: Iterable[int], link: str) -> Holding | None:
        for pid in pids:
            try:
                directory = os.open(f"{self._proc}/{pid}/fd", os.O_RDONLY)
            except OSError:  # ended, or not ours to read
                continue
            try:
                # A connection just made tends to have the highest number.
                for name in reversed(os.listdir(directory)):
                    try:
                        found = os.readlink(name, dir_fd=directory) == link
                    except OSError:  # closed since it was listed
                        continue
                    if found:
                        return Holding(pid, name)
            except OSError:  # ended while we were reading
                continue
            finally:
                os.close(directory)
        return None

    def _opener(self, holding: Holding, link: str) -> int:
        pid = holding.pid
        while (stat := self._stat(pid)) and stat.parent_pid and self._link(f"{stat.parent_pid}/fd/{holding.descriptor}") == link:
            pid = stat.parent_pid
        return pid

    def _stat(self, pid: int) -> ProcessStat | None:
        data = self._read(f"{pid}/stat")
        return parse_stat(data) if data else None

    def _real_path(self, pid: int, path: str) -> str:
        return os.path.realpath(os.path.join(self._link(f"{pid}/cwd") or "/", path))

    def _link(self, name: str) -> str | None:
        try:
            return os.readlink(f"{self._proc}/{name}")
        except OSError:  # gone, or not ours to read
            return None

    def _read(self, name: str) -> bytes | None:
        """Return a small file of procfs; None if it is gone (procfs answers ESRCH too) or not ours to read."""
        try:
            with open(f"{self._proc}/{name}", "rb", buffering=0) as file:
                return file.readall()
        except OSError:
            return None


def parse_stat(data: bytes) -> ProcessStat:
    """Parse /proc/<pid>/stat (proc(5)). The name may hold blanks and parentheses, so it ends at the last one.

    The token joins field 22, the start in clock ticks since boot, with field 28, the bottom of the stack: that one moves when the process
    executes another program. It reads as 0 for processes that we may not inspect.
    """
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    return ProcessStat(os.fsdecode(head.partition(b"(")[2]), int(fields[1]), f"{fields[19].decode()}.{fields[25].decode()}")


def parse_uid(status: bytes) -> int | None:
    """Return the real user id from /proc/<pid>/status, as our user namespace has it; None if it is not there."""
    # the name, which stands first, cannot hold a line feed: the kernel escapes it
    _, found, rest = status.partition(b"\nUid:\t")
    return int(rest.split(None, 1)[0]) if found else None


def _end(client: SocketAddress, peer: SocketAddress) -> tuple[bytes, int, bytes, int, int] | None:
    """Name the client's end as sock_diag does; None when no connection has such ends, one of each family."""
    source, destination = pack_host(client[0]), pack_host(peer[0])
    if len(source) != len(destination):
        return None
    return source, client[1], destination, peer[1], interface_of(client[0]) if "%" in client[0] else 0


def find_in_table(table: bytes, client: SocketAddress, peer: SocketAddress, *, mapped: bool) -> SocketEntry | None:
    """Find a connection in the text of /proc/net/tcp or, with `mapped`, of /proc/net/tcp6 (which lists IPv4 in IPv4-mapped form)."""
    start = table.find(b" %b %b " % (_table_address(client, mapped=mapped), _table_address(peer, mapped=mapped)))
    if start < 0:
        return None
    # local, remote, state, queues, timer, retransmits, uid, timeout, inode
    fields = table[start : table.find(b"\n", start)].split()
    return SocketEntry(int(fields[8]), int(fields[6]))


def _table_address(address: SocketAddress, *, mapped: bool) -> bytes:
    """Spell an address as the kernel prints it: 32-bit words of the network form, each as an integer of this machine."""
    packed = pack_host(address[0])
    words = struct.iter_unpack("=I", map_to_v6(packed) if mapped else packed)
    return b"%b:%04X" % (b"".join(b"%08X" % word for (word,) in words), address[1])
