"""Ways to get a request of an intercepted destination past the handler, which blocks everything: none of them gets a byte through.

The origins collude: they take whatever comes, write it down and answer it like the most lenient server there is. Each way says what the
client can read of the reason: a status, a TLS alert, or the end of the connection.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import pytest

from soth_mitm import HandlerDecision
from support import hellos
from support.certs import TestCA
from support.handshakes import client_hello_bytes
from support.leaks import what_remains
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.tap import OK, Journal, Tap, TapConnection
from support.wire_client import WireClient

SECRET = b"Host: localhost\r\nX-Secret: 1\r\n\r\n"
GET = b"GET /secret HTTP/1.1\r\n" + SECRET
GREETING = b"220 ready\r\n"
UNKNOWN_PASSES = {"interception.unknown_protocol": "tunnel"}
CONFIGURATIONS: dict[str, dict[str, object]] = {
    "the default": {},
    "nothing else passes": {"interception.passthrough_unlisted": False, "interception.must_intercept": ["*:*"]},
}
TUNNELLING: dict[str, dict[str, object]] = {
    **CONFIGURATIONS,
    "unknown protocols pass": UNKNOWN_PASSES,
    "refusals are learnt from": {"tls.learn_bypass": True, "tls.bypass_after_failures": 2},
}
# Of the time that such a client may take
SOON = {"timeouts.client_first_bytes_ms": 150, "timeouts.client_tls_handshake_ms": 150, "timeouts.client_head_ms": 150}
ALERT_UNEXPECTED, ALERT_VERSION, ALERT_NAME = 10, 70, 112
BLOCKED, END = 403, b""


@dataclass(frozen=True)
class Http2Status:
    """What a client of HTTP/2 is answered."""

    status: int


Reason = int | bytes | Http2Status


def alert(description: int) -> bytes:
    """Return the fatal alert that the proxy sends in place of a handshake."""
    return bytes((0x15, 3, 1, 0, 2, 2, description))


class Colluder(Tap):
    """An origin that answers whatever comes, and speaks first when it is told to."""

    greeting = b""

    def _accept(self) -> None:
        before = set(self._connections)
        super()._accept()
        for sock in set(self._connections) - before:
            if self.greeting:
                sock.sendall(self.greeting)

    def _answer(self, connection: TapConnection) -> None:
        connection.unread = b""
        connection.send(OK)


class BlockEverything(Recording):
    """A handler that lets nothing through."""

    def __init__(self) -> None:
        super().__init__(decide=lambda _: HandlerDecision.block(BLOCKED, b"no\n"))


@dataclass(frozen=True)
class World:
    """A proxy in front of two origins, one of which speaks TLS."""

    running: Running
    plain: Colluder
    secure: Colluder
    context: ssl.SSLContext
    origin_context: ssl.SSLContext

    def tunnel(self, host: str = HOST) -> WireClient:
        return self.running.tunnel(self.plain.port, host)

    def hello(self, name: str | None = HOST) -> bytes:
        return client_hello_bytes(self.context, name)

    def assert_nothing_came(self) -> None:
        """Every client is gone, and so is what the proxy did for it: an origin was told nothing."""
        self.running.handle.shutdown(10)
        for origin in (self.plain, self.secure):
            origin.settle()
            assert origin.journal.since(0, "plain") == []
        assert self.plain.journal.since(0, "tcp") == []


@pytest.fixture
def origins(origin_ca: TestCA) -> Iterator[tuple[Colluder, Colluder]]:
    with Colluder(Journal()) as plain, Colluder(Journal(), origin_ca.server_context(HOST, "127.0.0.1", "*.example.test")) as secure:
        yield plain, secure


@pytest.fixture
def make_world(proxy: ProxyFactory, origins: tuple[Colluder, Colluder], origin_ca: TestCA) -> Callable[..., World]:
    def make(**keys: object) -> World:
        keys = {"destinations": (f"{HOST}:*", "listed.example.test:*"), **keys}
        running = proxy(BlockEverything(), **keys)
        return World(running, *origins, running.client_context(), origin_ca.client_context())

    return make


def heard(client: WireClient) -> bytes:
    """Return all that the client is told, also where it is cut off."""
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.buffered() or client.socket.recv(1 << 16):
            told += data
    return told


def check_reason(told: bytes, reason: Reason) -> None:
    """The client has read the reason, last of all."""
    if isinstance(reason, int):
        statuses = [int(line.split(b" ")[1]) for line in told.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        assert statuses and statuses[-1] == reason, told
        assert b"OK\r\n" not in told
    elif isinstance(reason, Http2Status):
        events = http2_client().receive_data(told)
        heads = [dict(event.headers) for event in events if isinstance(event, h2.events.ResponseReceived)]
        assert [head[b":status"] for head in heads] == [b"%d" % reason.status], told
    else:
        assert told == reason


def http2_client() -> h2.connection.H2Connection:
    """Return a connection on which one request was said."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
    client.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/secret"), ("x-secret", "1")]
    client.send_headers(1, head, end_stream=True)
    return client


