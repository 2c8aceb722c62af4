"""What connections share that were accepted under the same configuration."""

import functools
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm.config.effect import without_effect
from soth_mitm.connection import SocketAddress, SocketFamily, UnixDomain
from soth_mitm.destinations import DestinationMap, DestinationPattern, parse_redirect
from soth_mitm.errors import InvalidConfigError
from soth_mitm.proxy.dialler import Dialler
from soth_mitm.proxy.learning import Learning
from soth_mitm.proxy.outbound.direct import Direct
from soth_mitm.proxy.outbound.origin import DIRECT, Origin
from soth_mitm.proxy.process_lookup import ProcessLookup
from soth_mitm.proxy.resolver import Resolver
from soth_mitm.proxy.snapshot import Snapshot
from soth_mitm.proxy.tally import Tally
from soth_mitm.proxy.upstreams import Upstreams
from soth_mitm.tls.contexts import ClientCertificate, UpstreamContexts
from soth_mitm.tls.hardening import KEY_LOG, check_key_log, key_log_path
from soth_mitm.tls.leaf import LeafStore


class Generation:
    """One configuration with its pools, TLS contexts and certificates. A reload makes the next one."""

    def __init__(
        self,
        snapshot: Snapshot,
        leaves: LeafStore,
        minting: Executor,
        lookup: ProcessLookup,
        arena: Arena,
        tally: Tally,
        learning: Learning,
        is_ours: Callable[[SocketAddress], bool],
    ) -> None:
        """Reads the certificates that the configuration names: raises `InvalidConfigError` with the key of one that cannot be used."""
        config = snapshot.config
        upstream = config.upstream
        certificates = {
            pattern: ClientCertificate(str(path), str(upstream.client_key_path[pattern]))
            for pattern, path in upstream.client_cert_path.items()
        }
        contexts = UpstreamContexts(
            verify=upstream.verify_upstream_tls,
            ca_bundle_path=upstream.ca_bundle_path,
            min_version=config.tls.min_version,
            ciphers=upstream.ciphers,
            client_certs=tuple(certificates.values()),
        )
        if not upstream.verify_upstream_tls:
            snapshot.warn_once(
                "upstream.verify_upstream_tls is false: anybody between this proxy and an upstream can read and change the traffic"
            )
        if upstream.insecure_destinations:
            listed = ", ".join(upstream.insecure_destinations)
            snapshot.warn_once(
                f"upstream.insecure_destinations: no certificate is verified of {listed}; anybody between this proxy and them can read and "
                "change the traffic"
            )
        redirects = [parse_redirect(text) for text in upstream.connect_to]
        exposed = [str(pattern) for pattern, there in redirects if there.is_exposed]
        if exposed:
            snapshot.warn_once(
                f"upstream.connect_to: requests to {', '.join(exposed)} may cross a network in clear (http://): anybody on the way can "
                "read and change them"
            )
        try:
            check_key_log()
        except OSError as error:
            raise InvalidConfigError(
                KEY_LOG, f"{key_log_path()} cannot be written: {error.strerror}; unset it or name another file"
            ) from error
        if key_log_path() is not None:
            snapshot.warn_once(f"{KEY_LOG} is set: the keys of all TLS sessions are written to {key_log_path()}")
        for sentence in without_effect(config):
            snapshot.warn_once(sentence)
        self.snapshot = snapshot
        self._leaves = leaves
        self._minting = minting
        self.attribution = lookup if config.process_attribution.enabled else None
        self._resolver = Resolver(upstream.dns_cache_ms / 1000, tally)
        self._connect_to = DestinationMap(redirects)
        direct = Direct(config, self._connect_to, self._resolver, arena, is_ours)
        handshake = snapshot.deadlines.after(config.timeouts.upstream_tls_handshake_ms)
        self.dialler = Dialler(config, contexts, {DIRECT: direct}, handshake, tally)
        self.upstreams = Upstreams(snapshot, self.dialler)
        self.tally = tally
        self.learning = learning
        self._is_ours = is_ours
        self._client_certificates = DestinationMap(
            (DestinationPattern.parse(pattern), certificate) for pattern, certificate in certificates.items()
        )

    def sign_with(self, leaves: LeafStore) -> None:
        """Take the leaves of connections whose handshake is still to come from `leaves`."""
        self._leaves = leaves

    def origin(self, host: str, port: int, server_name: str | None) -> Origin:
        """Return the pool key for a target; TLS when `server_name` is given, unless `upstream.connect_to` has a scheme for it."""
        there = self._connect_to.get(host, port)
        speaks_tls = server_name is not None if there is None or there.secure is None else there.secure
        if not speaks_tls:
            server_name = None
        elif server_name is None:
            # a zone is about this machine and in no certificate
            server_name = host.partition("%")[0]
        certificate = self._client_certificates.get(host, port) if server_name is not None else None
        return Origin(host, port, server_name, certificate)

    def ready_context(self, name: str, alpn: tuple[str, ...]) -> ssl.SSLContext | None:
        """Return the server-side context for `name` if its leaf is there; None to have it minted by `leaf_context`."""
        return self._leaves.ready_context(name, alpn=alpn, min_version=self.snapshot.config.tls.min_version)

    async def leaf_context(self, name: str, alpn: tuple[str, ...], mirror: Sequence[str]) -> ssl.SSLContext:
        """Return the server-side context for `name`; a new leaf is minted in a thread: it takes a millisecond.

        Raises what `LeafStore.context_for` raises.
        """
        min_version = self.snapshot.config.tls.min_version
        mint = functools.partial(self._leaves.context_for, name, alpn=alpn, min_version=min_version, mirror=mirror)
        return await self.snapshot.loop.run_in_executor(self._minting, mint)

    def is_ours_by_name(self, host: str, port: int) -> bool:
        """Tell whether a target is one of our listening addresses, as far as can be told without resolving it."""
        return self._is_ours(("127.0.0.1" if host == "localhost" else host, port))

    @staticmethod
    def is_unix(family: SocketFamily) -> bool:
        """Tell whether a connection came over a Unix socket."""
        return isinstance(family, UnixDomain)

    async def close(self) -> None:
        """End dials, look-ups, idle connections and timers. When no client connection uses this any more."""
        await self.upstreams.close()
        await self._resolver.close()
        await self.snapshot.close()
