from collections.abc import Callable
from typing import Any, final

from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http.stream import HttpConnection
from soth_mitm._dataplane.http2.stream import Http2Stream, SessionDriver
from soth_mitm._dataplane.transport.endpoint import Endpoint

PLAIN_TEXT: tuple[bytes, bytes]

@final
class Http2ServerConnection(HttpConnection):
    """The requests of one client connection that speaks HTTP/2."""

    def __new__(
        cls, settings: Settings, client: Endpoint, on_end: Callable[[], Any], *, router: Callable[[str | None, bytes], Route]
    ) -> Http2ServerConnection: ...
    def start(self) -> None: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...
    def has_flow(self, flow_id: int) -> bool: ...
    def cut_flow(self, flow_id: int) -> None: ...

@final
class ServerDriver(SessionDriver):
    """The session of a client's connection."""

@final
class Http2ServerStream(Http2Stream):
    """A request that comes in and its response that goes out."""

    def tunnel_ended(self) -> None: ...
