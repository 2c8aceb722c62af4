from soth_mitm._dataplane.http.stream import Stream
from soth_mitm._dataplane.http2.session import SessionCallbacks

class SessionDriver(SessionCallbacks):
    """What stands between a connection's socket and its session."""

    def take_turn(self) -> None: ...

class Http2Stream(Stream): ...

def reset_code(error: BaseException | None) -> int:
    """Return the code of the RST_STREAM that tells a peer of `error`. For tests."""
