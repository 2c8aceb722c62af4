from collections.abc import Callable, Iterable
from typing import Any, final

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.http2.session import HeadMemory, Outlet, Session, SessionCallbacks
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits

@final
class RecordingOutlet(Outlet):
    """Keeps what a session sends."""

@final
class RecordingCallbacks(SessionCallbacks):
    """Keeps what it is told, as tuples."""

@final
class SessionProbe:
    """A session with callbacks that record. Streams are named by their number."""

    def __init__(
        self,
        is_server: bool,
        arena: Arena,
        limits: Http2Limits | None = None,
        offers_connect: bool = False,
        memory: HeadMemory | None = None,
    ) -> None: ...
    @property
    def session(self) -> Session: ...
    @property
    def totals(self) -> Counters: ...
    def begin(self) -> None:
        """Write the preface."""

    def feed(self, data: bytes, now: float = -1.0) -> int:
        """Show what came; returns how much of it was used up. A `now` sets the time."""

    def feed_all(self, data: bytes) -> bytes:
        """Show what came until nothing more of it is used up; returns the rest."""

    def take_sent(self) -> bytes:
        """Return what was sent since the last call: the system has taken it."""

    def count_unsent(self, counts: bool) -> None:
        """Count what was sent as not taken by the system until take_sent()."""

    def take_events(self) -> list[tuple[Any, ...]]:
        """Return what was told since the last call."""

    def call_with_events(self, call: Callable[[tuple[Any, ...]], object] | None) -> None:
        """Call this with each event, within the session's call."""

    def give_room(self, number: int, length: int | None) -> None:
        """Take so much of a stream's content at once, and keep the rest; None: all."""

    def serve(self) -> None:
        """The outlet has room again."""

    @property
    def capacity(self) -> int:
        """How many streams may be opened."""

    def open(
        self,
        head: Head,
        is_end: bool = True,
        edits: HeadEdits | None = None,
        https: bool = True,
        authority: bytes = b"",
        protocol: bytes = b"",
    ) -> int | None:
        """Send a request; returns the stream's number, None when there is no capacity."""

    def head(self, number: int, head: Head, is_end: bool = False, edits: HeadEdits | None = None) -> None:
        """Send a response's head."""

    def own_head(
        self, number: int, status: int, headers: Iterable[tuple[bytes, bytes]] = (), length: int = -1, is_end: bool = False
    ) -> None:
        """Send a head of our own."""

    def data(self, number: int, data: bytes, is_end: bool = False) -> int:
        """Send content; returns how much of it was taken."""

    def trailers(self, number: int, lines: bytes) -> None:
        """Send trailers."""

    def reset(self, number: int, code: int = 8) -> None:
        """End a stream."""

    def release(self, number: int) -> None:
        """Have done with a stream."""

    def kept(self, number: int) -> bytes:
        """Return what is kept of a stream's content."""

    def consume(self, number: int, length: int) -> bytes:
        """Take so much of what is kept; returns it."""

    def waits(self, number: int) -> bool:
        """Tell whether a stream waits to write."""

    def windows(self, number: int | None = None) -> tuple[int, int, int]:
        """Return what may come, what the window is filled up to, and what may be sent, of a stream or of the connection."""

    def state(self, number: int) -> int:
        """Return a stream's state, a place in STATE_NAMES."""

    def protocol(self, number: int) -> bytes | None:
        """Return :protocol of a request, None without."""

    def ping(self) -> None:
        """Send a PING."""

    @property
    def unanswered_for(self) -> float:
        """Seconds since a PING without an answer, 0 without one."""

    def goaway(self, code: int = 0) -> None:
        """Send the last GOAWAY."""

    def drain(self) -> None:
        """Ask the peer for no new streams."""

    def finish_drain(self) -> None:
        """Take no new streams."""

    def check_head(self) -> None:
        """A deadline passed."""

    def check_settings(self, seconds: float) -> None:
        """A deadline passed."""

    def check_stalls(self) -> None:
        """A deadline passed."""

    @property
    def limit_hit(self) -> str:
        """The name of the limit that ended the connection, "" without."""

    @property
    def glitches(self) -> int:
        """How many odd things the peer did."""
