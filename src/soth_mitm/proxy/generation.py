"""One configuration with everything that is made from it: what connections share that were accepted under it."""

import functools
import ssl
from collections.abc import Sequence

from soth_mitm._dataplane.http.counters import FlowCounts
from soth_mitm._dataplane.http.messages import FrameKind
from soth_mitm.config import MitmConfig
from soth_mitm.config.sections import UpstreamConfig
from soth_mitm.destinations import DestinationMap, DestinationPattern, parse_redirect
from soth_mitm.errors import InvalidConfigError
from soth_mitm.policy import Policy
from soth_mitm.proxy import alpn
from soth_mitm.proxy.calls import HandlerCalls
from soth_mitm.proxy.credential_values import CredentialValues
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.outbound.direct import Direct
from soth_mitm.proxy.outbound.origin import DIRECT, Origin
from soth_mitm.proxy.own_address import OwnAddress
from soth_mitm.proxy.redirects import Redirects
from soth_mitm.proxy.resolver import Resolver
from soth_mitm.proxy.resources import ProxyResources
from soth_mitm.proxy.settings import client_end_ms, make_settings
from soth_mitm.proxy.upstream_pools import UpstreamPools
from soth_mitm.tls.contexts import ClientCertificate, UpstreamContexts
from soth_mitm.tls.hardening import KEY_LOG, check_key_log, key_log_path
from soth_mitm.tls.leaf import LeafStore

# of Hooks.filtered
WEBSOCKET_BITS = sum(1 << place for place, kind in enumerate(FrameKind) if kind in (FrameKind.WEBSOCKET_TEXT, FrameKind.WEBSOCKET_BINARY))


