"""TLS sessions of connections to upstreams, kept so that later ones resume them.

Reading a session from an engine is not free: CPython copies it, and before 3.12.8 and 3.13.1 loses 6 kB for good each time (gh-116810).
So it is read when one was missing for a later connection, and not while the one that is kept is still accepted.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import OrderedDict

_Key = tuple[str, int, ssl.SSLContext]


class _Kept:
    """What is known of an origin: that there was a connection, whether a session was missing, and one that is good."""

    __slots__ = ("session", "single_use", "uses", "wanted")

    def __init__(self) -> None:
        self.session: ssl.SSLSession | None = None
        self.wanted = False
        self.uses = 0
        self.single_use = False


class SessionCache:
    """A bounded LRU of sessions; may be used from many threads.

    A session is good for the context and the name it was made with only: resuming verifies neither chain nor name again. It is
    given to as many handshakes as ask for it, at the same time too. RFC 8446 appendix C.4 would have each used once, so that nobody can
    follow a client from one network to another; a proxy does not move, and parallel connections would have none.
    Servers that accept each session once are found out, and then given the newest.

    Give `get`'s answer to `wrap_bio(session=...)`. Call `keep` after the first application data was read, not right after the handshake:
    with TLS 1.3 the tickets come behind it, and before them there is nothing to resume.
    """

    def __init__(self, capacity: int = 1024) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    def get(self, host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """Return a session to try, or None; an expired one is dropped."""
        with self._lock:
            kept = self._kept.get((host, port, context))
            if kept is None:
                return None
            self._kept.move_to_end((host, port, context))
            if kept.session is not None and time.time() >= _expiry(kept.session):
                kept.session = None
            kept.wanted = kept.session is None
            return kept.session

    def keep(self, host: str, port: int, context: ssl.SSLContext, engine: ssl.SSLObject, offered: ssl.SSLSession | None = None) -> None:
        """Learn from the engine of a connection that has received data, and that was to resume `offered`."""
        key = (host, port, context)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                self._kept[key] = _Kept()
                if len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
                return
            self._kept.move_to_end(key)
            if kept.session is None:
                if not kept.wanted:
                    return
            elif offered is not kept.session:
                return  # another connection has brought it since
            elif engine.session_reused:
                kept.uses += 1
                if not kept.single_use:
                    return
            elif kept.uses == 1:
                kept.single_use = True
            session = engine.session
            if session is not None and (session.has_ticket or session.id):
                kept.session = session
                kept.wanted = False
                kept.uses = 0

    def discard(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Forget a session, as after a handshake that failed while resuming it."""
        with self._lock:
            kept = self._kept.get((host, port, context))
            if kept is not None:
                kept.session = None

    def __len__(self) -> int:
        """Return how many origins are known, with or without a session."""
        return len(self._kept)


def _expiry(session: ssl.SSLSession) -> float:
    hint = session.ticket_lifetime_hint
    return session.time + (min(session.timeout, hint) if hint else session.timeout)
