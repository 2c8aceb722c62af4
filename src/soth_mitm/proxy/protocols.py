"""The data plane's endpoints as the event loops want them.

Loops other than uvloop choose how to read by the protocol's type, so the type must say that it lends its own buffer.
"""

import asyncio
import itertools
import ssl

from soth_mitm._dataplane.transport.endpoint import Endpoint
from soth_mitm._dataplane.transport.outbound_endpoint import OutboundEndpoint
from soth_mitm.connection import SocketAddress
from soth_mitm.proxy.forks import connections

_NUMBERS = itertools.count(1)


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
    number = 0
    """Unique in the process."""
    peer: SocketAddress | None = None
    """The upstream's address, or that of a proxy before it."""
    dial_seconds = -1.0
    """How long connecting took, look-up and TLS included; -1: that is not known."""
    tls_seconds = -1.0
    """How long its handshake took; -1: there was none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        connections.add(self)
        self.number = next(_NUMBERS)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = peer[:2]
