"""Learning from clients that refuse our certificate: tunnel them for a while instead of breaking them (docs/tls.md)."""

import functools
from collections.abc import Callable
from uuid import UUID

from soth_mitm._dataplane.transport.endpoint import Endpoint
from soth_mitm.addresses import format_host_port, normalise_host
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ConnectionMeta, ProcessInfo, SocketAddress, UnixDomain
from soth_mitm.escaping import get_logger
from soth_mitm.policy import Policy
from soth_mitm.process.naming import file_name
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.process_lookup import is_local
from soth_mitm.tls.bypass import Limits, Pair, TlsBypass, TlsBypasses

log = get_logger("soth_mitm.proxy")

# A program that compares a pin itself leaves within milliseconds of the handshake; a connection that was opened ahead of need is kept.
PROMPT_SECONDS = 0.5
REMEMBERED = 1024


class Learning:
    """What one proxy has learnt. It outlives reloads, and always goes by the latest configuration."""

    def __init__(self, config: MitmConfig, policy: Policy, counters: ConnectionCounters, bypasses: TlsBypasses | None = None) -> None:
        self._counters = counters
        self._bypasses = TlsBypasses() if bypasses is None else bypasses
        self._trials: dict[Pair, set[Trial]] = {}
        self._ended = False
        self.clock = self._bypasses.clock
        # audit(connection_id, action, host, process), where event sinks are to be told
        self.audit: Callable[[UUID, str, str, str], None] | None = None
        self.configure(config, policy)

    def configure(self, config: MitmConfig, policy: Policy) -> None:
        """Go by `config` from now on; what it does not allow to be learnt is forgotten."""
        tls = config.tls
        self._limits = Limits(tls.bypass_after_failures, tls.bypass_window_ms / 1000, tls.bypass_ttl_ms / 1000)
        self._enabled = tls.learn_bypass
        self._policy = policy
        self._remembered_pair = functools.lru_cache(REMEMBERED)(self._pair)
        self._bypasses.forget(lambda pair: not self._may_learn(pair))

    def end(self) -> None:
        """Learn no more: the proxy is being shut down, and connections end for that reason."""
        self._ended = True
        self._trials.clear()

    def _may_learn(self, pair: Pair) -> bool:
        if not self._enabled or self._ended:
            return False
        return not any(self._policy.must_intercept(name, pair.port) for name in {pair.host, pair.server_name})

    def _pair(self, target: SocketAddress, name: str, client: ProcessInfo | str | None) -> Pair | None:
        """Return what may be learnt of, if anything."""
        if client is None:
            return None
        pair = Pair(*target, name, client if isinstance(client, str) else _program(client))
        return pair if self._may_learn(pair) else None

    # --- connections

    def begin(self, meta: ConnectionMeta, name: str) -> "Trial | None":
        """A client asks the target of `meta` for TLS as `name`: None to tunnel it, else watch how it takes our certificate."""
        pair = None if self._ended or meta.target is None else self._remembered_pair(meta.target, name, _client(meta))
        if pair is None:
            return Trial(self, None, meta.connection_id)
        if self._bypasses.take(pair):
            self._counters.bypassed_connections += 1
            self._tell(meta.connection_id, "used", pair)
            log.warning("TLS of %s to %s is tunnelled, unread (tls.learn_bypass)", pair.process, _place(pair))
            return None
        return Trial(self, pair, meta.connection_id)

    def _tell(self, connection_id: UUID, action: str, pair: Pair | None) -> None:
        if self.audit is not None:
            self.audit(connection_id, action, "" if pair is None else pair.host, "" if pair is None else pair.process)

    def watch(self, trial: "Trial", pair: Pair) -> None:
        """A client has finished its handshake with us."""
        if not self._ended:
            self._trials.setdefault(pair, set()).add(trial)

    def unwatch(self, trial: "Trial", pair: Pair) -> None:
        """The connection of such a client is over."""
        trials = self._trials.get(pair)
        if trials is None:
            return
        trials.discard(trial)
        if not trials:
            del self._trials[pair]

    def accepted(self, pair: Pair) -> None:
        """A client sent a request under our certificate."""
        self._bypasses.accepted(pair)

    def refused(self, pair: Pair | None, began: float, connection_id: UUID, *, silently: bool) -> None:
        """A client refused our certificate in a handshake that began at `began`."""
        if self._ended:
            return
        self._counters.client_refusals += 1
        self._tell(connection_id, "refused", pair)
        if pair is None or not self._may_learn(pair):
            return
        if any(trial.carries_requests for trial in self._trials.get(pair, ())):
            self._bypasses.accepted(pair)
        opened = self._bypasses.refused(pair, began, self._limits, silently=silently)
        if opened is not None:
            self._counters.bypasses_opened += 1
            self._tell(connection_id, "opened", pair)
            self._report(opened)

    def _report(self, opened: TlsBypass) -> None:
        log.warning(
            "%s has refused our certificate for %s %d times: its TLS there is tunnelled, unread, for the next %g s. To keep "
            'intercepting, add "%s" to interception.must_intercept, or set tls.learn_bypass = false',
            opened.process,
            _place(opened),
            opened.failures,
            self._limits.ttl,
            format_host_port(opened.host, opened.port),
        )

    # --- what users ask

    def bypasses(self) -> list[TlsBypass]:
        """Return the bypasses in force."""
        return self._bypasses.listed()

    def bypass_count(self) -> int:
        """Return how many bypasses are in force."""
        return len(self._bypasses)

    def clear(self, host: str | None = None, process: str | None = None) -> int:
        """Forget the pairs of a host, of a process, of both, or all; return how many bypasses that ended."""
        name = None if host is None else normalise_host(host)
        return self._bypasses.forget(lambda pair: name in (None, pair.host) and process in (None, pair.process))


