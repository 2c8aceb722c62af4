"""What a client may begin with inside a CONNECT to a listed destination, TLS and what is not TLS."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest

from support.handshakes import client_hello_bytes
from support.origin import Origin, ScriptedConnection
from support.running import ProxyFactory

RANDOM = bytes(range(32))
# version 3.1, three ciphers of three bytes, no session id, a challenge (RFC 5246 appendix E.2)
SSLV2_HELLO = struct.pack("!HBHHHH", 0x8000 | (9 + 9 + 32), 1, 0x0301, 9, 0, 32) + b"\0\0\x2f\0\0\x35\0\0\x0a" + RANDOM
MALFORMED = {
    "another message": (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", 10),
    "another record inside": (b"\x16\x03\x01\x00\x04\x01\x00\x00\x40\x17\x03\x01\x00\x01", 10),
    "another version": (b"\x16\x03\x01\x00\x04\x01\x00\x00\x40\x16\x02\x01\x00\x01", 70),
    "too long a record": (b"\x16\x03\x01\xff\xff", 22),
    "too long a message": (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", 50),
    "a length past its end": (b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03" + RANDOM + b"\x00\xff\xff\x00", 50),
}


def echo(connection: ScriptedConnection) -> None:
    """Send back what comes, and when the client has ended, a last word."""
    while data := connection.receive():
        connection.send(data)
    connection.send(b"bye")
    connection.close()


def greet(connection: ScriptedConnection) -> None:
    """Speak first."""
    connection.send(b"220 ready\r\n")
    echo(connection)


OTHERS = {
    "SSLv2-style hello": SSLV2_HELLO,
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "SOCKS": b"\x05\x01\x00",
    "a word": b"EHLO client.test\r\n",
    "binary": b"\x00\x01\x02",
    "0x16 that is no TLS": b"\x16\x01\x00",
}


class TestNoTls:
    @pytest.mark.parametrize("name", OTHERS)
    def test_is_relayed_as_it_is(self, proxy: ProxyFactory, plain_origin: Origin, name: str) -> None:
        plain_origin.script_connections(echo)
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(OTHERS[name])
            assert client.read_exactly(len(OTHERS[name])) == OTHERS[name]
            client.send(b"and more")
            client.end_writing()
            assert client.read_to_end() == b"and morebye"
        running.handler.wait("on_connection_close")
        assert running.handler.of("on_tls_failure") == []
        assert running.metrics().tunnel_count == 1

    @pytest.mark.parametrize("name", OTHERS)
    def test_is_cut_when_asked(self, proxy: ProxyFactory, plain_origin: Origin, name: str) -> None:
        running = proxy(**{"interception.unknown_protocol": "block"})
        with running.tunnel(plain_origin.port) as client:
            client.send(OTHERS[name])
            assert client.read_to_end() == b""
        assert plain_origin.connections == []

    @pytest.mark.parametrize("name", ["SSH", "binary"])
    def test_gets_no_answer_in_http_when_the_origin_is_down(self, proxy: ProxyFactory, name: str) -> None:
        running = proxy(**{"upstream.retry_on_failure": False})
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with running.tunnel(bound.getsockname()[1]) as client:
                client.send(OTHERS[name])
                assert client.read_to_end() == b""
        assert running.metrics().upstream_connect_error_count == 1

    @pytest.mark.parametrize("said", [b"", b"G", b"SSH", b"QUIT", b"\x80\x2e"], ids=["nothing", "a letter", "SSH", "a word", "SSLv2 begun"])
    def test_silence_lets_the_origin_speak_first(self, proxy: ProxyFactory, plain_origin: Origin, said: bytes) -> None:
        plain_origin.script_connections(greet)
        running = proxy(**{"timeouts.client_tls_handshake_ms": 100})
        with running.tunnel(plain_origin.port) as client:
            client.send(said)
            assert client.read_until(b"\r\n") == b"220 ready\r\n"
            client.end_writing()
            assert client.read_to_end() == said + b"bye"
        assert running.handler.of("on_tls_failure") == []

    def test_silence_is_cut_when_asked(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy(**{"timeouts.client_tls_handshake_ms": 100, "interception.unknown_protocol": "block"})
        with running.tunnel(plain_origin.port) as client:
            assert client.read_to_end() == b""
        assert plain_origin.connections == []

    @pytest.mark.parametrize("said", [b"G", b"QUIT", b"\x80"])
    def test_a_few_bytes_and_an_end_are_relayed(self, proxy: ProxyFactory, plain_origin: Origin, said: bytes) -> None:
        plain_origin.script_connections(echo)
        with proxy().tunnel(plain_origin.port) as client:
            client.send(said)
            client.end_writing()
            assert client.read_to_end() == said + b"bye"

    def test_nothing_and_an_end_open_no_connection(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.end_writing()
            assert client.read_to_end() == b""
        running.handler.wait("on_connection_close")
        assert plain_origin.connections == []

    def test_http2_in_the_clear_is_refused(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        with running.tunnel(plain_origin.port) as client:
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert client.read_answer().status == 400
        assert plain_origin.connections == []


class TestBrokenTls:
    @pytest.mark.parametrize("name", MALFORMED)
    def test_a_malformed_hello_gets_an_alert(self, proxy: ProxyFactory, origin: Origin, name: str) -> None:
        running = proxy()
        sent, alert = MALFORMED[name]
        with running.tunnel(origin.port) as client:
            client.send(sent)
            assert client.read_to_end() == bytes((0x15, 3, 1, 0, 2, 2, alert))
        ((host, error),) = running.handler.wait("on_tls_failure")
        assert (host, error.side, error.reason) == ("localhost", "client", "handshake")
        assert running.metrics().tls_client_failure_count == 1
        assert origin.connections == []

    @pytest.mark.parametrize("length", [1, 4, 60])
    def test_a_hello_that_stops_is_cut_in_time(self, proxy: ProxyFactory, origin: Origin, length: int) -> None:
        running = proxy(**{"timeouts.client_tls_handshake_ms": 100})
        with running.tunnel(origin.port) as client:
            client.send(client_hello_bytes(running.client_context(), "localhost")[:length])
            assert client.read_to_end() == b""
        ((host, error),) = running.handler.wait("on_tls_failure")
        assert (host, error.side, error.reason) == ("localhost", "client", "timeout")
        assert origin.connections == []

    @pytest.mark.parametrize("size", [7, 100])
    def test_a_hello_in_many_records_is_understood(self, proxy: ProxyFactory, origin: Origin, size: int) -> None:
        running = proxy()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = running.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
        message = outgoing.read()[5:]
        pieces = [message[at : at + size] for at in range(0, len(message), size)]
        with running.tunnel(origin.port) as client:
            client.send(b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces))
            while True:
                incoming.write(client.socket.recv(1 << 16))
                try:
                    engine.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    continue
            engine.write(b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.send(outgoing.read())
            running.handler.wait("on_response")
        assert running.handler.requests[0].connection_meta.tls_info.sni == "localhost"
