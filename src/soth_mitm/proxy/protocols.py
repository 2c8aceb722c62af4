"""The data plane's endpoints as the event loops want them.

Loops other than uvloop choose how to read by the protocol's type, so the type must say that it lends its own buffer.
"""

import asyncio
import ssl

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm._dataplane.pool import Upstream


class ClientEndpoint(Endpoint, asyncio.BufferedProtocol):
    """A socket that a client connected to us."""


class UpstreamEndpoint(Upstream, asyncio.BufferedProtocol):
    """A socket that we connected to an upstream."""

    offered: ssl.SSLSession | None = None
    """The TLS session that its handshake was to resume."""
