"""Which protocol is spoken with whom (ALPN).

An upstream is offered what its client offers, as far as we speak it. Then the client is offered what the upstream chose. So neither is
asked for a protocol that it would not have spoken with the other.
"""

from collections.abc import Sequence

from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.tls_info import UpstreamTlsInfo

HTTP2, HTTP1 = "h2", "http/1.1"


def spoken(http2_enabled: bool) -> tuple[str, ...]:
    """Return the protocols that we speak, the better one first."""
    return (HTTP2, HTTP1) if http2_enabled else (HTTP1,)


def upstream_offer(client_offer: Sequence[str], ours: Sequence[str]) -> tuple[str, ...]:
    """Return what an upstream is offered: what its client offers, in its order, of what we speak.

    A client that offers nothing, or nothing of ours, is taken for one that speaks HTTP/1.
    """
    return tuple(dict.fromkeys(protocol for protocol in client_offer if protocol in ours)) or (HTTP1,)


def speaks_http2(origin: Origin, info: UpstreamTlsInfo | None) -> bool:
    """Tell whether a connection to `origin` whose handshake showed `info` speaks HTTP/2. In plain text nothing is negotiated."""
    if origin.server_name is None:
        return origin.alpn == (HTTP2,)
    return info is not None and info.alpn == HTTP2


def preferred(offer: Sequence[str]) -> str:
    """Return the protocol that a client is offered, which offers `offer` itself, when its upstream is not known.

    Servers choose by their own order, and nearly all put HTTP/2 first.
    """
    return HTTP2 if HTTP2 in offer else HTTP1


def client_protocol(offer: Sequence[str], origin: Origin, info: UpstreamTlsInfo | None) -> str:
    """Return the protocol that a client is offered, which offers `offer` itself, when its upstream is known."""
    return HTTP2 if HTTP2 in offer and speaks_http2(origin, info) else HTTP1
