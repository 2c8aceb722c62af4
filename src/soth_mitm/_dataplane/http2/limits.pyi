from typing import final

LIMIT_NAMES: dict[int, str]
LIMIT_TEXTS: dict[int, str]

@final
class Http2Limits:
    """What a peer may cost on one connection."""

    def __init__(
        self,
        *,
        max_streams: int = 100,
        list_size: int = 65536,
        initial_window: int = 65535,
        max_window: int = 8388608,
        reset_burst: float = 1000,
        resets_per_second: float = 100,
        glitch_burst: float = 10000,
        glitches_per_second: float = 330,
        max_queued_replies: int = 1000,
        head_seconds: float = 30,
        stall_seconds: float = 60,
    ) -> None: ...
    @property
    def max_streams(self) -> int: ...
    @property
    def list_size(self) -> int: ...
    @property
    def initial_window(self) -> int: ...
    @property
    def max_window(self) -> int: ...
    @property
    def reset_burst(self) -> float: ...
    @property
    def resets_per_second(self) -> float: ...
    @property
    def glitch_burst(self) -> float: ...
    @property
    def glitches_per_second(self) -> float: ...
    @property
    def max_queued_replies(self) -> int: ...
    @property
    def head_seconds(self) -> float: ...
    @property
    def stall_seconds(self) -> float: ...

@final
class LimitCounters:
    """What one connection has used up of its limits. Each answer is a name of LIMIT_NAMES, or "" for go on."""

    def __init__(self, limits: Http2Limits) -> None: ...
    @property
    def limits(self) -> Http2Limits: ...
    @property
    def total_glitches(self) -> int: ...
    def reset(self, now: float) -> str:
        """A stream ended before its time."""

    def glitch(self, now: float) -> str:
        """Something odd came."""

    def octets(self, octets: int, payload: int) -> str:
        """So many octets went by, of which `payload` carry something."""

    def reply(self, is_unread: bool) -> str:
        """A reply was written; the peer has, or has not, taken what was written before."""

    def head(self, begins: bool, octets: int, now: float) -> str:
        """A frame of a header block came."""
