from collections.abc import Callable
from typing import final

from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http2.stream import Http2Stream, SessionDriver
from soth_mitm._dataplane.transport.outbound_endpoint import OutboundEndpoint
from soth_mitm._dataplane.upstream.pool import PooledConnection

@final
class Http2ClientConnection(PooledConnection):
    def __new__(cls, endpoint: OutboundEndpoint, settings: Settings) -> Http2ClientConnection: ...
    def start(self, on_ready: Callable[[BaseException | None], object]) -> None: ...
    @property
    def extended_connect(self) -> bool: ...
    @property
    def open_streams(self) -> int: ...

@final
class ClientDriver(SessionDriver): ...

@final
class Http2ClientStream(Http2Stream): ...
