from typing import final

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.memory.buffer import Arena

class Outlet:
    """Where the octets of a session go."""

class SessionCallbacks:
    """What is told of a connection."""

@final
class HeadMemory:
    """What one message needs while it is read or written."""

@final
class Session:
    """One HTTP/2 connection."""

    now: float
    def __init__(
        self,
        is_server: bool,
        arena: Arena,
        memory: HeadMemory,
        limits: Http2Limits,
        outlet: Outlet,
        callbacks: SessionCallbacks,
        totals: Counters,
        offers_connect: bool = False,
    ) -> None: ...
    @property
    def is_server(self) -> bool: ...
    @property
    def round_trip(self) -> float: ...
    @property
    def has_failed(self) -> bool: ...
    @property
    def has_more(self) -> bool: ...
    @property
    def limit_hit(self) -> int: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def is_acknowledged(self) -> bool: ...
    @property
    def active(self) -> int: ...
    @property
    def peer_last(self) -> int: ...
    @property
    def peer_goes(self) -> bool: ...
    @property
    def peer_code(self) -> int: ...
    @property
    def is_draining(self) -> bool: ...
