"""A connection without a socket: the protocol under test on one side, the peer's actions on the other.

It behaves as the loops' transports do, and asserts what they only warn of.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from fuzz.fake_loop import FakeLoop

# Written and not read by the peer; beyond it the protocol is told to pause
HIGH_WATER = 64


class FakeSocket:
    """What the code under test asks a transport's socket for: an option, and a descriptor to look whether something waits unseen.

    That takes a real one, on which there is a byte, or the end, whenever the loop has not seen something yet.
    """

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._byte = self._ended = False
        self.resets = False

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        assert (level, name) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self.resets = True

    def fileno(self) -> int:
        if self._pair is None:
            self._pair = socket.socketpair()
            self._pair[0].setblocking(False)
        return self._pair[0].fileno()

    def show(self, waiting: bool, ended: bool) -> None:
        """Let the descriptor show what waits."""
        if self._pair is None:
            return
        ours, theirs = self._pair
        if waiting and not self._byte and not self._ended:
            theirs.send(b"x")
        elif self._byte and not waiting:
            with contextlib.suppress(BlockingIOError):
                # whoever looked may have taken it
                ours.recv(1)
        self._byte = waiting
        if ended and not self._ended:
            theirs.shutdown(socket.SHUT_WR)
            self._ended = True

    def close(self) -> None:
        for end in self._pair or ():
            end.close()
        self._pair = None


class FakeTransport:
    """`on_write` is told all that the protocol writes, `on_read` all that it is given, both before the protocol goes on."""

    def __init__(self, loop: FakeLoop, protocol: Any, on_write: Callable[[bytes], object], on_read: Callable[[bytes], object]) -> None:
        self.closing = False  # by the protocol, or because the connection is gone
        self.aborted = False  # by the protocol: what was not read yet is lost
        self.reset = False  # by the peer
        self.lost = False  # the protocol was told that the connection is gone
        self.ended = False  # the protocol was told that the peer sends no more
        self.eof_written = False
        self.socket = FakeSocket()
        self.extra: dict[str, object] = {"socket": self.socket}
        self._loop = loop
        self._protocol = protocol
        self.on_write = on_write
        self._on_read = on_read
        self._incoming: deque[bytes] = deque()
        self._fin = False
        self._paused = False
        self._peer_reads = True
        self._unread = 0
        self._high = HIGH_WATER
        self._protocol_waits = False
        self._ending = False

    # --- what the protocol calls

    def write(self, data: bytes) -> None:
        assert type(data) is bytes and data, "a write of nothing"
        if self.reset:
            # the protocol does not know yet
            return
        assert not self.closing and not self.eof_written, "a write after the end"
        self.on_write(data)
        if self._peer_reads:
            return
        self._unread += len(data)
        if self._unread > self._high and not self._protocol_waits:
            self._protocol_waits = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        assert not self.closing or self.reset
        self.eof_written = True

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int) -> None:
        self._high = high

    def get_write_buffer_size(self) -> int:
        return self._unread

    def pause_reading(self) -> None:
        assert not self.closing or self.reset
        self._paused = True

    def resume_reading(self) -> None:
        assert not self.closing or self.reset
        self._paused = False

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.extra.get(name, default)

    def close(self) -> None:
        self.closing = True
        if not self._unread:
            self._end(None)

    def abort(self) -> None:
        if not self._ending:
            self.closing = self.aborted = True
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        self._unread = 0
        if not self._ending:
            self._ending = True
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        self.lost = True
        self.socket.close()
        self._protocol.connection_lost(error)

    @property
    def has_unread(self) -> bool:
        """Whether the peer has said something that the protocol was not given yet, its end included."""
        return bool(self._incoming) or (self._fin and not self.ended)

    # --- what the peer does

    def peer_sends(self, data: bytes) -> None:
        if data and not (self._fin or self.reset or self.lost):
            self._incoming.append(data)
            self.socket.show(bool(self._incoming), self._fin)

    def peer_ends(self) -> None:
        self._fin = True
        self.socket.show(bool(self._incoming), self._fin)

    def peer_resets(self) -> None:
        if not self._ending:
            self.reset = self.closing = True
            self.socket.show(False, True)
            self._end(ConnectionResetError("reset by the peer"))

    def peer_stops_reading(self) -> None:
        self._peer_reads = False

    def peer_reads(self) -> None:
        self._peer_reads = True
        self._unread = 0
        if self.closing:
            self._end(None)
        elif self._protocol_waits:
            self._protocol_waits = False
            self._protocol.resume_writing()

    def pump(self) -> bool:
        """Let the protocol read once; tell whether there was something to read."""
        if self.closing or self._paused or self.ended:
            return False
        if self._incoming:
            # one read takes what came at once
            data = self._incoming.popleft()
            window = memoryview(self._protocol.get_buffer(-1))
            count = min(len(window), len(data))
            assert count > 0, "a buffer without room"
            window[:count] = data[:count]
            window.release()
            if data[count:]:
                self._incoming.appendleft(data[count:])
            data = data[:count]
            self.socket.show(bool(self._incoming), self._fin)
            self._on_read(data)
            self._protocol.buffer_updated(count)
            return True
        if self._fin:
            self.ended = True
            if not self._protocol.eof_received():
                self.close()
            return True
        return False