class ConfigGeneration:
    """A validated configuration, its policy, its calls of the handler, its settings, pools, TLS contexts and certificates.

    A reload makes the next generation. Connections keep the one that they began with.
    """

    def __init__(self, config: MitmConfig, policy: Policy, leaves: LeafStore, resources: ProxyResources) -> None:
        """Reads the certificates that the configuration names: raises `InvalidConfigError` with the key of one that cannot be used."""
        certificates = _client_certificates(config.upstream)
        contexts = UpstreamContexts(
            verify=config.upstream.verify_upstream_tls,
            ca_bundle_path=config.upstream.ca_bundle_path,
            min_version=config.tls.min_version,
            ciphers=config.upstream.ciphers,
            client_certs=tuple(certificates.values()),
        )
        _check_key_log()
        self.config = config
        self.policy = policy
        self.spoken = alpn.spoken(config.http2_enabled)
        self.resources = resources
        self._leaves = leaves
        self._client_certificates = DestinationMap((DestinationPattern.parse(text), each) for text, each in certificates.items())
        self._connect_to = DestinationMap(map(parse_redirect, config.upstream.connect_to))
        self.attribution = resources.lookup if config.process_attribution.enabled else None

        timeouts = config.timeouts
        self._deadlines = Deadlines(resources.loop)
        self.client_head = self._deadlines.after(timeouts.client_head_ms)
        self.client_idle = self._deadlines.after(timeouts.client_idle_ms)
        self.client_first_bytes = self._deadlines.after(timeouts.client_first_bytes_ms)
        self.client_tls_handshake = self._deadlines.after(timeouts.client_tls_handshake_ms)
        self.client_end = self._deadlines.after(client_end_ms())

        self.calls = HandlerCalls(resources.handler, config, resources.loop, self._deadlines, resources.hook_counters, resources.reports)
        _check_violations(config, self.calls.hooks.filtered)
        self.settings = make_settings(
            config,
            resources.arena,
            resources.counters,
            self.calls.hooks,
            self._deadlines,
            resources.reports,
            resources.observation,
            resources.recording,
            resources.decoding,
            resources.websockets,
        )
        self._resolver = Resolver(config.upstream.dns_cache_ms / 1000, resources.connection_counters)
        direct = Direct(config, self._connect_to, self._resolver, resources.arena, resources.own_address)
        handshake = self._deadlines.after(timeouts.upstream_tls_handshake_ms)
        self.dialler = Dialler(config, contexts, {DIRECT: direct}, handshake, resources.connection_counters)
        self.pools = UpstreamPools(config.connection_pool, self.settings, self._deadlines, self.dialler, self.calls, resources.observation)
        is_strict = config.preset == "strict"
        redirects = Redirects(policy, self.pools, self.origin, self.own_by_name, self.spoken, is_strict)
        self.settings.on_redirect = redirects.route
        self._credentials = CredentialValues.made_for(config, resources) if config.credentials else None
        self.settings.credentials = self._credentials

    def flow_counts(self, host: str, port: int) -> FlowCounts:
        """Return where flows to a destination are counted."""
        return self.resources.flow_counts.of(self.policy.pattern(host, port))

    def sign_with(self, leaves: LeafStore) -> None:
        """Take the leaves of handshakes that are still to come from `leaves`."""
        self._leaves = leaves

    def offer(self, client_offer: Sequence[str]) -> tuple[str, ...]:
        """Return what the upstream of a client is offered that offers `client_offer` (ALPN)."""
        return alpn.upstream_offer(client_offer, self.spoken)

    def origin(
        self,
        host: str,
        port: int,
        server_name: str | None,
        offer: tuple[str, ...] = (alpn.HTTP1,),
        identity: tuple[str, int] | None = None,
    ) -> Origin:
        """Return the pool key for a target that is offered `offer`.

        TLS when `server_name` is given, unless `upstream.connect_to` has a scheme for it. `identity` is the destination for which a client
        certificate is chosen; None: the target.
        """
        there = self._connect_to.get(host, port)
        speaks_tls = server_name is not None if there is None or there.secure is None else there.secure
        if not speaks_tls:
            server_name = None
        elif server_name is None:
            # a zone is about this machine and in no certificate
            server_name = host.partition("%")[0]
        if server_name is None:
            # nothing is negotiated: HTTP/2 only for a client that speaks nothing else
            return Origin(host, port, alpn=(alpn.HTTP2,) if offer == (alpn.HTTP2,) else ())
        if alpn.HTTP2 not in offer and self.config.http2.for_http1_clients:
            offer = self.spoken
        certificate = self._client_certificates.get(*(identity or (host, port)))
        return Origin(host, port, server_name, certificate, alpn=offer)

    def ready_context(self, name: str, protocol: str) -> ssl.SSLContext | None:
        """Return the server-side context for `name` and one protocol if its leaf is there; None to have it minted by `leaf_context`."""
        return self._leaves.ready_context(name, alpn=(protocol,), min_version=self.config.tls.min_version)

    async def leaf_context(self, name: str, protocol: str, mirror: Sequence[str]) -> ssl.SSLContext:
        """Return the server-side context for `name` and one protocol; a new leaf is minted in a thread: it takes a millisecond.

        Raises what `LeafStore.context_for` raises.
        """
        mint = functools.partial(self._leaves.context_for, name, alpn=(protocol,), min_version=self.config.tls.min_version, mirror=mirror)
        return await self.resources.loop.run_in_executor(self.resources.minting, mint)

    def own_by_name(self, host: str, port: int) -> OwnAddress | None:
        """Return which of our listening addresses a target is, None if none, as far as can be told without resolving it."""
        return self.resources.own_address(("127.0.0.1" if host == "localhost" else host, port))

    async def close(self) -> None:
        """End dials, look-ups, idle connections, hooks and timers. When no client connection uses this any more."""
        if self._credentials is not None:
            await self._credentials.close()
        await self.pools.close()
        await self._resolver.close()
        await self.calls.close()
        self._deadlines.close()
        # it refers to us
        self.settings.on_redirect = None


def _check_violations(config: MitmConfig, filtered: int) -> None:
    """Refuse a way around the filter, and around the search for credentials."""
    if config.websocket.on_violation != "close" and config.credentials:
        raise InvalidConfigError("websocket.on_violation", "must be `close` where there are credentials, which messages are searched for")
    if config.websocket.on_violation != "close" and config.intercept_mode == "enforce" and filtered & WEBSOCKET_BITS:
        raise InvalidConfigError(
            "websocket.on_violation", "must be `close` while filter_stream_chunk decides about messages of WebSockets (filter_kinds)"
        )


def _client_certificates(upstream: UpstreamConfig) -> dict[str, ClientCertificate]:
    keys = upstream.client_key_path
    return {pattern: ClientCertificate(str(path), str(keys[pattern])) for pattern, path in upstream.client_cert_path.items()}


def _check_key_log() -> None:
    try:
        check_key_log()
    except OSError as error:
        raise InvalidConfigError(KEY_LOG, f"{key_log_path()} cannot be written: {error.strerror}; unset it or name another file") from error
