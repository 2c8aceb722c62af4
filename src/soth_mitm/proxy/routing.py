"""Where requests go that name a destination of their own: what the routers of an `Http1ServerConnection` decide.

In absolute-form each request names its destination, and the policy and `on_connect` decide about it. Inside an intercepted connection all
requests go where the connection goes, whatever they name. A server may serve other names than that of its address, so a name that a request
has is judged like a target of its own, and it is what the handler is shown.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http.counters import FlowCounts
from soth_mitm.addresses import DEFAULT_PORTS, format_authority, format_host_port, parse_authority
from soth_mitm.connect_decision import ConnectDecision
from soth_mitm.connection import ConnectionMeta, UnixDomain
from soth_mitm.policy import Action, Decision
from soth_mitm.proxy.alpn import HTTP1
from soth_mitm.proxy.calls import HandlerFailed
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.decisions import connect_target, forbidden_tunnel
from soth_mitm.proxy.tls_info import with_upstream_info

# How many answers of on_connect one client connection remembers.
MAX_ANSWERS = 256


class _Destination(NamedTuple):
    scheme: str
    host: str
    port: int


class ConnectAnswers:
    """What `on_connect` answered about destinations of one connection's requests."""

    __slots__ = ("_answers", "_client")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: dict[_Destination, ConnectDecision | None] = {}

    def route(
        self,
        there: _Destination,
        meta: ConnectionMeta,
        decision: Decision,
        authority: str,
        counts: FlowCounts | None,
        go_on: Callable[[ConnectDecision | None], Route],
    ) -> Route:
        """Return what `go_on` makes of the answer about a destination; until there is one, a route with the question for the exchange."""
        if there in self._answers:
            return go_on(self._answers[there])
        question = connect_target(*there, meta, decision)
        on_answer = partial(self._answered, there, go_on)
        return Route(
            None, self._client.meta, there.scheme, authority, observed=False, question=question, on_answer=on_answer, counts=counts
        )

    def _answered(
        self, there: _Destination, go_on: Callable[[ConnectDecision | None], Route], answer: object, error: BaseException | None
    ) -> Route | None:
        """Return the route after `on_connect` returned `answer` or failed; None to abort the connection."""
        try:
            verdict = self._client.generation.calls.connect_answer(answer, error)
        except HandlerFailed:
            return None
        if error is None and verdict is answer:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[there] = verdict
        return go_on(verdict)


def refusal(meta: ConnectionMeta, scheme: str, authority: str, status: int, reason: str, counts: FlowCounts | None = None) -> Route:
    """Return the route of requests that are answered with `status`."""
    text = reason.encode("utf-8", "backslashreplace")
    return Route(None, meta, scheme, authority, observed=False, status=status, reason=text, counts=counts)


class ForwardRouter:
    """The router of an `Http1ServerConnection` whose requests name their destinations in absolute-form."""

    __slots__ = ("_answers", "_client")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers = ConnectAnswers(client)

    def __call__(self, scheme: str | None, authority: bytes) -> Route:
        """Return the route of requests that name `authority`; asked by the exchange when that changes."""
        client = self._client
        text = authority.decode("latin-1")
        form = "origin" if scheme is None else "absolute"
        if scheme is None and not isinstance(client.meta.socket_family, UnixDomain):
            explanation = "this is a proxy: send the whole URL in the request line (absolute-form), or CONNECT"
            return self._refused(form, "http", text, explanation)
        scheme = scheme or "http"
        try:
            host, port = parse_authority(text, DEFAULT_PORTS[scheme])
        except ValueError as error:
            return self._refused(form, scheme, text, f"the target `{text}` {error}")
        if client.recording is not None:
            client.recording.named(host, port, form)
        policy = client.generation.policy
        decision = policy.decide(host, port)
        there = _Destination(scheme, host, port)
        if not client.generation.calls.is_asked_to_connect or policy.is_final(decision):
            return self._decided(there, decision, None)
        meta = client.meta.replace(target=(host, port))
        counts = client.generation.flow_counts(host, port)
        return self._answers.route(there, meta, decision, text, counts, partial(self._decided, there, decision))

    def _refused(self, form: str, scheme: str, text: str, explanation: str) -> Route:
        recording = self._client.recording
        if recording is not None:
            recording.named(text, 0, form)
            recording.decided("block", explanation, None, "proxy")
        return refusal(self._client.meta, scheme, text, 400, explanation)

    def _decided(self, there: _Destination, decision: Decision, verdict: ConnectDecision | None) -> Route:
        """Return the route to a destination, by the handler's `verdict`, or, without one, by the policy's `decision`."""
        client = self._client
        scheme, host, port = there
        authority = format_authority(host, port, scheme)
        if verdict is ConnectDecision.TUNNEL:
            verdict = forbidden_tunnel(client, host, port) or verdict
        action = decision.action if verdict is None else verdict.action
        generation = client.generation
        counts = generation.flow_counts(host, port)
        if client.recording is not None:
            reason = decision.reason if verdict is None else verdict.reason
            by = "policy" if verdict is None else "handler"
            client.recording.decided(action.value, reason, generation.policy.pattern(host, port), by)
        if action is Action.BLOCK:
            block = verdict or ConnectDecision.block(decision.text(host, port))
            return refusal(client.meta, scheme, authority, block.status, block.reason, counts)
        meta = client.meta.replace(target=(host, port))
        # no client's handshake says what it speaks: the request is translated
        offer = generation.spoken if scheme == "https" else (HTTP1,)
        pool = generation.pools.pool(generation.origin(host, port, host if scheme == "https" else None, offer))
        return Route(pool, meta, scheme, authority, observed=action is Action.INTERCEPT, on_facts=with_upstream_info, counts=counts)


