"""Where a request goes that a handler sends elsewhere (`HandlerDecision.forward(to=...)`).

It is judged before anything is resolved or dialled.
"""

from collections.abc import Callable
from typing import cast

from soth_mitm._dataplane.exchange.route import Route
from soth_mitm.addresses import DEFAULT_PORTS, format_host_port, is_loopback, parse_authority
from soth_mitm.decision import Redirect
from soth_mitm.policy import Action, Policy
from soth_mitm.proxy.alpn import HTTP1
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.own_address import OwnAddress
from soth_mitm.proxy.tls_info import with_upstream_info
from soth_mitm.proxy.upstream_pools import UpstreamPools


class Redirects:
    """What is decided about redirects under one configuration."""

    def __init__(
        self,
        policy: Policy,
        pools: UpstreamPools,
        origin: Callable[..., Origin],
        own_by_name: Callable[[str, int], OwnAddress | None],
        spoken: tuple[str, ...],
        is_strict: bool,
    ) -> None:
        self._policy = policy
        self._pools = pools
        self._origin = origin
        self._own_by_name = own_by_name
        self._spoken = spoken
        self._is_strict = is_strict

    def route(self, route: Route, to: Redirect, is_multiplexed: bool) -> Route:
        """Return where a request of `route` goes that is sent to `to`; a refusal, with the reason, if it may not go there.

        The key of the pool is the address, the name that the certificate is checked for, and our identity. So a request goes over a
        connection only if that connection was verified for the name in use.
        """
        current = None if route.pool is None else cast(Origin, route.pool.origin)
        authority = to.authority or route.authority
        is_tls = route.scheme == "https" if to.is_tls is None else to.is_tls
        if to.authority is not None:
            host, port = parse_authority(to.authority, DEFAULT_PORTS["https" if is_tls else "http"])
        else:
            # what the request itself names is not what it goes to
            host, port = (current.host, current.port) if current is not None else route.meta.target
        if to.server_name is not None:
            name = to.server_name
        elif to.authority is None and current is not None and current.server_name is not None:
            # what the client's own handshake asked for
            name = current.server_name
        else:
            name = host.partition("%")[0]
        reason = self._objection(to, is_tls, name if is_tls else None, (host, port) if to.authority else None, route.scheme)
        if reason is not None:
            text = f"redirect_denied: {reason}".encode()
            return Route(None, route.meta, route.scheme, authority, observed=False, status=403, reason=text)
        origin = self._origin(to.host, to.port, name if is_tls else None, self._offer(current, is_tls, is_multiplexed), (host, port))
        return Route(self._pools.pool(origin), route.meta, route.scheme, authority, on_facts=with_upstream_info)

    def _offer(self, current: Origin | None, is_tls: bool, is_multiplexed: bool) -> tuple[str, ...]:
        """Return what the upstream is offered: what that of the client was, as far as it says anything about this one."""
        if current is not None and (current.server_name is not None) == is_tls and current.alpn:
            return current.alpn
        return self._spoken if is_tls and is_multiplexed else (HTTP1,)

    def _objection(self, to: Redirect, is_tls: bool, name: str | None, other: tuple[str, int] | None, scheme: str) -> str | None:
        """Return why a request may not go there, None if it may: the policy judges the address, and each name that is used there."""
        decision = self._policy.decide(to.host, to.port)
        if decision.action is Action.BLOCK:
            return decision.text(to.host, to.port)
        names = [] if name is None else [(name, to.port)]
        names += [] if other is None else [other]
        for host, port in names:
            objection = self._policy.objection(host, port)
            if objection is not None:
                return objection.text(host, port)
        where = format_host_port(to.host, to.port)
        own = self._own_by_name(to.host, to.port)
        if own is not None:
            return f"{where} {own.text}"
        if self._is_strict and scheme == "https" and not is_tls and not is_loopback(to.host):
            return f'nothing would be encrypted on the way to {where}, which `preset = "strict"` allows for loopback addresses only'
        return None
