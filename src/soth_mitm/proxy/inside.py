"""Requests inside an intercepted connection: what they name, and whether they may name it.

They go where the connection goes, whatever they name. A server may serve other names than that of its address, so what a request names is
judged like a target of its own, by the policy and then by `on_connect`, and it is what the handler is shown.
"""

from collections.abc import Callable

from soth_mitm._dataplane.exchange.flow import Route
from soth_mitm.addresses import format_authority, format_host_port, parse_authority
from soth_mitm.policy import Policy


class InsideRouter:
    """The router of an `Exchange` whose requests all go one way, that of `route`."""

    __slots__ = ("_ask", "_names", "_policy", "_port", "_route", "_target")

    def __init__(
        self, policy: Policy, route: Route, host: str, port: int, name: str, ask: Callable[[Route, str, int], Route] | None = None
    ) -> None:
        """`name` is what the client's TLS handshake asked for, or `host`. Both were judged already.

        `ask` is given the route of a request that names another destination, and the destination, and returns the route to take.
        """
        self._ask = ask
        self._policy = policy
        self._route = route
        self._target = (host, port)
        self._port = port
        # a zone is about this machine and in no Host
        self._names = {host, host.partition("%")[0], name}

    def __call__(self, scheme: str | None, authority: bytes) -> Route:
        """Return the route of a request that names `authority`; without one it names the target."""
        route = self._route
        if route.pool is None and not route.observed:
            return route
        text = authority.decode("latin-1")
        other = self._other(text) if authority else None
        refusal = None if other is None else self._objection(text, other)
        if refusal is not None:
            return Route(None, route.meta, route.scheme, text, observed=False, status=421, reason=refusal.encode())
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
        )
        return self._route if self._ask is None or not isinstance(other, tuple) else self._ask(self._route, *other)

    def _other(self, text: str) -> tuple[str, int] | ValueError | None:
        """Return what a request names, or why it is no destination; None if that is where the connection goes."""
        try:
            host, port = parse_authority(text, self._port)
        except ValueError as error:
            return error
        return None if port == self._port and host in self._names else (host, port)

    def _objection(self, text: str, other: tuple[str, int] | ValueError) -> str | None:
        target = format_host_port(*self._target)
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
