"""The address guard, whichever way a request comes: nothing connects, and the client reads which address and which key."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from support.running import HOST, ProxyFactory

LOOPBACK = {"upstream.denied_addresses": ["loopback"]}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server of this machine that has heard nothing yet."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as sock:
        sock.settimeout(0)
        yield sock


def assert_untouched(listening: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_intercepted(proxy: ProxyFactory, listening: socket.socket) -> None:
    running = proxy(**LOOPBACK)
    port = listening.getsockname()[1]
    with running.secured(port) as client:
        answer = client.request("/x", f"{HOST}:{port}")
    assert answer.status == 403
    assert f"{HOST}:{port}" in answer.text and "is denied by `loopback` in upstream.denied_addresses" in answer.text
    assert_untouched(listening)
    assert running.metrics().denied_address_count == 1
    assert running.metrics().upstream_connect_error_count == 0


def test_forwarded(proxy: ProxyFactory, listening: socket.socket) -> None:
    running = proxy(**LOOPBACK)
    port = listening.getsockname()[1]
    with running.client() as client:
        answer = client.request(f"http://{HOST}:{port}/x", f"{HOST}:{port}")
    assert answer.status == 403 and "is denied by `loopback` in upstream.denied_addresses" in answer.text
    assert_untouched(listening)


def test_tunnelled(proxy: ProxyFactory, listening: socket.socket) -> None:
    running = proxy(destinations=("other.test:443",), **LOOPBACK)
    port = listening.getsockname()[1]
    with running.client() as client:
        answer = client.connect(f"127.0.0.1:{port}")
    assert answer.status == 403 and "the address 127.0.0.1 is denied by `loopback` in upstream.denied_addresses" in answer.text
    assert_untouched(listening)


@pytest.mark.parametrize("host", ["169.254.169.254", "[64:ff9b::a9fe:a9fe]", "[::ffff:a9fe:a9fe]"])
def test_metadata_where_unlisted_destinations_are_blocked(proxy: ProxyFactory, host: str) -> None:
    """Listed by a pattern that is wider than its owner thought, and refused all the same."""
    running = proxy(destinations=("*:80",), **{"interception.passthrough_unlisted": False})
    with running.client() as client:
        answer = client.request(f"http://{host}/latest/meta-data/", host)
    assert answer.status == 403 and "`metadata`, because interception.passthrough_unlisted is false" in answer.text
