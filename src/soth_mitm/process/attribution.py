"""Which process is at the other end of a connection that comes from this machine."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from soth_mitm.connection import ProcessInfo, SocketAddress
from soth_mitm.escaping import get_logger

_log = get_logger(__name__)


class ProcessSource(Protocol):
    """What an operating system tells. All methods may be called from any thread, block, and raise OSError if it cannot be asked."""

    def find_owner(self, local: SocketAddress, remote: SocketAddress) -> int | None:
        """Return the pid that owns the client's end of the connection from `remote` to our `local`."""

    def find_recent_owner(self, local: SocketAddress, remote: SocketAddress) -> tuple[int, str] | None:
        """Return the pid that owns the client's end, and its start token, if that takes a few system calls; None to have it searched."""

    def connection_ended(self, remote: SocketAddress) -> None:
        """The connection from `remote`, whose owner was found, is over: that may make it easier to find the next one's."""

    def peer_pid(self, sock: socket.socket) -> int | None:
        """Return the pid that connected a Unix socket."""

    def start_token(self, pid: int) -> str | None:
        """Return a text that tells this process from every other that has or had `pid`; None if there is none."""

    def describe(self, pid: int) -> ProcessInfo | None:
        """Return who `pid` is now; None if it is gone."""

    def close(self) -> None:
        """Give back what is kept open."""


class AttributionCounters(msgspec.Struct, frozen=True, gc=False):
    """What the lookups came to. Each counts once in `identity_hit`, `miss` or `failure`; the other two come on top of a miss."""

    identity_hit: int = 0
    """The process was known and is still the same."""
    miss: int = 0
    """The process was found and had to be described."""
    failure: int = 0
    """No process was found, it may not be looked at, or it changed while we looked."""
    eviction: int = 0
    """A known process was forgotten because the cache was full."""
    pid_reuse: int = 0
    """The pid was known but belongs to another process, or runs another program, by now."""


class _Entry(NamedTuple):
    start_token: str
    info: ProcessInfo
    expires_at: float


class ProcessAttribution:
    """Find the process behind a connection, and remember who the processes are.

    Which process owns a connection is found anew each time. Who that process is (its executable, its parent) is remembered for up to
    `cache_capacity` processes, the least recently used being forgotten first, for `cache_ttl_s` seconds (None: as long as it lives).
    That nothing was found is never remembered. Thread-safe.
    """

    def __init__(
        self,
        cache_capacity: int = 4096,
        cache_ttl_s: float | None = None,
        *,
        source: ProcessSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if cache_capacity < 1:
            raise ValueError(f"cache_capacity must be at least 1, not {cache_capacity}")
        self._source = source if source is not None else platform_source()
        self._capacity = cache_capacity
        self._ttl = float("inf") if cache_ttl_s is None else cache_ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # the least recently used first
        self._identity_hit = self._miss = self._failure = self._eviction = self._pid_reuse = 0

    def recall(self, local: SocketAddress, remote: SocketAddress) -> ProcessInfo | None:
        """Return the process at `remote` if it and who it is are known from lately; None, which counts nothing, to have it looked up.

        Takes some ten microseconds and does not wait for anything: it may be called on the loop.
        """
        found = self._source.find_recent_owner(local, remote)
        return None if found is None else self._known(*found)

    def connection_ended(self, remote: SocketAddress) -> None:
        """The connection from `remote` is over. Tells nothing, and makes it quicker to recall whoever connects next."""
        self._source.connection_ended(remote)

    def lookup(self, local: SocketAddress, remote: SocketAddress) -> ProcessInfo | None:
        """Return the process at `remote` that is connected to our `local`; None rather than a guess.

        Blocks for some hundred microseconds when the process is new, on a busy machine for milliseconds: call it in a worker thread, and
        before answering the client, because a socket that the client has closed has no owner any more.
        """
        return self._attribute(lambda: self._source.find_owner(local, remote))

    def lookup_unix(self, sock: socket.socket) -> ProcessInfo | None:
        """Return the process that connected the accepted Unix socket `sock`. Blocks for microseconds."""
        return self._attribute(lambda: self._source.peer_pid(sock))

    def counters(self) -> AttributionCounters:
        """Return a consistent snapshot of the counters."""
        with self._lock:
            return AttributionCounters(self._identity_hit, self._miss, self._failure, self._eviction, self._pid_reuse)

    def close(self) -> None:
        """Give back what the source keeps open. After the last look-up."""
        self._source.close()

    def _attribute(self, find: Callable[[], int | None]) -> ProcessInfo | None:
        try:
            pid = find()
            info = None if pid is None else self._identify(pid)
        except OSError:
            _log.debug("the system could not be asked for the process of a connection", exc_info=True)
            info = None
        if info is None:
            with self._lock:
                self._failure += 1
        return info

    def _identify(self, pid: int) -> ProcessInfo | None:
        token = self._source.start_token(pid)
        if token is None:
            return None
        info = self._known(pid, token)
        if info is not None:
            return info
        info = self._source.describe(pid)
        if info is None or self._source.start_token(pid) != token:
            return None
        with self._lock:
            self._miss += 1
            self._remember(pid, _Entry(token, info, self._clock() + self._ttl))
        return info

    def _known(self, pid: int, token: str) -> ProcessInfo | None:
        with self._lock:
            entry = self._entries.get(pid)
            if entry is None or entry.start_token != token or entry.expires_at <= self._clock():
                return None
            self._entries.move_to_end(pid)
            self._identity_hit += 1
            return entry.info

    def _remember(self, pid: int, entry: _Entry) -> None:
        known = self._entries.get(pid)
        if known is not None and known.start_token != entry.start_token:
            self._pid_reuse += 1
        self._entries[pid] = entry
        self._entries.move_to_end(pid)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
            self._eviction += 1


class UnknownSystem:
    """The source of a system that we have no way of asking: it knows nobody."""

    def find_owner(self, local: SocketAddress, remote: SocketAddress) -> int | None:
        """Return None."""
        return None

    def find_recent_owner(self, local: SocketAddress, remote: SocketAddress) -> tuple[int, str] | None:
        """Return None."""
        return None

    def connection_ended(self, remote: SocketAddress) -> None:
        """Do nothing."""

    def peer_pid(self, sock: socket.socket) -> int | None:
        """Return None."""
        return None

    def start_token(self, pid: int) -> str | None:
        """Return None."""
        return None

    def describe(self, pid: int) -> ProcessInfo | None:
        """Return None."""
        return None

    def close(self) -> None:
        """Nothing is open."""


def platform_source() -> ProcessSource:
    """Return what this operating system offers. Only that system's module is imported."""
    if sys.platform == "linux":
        from soth_mitm.process.linux import LinuxProcesses

        return LinuxProcesses()
    if sys.platform == "darwin":
        from soth_mitm.process.macos import MacProcesses

        return MacProcesses()
    if sys.platform == "win32":
        from soth_mitm.process.windows import WindowsProcesses

        return WindowsProcesses()
    return UnknownSystem()
