"""The origin that end-to-end tests talk to must itself be right: what it records, what it answers, when it wakes a test."""

from __future__ import annotations

import asyncio
import datetime
import gc
import hashlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.origin import Origin, ScriptFailedError
from support.origin_answers import pattern

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context around one self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
    pem = (
        builder.add_extension(x509.SubjectAlternativeName(names), False).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path_factory.mktemp("origin") / "pair.pem"
    file.write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.fixture
def origin():
    with Origin() as origin:
        yield origin


@pytest.fixture
def client(origin):
    client = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=10)
    yield client
    client.close()


@pytest.fixture
def raw(origin):
    with socket.create_connection(("127.0.0.1", origin.port), timeout=10) as raw:
        yield raw


def fetch(client: http.client.HTTPConnection, path: str, method: str = "GET", **options) -> tuple[http.client.HTTPResponse, bytes]:
    client.request(method, path, **options)
    response = client.getresponse()
    return response, response.read()


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def test_echo_over_tls(contexts):
    server, trusting = contexts
    with Origin(server) as origin:
        assert origin.url("/a") == f"https://127.0.0.1:{origin.port}/a"
        client = http.client.HTTPSConnection("localhost", origin.port, context=trusting, timeout=10)
        response, body = fetch(client, "/a?b=c", "POST", body=b"hello", headers={"X-Name": "value"})
        echoed = json.loads(body)
        client.close()
        (connection,) = origin.wait_closed(1)
    assert response.status == 200
    assert (echoed["method"], echoed["path"], echoed["body_length"]) == ("POST", "/a?b=c", 5)
    assert echoed["body_sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert ["X-Name", "value"] in echoed["headers"]
    assert connection.tls is not None and connection.tls.version() == "TLSv1.3"
    assert (connection.sni, connection.error) == ("localhost", None)
    assert connection.received.endswith(b"\r\n\r\nhello")


def test_a_failed_handshake_is_an_accepted_connection(contexts):
    with Origin(contexts[0]) as origin:
        with socket.create_connection(("127.0.0.1", origin.port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            (connection,) = origin.wait_closed(1)
    assert isinstance(connection.error, ssl.SSLError)
    assert connection.received == b"" and origin.requests == []


def test_requests_are_recorded_to_the_byte(origin, raw):
    head = b"POST /x?q=1 HTTP/1.1\r\nhOST:  x \r\nA: 1\r\nA: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n"
    raw.sendall(head + body)
    (request,) = origin.wait_requests(1)
    assert (request.raw_head, bytes(request.raw_body), bytes(request.body)) == (head, body, b"hello")
    assert (request.path, request.query, request.get("a")) == ("/x", {"q": "1"}, "1, 2")
    assert request.headers[0] == ("hOST", "x")
    assert request.trailers == [("X-Trailer", "t")]
    assert origin.connections[0].received == head + body


def test_pipelined_requests_are_answered_in_order(origin, raw):
    raw.sendall(GET % b"/status/201" + GET % b"/bytes/3" + b"GET /status/404 HTTP/1.1\r\nConnection: close\r\n\r\n")
    answer = read_all(raw)
    assert [line for line in answer.split(b"\r\n") if b"HTTP/1.1" in line] == [
        b"HTTP/1.1 201 Created",
        b"201\nHTTP/1.1 200 OK",
        b"\x00\x01\x02HTTP/1.1 404 Not Found",
    ]
    assert [request.connection_index for request in origin.wait_requests(3)] == [0, 0, 0]


def test_keep_alive_and_a_second_connection(origin, client):
    assert json.loads(fetch(client, "/")[1])["connection"] == 0
    assert json.loads(fetch(client, "/")[1])["connection"] == 0
    client.close()
    assert json.loads(fetch(client, "/")[1])["connection"] == 1
    assert len(origin.wait_connections(2)) == 2


@pytest.mark.parametrize("count", [0, 1, 250, 251, 252, 200_000])
def test_bytes(client, count):
    response, body = fetch(client, f"/bytes/{count}")
    assert body == pattern(count) and len(body) == count
    assert response.getheader("Content-Length") == str(count)


def test_chunked(origin, client, raw):
    response, body = fetch(client, "/chunked/1000/7")
    assert body == pattern(1000) and response.getheader("Transfer-Encoding") == "chunked"
    raw.sendall(b"GET /chunked/4/2?trailers HTTP/1.0\r\n\r\n")
    expected = f"2\r\n\0\1\r\n2\r\n\2\3\r\n0\r\nX-Sha256: {hashlib.sha256(pattern(4)).hexdigest()}\r\n\r\n"
    assert read_all(raw).partition(b"\r\n\r\n")[2] == expected.encode()


def test_close_delimited(origin, client, contexts):
    response, body = fetch(client, "/close/100000")
    assert body == pattern(100_000) and response.getheader("Content-Length") is None
    assert origin.wait_closed(1)[0].error is None


def test_sse(client):
    response, body = fetch(client, "/sse/3/0")
    assert response.getheader("Content-Type") == "text/event-stream"
    assert body.split(b"\n\n")[1] == b'id: 1\nevent: tick\ndata: {"number": 1}'
    assert body.count(b"\n\n") == 3


@pytest.mark.parametrize(("status", "body"), [(200, b"200\n"), (204, b""), (304, b""), (418, b"418\n"), (599, b"599\n")])
def test_status(client, status, body):
    response, received = fetch(client, f"/status/{status}")
    assert (response.status, received) == (status, body)
    assert fetch(client, "/status/200")[1] == b"200\n", "the connection goes on"


def test_slow(client):
    start = time.monotonic()
    assert fetch(client, "/slow/50")[0].status == 200
    assert time.monotonic() - start >= 0.05


def test_interim(raw):
    raw.sendall(b"GET /interim HTTP/1.1\r\nConnection: close\r\n\r\n")
    answer = read_all(raw)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: ")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in answer


def test_expect_continue(origin, raw):
    raw.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not origin.requests[0].complete
    raw.sendall(b"ok")
    assert bytes(origin.wait_requests(1)[0].body) == b"ok"


def test_cut(client):
    client.request("GET", "/cut/1000")
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.getresponse().read()
    assert caught.value.partial == pattern(500)


def test_reset(raw):
    raw.sendall(GET % b"/reset")
    with pytest.raises(ConnectionResetError):
        read_all(raw)


def test_reset_below_tls(contexts):
    # The ssl module's own sockets report a reset as end-of-file, so TLS is done beside the socket here.
    with Origin(contexts[0]) as origin, socket.create_connection(("127.0.0.1", origin.port), timeout=10) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
        while tls.version() is None or outgoing.pending:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
            else:
                raw.sendall(outgoing.read())
        tls.write(GET % b"/reset")
        raw.sendall(outgoing.read())
        with pytest.raises(ConnectionResetError):
            read_all(raw)


def test_early_answers_before_the_upload_and_reads_it_then(origin, raw):
    raw.sendall(b"POST /early HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
    assert raw.recv(1000).endswith(b"early\n")
    assert not origin.requests[0].complete
    raw.sendall(b"hello" + GET % b"/status/204")
    assert bytes(origin.wait_requests(2)[0].body) == b"hello"


def test_head_has_no_body(raw):
    raw.sendall(b"HEAD /bytes/9 HTTP/1.1\r\n\r\nHEAD /close/9 HTTP/1.1\r\n\r\n")
    answer = read_all(raw)
    assert b"Content-Length: 9\r\n\r\nHTTP/1.1 200" in answer and answer.endswith(b"Connection: close\r\n\r\n")


@pytest.mark.parametrize("path", ["/bytes", "/bytes/x", "/bytes/1/2", "/nothing", "/"])
def test_what_is_not_known_is_echoed(client, path):
    assert json.loads(fetch(client, path)[1])["path"] == path


def test_a_script_sends_what_it_likes_and_waits_for_the_test(origin, raw):
    go_on = threading.Event()

    def script(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        connection.wait(go_on)
        connection.send(b" way.")
        connection.close()

    origin.script(script, "/scripted")
    raw.sendall(GET % b"/scripted")
    assert raw.recv(1000).endswith(b"half")
    go_on.set()
    assert read_all(raw) == b" way."


def test_a_script_reads_the_body_and_leaves_the_connection_open(origin, client):
    origin.script(
        lambda connection, request: connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + connection.read_body()[::-1])
    )
    assert fetch(client, "/a", "POST", body=b"abc")[1] == b"cba"
    assert fetch(client, "/b", "POST", body=b"xyz")[1] == b"zyx"
    assert len(origin.connections) == 1


def test_a_connection_script_speaks_no_http(origin):
    def script(connection):
        connection.send(b"hello\n")
        assert connection.receive_exactly(3) == b"abc"
        connection.half_close()
        assert connection.receive() == b"more"
        assert connection.receive() == b""

    origin.script_connections(script)
    with socket.create_connection(("127.0.0.1", origin.port), timeout=10) as raw:
        raw.sendall(b"abc")
        assert read_all(raw) == b"hello\n"
        raw.sendall(b"more")
        raw.shutdown(socket.SHUT_WR)
        (connection,) = origin.wait_closed(1)
    assert (connection.received, connection.error) == (b"abcmore", None)


def test_a_script_resets(origin, raw):
    origin.script(lambda connection, request: connection.reset())
    raw.sendall(GET % b"/")
    with pytest.raises(ConnectionResetError):
        read_all(raw)


def test_a_script_that_fails_fails_the_test():
    def script(connection, request):
        raise KeyError("wrong script")

    with pytest.raises(ScriptFailedError, match="wrong script"):
        with Origin() as origin, socket.create_connection(("127.0.0.1", origin.port), timeout=10) as raw:
            origin.script(script)
            raw.sendall(GET % b"/")
            assert read_all(raw) == b""
    assert isinstance(origin.connections[0].error, ScriptFailedError)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"GET / HT",
    ],
)
def test_what_is_not_http_is_kept_as_the_error(origin, raw, data):
    raw.sendall(data)
    raw.shutdown(socket.SHUT_WR)
    (connection,) = origin.wait_closed(1)
    assert connection.error is not None
    assert connection.received == data[: len(connection.received)] and connection.received


def test_what_is_kept_is_bounded():
    with Origin(keep=100) as origin:
        client = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=10)
        echoed = json.loads(fetch(client, "/", "POST", body=pattern(100_000))[1])
        client.close()
    (request,) = origin.requests
    assert echoed["body_length"] == 100_000 and echoed["body_sha256"] == hashlib.sha256(pattern(100_000)).hexdigest()
    assert (bytes(request.body), len(origin.connections[0].received)) == (pattern(100), 100)


def test_a_wait_says_what_it_waited_for(origin):
    with pytest.raises(TimeoutError, match="0 of 1 accepted connections after 0.01 s"):
        origin.wait_connections(1, timeout=0.01)


def test_leaving_ends_everything_that_is_open(contexts):
    before = threading.active_count()
    with Origin(contexts[0]) as origin, socket.create_connection(("127.0.0.1", origin.port), timeout=10) as half_open:
        plain = socket.create_connection(("127.0.0.1", origin.port), timeout=10)
        with contexts[1].wrap_socket(plain, server_hostname="localhost") as waiting:
            origin.script(lambda connection, request: connection.receive())
            waiting.sendall(GET % b"/")
            origin.wait_requests(1)
            origin.close()
            assert half_open.recv(1) == b""
    assert threading.active_count() == before
    assert all(connection.closed.is_set() for connection in origin.connections)


def test_leaving_right_after_a_handshake_leaves_nothing_open(contexts):
    """Else a later test would be blamed for what the collector finds."""
    for _ in range(30):
        with Origin(contexts[0], host="localhost") as origin:
            plain = socket.create_connection(("localhost", origin.port), timeout=10)
            client = contexts[1].wrap_socket(plain, server_hostname="localhost")
        client.close()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    assert [str(warning.message) for warning in found] == []


def test_leaving_while_a_client_does_not_answer_our_goodbye_leaves_nothing_open(contexts):
    server, trusting = contexts
    accepted = []

    def leave(connection, request):
        accepted.append(connection.connection.writer.get_extra_info("socket"))
        connection.close()

    with Origin(server) as origin:
        origin.script(leave)
        with trusting.wrap_socket(socket.create_connection(("127.0.0.1", origin.port)), server_hostname="localhost") as client:
            client.sendall(GET % b"/")
            # our close_notify, to which nothing is said
            assert client.recv(1) == b""
            for _ in range(5):
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), origin.loop).result()
            (connection,) = origin.connections
            assert not connection.closed.is_set()
            origin.close()
            assert accepted[0].fileno() == -1


def test_ipv6():
    with Origin(host="::1") as origin, socket.create_connection(("::1", origin.port), timeout=10) as raw:
        assert origin.url() == f"http://[::1]:{origin.port}/"
        raw.sendall(GET % b"/status/200")
        assert raw.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
