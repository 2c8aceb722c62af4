"""What a client may begin with inside a CONNECT to a listed destination, besides TLS and what test_client_failures.py tells of."""

from __future__ import annotations

import socket

import pytest

from support.origin import Origin, ScriptedConnection
from support.running import ProxyFactory


def echo(connection: ScriptedConnection) -> None:
    """Send back what comes, and when the client has ended, a last word."""
    while data := connection.receive():
        connection.send(data)
    connection.send(b"bye")
    connection.close()


TUNNELS = {"interception.unknown_protocol": "tunnel"}


@pytest.mark.parametrize("said", [b"SSH-2.0-client\r\n", b"\x05\x01\x00", b"PING\r\n"])
def test_no_answer_in_http_when_the_origin_is_down(proxy: ProxyFactory, said: bytes) -> None:
    running = proxy(**TUNNELS, **{"upstream.retry_on_failure": False})
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with running.tunnel(bound.getsockname()[1]) as client:
            client.send(said)
            assert client.read_to_end() == b""
    assert running.metrics().upstream_connect_error_count == 1


@pytest.mark.parametrize("keys", [{}, TUNNELS], ids=["block", "tunnel"])
@pytest.mark.parametrize("said", [b"G", b"QUIT", b"\x80", b"\x16", b"\x16\x03\x01", b"\r\n"])
def test_what_may_yet_become_something_goes_nowhere_when_the_client_ends(
    proxy: ProxyFactory, plain_origin: Origin, said: bytes, keys: dict[str, str]
) -> None:
    running = proxy(**keys)
    with running.tunnel(plain_origin.port) as client:
        client.send(said)
        client.end_writing()
        assert client.read_to_end() == b""
    running.handler.wait("on_connection_close")
    assert plain_origin.connections == []


def test_a_word_and_an_end_are_relayed_where_unknown_protocols_are(proxy: ProxyFactory, plain_origin: Origin) -> None:
    plain_origin.script_connections(echo)
    with proxy(**TUNNELS).tunnel(plain_origin.port) as client:
        client.send(b"QUIT\r\n")
        client.end_writing()
        assert client.read_to_end() == b"QUIT\r\nbye"


@pytest.mark.parametrize("keys", [{}, TUNNELS], ids=["block", "tunnel"])
def test_nothing_and_an_end_open_no_connection(proxy: ProxyFactory, plain_origin: Origin, keys: dict[str, str]) -> None:
    running = proxy(**keys)
    with running.tunnel(plain_origin.port) as client:
        client.end_writing()
        assert client.read_to_end() == b""
    running.handler.wait("on_connection_close")
    assert plain_origin.connections == []


@pytest.mark.parametrize("end", [b"SM\r\n\r\r", b"XX\r\n\r\n"])
def test_what_only_begins_like_http2_is_refused(proxy: ProxyFactory, plain_origin: Origin, end: bytes) -> None:
    with proxy().tunnel(plain_origin.port) as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\n" + end)
        client.end_writing()
        assert client.read_answer().status == 400
    assert plain_origin.connections == []