class InsideRouter:
    """The router of an `Http1ServerConnection` whose requests all go one way, that of `route`: those inside an intercepted connection."""

    __slots__ = ("_answers", "_client", "_is_strict", "_names", "_policy", "_port", "_route", "_target")

    def __init__(self, client: Client, route: Route, host: str, port: int, name: str, is_http2: bool = False) -> None:
        """`name` is what the client's TLS handshake asked for, or `host`. Both were judged already.

        In HTTP/2 a client may send requests for other names over a connection whose certificate covers them, and is told by 421 that it
        may not (RFC 9110 section 15.5.20). Ours has the names of the upstream's certificate in it.
        """
        generation = client.generation
        self._client = client
        self._policy = generation.policy
        is_asked = generation.calls.is_asked_to_connect and generation.policy.checks_names
        self._answers = ConnectAnswers(client) if is_asked else None
        self._route = route
        self._target = (host, port)
        self._port = port
        self._is_strict = is_http2 and generation.config.http2.misdirected == "refuse"
        # a zone is about this machine and in no Host
        self._names = {host, host.partition("%")[0], name}

    def __call__(self, scheme: str | None, authority: bytes) -> Route:
        """Return the route of a request that names `authority`; without one it names the target."""
        route = self._route
        if route.pool is None and not route.observed:
            return route
        text = authority.decode("latin-1")
        other = self._other(text) if authority else None
        objection = None if other is None else self._objection(text, other)
        if objection is not None:
            return Route(None, route.meta, route.scheme, text, observed=False, status=421, reason=objection.encode(), counts=route.counts)
        # what is known of the upstream by now goes with it
        self._route = Route(
            route.pool,
            route.meta,
            route.scheme,
            self._shown(text),
            observed=route.observed,
            status=route.status,
            reason=route.reason,
            facts=route.facts,
            on_facts=route.on_facts,
            counts=route.counts,
        )
        return self._asked(self._route, *other) if isinstance(other, tuple) else self._route

    def _asked(self, allowed: Route, host: str, port: int) -> Route:
        """Return `allowed`, the route of a request that names another destination than its connection, unless `on_connect` refuses it."""
        if self._answers is None:
            return allowed
        decision = self._policy.decide(host, port)
        there = _Destination(allowed.scheme, host, port)
        return self._answers.route(there, self._client.meta, decision, allowed.authority, allowed.counts, partial(self._answered, allowed))

    def _answered(self, allowed: Route, verdict: ConnectDecision | None) -> Route:
        # a TUNNEL changes nothing: this connection is intercepted
        if verdict is None or verdict.action is not Action.BLOCK:
            return allowed
        return refusal(self._client.meta, allowed.scheme, allowed.authority, verdict.status, verdict.reason, allowed.counts)

    def _other(self, text: str) -> tuple[str, int] | ValueError | None:
        """Return what a request names, or why it is no destination; None if that is where the connection goes."""
        try:
            host, port = parse_authority(text, self._port)
        except ValueError as error:
            return error
        return None if port == self._port and host in self._names else (host, port)

    def _objection(self, text: str, other: tuple[str, int] | ValueError) -> str | None:
        target = format_host_port(*self._target)
        if self._is_strict:
            return f"`{text}` is not what this connection is to, {target}; use another connection (http2.misdirected)"
        if isinstance(other, ValueError):
            return f"`{text}` {other}; the connection is to {target} (interception.check_names)" if self._policy.checks_names else None
        host, port = other
        decision = self._policy.objection(host, port)
        if decision is None:
            return None
        return f"{decision.text(host, port)}; the request names it on a connection to {target} (interception.check_names)"

    def _shown(self, text: str) -> str:
        """Return the authority as the handler is shown it: in the one spelling that patterns are compared with."""
        try:
            host, port = parse_authority(text, self._port) if text else self._target
        except ValueError:
            return text
        return format_authority(host, port, self._route.scheme)
