"""Peers that break the protocol, or the connection, at the worst moment; the proxy answers, and goes on serving others."""

import socket
import threading

import pytest

from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import ProxyFactory

UPLOAD = "POST /up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


def test_malformed_upload_while_the_answer_is_awaited(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """The fault is answered 400; nothing is read for an upstream that was dropped."""
    seen = threading.Event()

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.receive(10)
        seen.set()
        assert connection.receive() == b""

    plain_origin.script(script, "/up")
    running = proxy(Recording(), **{"body.buffer_request_bodies": False})
    with running.tunnel(plain_origin.port) as client:
        client.send(UPLOAD.format(host=f"localhost:{plain_origin.port}").encode())
        assert seen.wait(10)
        client.send(b"no size\r\n")
        assert client.read_answer().status == 400
        assert client.read_to_end() == b""
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/bytes/3", "localhost").status == 200


def test_pipelined_requests_before_the_clients_end_are_all_answered(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(Recording())
    with running.tunnel(plain_origin.port) as client:
        client.send(b"".join(b"GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in (1, 2, 3)))
        client.end_writing()
        assert [len(client.read_answer().body) for _ in range(3)] == [1, 2, 3]
        assert client.read_to_end() == b""


def test_end_of_a_client_in_the_middle_of_a_head(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(Recording())
    with running.tunnel(plain_origin.port) as client:
        client.send(b"GET /bytes/1 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /x HTT")
        client.end_writing()
        assert len(client.read_answer().body) == 1
        assert client.read_to_end() == b""


def test_upstream_that_closes_every_connection_at_once(proxy: ProxyFactory, plain_origin: Origin) -> None:
    """A dial that ends in a closed connection is a failure for whoever waits, not a reason to dial for ever."""
    plain_origin.script_connections(lambda connection: connection.close())
    running = proxy(Recording())
    with running.tunnel(plain_origin.port) as client:
        assert client.request("/", "localhost").status == 502
    assert len(plain_origin.connections) < 4


def test_rejected_upload_is_answered_however_much_the_client_still_sends(proxy: ProxyFactory, origin: Origin) -> None:
    """Inside TLS too, the answer arrives before the connection ends, whatever comes in meanwhile."""
    running = proxy(Recording(), **{"body.overflow": "reject", "body.max_size_bytes": 1000})
    with running.secured(origin.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(100):
            client.send(bytes(10000))
        assert client.read_answer().status == 413


def test_host_that_no_resolver_can_be_asked_for(proxy: ProxyFactory) -> None:
    """A label that is too long for DNS is an error of this request, and its connection ends."""
    name = "a" * 64 + ".example"
    running = proxy(Recording(), destinations=("other.example:443",))
    with running.client() as client:
        assert client.connect(f"{name}:443").status in (400, 502)
        assert client.read_to_end() == b""
    running.wait_idle()


def test_upstream_that_leaves_between_connect_and_handshake(proxy: ProxyFactory) -> None:
    """Its FIN is there before anybody asks for TLS, and is not waited for a second time."""
    running = proxy(Recording())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def leave() -> None:
            for _ in range(20):
                listening.accept()[0].close()

        leaving = threading.Thread(target=leave)
        leaving.start()
        for number in range(20):
            with running.secured(port) as client:
                assert client.request("/", "localhost").status == 502
            assert len(running.handler.wait("on_tls_failure", number + 1, timeout=5)) == number + 1
        leaving.join()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /x HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000, 431),
        (b"GET /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_a_later_request_that_is_refused_is_answered(proxy: ProxyFactory, plain_origin: Origin, head: bytes, status: int) -> None:
    """As the first one is: what was answered before does not count."""
    running = proxy(Recording(), max_http_head_bytes=8192)
    with running.tunnel(plain_origin.port) as client:
        client.send(b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n" + head)
        assert client.read_answer().status == 200
        answer = client.read_answer()
        assert (answer.status, answer.get("connection")) == (status, "close")
        assert client.read_to_end() == b""
    running.wait_idle()
    assert running.metrics().cut_response_count == 0
