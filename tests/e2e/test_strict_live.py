"""`preset = "strict"` at work: what is listed is inspected or refused, what is not is refused, and the client reads why."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from soth_mitm import ConnectDecision
from soth_mitm.config.strict import STRICT
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory

KEYS: dict[str, Any] = {"preset": "strict", **STRICT}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server of this machine that has heard nothing yet."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as sock:
        sock.settimeout(0)
        yield sock


def assert_untouched(listening: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_what_is_listed_is_intercepted(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(**KEYS)
    with running.secured(origin.port) as client:
        assert client.request("/bytes/3", f"{HOST}:{origin.port}").body == pattern(3)
    assert [request.path for request in running.handler.requests] == ["/bytes/3"]


def test_what_is_not_listed_is_blocked(proxy: ProxyFactory, listening: socket.socket) -> None:
    running = proxy(destinations=("localhost:1",), **KEYS)
    port = listening.getsockname()[1]
    with running.client() as client:
        answer = client.connect(f"{HOST}:{port}")
    assert answer.status == 403 and "not listed in interception.destinations" in answer.text
    assert_untouched(listening)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (KEYS, 'which `preset = "strict"` forbids'),
        ({"interception.must_intercept": ["local*:*"]}, "which `local*:*` in interception.must_intercept forbids"),
    ],
    ids=["strict", "must_intercept"],
)
def test_a_tunnel_that_the_handler_asks_for_is_blocked(
    proxy: ProxyFactory, listening: socket.socket, keys: dict[str, Any], words: str
) -> None:
    running = proxy(Recording(intercept=lambda host: False), **keys)
    port = listening.getsockname()[1]
    with running.client() as client:
        answer = client.connect(f"{HOST}:{port}")
    assert answer.status == 403 and f"the handler wants a tunnel to {HOST}:{port}, {words}" in answer.text
    assert_untouched(listening)
    assert running.metrics().tunnel_count == 0


@pytest.mark.parametrize("decision", [ConnectDecision.INTERCEPT, ConnectDecision.TUNNEL])
@pytest.mark.parametrize("listed", ["localhost:*", "localhost:1"], ids=["listed", "unlisted"])
@pytest.mark.parametrize("way", ["connect", "absolute"])
def test_what_on_connect_may_open(proxy: ProxyFactory, plain_origin: Origin, decision: ConnectDecision, listed: str, way: str) -> None:
    """It may have more intercepted than is listed; nothing is tunnelled, and nothing forwarded without `on_request`."""
    handler = Recording()
    handler.on_connect = lambda target: decision  # type: ignore[attr-defined]
    running = proxy(handler, destinations=(listed,), **KEYS)
    authority = f"{HOST}:{plain_origin.port}"
    with running.client() as client:
        answer = client.connect(authority) if way == "connect" else client.request(f"http://{authority}/bytes/3", authority)
        if way == "connect" and answer.status == 200:
            answer = client.request("/bytes/3", authority)
    if decision is ConnectDecision.TUNNEL:
        assert answer.status == 403
        assert f'the handler wants a tunnel to {authority}, which `preset = "strict"` forbids' in answer.text
        assert plain_origin.connections == []
    else:
        assert answer.body == pattern(3)
        assert [request.path for request in running.handler.requests] == ["/bytes/3"]


def test_an_unknown_protocol_is_no_tunnel_where_one_must_intercept(proxy: ProxyFactory, listening: socket.socket) -> None:
    running = proxy(**{"interception.unknown_protocol": "tunnel", "interception.must_intercept": [f"{HOST}:*"]})
    with running.tunnel(listening.getsockname()[1]) as client:
        client.send(b"\x00\x01\x02\x03 neither TLS nor HTTP\r\n")
        answer = client.read_answer()
    assert answer.status == 400 and f"`{HOST}:*` in interception.must_intercept" in answer.text
    assert_untouched(listening)


def test_a_body_that_cannot_be_seen_whole_is_refused(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(**KEYS)
    with running.secured(origin.port) as client:
        answer = client.request("/echo", f"{HOST}:{origin.port}", "POST", b"not gzip", extra="Content-Encoding: gzip\r\n")
    assert answer.status == 415
    assert origin.requests == []
