from typing import final

from soth_mitm._dataplane.http1.stream import Http1Stream
from soth_mitm._dataplane.transport.outbound_endpoint import OutboundEndpoint
from soth_mitm._dataplane.upstream.pool import PooledConnection

@final
class Http1ClientConnection(PooledConnection):
    """An upstream's connection over `endpoint`, which is connected and whose TLS handshake is over.

    While it is idle it must be silent: whatever happens to it ends it.
    """

    def __new__(cls, endpoint: OutboundEndpoint) -> Http1ClientConnection: ...

@final
class Http1ClientStream(Http1Stream): ...
