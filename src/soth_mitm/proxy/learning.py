"""Learning from clients that refuse our certificate: tunnel them for a while instead of breaking them.

A client refuses when, having seen our certificate, it says so in an alert, or leaves without a reason: inside the handshake, or right after
it without a byte of a request. Node.js, curl, OkHttp and whatever else compares pins itself say nothing at all.
"""

import logging

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm.addresses import format_host_port, normalise_host
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ConnectionMeta, ProcessInfo, UnixDomain
from soth_mitm.policy import Policy
from soth_mitm.process.naming import file_name
from soth_mitm.proxy.process_lookup import is_local
from soth_mitm.proxy.tally import Tally
from soth_mitm.tls.bypass import Limits, Pair, TlsBypass, TlsBypasses
from soth_mitm.tls.failures import FailureClass, classify, refuses_certificate

log = logging.getLogger("soth_mitm.proxy")

# A connection that was opened ahead of need is kept for longer than this before it is given up.
PROMPT_SECONDS = 1.0


class Learning:
    """What one proxy has learnt. It outlives reloads, and always goes by the latest configuration."""

    def __init__(self, config: MitmConfig, policy: Policy, tally: Tally, bypasses: TlsBypasses | None = None) -> None:
        self._tally = tally
        self._bypasses = TlsBypasses() if bypasses is None else bypasses
        self._carrying: dict[Pair, set[Trial]] = {}
        self.clock = self._bypasses.clock
        self.configure(config, policy)

    def configure(self, config: MitmConfig, policy: Policy) -> None:
        """Go by `config` from now on; what it does not allow to be learnt is forgotten."""
        tls = config.tls
        self._limits = Limits(tls.bypass_after_failures, tls.bypass_window_ms / 1000, tls.bypass_ttl_ms / 1000)
        self._enabled = tls.learn_bypass
        self._policy = policy
        self._bypasses.forget(lambda pair: not self._may_learn(pair))

    def _may_learn(self, pair: Pair) -> bool:
        if not self._enabled:
            return False
        return not any(self._policy.must_intercept(name, pair.port) for name in {pair.host, pair.server_name})

    def begin(self, meta: ConnectionMeta, sni: str | None) -> "Trial":
        """A client wants TLS with the target of `meta`, under the name `sni`: tunnel it, or see how it takes our certificate."""
        pair = _pair(meta, sni)
        if pair is not None and not self._may_learn(pair):
            pair = None
        trial = Trial(self, pair, is_tunnelled=pair is not None and self._bypasses.take(pair))
        self._tally.bypassed_connections += trial.is_tunnelled
        return trial

    def secured(self, trial: "Trial", pair: Pair) -> None:
        """A client has finished its handshake with us."""
        self._carrying.setdefault(pair, set()).add(trial)

    def over(self, trial: "Trial", pair: Pair) -> None:
        """The connection of a client that had finished its handshake is over."""
        trials = self._carrying[pair]
        trials.discard(trial)
        if not trials:
            del self._carrying[pair]

    def accepted(self, pair: Pair) -> None:
        """A client sent a request under our certificate."""
        self._bypasses.accepted(pair)

    def refused(self, pair: Pair | None, began: float, *, silently: bool) -> None:
        """A client refused our certificate in a handshake that began at `began`."""
        self._tally.client_refusals += 1
        if pair is None or not self._may_learn(pair):
            return
        if any(trial.carries_requests for trial in self._carrying.get(pair, ())):
            self._bypasses.accepted(pair)
        opened = self._bypasses.refused(pair, began, self._limits, silently=silently)
        if opened is not None:
            self._tally.bypasses_opened += 1
            target = format_host_port(pair.host, pair.port)
            log.warning(
                "%s has refused our certificate for %s %d times: its TLS there is tunnelled, unread, for the next %g s. To keep "
                'intercepting, add "%s" to interception.must_intercept, or set tls.learn_bypass = false',
                pair.process,
                target if pair.server_name == pair.host else f"{pair.server_name} at {target}",
                opened.failures,
                self._limits.ttl,
                target,
            )

    def bypasses(self) -> list[TlsBypass]:
        """Return the bypasses in force."""
        return self._bypasses.listed()

    def bypass_count(self) -> int:
        """Return how many bypasses are in force."""
        return len(self._bypasses)

    def clear(self, host: str | None, process: str | None) -> int:
        """Forget the pairs of a host, of a process, of both, or all; return how many bypasses that ended."""
        name = None if host is None else normalise_host(host)
        return self._bypasses.forget(lambda pair: name in (None, pair.host) and process in (None, pair.process))


