"""A connection without a socket: the protocol under test on one side, the peer's actions on the other.

It behaves as the loops' transports do, and asserts what they only warn of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fuzz.fake_loop import FakeLoop

# Written and not read by the peer; beyond it the protocol is told to pause
HIGH_WATER = 64


class FakeTransport:
    """`on_write` is told all that the protocol writes, `on_read` all that it is given, both before the protocol goes on."""

    def __init__(self, loop: FakeLoop, protocol: Any, on_write: Callable[[bytes], object], on_read: Callable[[bytes], object]) -> None:
        self.closing = False  # by the protocol, or because the connection is gone
        self.aborted = False  # by the protocol: what was not read yet is lost
        self.reset = False  # by the peer
        self.lost = False  # the protocol was told that the connection is gone
        self.ended = False  # the protocol was told that the peer sends no more
        self.eof_written = False
        self.extra: dict[str, object] = {}
        self._loop = loop
        self._protocol = protocol
        self._on_write = on_write
        self._on_read = on_read
        self._incoming = bytearray()
        self._fin = False
        self._paused = False
        self._peer_reads = True
        self._unread = 0
        self._protocol_waits = False
        self._ending = False

    # --- what the protocol calls

    def write(self, data: bytes) -> None:
        assert type(data) is bytes and data, "a write of nothing"
        if self.reset:
            # the protocol does not know yet
            return
        assert not self.closing and not self.eof_written, "a write after the end"
        self._on_write(data)
        if self._peer_reads:
            return
        self._unread += len(data)
        if self._unread > HIGH_WATER and not self._protocol_waits:
            self._protocol_waits = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        assert not self.closing or self.reset
        self.eof_written = True

    def can_write_eof(self) -> bool:
        return True

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
        self._protocol.connection_lost(error)

    # --- what the peer does

    def peer_sends(self, data: bytes) -> None:
        if not self._fin:
            self._incoming += data

    def peer_ends(self) -> None:
        self._fin = True

    def peer_resets(self) -> None:
        if not self._ending:
            self.reset = self.closing = True
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
            window = memoryview(self._protocol.get_buffer(-1))
            count = min(len(window), len(self._incoming))
            assert count > 0, "a buffer without room"
            data = bytes(self._incoming[:count])
            window[:count] = data
            window.release()
            del self._incoming[:count]
            self._on_read(data)
            self._protocol.buffer_updated(count)
            return True
        if self._fin:
            self.ended = True
            if not self._protocol.eof_received():
                self.close()
            return True
        return False
