"""What goes wrong, and what the client reads about it. After each of these the proxy serves the next request."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soth_mitm import BindError, CaMaterialError, CaPermissionError, MitmConfig, MitmProxyBuilder
from support.certs import TestCA
from support.origin import Origin, ScriptedConnection
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running
from support.wire_client import Answer


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield listening.getsockname()[1]


def https(running: Running, port: int, host: str = HOST) -> Answer:
    with running.secured(port, host) as client:
        return client.request("/x", f"{host}:{port}")


def still_works(running: Running, origin: Origin) -> None:
    with running.secured(origin.port) as client:
        assert client.request("/bytes/3", f"{HOST}:{origin.port}").body == pattern(3)


class TestUpstream:
    def test_refused(self, proxy: ProxyFactory, origin: Origin, closed_port: int) -> None:
        running = proxy()
        answer = https(running, closed_port)
        assert answer.status == 502
        assert f"cannot connect to localhost:{closed_port}" in answer.text and "refused" in answer.text
        assert running.metrics().upstream_connect_error_count == 1
        still_works(running, origin)

    def test_refused_plain(self, proxy: ProxyFactory, closed_port: int) -> None:
        running = proxy()
        with running.client() as client:
            for _ in range(2):
                answer = client.request(f"http://localhost:{closed_port}/", f"localhost:{closed_port}")
                assert answer.status == 502 and "refused" in answer.text

    def test_refused_in_a_tunnel(self, proxy: ProxyFactory, closed_port: int) -> None:
        with proxy(destinations=("example.test:1",)).client() as client:
            answer = client.connect(f"localhost:{closed_port}")
            assert answer.status == 502 and "refused" in answer.text

    def test_unresolvable(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(destinations=("*:*",))
        answer = https(running, 443, "no-such-host.invalid")
        assert answer.status == 502 and "cannot resolve no-such-host.invalid" in answer.text
        still_works(running, origin)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems answer more connections than the backlog has room for")
    def test_no_answer_to_the_connection(self, proxy: ProxyFactory) -> None:
        running = proxy(**{"upstream.connect_timeout_ms": 100, "upstream.retry_on_failure": False})
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                answer = https(running, port, "127.0.0.1")
        assert answer.status == 504 and "upstream.connect_timeout_ms" in answer.text
        assert running.metrics().upstream_timeout_count == 1

    def test_no_answer_to_the_tls_handshake(self, proxy: ProxyFactory, origin: Origin, silent_port: int) -> None:
        running = proxy(**{"timeouts.upstream_tls_handshake_ms": 100})
        answer = https(running, silent_port)
        assert answer.status == 504 and "timeouts.upstream_tls_handshake_ms" in answer.text
        ((host, error),) = running.handler.wait("on_tls_failure")
        assert (host, error.side, error.reason) == ("localhost", "upstream", "timeout")

    def test_no_answer_to_the_request(self, proxy: ProxyFactory, plain_origin: Origin, silent_port: int) -> None:
        running = proxy(**{"upstream.timeout_ms": 1000})
        with running.client() as client:
            answer = client.request(f"http://localhost:{silent_port}/", f"localhost:{silent_port}")
            assert answer.status == 504 and "upstream.timeout_ms" in answer.text
            assert client.request(plain_origin.url("/bytes/3"), f"localhost:{plain_origin.port}").body == pattern(3)
        assert running.metrics().upstream_timeout_count == 1

    @pytest.mark.parametrize(
        "reply",
        [
            b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
            b"HTTP/1.1 20x OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        ],
        ids=["not-http", "two-lengths", "length-and-chunked", "bad-name", "bad-status", "huge-head"],
    )
    def test_malformed_response(self, proxy: ProxyFactory, origin: Origin, reply: bytes) -> None:
        def misbehave(connection: ScriptedConnection, request: object) -> None:
            connection.send(reply)
            connection.close()

        origin.script(misbehave, "/x")
        running = proxy()
        answer = https(running, origin.port)
        assert answer.status == 502 and "upstream" in answer.text
        still_works(running, origin)

    def test_malformed_body_cuts_the_response(self, proxy: ProxyFactory, origin: Origin) -> None:
        def misbehave(connection: ScriptedConnection, request: object) -> None:
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n")
            connection.close()

        origin.script(misbehave, "/x")
        running = proxy()
        with pytest.raises((OSError, EOFError)):
            https(running, origin.port)
        still_works(running, origin)
        running.wait_idle()
        assert running.metrics().cut_response_count == 1


class TestClient:
    @pytest.mark.parametrize(
        "head",
        [
            b"CONNECT localhost HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"CONNECT localhost:0 HTTP/1.1\r\nHost: localhost:0\r\n\r\n",
            b"CONNECT localhost:99999 HTTP/1.1\r\nHost: localhost:99999\r\n\r\n",
            b"CONNECT http://localhost:1/ HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
            b"CONNECT localhost:1 HTTP/2.0\r\nHost: localhost:1\r\n\r\n",
            b"CONNECT localhost:1\r\n\r\n",
            b"CONNECT localhost:1 HTTP/1.1\r\nHost : localhost:1\r\n\r\n",
            b"CONNECT localhost:1 HTTP/1.1\nHost: localhost:1\n\n",
            b"GET /origin-form HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET http://localhost/ HTTP/1.1\r\n\r\n",
            b"hello, is anybody there?\r\n\r\n",
            b"POST http://localhost/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
        ids=lambda head: head[:60].decode(),
    )
    def test_malformed_heads_are_answered_400(self, proxy: ProxyFactory, origin: Origin, head: bytes) -> None:
        running = proxy()
        with running.client() as client:
            client.send(head)
            answer = client.read_answer()
            assert answer.status == 400, (answer.status, answer.text)
            assert len(answer.text) > 10 and answer.get("content-type") == "text/plain; charset=utf-8"
            # a shell's next prompt stands on a line of its own
            assert answer.text.endswith("\n") and answer.text.count("\n") == 1
        still_works(running, origin)

    @pytest.mark.parametrize("start", [b"CONNECT localhost:1 HTTP/1.1\r\n", b"GET http://localhost:1/ HTTP/1.1\r\n"])
    def test_oversized_heads_are_answered_431(self, proxy: ProxyFactory, origin: Origin, start: bytes) -> None:
        running = proxy(max_http_head_bytes=8192)
        with running.client() as client:
            client.send(start + b"Host: localhost:1\r\nX: " + b"x" * 8192 + b"\r\n\r\n")
            answer = client.read_answer()
            assert answer.status == 431 and "max_http_head_bytes" in answer.text
        still_works(running, origin)

    def test_an_oversized_head_inside_tls(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(max_http_head_bytes=8192)
        with running.secured(origin.port) as client:
            answer = client.request("/x", "localhost", extra="X: " + "x" * 8192 + "\r\n")
            assert answer.status == 431 and "max_http_head_bytes" in answer.text
        still_works(running, origin)

    def test_a_slow_head_is_answered_408(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**{"timeouts.client_head_ms": 300})
        with running.client() as client:
            client.send(b"CONNECT localhost:1 HTTP/1.1\r\nHo")
            answer = client.read_answer()
            assert answer.status == 408 and "timeouts.client_head_ms" in answer.text
        with running.secured(origin.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHo")
            assert client.read_answer().status == 408

    def test_tls_to_the_proxy_port(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with running.client() as client, pytest.raises(ssl.SSLError):
            client.start_tls(running.client_context())
        with running.client() as client:
            client.send(b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4")
            answer = client.read_answer()
            assert answer.status == 400 and "TLS" in answer.text and "http://" in answer.text
        still_works(running, origin)

    def test_socks_to_the_proxy_port(self, proxy: ProxyFactory) -> None:
        with proxy().client() as client:
            client.send(b"\x05\x01\x00")
            answer = client.read_answer()
            assert answer.status == 400 and "SOCKS" in answer.text

    def test_a_client_that_does_not_trust_us(self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> None:
        running = proxy()
        with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLCertVerificationError):
            client.start_tls(origin_ca.client_context())
        ((host, error),) = running.handler.wait("on_tls_failure")
        assert (host, error.side, error.reason) == ("localhost", "client", "unknown_ca")
        running.handler.wait("on_connection_close")
        assert origin.requests == []
        still_works(running, origin)


class TestOurselves:
    def test_connect_to_our_own_address(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        for host in ("127.0.0.1", "localhost"):
            with running.client() as client:
                answer = client.connect(f"{host}:{running.port}")
                assert answer.status == 508 and "this proxy itself" in answer.text
        still_works(running, origin)

    def test_tunnel_to_our_own_address(self, proxy: ProxyFactory) -> None:
        running = proxy(destinations=("example.test:1",))
        with running.client() as client:
            assert client.connect(f"localhost:{running.port}").status == 508

    def test_absolute_form_to_our_own_address(self, proxy: ProxyFactory) -> None:
        running = proxy()
        with running.client() as client:
            answer = client.request(f"http://localhost:{running.port}/", f"localhost:{running.port}")
            assert answer.status == 508 and "this proxy itself" in answer.text


class TestStart:
    def test_a_port_in_use(self, proxy: ProxyFactory) -> None:
        running = proxy()
        with pytest.raises(BindError, match=f"^cannot listen on 127.0.0.1:{running.port}.*choose another `bind`") as caught:
            proxy(bind=f"127.0.0.1:{running.port}")
        assert caught.value.errno == errno.EADDRINUSE

    def test_a_key_that_others_can_read(self, make_config: Callable[..., MitmConfig], proxy: ProxyFactory, tmp_path: Path) -> None:
        proxy().handle.shutdown()
        key = tmp_path / "ca-key.pem"
        assert key.stat().st_mode & 0o777 == 0o600
        key.chmod(0o644)
        with pytest.raises(CaPermissionError, match="ca-key.pem.*chmod"):
            MitmProxyBuilder(make_config()).build().start_in_thread()

    @pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root reads every file")
    def test_a_key_that_we_cannot_read(self, make_config: Callable[..., MitmConfig], proxy: ProxyFactory, tmp_path: Path) -> None:
        proxy().handle.shutdown()
        (tmp_path / "ca-key.pem").chmod(0)
        with pytest.raises(CaPermissionError, match="ca-key.pem"):
            MitmProxyBuilder(make_config()).build().start_in_thread()

    def test_a_pair_that_does_not_match(self, make_config: Callable[..., MitmConfig], tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_bytes(TestCA().cert_pem)
        key = tmp_path / "ca-key.pem"
        key.touch(0o600)
        key.write_bytes(TestCA().key_pem)
        with pytest.raises(CaMaterialError, match="match|belong"):
            MitmProxyBuilder(make_config()).build().start_in_thread()
