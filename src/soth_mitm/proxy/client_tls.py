"""TLS with one client: our handshake, the alerts that we send, and what its failures mean."""

import ssl
from typing import NoReturn

from soth_mitm._dataplane.transport.lingering_close import linger_and_close
from soth_mitm.connection import ConnectionMeta, TlsInfo
from soth_mitm.escaping import get_logger
from soth_mitm.observe.observation import EventKind
from soth_mitm.proxy.arrival import Arrival, ConnectionOver
from soth_mitm.proxy.generation import Generation
from soth_mitm.proxy.learning import Trial
from soth_mitm.proxy.protocols import ClientEndpoint
from soth_mitm.proxy.tls_facts import UpstreamFacts, tls_info
from soth_mitm.proxy.tls_handshake import shake_hands, tls_failure
from soth_mitm.tls.client_hello import ClientHello
from soth_mitm.tls.failures import FailureClass, classify, refuses_certificate

log = get_logger("soth_mitm.proxy")

# RFC 8446 section 6
ALERT_UNEXPECTED_MESSAGE, ALERT_DECODE_ERROR, ALERT_PROTOCOL_VERSION, ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME = 10, 50, 70, 80, 112
ALPN = ("http/1.1",)


class GoodbyeSaid(Exception):
    """The client was told why nothing comes of this, and is given the time to read it."""


class ClientTls:
    """TLS with the client of `endpoint`, which asked for `host`. Failures are counted and told to the handler before anything is raised."""

    def __init__(self, generation: Generation, endpoint: ClientEndpoint, arrival: Arrival, meta: ConnectionMeta, host: str) -> None:
        self._generation = generation
        self._endpoint = endpoint
        self._arrival = arrival
        self._meta = meta
        self._host = host
        self._bytes_then: tuple[int, int] | None = None
        self._trial: Trial | None = None
        self._lacks_protocol = False

    def is_bypassed(self, meta: ConnectionMeta, name: str) -> bool:
        """Tell whether the client's TLS is to be tunnelled, because its program keeps refusing our certificate for `name`.

        If not, what it makes of our certificate this time is learnt from.
        """
        self._trial = self._generation.learning.begin(meta, name)
        return self._trial is None

    async def secure(self, name: str, hello: ClientHello, facts: UpstreamFacts | None) -> TlsInfo:
        """Complete the handshake that began with `hello`, as `name` and what else the upstream's certificate names.

        Returns what it showed, with what is known of the upstream's. Raises `GoodbyeSaid` or `ConnectionOver` when it fails.
        """
        snapshot = self._generation.snapshot
        # such a client leaves whatever our certificate is
        self._lacks_protocol = bool(hello.alpn) and not set(hello.alpn).intersection(ALPN)
        try:
            context = self._generation.ready_context(name, ALPN)
            if context is None:
                context = await self._arrival.apart(self._generation.leaf_context(name, ALPN, facts.names if facts else ()))
        except (OSError, ValueError) as error:
            log.error("no certificate for %s: %s", name, error)
            await self.refuse_hello(error, ALERT_INTERNAL_ERROR)
        try:
            await shake_hands(self._arrival, snapshot.client_tls_handshake, lambda: self._start_tls(context), "client")
        except (TimeoutError, OSError, ValueError) as error:
            await self.failed(error, shown=self._endpoint.tls is not None and self._endpoint.tls.has_shown)
            raise ConnectionOver from None
        assert self._endpoint.tls is not None
        info = tls_info(hello, self._endpoint.tls, facts, fingerprint=snapshot.config.tls.capture_fingerprint)
        self._generation.tally.client_handshakes += 1
        self._generation.tally.client_resumed += bool(info.resumed)
        self._bytes_then = (self._endpoint.bytes_in, self._endpoint.bytes_out)
        if self._trial is not None:
            self._trial.secured(self._endpoint)
        return info

    def _start_tls(self, context: ssl.SSLContext) -> None:
        if not self._arrival.over:
            self._endpoint.start_tls(context, True)

    async def refuse_hello(self, error: Exception, alert: int) -> NoReturn:
        """Send a fatal alert in place of a handshake; raises `GoodbyeSaid`."""
        # in a record of the version that every client understands
        self._endpoint.write(bytes((0x15, 3, 1, 0, 2, 2, alert)))
        linger_and_close(self._endpoint, self._generation.snapshot.settings)
        await self.failed(error, shown=False)
        raise GoodbyeSaid

    async def failed(self, error: Exception, *, shown: bool) -> None:
        """The handshake failed; `shown` says whether the client may have seen our certificate."""
        seconds = self._generation.snapshot.config.timeouts.client_tls_handshake_ms / 1000
        # some programs (Java's HttpClient, Node) leave without a word
        silently = shown and classify(error, "client") is FailureClass.EOF_OR_RESET and not self._lacks_protocol
        failure = tls_failure(
            error,
            "client",
            f"the client for {self._host}",
            f"not done within {seconds:g} s (timeouts.client_tls_handshake_ms)",
            certificate_refused=refuses_certificate(error) or silently,
        )
        self._generation.tally.client_tls_failures[failure.reason] += 1
        log.info("TLS with the client for %s failed: %s (%s)", self._host, failure.detail, failure.reason)
        observation = self._generation.snapshot.observation
        if observation is not None:
            refused = failure.certificate_refused
            observation.connection(EventKind.TLS_FAILED, self._meta, self._host, 0, cause=str(failure), certificate_refused=refused)
        if failure.certificate_refused and self._trial is not None:
            self._trial.refused(self._endpoint, silently=not refuses_certificate(error))
        await self._arrival.apart(self._generation.snapshot.calls.tls_failed(self._host, failure))

    async def look_back(self) -> None:
        """When the connection is over: did the client refuse our certificate after its handshake, as some programs do?"""
        if self._trial is not None:
            self._trial.ended()
        if (self._endpoint.bytes_in, self._endpoint.bytes_out) != self._bytes_then:
            return
        if isinstance(self._endpoint.close_error, ssl.SSLError):
            await self.failed(self._endpoint.close_error, shown=True)
        elif self._endpoint.eof_delivered or self._endpoint.close_error is not None:
            # it left, and was not left by us for its silence
            self._generation.tally.client_abandoned += 1
            if self._lacks_protocol:
                log.info("the client for %s left after the TLS handshake: none of the protocols that it offers (ALPN) is ours", self._host)
                return
            if self._trial is not None:
                self._trial.left(self._endpoint)
            log.info("the client for %s left after the TLS handshake without a request, as programs do that pin certificates", self._host)
