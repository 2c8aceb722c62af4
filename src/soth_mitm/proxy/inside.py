"""Requests inside an intercepted connection: what they name, and whether they may name it.

They go where the connection goes, whatever they name. A server may serve other names than that of its address, so what a request names is
judged like a target of its own, and it is what the handler is shown.
"""

from soth_mitm._dataplane.flow import Route
from soth_mitm.addresses import format_authority, format_host_port, parse_authority
from soth_mitm.policy import Policy


class InsideRouter:
    """The router of an `Exchange` whose requests all go one way, that of `route`."""

    __slots__ = ("_names", "_policy", "_port", "_route", "_target")

    def __init__(self, policy: Policy, route: Route, host: str, port: int, name: str) -> None:
        """`name` is what the client's TLS handshake asked for, or `host`. Both were judged already."""
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
        if authority:
            refusal = self._objection(text)
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
        return self._route

    def _objection(self, text: str) -> str | None:
        target = format_host_port(*self._target)
        try:
            host, port = parse_authority(text, self._port)
        except ValueError as error:
            if not self._policy.checks_names:
                return None
            return f"`{text}` {error}; the connection is to {target} (interception.check_names)"
        if port == self._port and host in self._names:
            return None
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
