"""Which clients refuse our certificate so persistently that their TLS is tunnelled, for a while and for exactly what they refused.

Pure bookkeeping: who counts as refusing is decided elsewhere (`tls/failures.py`, `proxy/learning.py`). Everything is bounded, and
expires when it is looked at; nothing waits.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

MAX_PAIRS = 4096
MAX_BYPASSES = 1024


class Pair(NamedTuple):
    """What a bypass is for, no more than this: one destination as one program asks for it."""

    host: str
    port: int
    server_name: str
    process: str


class TlsBypass(msgspec.Struct, frozen=True, kw_only=True):
    """One program's TLS to one destination, tunnelled unread because the program kept refusing our certificate there."""

    host: str
    """The host of the CONNECT. Neither its parent domain nor its subdomains are meant."""
    port: int
    """The port of the CONNECT."""
    server_name: str
    """The name asked for in TLS (SNI), `host` if none was."""
    process: str
    """The program: its executable and, for an interpreter, the script's name in parentheses; of a client elsewhere, its address."""
    failures: int
    """How many refusals opened it."""
    connections: int
    """How many connections it has tunnelled so far."""
    opened_at: datetime
    """When it was opened, in UTC."""
    expires_at: datetime
    """When interception is tried again, in UTC."""


class Limits(NamedTuple):
    """How many refusals within how many seconds open a bypass, and for how many seconds."""

    failures: int
    window: float
    ttl: float


class _History:
    """What a pair did lately, in seconds of the clock."""

    __slots__ = ("accepted_at", "refused_at")

    def __init__(self) -> None:
        self.accepted_at: float | None = None
        self.refused_at: list[float] = []


class _Bypass:
    __slots__ = ("connections", "ends", "failures", "opened_at")

    def __init__(self, failures: int, opened_at: datetime, ends: float) -> None:
        self.failures = failures
        self.opened_at = opened_at
        self.ends = ends
        self.connections = 0


class TlsBypasses:
    """What is known of pairs, and the bypasses that came of it. Of more than fit, the least recently used are forgotten."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_pairs: int = MAX_PAIRS,
        max_bypasses: int = MAX_BYPASSES,
    ) -> None:
        self.clock = clock
        self._now = now
        self._max_pairs = max_pairs
        self._max_bypasses = max_bypasses
        self._histories: OrderedDict[Pair, _History] = OrderedDict()
        self._bypasses: OrderedDict[Pair, _Bypass] = OrderedDict()

    def accepted(self, pair: Pair) -> None:
        """Note that the pair's client accepted our certificate: it sent a request. Its refusals so far count no more."""
        history = self._history(pair)
        history.accepted_at = self.clock()
        history.refused_at.clear()

    def refused(self, pair: Pair, began: float, limits: Limits, *, silently: bool = False) -> TlsBypass | None:
        """Note that a handshake which began at `began` (by `clock`) ended in a refusal; return the bypass that this opens.

        Handshakes that overlap count once: a program that opens six connections at a time has tried once. `silently` is for a client
        that gave no reason but left; it does not count while the pair is known to accept us, for then there were other reasons.
        """
        if self._alive(pair) is not None:
            return None
        history = self._history(pair)
        clock = self.clock()
        if silently and history.accepted_at is not None and clock - history.accepted_at <= limits.window:
            return None
        if history.refused_at and began < history.refused_at[-1]:
            return None
        history.refused_at = [at for at in history.refused_at if clock - at <= limits.window]
        history.refused_at.append(clock)
        # a single failure never opens a bypass, whatever the limit says
        if len(history.refused_at) < max(2, limits.failures):
            return None
        return self._open(pair, len(history.refused_at), clock + limits.ttl)

    def take(self, pair: Pair) -> bool:
        """Tell whether a connection of the pair is to be tunnelled; counts it if so."""
        bypass = self._alive(pair)
        if bypass is None:
            return False
        bypass.connections += 1
        self._bypasses.move_to_end(pair)
        return True

    def listed(self) -> list[TlsBypass]:
        """Return the bypasses in force, the least recently used first."""
        self._expire()
        return [self._shown(pair, bypass) for pair, bypass in self._bypasses.items()]

    def forget(self, condition: Callable[[Pair], bool]) -> int:
        """Forget all about the pairs that meet `condition`; return how many bypasses were among them."""
        self._expire()
        for pair in [pair for pair in self._histories if condition(pair)]:
            del self._histories[pair]
        closed = [pair for pair in self._bypasses if condition(pair)]
        for pair in closed:
            del self._bypasses[pair]
        return len(closed)

    def __len__(self) -> int:
        """Return how many bypasses are in force."""
        self._expire()
        return len(self._bypasses)

    def _history(self, pair: Pair) -> _History:
        history = self._histories.get(pair)
        if history is None:
            history = self._histories[pair] = _History()
            if len(self._histories) > self._max_pairs:
                self._histories.popitem(last=False)
        else:
            self._histories.move_to_end(pair)
        return history

    def _alive(self, pair: Pair) -> _Bypass | None:
        bypass = self._bypasses.get(pair)
        if bypass is not None and self.clock() >= bypass.ends:
            del self._bypasses[pair]
            return None
        return bypass

    def _open(self, pair: Pair, failures: int, ends: float) -> TlsBypass:
        # after the bypass the pair begins anew
        del self._histories[pair]
        self._expire()
        if len(self._bypasses) >= self._max_bypasses:
            self._bypasses.popitem(last=False)
        bypass = self._bypasses[pair] = _Bypass(failures, self._now(), ends)
        return self._shown(pair, bypass)

    def _expire(self) -> None:
        clock = self.clock()
        for pair in [pair for pair, bypass in self._bypasses.items() if clock >= bypass.ends]:
            del self._bypasses[pair]

    def _shown(self, pair: Pair, bypass: _Bypass) -> TlsBypass:
        return TlsBypass(
            **pair._asdict(),
            failures=bypass.failures,
            connections=bypass.connections,
            opened_at=bypass.opened_at,
            expires_at=self._now() + timedelta(seconds=bypass.ends - self.clock()),
        )