# --- requests, as some server reads them

PLAIN: dict[str, tuple[bytes, Reason]] = {
    "a request": (GET, BLOCKED),
    "a method of 33 characters": (b"A" * 33 + b" /secret HTTP/1.1\r\n" + SECRET, BLOCKED),
    "a method of 300 characters": (b"A" * 300 + b" /secret HTTP/1.1\r\n" + SECRET, BLOCKED),
    "a method like the banner of SSH": (b"SSH-2.0-x /secret HTTP/1.1\r\n" + SECRET, BLOCKED),
    "a method in lower case": (b"get /secret HTTP/1.1\r\n" + SECRET, BLOCKED),
    "a method that is no token": (b"G@T /secret HTTP/1.1\r\n" + SECRET, 400),
    "a method in UTF-8": ("GÉT /secret HTTP/1.1\r\n".encode() + SECRET, 400),
    "a method of high bytes": (b"\xff\xfe /secret HTTP/1.1\r\n" + SECRET, 400),
    "a target of another scheme": (b"GET ws://localhost/secret HTTP/1.1\r\n" + SECRET, 400),
    "a target of no known scheme": (b"GET foo://localhost/secret HTTP/1.1\r\n" + SECRET, 400),
    "a target with half a scheme": (b"GET http:/secret HTTP/1.1\r\n" + SECRET, 400),
    "a target behind an asterisk": (b"GET */secret HTTP/1.1\r\n" + SECRET, 400),
    "a target without a slash": (b"GET secret HTTP/1.1\r\n" + SECRET, 400),
    "a target that begins with a control character": (b"GET \x02/secret HTTP/1.1\r\n" + SECRET, 400),
    "a target that begins with a quotation mark": (b'GET "/secret HTTP/1.1\r\n' + SECRET, 400),
    "no target": (b"GET HTTP/1.1\r\n" + SECRET, 400),
    "two blanks": (b"GET  /secret HTTP/1.1\r\n" + SECRET, 400),
    "a tab": (b"GET\t/secret HTTP/1.1\r\n" + SECRET, 400),
    "a vertical tab": (b"GET\v/secret HTTP/1.1\r\n" + SECRET, 400),
    "a form feed": (b"GET\f/secret HTTP/1.1\r\n" + SECRET, 400),
    "a bare CR": (b"GET\r/secret HTTP/1.1\r\n" + SECRET, 400),
    "300 blanks": (b"GET" + b" " * 300 + b"/secret HTTP/1.1\r\n" + SECRET, 400),
    "an empty line before": (b"\r\n" + GET, BLOCKED),
    "two empty lines before": (b"\r\n\r\n" + GET, 400),
    "a line feed before": (b"\n" + GET, 400),
    "200 empty lines before": (b"\r\n" * 200 + GET, 400),
    "a blank before": (b" " + GET, 400),
    "all kinds of blanks before": (b"\t\v\f \r\n" + GET, 400),
    "lines that end in LF": (GET.replace(b"\r\n", b"\n"), 400),
    "a line of one word before": (b"PING\r\n" + GET, 400),
    "the banner of SSH before": (b"SSH-2.0-client Debian-1\r\n" + GET, 400),
    "the line of the PROXY protocol before": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + GET, 400),
    "a greeting of SOCKS before": (b"\x05\x01\x00" + GET, 400),
    "a NUL before": (b"\x00" + GET, 400),
    "a control character before": (b"\x01" + GET, 400),
    "HTTP/0.9": (b"GET /secret\r\n\r\n", 400),
    "HTTP/1.2": (b"GET /secret HTTP/1.2\r\n" + SECRET, 400),
    "http/1.1": (b"GET /secret http/1.1\r\n" + SECRET, 400),
    "HTTP/3.0": (b"GET /secret HTTP/3.0\r\n" + SECRET, 400),
    "HTTP/2": (http2_client().data_to_send(), Http2Status(BLOCKED)),
    "a preface of HTTP/2 with another end": (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n\0\0\0\4\0\0\0\0\0", 400),
    "an upgrade to HTTP/2": (
        b"GET /secret HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + SECRET,
        BLOCKED,
    ),
    "an upgrade to TLS": (b"OPTIONS * HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n" + SECRET, BLOCKED),
    "a WebSocket": (b"GET /secret HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + SECRET, BLOCKED),
    "a CONNECT": (b"CONNECT localhost:1 HTTP/1.1\r\n" + SECRET, 501),
    "two lengths of the body": (b"POST /secret HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n" + SECRET, 400),
    "a body that is announced": (b"POST /secret HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n" + SECRET + b"abc", BLOCKED),
    "a head that is too large": (b"GET /secret HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n" + SECRET, 431),
}
# With unknown protocols let through, these are some; a server that understands a request in them is no lenient one, but another protocol
UNKNOWN = {
    "a line of one word before",
    "the banner of SSH before",
    "a greeting of SOCKS before",
    "a NUL before",
    "a control character before",
}
PLAIN_CASES = [
    pytest.param(keys, data, reason, id=f"{way}, {name}")
    for name, keys in TUNNELLING.items()
    for way, (data, reason) in PLAIN.items()
    if keys is not UNKNOWN_PASSES or way not in UNKNOWN
]


@pytest.mark.parametrize(("keys", "data", "reason"), PLAIN_CASES)
def test_requests_inside_connect(make_world: Callable[..., World], keys: dict[str, object], data: bytes, reason: Reason) -> None:
    world = make_world(**keys)
    with world.tunnel() as client:
        client.send(data)
        client.end_writing()
        check_reason(heard(client), reason)
    world.assert_nothing_came()
    assert world.plain.journal.since(0, "accepted") == []
    assert world.running.metrics().tunnel_count == 0


@pytest.mark.parametrize(("data", "reason"), PLAIN.values(), ids=PLAIN)
def test_in_single_bytes(make_world: Callable[..., World], data: bytes, reason: Reason) -> None:
    """In pieces of one byte as far as the first bytes go."""
    world = make_world()
    with world.tunnel() as client:
        with contextlib.suppress(ConnectionError):
            for at in range(min(len(data), 300)):
                client.send(data[at : at + 1])
            client.send(data[300:])
            client.end_writing()
        check_reason(heard(client), reason)
    world.assert_nothing_came()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"", GET, END),
        (b"G", GET[1:], 408),
        (b"\r\n", GET, 408),
        (b" ", GET, 408),
        (b"SSH-2.0", b"-x /secret HTTP/1.1\r\n" + SECRET, 408),
        (b"GET /secret HTTP/1.1\r\n", SECRET, 408),
        (GET[:-1], GET[-1:], 408),
    ],
    ids=["nothing", "a byte", "an empty line", "a blank", "half a banner", "a line", "all but a byte"],
)
@pytest.mark.parametrize("keys", TUNNELLING.values(), ids=TUNNELLING)
def test_waiting(make_world: Callable[..., World], keys: dict[str, object], before: bytes, after: bytes, reason: Reason) -> None:
    """The client waits until the proxy has had enough, and says the rest then."""
    if keys is UNKNOWN_PASSES and not before:
        pytest.skip("TestSilence is about that")
    world = make_world(**keys, **SOON)
    with world.tunnel() as client:
        client.send(before)
        told = heard(client)
        with contextlib.suppress(ConnectionError):
            client.send(after)
        check_reason(told, reason)
    world.assert_nothing_came()
    assert world.plain.journal.since(0, "accepted") == []


