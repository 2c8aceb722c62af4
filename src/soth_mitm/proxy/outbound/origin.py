"""What an upstream connection is made to, and what a way there must offer."""

import asyncio
from typing import NamedTuple, Protocol

from soth_mitm.addresses import format_host_port
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.tls.contexts import ClientCertificate

DIRECT = "direct"


class Origin(NamedTuple):
    """Where to connect, as which client, and by which way: the key of a pool. `server_name` is None for plain text.

    `alpn` is what the upstream is offered in TLS. In plain text `("h2",)` is HTTP/2 without asking, and `()` is HTTP/1.
    """

    host: str
    port: int
    server_name: str | None = None
    client_cert: ClientCertificate | None = None
    via: str = DIRECT
    alpn: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'https' if self.server_name else 'http'}://{format_host_port(self.host, self.port)}"


class Outbound(Protocol):
    """A way to an upstream: to the origin itself, or through something that is asked to connect there."""

    async def connect(self, origin: Origin) -> UpstreamEndpoint:
        """Return a connection to `origin`, before TLS.

        Raises `ConnectFailedError` or `StageTimeoutError`; `retryable` says whether a second attempt makes sense. Whatever it raises,
        cancellation included, no connection stays open.
        """


def abandon(attempt: asyncio.Task[UpstreamEndpoint]) -> None:
    """Cancel an attempt to connect that is not needed any more, and abort the connection that it may have made all the same."""
    attempt.cancel()
    attempt.add_done_callback(_abort_late_connection)


def _abort_late_connection(attempt: asyncio.Task[UpstreamEndpoint]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