class Trial:
    """How one client takes our certificate. Without a pair nothing is learnt, only counted."""

    __slots__ = ("_bytes_in", "_bytes_out", "_endpoint", "_learning", "_pair", "_began", "_secured_at", "is_tunnelled")

    def __init__(self, learning: Learning, pair: Pair | None, *, is_tunnelled: bool) -> None:
        self._learning = learning
        self._pair = pair
        self._began = learning.clock()
        self._endpoint: Endpoint | None = None
        self._secured_at = 0.0
        self._bytes_in = self._bytes_out = 0
        self.is_tunnelled = is_tunnelled

    def failed(self, endpoint: Endpoint, error: Exception) -> None:
        """The handshake ended in `error`."""
        if endpoint.tls is None or endpoint.tls.ssl_object.session_reused:
            # it has not seen our certificate
            return
        silently = classify(error, "client") is FailureClass.EOF_OR_RESET
        if silently or refuses_certificate(error):
            self._learning.refused(self._pair, self._began, silently=silently)

    def secured(self, endpoint: Endpoint) -> None:
        """The handshake is done; what comes over `endpoint` from now on is requests."""
        self._endpoint = endpoint
        self._secured_at = self._learning.clock()
        self._bytes_in, self._bytes_out = endpoint.bytes_in, endpoint.bytes_out
        if self._pair is not None:
            self._learning.secured(self, self._pair)

    @property
    def carries_requests(self) -> bool:
        """Whether a byte of a request has come since the handshake."""
        return self._endpoint is not None and self._endpoint.bytes_in > self._bytes_in

    def ended(self, *, by_us: bool) -> None:
        """The connection is over; `by_us`, because the proxy is being shut down."""
        endpoint = self._endpoint
        if endpoint is None or endpoint.tls is None:
            return
        if self._pair is not None:
            self._learning.over(self, self._pair)
            if self.carries_requests:
                self._learning.accepted(self._pair)
        # what we sent would be an answer of ours, such as the 408
        untouched = not self.carries_requests and endpoint.bytes_out == self._bytes_out
        resumed = endpoint.tls.ssl_object.session_reused
        if untouched and not by_us and not resumed and self._learning.clock() - self._secured_at <= PROMPT_SECONDS:
            log.info("a client closed its connection right after it had seen our certificate, without a request and without a reason")
            self._learning.refused(self._pair, self._began, silently=True)


def _pair(meta: ConnectionMeta, sni: str | None) -> Pair | None:
    process = _identity(meta)
    if process is None or meta.target is None:
        return None
    host, port = meta.target
    try:
        return Pair(host, port, host if sni is None else normalise_host(sni), process)
    except ValueError:
        # no name that a pattern could speak of
        return None


def _identity(meta: ConnectionMeta) -> str | None:
    """Name the program behind a connection, not its process: many are restarted for each request. None if that would be a guess."""
    if meta.process_info is not None:
        return _program(meta.process_info)
    family = meta.socket_family
    if isinstance(family, UnixDomain) or is_local(family):
        # what one program refuses would be tunnelled for every other
        return None
    return family.remote[0]


def _program(info: ProcessInfo) -> str:
    if info.exe_path is None:
        # a name alone is easily shared
        return f"{info.exe_name or 'unknown'} (pid {info.pid})"
    if info.exe_name is None or info.exe_name == file_name(info.exe_path):
        return info.exe_path
    return f"{info.exe_path} ({info.exe_name})"