class TestSilence:
    """Where unknown protocols pass, the upstream of a silent client may speak. The client's own first bytes are examined all the same."""

    KEYS = {**UNKNOWN_PASSES, "timeouts.client_first_bytes_ms": 150}

    @pytest.mark.parametrize("data", [GET, b"\r\n" + GET], ids=["a request", "an empty line before"])
    def test_a_request_when_the_upstream_is_there(self, make_world: Callable[..., World], data: bytes) -> None:
        world = make_world(**{**self.KEYS, "timeouts.client_first_bytes_ms": 1500})
        with world.tunnel() as client:
            world.plain.journal.wait(0, "accepted")
            client.send(data)
            client.end_writing()
            check_reason(heard(client), BLOCKED)
        world.assert_nothing_came()

    def test_tls_when_the_upstream_is_there(self, make_world: Callable[..., World]) -> None:
        world = make_world(**{**self.KEYS, "timeouts.client_first_bytes_ms": 1500})
        with world.running.tunnel(world.secure.port) as client:
            world.secure.journal.wait(0, "accepted")
            client.start_tls(world.context)
            client.send(GET)
            assert client.read_answer().status == BLOCKED
        world.assert_nothing_came()

    @pytest.mark.parametrize(
        "data", [GET, b"HELO secret\r\n", b"\r\n" + GET, b"\v" + GET], ids=["a request", "a word", "a line", "a blank"]
    )
    def test_a_request_when_the_upstream_has_spoken(self, make_world: Callable[..., World], data: bytes) -> None:
        world = make_world(**{**self.KEYS, "timeouts.client_first_bytes_ms": 1500})
        world.plain.greeting = GREETING
        with world.tunnel() as client:
            assert client.read_exactly(len(GREETING)) == GREETING
            client.send(data)
            client.end_writing()
            check_reason(heard(client), 400)
        world.assert_nothing_came()

    def test_tls_when_the_upstream_has_spoken(self, make_world: Callable[..., World]) -> None:
        world = make_world(**{**self.KEYS, "timeouts.client_first_bytes_ms": 1500})
        world.plain.greeting = GREETING
        with world.tunnel() as client:
            assert client.read_exactly(len(GREETING)) == GREETING
            client.send(world.hello())
            check_reason(heard(client), alert(ALERT_UNEXPECTED))
        world.assert_nothing_came()

    @pytest.mark.parametrize(
        "begun", [b"", b"G", b"\x16\x03\x01", b"\x80", b"\r\n"], ids=["nothing", "a byte", "TLS", "SSLv2", "an empty line"]
    )
    def test_waiting_again(self, make_world: Callable[..., World], begun: bytes) -> None:
        world = make_world(**{**self.KEYS, "timeouts.client_tls_handshake_ms": 150, "timeouts.client_first_bytes_ms": 500})
        world.plain.greeting = GREETING
        with world.tunnel() as client:
            assert client.read_exactly(len(GREETING)) == GREETING
            client.send(begun)
            told = heard(client)
            check_reason(told, 408 if begun in (b"G", b"\r\n") else END)
            with contextlib.suppress(ConnectionError):
                client.send(GET)
        world.assert_nothing_came()

    @pytest.mark.parametrize("keys", [{}, UNKNOWN_PASSES], ids=["block", "tunnel"])
    def test_silent_clients_do_not_fill_the_proxy(self, make_world: Callable[..., World], keys: dict[str, object]) -> None:
        world = make_world(**{**self.KEYS, **keys, "max_concurrent_flows": 4})
        silent = [world.tunnel() for _ in range(4)]
        with world.running.client() as client:
            assert client.connect(f"{HOST}:{world.plain.port}").status == 503
        assert not what_remains(lambda: dict.fromkeys(range(world.running.metrics().active_connections)))
        with world.tunnel() as client:
            client.send(GET)
            assert client.read_answer().status == BLOCKED
        for each in silent:
            each.close()
        world.assert_nothing_came()


