"""TLS with one client: our handshake, the alerts that we send, and what its failures mean."""

import logging
import ssl
from typing import NoReturn

from soth_mitm._dataplane.intake import Intake
from soth_mitm._dataplane.linger import say_goodbye
from soth_mitm.connection import TlsInfo
from soth_mitm.errors import TlsFailedError
from soth_mitm.proxy.generation import Generation
from soth_mitm.proxy.protocols import ClientEndpoint
from soth_mitm.proxy.tls_facts import UpstreamFacts, tls_info
from soth_mitm.tls.client_hello import ClientHello
from soth_mitm.tls.failures import FailureClass, classify, describe, refuses_certificate

log = logging.getLogger("soth_mitm.proxy")

# RFC 8446 section 6
ALERT_PROTOCOL_VERSION, ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME = 70, 80, 112


class ConnectionOver(Exception):
    """The client is gone; there is nothing left to do for it."""


class GoodbyeSaid(Exception):
    """The client was told why nothing comes of this, and is given the time to read it."""


class ClientTls:
    """TLS with the client of `endpoint`, which asked for `host`. Failures are counted and told to the handler before anything is raised."""

    def __init__(self, generation: Generation, endpoint: ClientEndpoint, intake: Intake, host: str) -> None:
        self._generation = generation
        self._endpoint = endpoint
        self._intake = intake
        self._host = host
        self._bytes_then: tuple[int, int] | None = None

    async def secure(self, name: str, hello: ClientHello, facts: UpstreamFacts | None) -> TlsInfo:
        """Complete the handshake that began with `hello`, as `name` and what else the upstream's certificate names; return what it showed.

        Raises `GoodbyeSaid` or `ConnectionOver` when it fails.
        """
        snapshot = self._generation.snapshot
        try:
            context = await self._generation.leaf_context(name, ("http/1.1",), facts.names if facts else ())
        except (OSError, ValueError) as error:
            log.error("no certificate for %s: %s", name, error)
            await self.refuse_hello(error, ALERT_INTERNAL_ERROR)
        try:
            with self._intake.within(snapshot.client_tls_handshake):
                self._endpoint.start_tls(context, True)
                while not self._intake.is_secured:
                    if self._intake.tls_error is not None:
                        raise self._intake.tls_error
                    if self._intake.over:
                        raise self._intake.error or ConnectionResetError("the client closed the connection during the TLS handshake")
                    await self._intake.changed()
        except (TimeoutError, OSError, ValueError) as error:
            await self.failed(error, shown=True)
            raise ConnectionOver from None
        assert self._endpoint.tls is not None
        info = tls_info(hello, self._endpoint.tls.ssl_object, fingerprint=snapshot.config.tls.capture_fingerprint)
        self._generation.tally.client_handshakes += 1
        self._generation.tally.client_resumed += bool(info.resumed)
        self._bytes_then = (self._endpoint.bytes_in, self._endpoint.bytes_out)
        return info

    async def refuse_hello(self, error: Exception, alert: int) -> NoReturn:
        """Send a fatal alert in place of a handshake; raises `GoodbyeSaid`."""
        # in a record of the version that every client understands
        self._endpoint.write(bytes((0x15, 3, 1, 0, 2, 2, alert)))
        say_goodbye(self._endpoint, self._generation.snapshot.plane)
        await self.failed(error, shown=False)
        raise GoodbyeSaid

    async def failed(self, error: Exception, *, shown: bool) -> None:
        """The handshake failed; `shown` says whether the client may have seen our certificate."""
        self._generation.tally.client_tls_failures += 1
        seconds = self._generation.snapshot.config.timeouts.client_tls_handshake_ms / 1000
        late = isinstance(error, TimeoutError)
        detail = f"not done within {seconds:g} s (timeouts.client_tls_handshake_ms)" if late else describe(error)
        reason = classify(error, "client")
        log.info("TLS with the client for %s failed: %s (%s)", self._host, detail, reason)
        failure = TlsFailedError(
            f"the TLS handshake with the client for {self._host} failed: {detail}",
            side="client",
            reason=reason,
            detail=detail,
            # some programs (Java's HttpClient, Node) leave without a word
            certificate_refused=refuses_certificate(error) or (shown and reason is FailureClass.EOF_OR_RESET),
        )
        failure.__cause__ = error
        await self._generation.snapshot.calls.tls_failed(self._host, failure)

    async def look_back(self) -> None:
        """When the connection is over: did the client refuse our certificate after its handshake, as some programs do?"""
        if (self._endpoint.bytes_in, self._endpoint.bytes_out) != self._bytes_then:
            return
        if isinstance(self._endpoint.fault, ssl.SSLError):
            await self.failed(self._endpoint.fault, shown=True)
        elif self._endpoint.told_end or self._endpoint.fault is not None:
            # it left, and was not left by us for its silence
            self._generation.tally.client_abandoned += 1
            log.info("the client for %s left after the TLS handshake without a request, as programs do that pin certificates", self._host)
