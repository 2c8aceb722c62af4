"""A body that stops moving: who is blamed depends on who stopped it."""

import hashlib
import threading
import time

import pytest

from soth_mitm import InterceptHandler
from soth_mitm.proxy import settings
from support.origin import Origin, Request, RequestScript, ScriptedConnection
from support.recording import Recording
from support.running import ProxyFactory
from support.wire_client import WireClient

# More than the kernel's buffers take
BIG = 24 << 20


def deaf(done: threading.Event) -> RequestScript:
    """Return a script that reads a head and nothing behind it until `done` is set."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.wait(done, 20)

    return script


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "streamed"])
def test_upstream_that_does_not_read_is_answered_504(proxy: ProxyFactory, plain_origin: Origin, collected: bool) -> None:
    done = threading.Event()
    plain_origin.script(deaf(done), "/deaf")
    running = proxy(Recording(), **{"timeouts.body_idle_ms": 1000, "body.buffer_request_bodies": collected})
    # without TLS: one thread sends while another reads, and an engine is for one thread
    with running.tunnel(plain_origin.port) as client:
        sending = threading.Thread(target=send_all, args=(client, BIG))
        sending.start()
        answer = client.read_answer()
        # the rest of a streamed upload is read and thrown away
        sending.join()
    assert answer.status == 504
    assert "upstream" in answer.text and "timeouts.body_idle_ms" in answer.text
    metrics = running.metrics()
    assert metrics.upstream_timeout_count == 1
    assert metrics.refused_request_count == 0
    done.set()
    running.wait_idle()


def send_all(client: WireClient, size: int, chunked: bool = False) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    piece = bytes(1 << 20)
    try:
        client.send(b"POST /deaf HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % framing)
        for _ in range(0, size, len(piece)):
            client.send(b"100000\r\n%b\r\n" % piece if chunked else piece)
        if chunked:
            client.send(b"0\r\n\r\n")
    except OSError:
        # answered before all of it was sent
        return


def test_client_that_stops_its_upload_is_answered_408(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Recording(), **{"timeouts.body_idle_ms": 1000, "body.buffer_request_bodies": False})
    with running.secured(origin.port) as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        answer = client.read_answer()
    assert answer.status == 408
    assert "timeouts.body_idle_ms" in answer.text
    metrics = running.metrics()
    assert (metrics.upstream_timeout_count, metrics.refused_request_count) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "sent", "status"),
    [(b"", b"", 504), (b"HTTP/1.1 100 Continue\r\n\r\n", b"", 408), (b"", b"abc", 408)],
    ids=["silent", "asked", "begun"],
)
def test_client_that_waits_for_100_is_not_blamed_for_an_upstream_that_is_silent(
    proxy: ProxyFactory, plain_origin: Origin, answer: bytes, sent: bytes, status: int
) -> None:
    """But once it has been asked for the body, or has begun to send it, it is."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(answer)
        while connection.receive():
            pass

    plain_origin.script(script, "/up")
    running = proxy(Recording(), **{"timeouts.body_idle_ms": 500, "body.buffer_request_bodies": False})
    with running.tunnel(plain_origin.port) as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n" + sent)
        if answer:
            assert client.read_answer().status == 100
        answered = client.read_answer()
        assert (answered.status, answered.get("connection")) == (status, "close") and "timeouts.body_idle_ms" in answered.text
        assert client.read_to_end() == b""
    metrics = running.metrics()
    assert (metrics.upstream_timeout_count, metrics.refused_request_count) == ((1, 0) if status == 504 else (0, 1))


def test_client_that_does_not_read_is_cut_and_the_upstream_not_blamed(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(InterceptHandler(), **{"timeouts.body_idle_ms": 1000})
    with running.secured(origin.port) as client:
        client.send(b"GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % BIG)
        assert client.read_head().status == 200
        deadline = time.monotonic() + 10
        while running.metrics().active_flows and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        metrics = running.metrics()
        assert (metrics.active_flows, metrics.cut_response_count, metrics.upstream_timeout_count) == (0, 1, 0)


def test_upstream_that_answers_before_it_has_read_a_collected_body(
    proxy: ProxyFactory, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has said everything: its connection goes on, whatever the upstream does about the rest."""

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
        connection.wait(done, 20)

    done = threading.Event()
    origin.script(script, "/deaf")
    monkeypatch.setattr(settings, "LINGER_SECONDS", 0.2)
    running = proxy(Recording())
    with running.secured(origin.port) as client:
        send_all(client, BIG)
        assert client.read_answer().status == 413
        assert client.request("/bytes/5", "localhost").status == 200
    assert [request.connection_index for request in origin.requests] == [0, 1]
    done.set()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_upstream_that_answers_first_and_reads_later_gets_the_whole_collected_body(
    proxy: ProxyFactory, origin: Origin, chunked: bool
) -> None:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.wait(answered)
        connection.read_body()

    answered = threading.Event()
    origin.script(script, "/deaf")
    running = proxy(Recording())
    with running.secured(origin.port) as client:
        send_all(client, BIG, chunked)
        assert client.read_answer().status == 200
        answered.set()
        assert client.request("/bytes/5", "localhost").status == 200
    (upload, _) = origin.wait_requests(2)
    assert upload.length == BIG
    assert upload.digest.digest() == hashlib.sha256(bytes(BIG)).digest()
    assert len(origin.connections) == 1