class Trial:
    """How one client takes our certificate. Without a pair nothing is learnt, only counted."""

    __slots__ = ("_began", "_bytes_in", "_connection_id", "_endpoint", "_learning", "_pair", "_secured_at")

    def __init__(self, learning: Learning, pair: Pair | None, connection_id: UUID) -> None:
        self._learning = learning
        self._pair = pair
        self._connection_id = connection_id
        self._began = learning.clock()
        self._endpoint: Endpoint | None = None
        self._secured_at = self._began
        self._bytes_in = 0

    def refused(self, endpoint: Endpoint, *, silently: bool) -> None:
        """The client refused: it said so in an alert, or left `silently` after our answer, in which our certificate was."""
        if not (silently and _resumed(endpoint)):
            self._learning.refused(self._pair, self._began, self._connection_id, silently=silently)

    def secured(self, endpoint: Endpoint) -> None:
        """The handshake is done; what comes over `endpoint` from now on is requests."""
        self._endpoint = endpoint
        self._secured_at = self._learning.clock()
        self._bytes_in = endpoint.bytes_in
        if self._pair is not None:
            self._learning.watch(self, self._pair)

    @property
    def carries_requests(self) -> bool:
        """Whether a byte of a request has come since the handshake."""
        return self._endpoint is not None and self._endpoint.bytes_in > self._bytes_in

    def ended(self) -> None:
        """The connection is over."""
        if self._pair is not None:
            self._learning.unwatch(self, self._pair)
            if self.carries_requests:
                self._learning.accepted(self._pair)

    def left(self, endpoint: Endpoint) -> None:
        """The client left after the handshake, without a request and without having been answered anything."""
        if self._learning.clock() - self._secured_at <= PROMPT_SECONDS:
            self.refused(endpoint, silently=True)


def _place(pair: Pair | TlsBypass) -> str:
    """Return where a program asks for what, for people."""
    target = format_host_port(pair.host, pair.port)
    return target if pair.server_name == pair.host else f"{pair.server_name} at {target}"


def _resumed(endpoint: Endpoint) -> bool:
    """A resumed session shows no certificate."""
    return endpoint.tls is not None and bool(endpoint.tls.ssl_object.session_reused)


def _client(meta: ConnectionMeta) -> ProcessInfo | str | None:
    """Return what identifies the program: the process, or the address of a client elsewhere. None if that would be a guess."""
    if meta.process_info is not None:
        return meta.process_info
    family = meta.socket_family
    if isinstance(family, UnixDomain) or is_local(family):
        # what one program refuses would be tunnelled for every other
        return None
    return family.remote[0]


def _program(info: ProcessInfo) -> str:
    """Name the program, not its process: many are restarted for each request."""
    if info.exe_path is None:
        # a name alone is easily shared
        return f"{info.exe_name or 'unknown'} (pid {info.pid})"
    if info.exe_name is None or info.exe_name == file_name(info.exe_path):
        return info.exe_path
    return f"{info.exe_path} ({info.exe_name})"
