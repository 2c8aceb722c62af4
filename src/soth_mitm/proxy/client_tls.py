"""TLS with one client: our handshake, the alerts that we send, and what its failures mean."""

import ssl
from typing import NoReturn

from soth_mitm._dataplane.transport.lingering_close import linger_and_close
from soth_mitm.addresses import normalise_host
from soth_mitm.connection import TlsInfo
from soth_mitm.escaping import get_logger
from soth_mitm.observe.observation import EventKind
from soth_mitm.proxy.alpn import HTTP2
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.client_reader import ClientGone, ClientRefused
from soth_mitm.proxy.learning import Trial
from soth_mitm.proxy.tls_handshake import ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME, shake_hands, tls_failure
from soth_mitm.proxy.tls_info import UpstreamTlsInfo, tls_info
from soth_mitm.tls.client_hello import ClientHello
from soth_mitm.tls.failures import FailureClass, classify, refuses_certificate

log = get_logger("soth_mitm.proxy")


class ClientTls:
    """TLS with one client, which asked for `host`. Failures are counted and told to the handler before anything is raised."""

    def __init__(self, client: Client, host: str) -> None:
        self._generation = client.generation
        self._endpoint = client.endpoint
        self._reader = client.reader
        self._counters = client.generation.resources.connection_counters
        self._meta = client.meta
        self._recording = client.recording
        self._host = host
        self._bytes_then: tuple[int, int] | None = None
        self._trial: Trial | None = None
        self._lacks_protocol = False
        self._is_http2 = False

    async def asked_name(self, hello: ClientHello) -> str:
        """Return the name that the client's handshake asks for, or else that of the target; refuses the hello if it is none."""
        if not hello.sni:
            # a zone is about this machine and in no certificate
            return self._host.partition("%")[0]
        try:
            return normalise_host(hello.sni)
        except ValueError as error:
            await self.refuse_hello(ValueError(f"the server name `{hello.sni}` {error}"), ALERT_UNRECOGNIZED_NAME)

    async def secure(
        self, name: str, hello: ClientHello, protocol: str, upstream: UpstreamTlsInfo | None = None, trial: Trial | None = None
    ) -> TlsInfo:
        """Complete the handshake that began with `hello`, as `name` and what else the upstream's certificate names.

        `protocol` is the one that the client is offered (ALPN). Returns what the handshake showed, with what is known of the upstream's.
        What the client makes of our certificate goes to `trial`. Raises `ClientRefused` or `ClientGone` when the handshake fails.
        """
        generation = self._generation
        self._trial = trial
        # such a client leaves whatever our certificate is
        self._lacks_protocol = bool(hello.alpn) and protocol not in hello.alpn
        try:
            context = self._generation.ready_context(name, protocol)
            if context is None:
                context = await self._reader.in_task(self._generation.leaf_context(name, protocol, upstream.names if upstream else ()))
        except (OSError, ValueError) as error:
            log.error("no certificate for %s: %s", name, error)
            await self.refuse_hello(error, ALERT_INTERNAL_ERROR)
        if self._recording is not None:
            self._recording.tls_started(hello.sni or "")
        try:
            await shake_hands(self._reader, generation.client_tls_handshake, lambda: self._start_tls(context), "client")
        except (TimeoutError, OSError, ValueError) as error:
            await self.failed(error, shown=self._endpoint.tls is not None and self._endpoint.tls.has_shown)
            raise ClientGone from None
        assert self._endpoint.tls is not None
        info = tls_info(hello, self._endpoint.tls, upstream, fingerprint=generation.config.tls.capture_fingerprint)
        self._counters.client_handshakes += 1
        self._counters.client_resumed += bool(info.resumed)
        if self._recording is not None:
            self._recording.tls_succeeded(info)
        self._is_http2 = info.negotiated_proto == HTTP2
        self._bytes_then = (self._endpoint.bytes_in, self._endpoint.bytes_out)
        if self._trial is not None:
            self._trial.secured(self._endpoint)
        return info

    def _start_tls(self, context: ssl.SSLContext) -> None:
        if not self._reader.over:
            self._endpoint.start_tls(context, True)

    async def refuse_hello(self, error: Exception, alert: int) -> NoReturn:
        """Send a fatal alert in place of a handshake; raises `ClientRefused`."""
        # in a record of the version that every client understands
        self._endpoint.write(bytes((0x15, 3, 1, 0, 2, 2, alert)))
        linger_and_close(self._endpoint, self._generation.settings)
        await self.failed(error, shown=False)
        raise ClientRefused

    async def failed(self, error: Exception, *, shown: bool) -> None:
        """The handshake failed; `shown` says whether the client may have seen our certificate."""
        seconds = self._generation.config.timeouts.client_tls_handshake_ms / 1000
        # some programs (Java's HttpClient, Node) leave without a word
        silently = shown and classify(error, "client") is FailureClass.EOF_OR_RESET and not self._lacks_protocol
        failure = tls_failure(
            error,
            "client",
            f"the client for {self._host}",
            f"not done within {seconds:g} s (timeouts.client_tls_handshake_ms)",
            certificate_refused=refuses_certificate(error) or silently,
        )
        self._counters.client_tls_failures[failure.reason] += 1
        log.info("TLS with the client for %s failed: %s (%s)", self._host, failure.detail, failure.reason)
        observation = self._generation.resources.observation
        if observation is not None:
            refused = failure.certificate_refused
            observation.connection(EventKind.TLS_FAILED, self._meta, self._host, 0, cause=str(failure), certificate_refused=refused)
        if self._recording is not None:
            self._recording.tls_failed(str(failure.reason), failure.detail, str(failure))
        if failure.certificate_refused and self._trial is not None:
            self._trial.refused(self._endpoint, silently=not refuses_certificate(error))
        await self._reader.in_task(self._generation.calls.tls_failed(self._host, failure))

    async def check_abandoned(self) -> None:
        """When the connection is over: did the client refuse our certificate after its handshake, as some programs do?"""
        if self._trial is not None:
            self._trial.ended()
        endpoint = self._endpoint
        # in HTTP/2 we speak first
        bytes_out = self._bytes_then[1] if self._bytes_then is not None and self._is_http2 else endpoint.bytes_out
        if (endpoint.bytes_in, bytes_out) != self._bytes_then:
            return
        if isinstance(self._endpoint.close_error, ssl.SSLError):
            await self.failed(self._endpoint.close_error, shown=True)
        elif self._endpoint.eof_delivered or self._endpoint.close_error is not None:
            # it left, and was not left by us for its silence
            self._counters.client_abandoned += 1
            if self._lacks_protocol:
                log.info(
                    "the client for %s left after the TLS handshake: none of the protocols that it offers (ALPN) is offered to it",
                    self._host,
                )
                return
            if self._trial is not None:
                self._trial.left(self._endpoint)
            log.info("the client for %s left after the TLS handshake without a request, as programs do that pin certificates", self._host)


def leaf_name(name: str, spelling: str) -> str:
    """Return the name for a certificate: `name`, but the IPv4-mapped address that the client compares it with if `spelling` is one."""
    return spelling if ":" in spelling and ":" not in name else name
