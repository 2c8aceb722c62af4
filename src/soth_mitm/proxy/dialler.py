"""Reaching an upstream: by the way that its origin names, a second time where that makes sense, then TLS when wanted."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping

from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm.addresses import format_host_port
from soth_mitm.config import MitmConfig
from soth_mitm.destinations import DestinationMap, DestinationPattern
from soth_mitm.errors import ConnectFailedError, StageTimeoutError, TlsFailedError, WireError
from soth_mitm.escaping import get_logger
from soth_mitm.proxy.alpn import HTTP1, speaks_http2
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.detached import detached
from soth_mitm.proxy.outbound.origin import Origin, Outbound
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.tls_handshake import shake_hands, tls_failure
from soth_mitm.proxy.tls_info import upstream_tls_info
from soth_mitm.tls.ciphers import permits_http2
from soth_mitm.tls.contexts import UpstreamContexts

log = get_logger("soth_mitm.proxy")

# How many origins are remembered that speak HTTP/2 only over what it forbids, and for how long.
MAX_WITHOUT_HTTP2 = 1024
WITHOUT_HTTP2_SECONDS = 300.0


class Dialler:
    """Connects to upstreams for one configuration. `ways` has a way for each name that `Origin.via` may have."""

    def __init__(
        self,
        config: MitmConfig,
        contexts: UpstreamContexts,
        ways: Mapping[str, Outbound],
        handshake: DeadlineQueue,
        counters: ConnectionCounters,
    ) -> None:
        self._retry = config.upstream.retry_on_failure
        self._retry_seconds = config.upstream.retry_delay_ms / 1000
        self._unverified = DestinationMap((DestinationPattern.parse(text), True) for text in config.upstream.insecure_destinations)
        self._contexts = contexts
        self._ways = ways
        self._handshake = handshake
        self._counters = counters
        self._without_http2: OrderedDict[Origin, float] = OrderedDict()

    async def dial(self, origin: Origin) -> UpstreamEndpoint:
        """Return a connection that is ready for its first byte; its `facts` are set when it speaks TLS.

        Raises `ConnectFailedError`, `StageTimeoutError` or `TlsFailedError`, each with the status that a client is to be answered. Whatever
        it ends in, cancellation included, no connection of it stays open.
        """
        began = time.monotonic()
        try:
            endpoint = await self._connect_and_secure(self._permitted(origin))
            info = endpoint.facts
            if info is not None and speaks_http2(origin, info) and not permits_http2(info.version, info.cipher):
                # RFC 9113 section 9.2.2
                endpoint.close()
                self._remember_without_http2(origin)
                endpoint = await self._connect_and_secure(_without_http2(origin))
        except WireError as error:
            self.count(error)
            raise
        except Exception as error:
            # none of the ways in which an upstream can fail: a fault of ours. The requests that wait for the connection must hear of it too
            log.exception("connecting to %s failed in an unexpected way; please report this", origin)
            failure = ConnectFailedError(
                f"connecting to {origin} failed in an unexpected way ({type(error).__name__}; the log has more)",
                side="upstream",
                reason="other",
            )
            self.count(failure)
            raise failure from detached(error)
        endpoint.dial_seconds = time.monotonic() - began
        return endpoint

    def count(self, error: WireError) -> None:
        """Count a connection that did not come to be."""
        if isinstance(error, ConnectFailedError):
            reason: str = error.reason
        elif isinstance(error, TlsFailedError):
            reason = "tls"
        else:
            reason = "timeout" if isinstance(error, StageTimeoutError) else "other"
        self._counters.dial_failures[reason] += 1
        if error.status == 504:
            self._counters.dial_timeouts["tls" if reason == "tls" else "connect"] += 1

    def _permitted(self, origin: Origin) -> Origin:
        """Return what to dial: without HTTP/2 where its rules forbid what was negotiated lately."""
        since = self._without_http2.get(origin)
        if since is None or time.monotonic() - since > WITHOUT_HTTP2_SECONDS:
            return origin
        return _without_http2(origin)

    def _remember_without_http2(self, origin: Origin) -> None:
        log.info("%s has chosen HTTP/2 and a cipher suite that HTTP/2 forbids; it is spoken to in HTTP/1.1", origin)
        self._without_http2[origin] = time.monotonic()
        self._without_http2.move_to_end(origin)
        if len(self._without_http2) > MAX_WITHOUT_HTTP2:
            self._without_http2.popitem(last=False)

    async def _connect_and_secure(self, origin: Origin) -> UpstreamEndpoint:
        endpoint = await self._connect_or_retry(origin)
        if origin.server_name is not None:
            await self._secure_or_abort(endpoint, origin)
        return endpoint

    async def _connect_or_retry(self, origin: Origin) -> UpstreamEndpoint:
        way = self._ways[origin.via]
        try:
            return await way.connect(origin)
        except WireError as error:
            if not (self._retry and error.retryable):
                raise
            await asyncio.sleep(self._retry_seconds)
            return await way.connect(origin)

    async def _secure_or_abort(self, endpoint: UpstreamEndpoint, origin: Origin) -> None:
        try:
            await self._secure(endpoint, origin)
        except BaseException:
            endpoint.abort()
            raise

    async def _secure(self, endpoint: UpstreamEndpoint, origin: Origin) -> None:
        assert origin.server_name is not None
        intake = AwaitableEndpoint(asyncio.get_running_loop())
        intake.attach(endpoint)
        session = None
        began = time.monotonic()
        try:
            verify = self._unverified.get(origin.host, origin.port) is None
            context = self._contexts.context(origin.alpn, origin.client_cert, verify=verify)
            session = self._contexts.sessions.get(origin.server_name, origin.port, context)
            if session is not None:
                endpoint.offered = session
            await shake_hands(intake, self._handshake, lambda: endpoint.start_tls(context, False, origin.server_name, session), "upstream")
        except (TimeoutError, OSError, ValueError) as error:
            if session is not None:
                self._contexts.sessions.discard(origin.server_name, origin.port, context)
            raise self._tls_failed(origin, error)  # noqa: B904 - it has its cause
        assert endpoint.tls is not None
        endpoint.tls_seconds = time.monotonic() - began
        info = endpoint.facts = upstream_tls_info(endpoint.tls)
        self._counters.upstream_handshakes += 1
        self._counters.upstream_resumed += info.resumed

    def refused(self, origin: Origin, error: Exception) -> TlsFailedError:
        """Count `error`, in which a connection to `origin` ended after its handshake and before anything else came; return what to tell."""
        self._counters.dial_failures["tls"] += 1
        return self._tls_failed(origin, error)

    def _tls_failed(self, origin: Origin, error: Exception) -> TlsFailedError:
        where = format_host_port(origin.host, origin.port)
        if origin.server_name != origin.host:
            where = f"{origin.server_name} at {where}"
        late = f"no answer within {self._handshake.seconds:g} s (timeouts.upstream_tls_handshake_ms)"
        failure = tls_failure(error, "upstream", where, late)
        self._counters.upstream_tls_failures[failure.reason] += 1
        return failure

    def keep_session(self, endpoint: UpstreamEndpoint, origin: Origin) -> None:
        """Remember the TLS session of a connection that has received data, for the next handshake with that origin."""
        if endpoint.tls is None or origin.server_name is None:
            return
        engine = endpoint.tls.ssl_object
        self._contexts.sessions.keep(origin.server_name, origin.port, engine.context, engine, endpoint.offered)


def _without_http2(origin: Origin) -> Origin:
    return origin._replace(alpn=(HTTP1,))