# --- TLS, as some server reads it


def one_byte_records(hello: bytes) -> bytes:
    return hellos.records(hello[5:], 1)


TLS: dict[str, tuple[Callable[[bytes], bytes], Reason]] = {
    "records of version 2.1": (lambda hello: b"\x16\x02\x01" + hello[3:], alert(ALERT_VERSION)),
    "records of version 0.1": (lambda hello: b"\x16\x00\x01" + hello[3:], alert(ALERT_VERSION)),
    "records of version 15.3": (lambda hello: b"\x16\x0f\x03" + hello[3:], alert(ALERT_VERSION)),
    "records of version 255.3": (lambda hello: b"\x16\xff\x03" + hello[3:], alert(ALERT_VERSION)),
    "a warning before": (lambda hello: b"\x15\x03\x01\x00\x02\x01\x5a" + hello, alert(ALERT_UNEXPECTED)),
    "a fatal alert before": (lambda hello: b"\x15\x03\x01\x00\x02\x02\x28" + hello, alert(ALERT_UNEXPECTED)),
    "a change of ciphers before": (lambda hello: b"\x14\x03\x03\x00\x01\x01" + hello, alert(ALERT_UNEXPECTED)),
    "application data before": (lambda hello: b"\x17\x03\x03\x00\x01x" + hello, alert(ALERT_UNEXPECTED)),
    "an empty record before": (lambda hello: b"\x16\x03\x01\x00\x00" + hello, alert(ALERT_UNEXPECTED)),
    "another message before": (lambda hello: b"\x16\x03\x01\x00\x04\x00\x00\x00\x00" + hello, alert(ALERT_UNEXPECTED)),
    "a hello of SSLv2 before": (lambda hello: b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + hello, alert(ALERT_VERSION)),
    "a hello cut short": (lambda hello: hello[:-1], END),
    "a hello that lies about a length": (lambda hello: hello[:43] + b"\xff" + hello[44:], alert(50)),
}
TLS_CASES = [
    pytest.param(keys, disguise, reason, id=f"{way}, {name}")
    for name, keys in TUNNELLING.items()
    for way, (disguise, reason) in TLS.items()
]


