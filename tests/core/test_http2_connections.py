"""Connections of HTTP/2 on a loop without sockets: what the order of calls within one turn must not spoil."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fuzz.exchanges import HTTP2_CLIENT, HTTP2_CLIENTS, HTTP2_UPSTREAMS, ExchangeScene
from fuzz.operations import from_text, parse


@pytest.fixture
def scene() -> Iterator[ExchangeScene]:
    """Clients and upstreams that speak HTTP/2."""
    scene = ExchangeScene(bytes((0, 0, 0, 0, 0, 0, HTTP2_CLIENT | HTTP2_CLIENTS | HTTP2_UPSTREAMS)))
    with scene.loop:
        yield scene
        scene.wind_down()


def play(scene: ExchangeScene, script: str) -> None:
    """Play what `operations` says."""
    for operation in parse(from_text(script))[1]:
        scene.act(operation)


def test_frames_behind_the_one_that_ends_the_last_stream_of_a_drain(scene: ExchangeScene) -> None:
    """They lie in the buffer that is being read; closing gives it back."""
    play(scene, "client 0 H1@POST /1")
    scene.clients[0].drain()
    scene.settle()
    client: Any = scene.clients[0]
    assert [last for last, _ in client.http2.heard.goaways] == [2**31 - 1, 1]
    # a reset, and a PING in the same read
    play(scene, "client 0 R1D8\nclient 0 P0@12345678")
    assert client.http2.heard.pongs == [b"12345678"]
    assert client.transport.eof_written and not client.transport.aborted and scene.arena.budget.held == 0


def test_a_connection_that_cannot_write_holds_up_no_other(scene: ExchangeScene) -> None:
    for number in range(3):
        scene.client(number)
    scene.settle()
    clients: list[Any] = scene.clients
    sent = [len(client.http2.heard.pongs) for client in clients]

    def fail(data: bytes) -> None:
        raise RuntimeError("on purpose")

    clients[0].transport.on_write = fail
    for client in clients:
        client.speak(b"P0@12345678", False)
        assert client.transport.pump()
    with pytest.raises(RuntimeError, match="on purpose"):
        scene.loop.run_ready()
    clients[0].transport.on_write = clients[0].hear
    scene.settle()
    assert [len(client.http2.heard.pongs) - before for client, before in zip(clients, sent, strict=True)] == [0, 1, 1]
