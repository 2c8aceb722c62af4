"""The data plane's endpoints as the event loops want them.

Loops other than uvloop choose how to read by the protocol's type, so the type must say that it lends its own buffer.
"""

import asyncio
import ssl

from soth_mitm._dataplane.transport.endpoint import Endpoint
from soth_mitm._dataplane.transport.outbound_endpoint import OutboundEndpoint
from soth_mitm.proxy.forks import connections


class ClientEndpoint(Endpoint, asyncio.BufferedProtocol):
    """A socket that a client connected to us."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        connections.add(self)


class UpstreamEndpoint(OutboundEndpoint, asyncio.BufferedProtocol):
    """A socket that we connected to an upstream."""

    offered: ssl.SSLSession | None = None
    """The TLS session that its handshake was to resume."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        connections.add(self)