@pytest.mark.parametrize(("keys", "disguise", "reason"), TLS_CASES)
def test_tls_that_we_do_not_speak(
    make_world: Callable[..., World], keys: dict[str, object], disguise: Callable[[bytes], bytes], reason: Reason
) -> None:
    world = make_world(**keys)
    with world.tunnel() as client:
        client.send(disguise(world.hello()))
        client.end_writing()
        check_reason(heard(client), reason)
    world.assert_nothing_came()
    assert world.plain.journal.since(0, "accepted") == []


@pytest.mark.parametrize("size", [1, 7, 16384])
@pytest.mark.parametrize("pieces", [1, 100])
def test_a_hello_in_many_records_and_segments_is_answered(make_world: Callable[..., World], size: int, pieces: int) -> None:
    """Not by the origin, which gets none of them."""
    world = make_world()
    with world.running.tunnel(world.secure.port) as client:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = world.context.wrap_bio(incoming, outgoing, server_hostname=HOST)
        first = True
        while True:
            try:
                engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                said = outgoing.read()
                if first:
                    said = hellos.records(said[5:], size)
                    assert size > 1 or len(said) >= 6 * 512
                    first = False
                step = max(1, len(said) // pieces)
                for at in range(0, len(said), step):
                    client.send(said[at : at + step])
                incoming.write(client.socket.recv(1 << 16))
        client.send(outgoing.read())
        engine.write(GET)
        client.send(outgoing.read())
        told = b""
        while b"no\n" not in told:
            try:
                told += engine.read()
            except ssl.SSLWantReadError:
                incoming.write(client.socket.recv(1 << 16))
        assert told.startswith(b"HTTP/1.1 403 ")
    world.assert_nothing_came()


@pytest.mark.parametrize("name", [HOST, "listed.example.test", "other.example.test", None])
@pytest.mark.parametrize("keys", TUNNELLING.values(), ids=TUNNELLING)
def test_tls_under_any_name(make_world: Callable[..., World], keys: dict[str, object], name: str | None) -> None:
    world = make_world(**keys)
    if name is None:
        world.context.check_hostname = False
    with world.running.tunnel(world.secure.port) as client:
        client.start_tls(world.context, name)
        client.send(GET)
        answer = client.read_answer()
        assert answer.status == BLOCKED
    world.assert_nothing_came()


@dataclass
class Refusals:
    """What a program does that wants to be left alone, three times."""

    world: World
    ended: int = field(default=0)

    def refuse(self) -> None:
        """Not trust our certificate."""
        with self.world.running.tunnel(self.world.secure.port) as client, pytest.raises(ssl.SSLCertVerificationError):
            client.start_tls(self.world.origin_context)

    def leave(self) -> None:
        """Go after the handshake."""
        with self.world.running.tunnel(self.world.secure.port) as client:
            client.start_tls(self.world.context)

    def leave_within(self) -> None:
        """Go when our certificate has come."""
        with self.world.running.tunnel(self.world.secure.port) as client:
            client.send(self.world.hello())
            client.read_exactly(700)

    def offer_imap(self) -> None:
        """Offer a protocol that we do not speak, and go."""
        context = self.world.running.client_context()
        context.set_alpn_protocols(["imap"])
        with self.world.running.tunnel(self.world.secure.port) as client:
            client.start_tls(context)

    def disagree(self) -> None:
        """Have no cipher suite in common."""
        context = self.world.running.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        with self.world.running.tunnel(self.world.secure.port) as client, pytest.raises(ssl.SSLError):
            client.start_tls(context)


NO_ACCUSATIONS = ("offer_imap", "disagree")


@pytest.mark.parametrize(
    ("way", "keys"),
    [
        *((way, keys) for way in ("refuse", "leave", "leave_within", *NO_ACCUSATIONS) for keys in CONFIGURATIONS.values()),
        *((way, TUNNELLING["refusals are learnt from"]) for way in NO_ACCUSATIONS),
        ("refuse", {"tls.learn_bypass": True, "tls.bypass_after_failures": 2, "interception.must_intercept": [f"{HOST}:*"]}),
    ],
)
def test_refusing_our_certificate(
    make_world: Callable[..., World], way: str, keys: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a busy machine is not to decide whether a departure was prompt
    monkeypatch.setattr("soth_mitm.proxy.learning.PROMPT_SECONDS", 60.0)
    world = make_world(**keys)
    for count in (1, 2, 3):
        getattr(Refusals(world), way)()
        world.running.handler.wait("on_connection_close", count)
    with world.running.tunnel(world.secure.port) as client:
        client.start_tls(world.context)
        client.send(GET)
        assert client.read_answer().status == BLOCKED
    assert world.running.metrics().tls_bypassed_connection_count == 0
    world.assert_nothing_came()


# --- by way of another destination


@pytest.mark.parametrize(
    "disguise",
    [
        lambda hello: hello,
        one_byte_records,
        *(TLS[way][0] for way in ("records of version 2.1", "records of version 0.1", "a warning before", "an empty record before")),
        lambda hello: b"\x15\x03\x01\x00\x02\x01\x5a" * 9 + b"\x16\x02\x01\x00\x00" + one_byte_records(hello),
    ],
    ids=["as usual", "512 records", "version 2.1", "version 0.1", "a warning before", "an empty record before", "all of it"],
)
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "when the upstream has spoken"])
def test_the_name_of_a_listed_host_in_a_tunnel_to_another(
    make_world: Callable[..., World], disguise: Callable[[bytes], bytes], waits: bool
) -> None:
    """The address of the host that is listed, for one, is not listed."""
    world = make_world()
    world.plain.greeting = GREETING if waits else b""
    with world.tunnel("127.0.0.1") as client:
        if waits:
            assert client.read_exactly(len(GREETING)) == GREETING
        client.send(disguise(world.hello("listed.example.test")))
        client.end_writing()
        check_reason(heard(client), alert(ALERT_NAME))
    world.assert_nothing_came()
    assert world.running.metrics().refused_name_count == 1


