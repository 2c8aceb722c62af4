"""Where a connection came in, as hooks see it: the same for every connection to one address, another for each to all of them."""

from __future__ import annotations

import socket

import pytest

from soth_mitm import TcpV4, TcpV6
from support.recording import Recording
from support.running import ProxyFactory


@pytest.mark.parametrize(
    ("bind", "host", "kind", "local"),
    [
        ("127.0.0.1:0", "127.0.0.1", TcpV4, "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.1", TcpV4, "127.0.0.1"),
        ("[::1]:0", "::1", TcpV6, "::1"),
        ("[::]:0", "::1", TcpV6, "::1"),
    ],
)
def test_both_ends_are_the_sockets_own(proxy: ProxyFactory, bind: str, host: str, kind: type[TcpV4 | TcpV6], local: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    running = proxy(Recording(), bind=bind)
    with socket.create_connection((host, running.port), timeout=10) as client:
        running.handler.wait("on_connection_open")
        (meta,) = running.handler.of("on_connection_open")
        assert meta.socket_family == kind(local=(local, running.port), remote=client.getsockname()[:2])