def test_a_listed_name_that_may_be_read_in_two_ways_in_a_tunnel_to_another(make_world: Callable[..., World]) -> None:
    names = b"\x07" + hellos.vector(b"other.example.test", 2) + b"\x00" + hellos.vector(b"listed.example.test", 2)
    world = make_world()
    with world.tunnel("127.0.0.1") as client:
        client.send(hellos.records(hellos.handshake(hellos.hello_body(extensions=[(0, hellos.vector(names, 2))]))))
        check_reason(heard(client), alert(47))
    world.assert_nothing_came()


def test_a_hello_in_a_tunnel_to_another_that_never_ends(make_world: Callable[..., World]) -> None:
    world = make_world(**SOON)
    with world.tunnel("127.0.0.1") as client:
        client.send(world.hello("listed.example.test")[:-1])
        check_reason(heard(client), END)
        with contextlib.suppress(ConnectionError):
            client.send(world.hello()[-1:])
    world.assert_nothing_came()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET http://localhost:PORT/secret HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n", BLOCKED),
        (b"GET HTTP://LOCALHOST.:PORT/secret HTTP/1.1\r\nHost: LOCALHOST.:PORT\r\n\r\n", BLOCKED),
        (b"\r\nGET http://localhost:PORT/secret HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n", BLOCKED),
        (b"GET ws://localhost:PORT/secret HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n", 400),
        (b"GET /secret HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n", 400),
        (b" CONNECT localhost:PORT HTTP/1.1\r\n\r\n" + GET, 400),
        (b"connect localhost:PORT HTTP/1.1\r\n" + SECRET + GET, 400),
        (b"CONNECT http://localhost:PORT/ HTTP/1.1\r\n" + SECRET + GET, 400),
    ],
)
def test_requests_to_the_proxy_itself(make_world: Callable[..., World], data: bytes, status: int) -> None:
    world = make_world()
    with world.running.client() as client:
        client.send(data.replace(b"PORT", b"%d" % world.plain.port))
        client.end_writing()
        told = heard(client)
        assert told.startswith(b"HTTP/1.1 %d " % status), told
    world.assert_nothing_came()
    assert world.plain.journal.since(0, "accepted") == []


def test_there_are_enough_ways() -> None:
    assert len(PLAIN) + len(TLS) >= 40
