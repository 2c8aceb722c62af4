"""When a decision is taken on an upload that arrives piece by piece, and what the upstream has seen by then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, RawResponse
from support.judge import Judge, Upload
from support.running import ProxyFactory, Running
from support.tap import CONTINUE, OK, WAIT, Journal, Tap, TapConnection
from support.wire_client import WireClient

LIMIT = 1000
CHUNKED = "Transfer-Encoding: chunked\r\n"
# cut where something is complete that can be relayed
STEPS = [b"a;x=1\r\n0123456789\r\n", b"A\r\n01234", b"56789", b"\r\n", b"0\r\nX-End: 1\r\n\r\n"]


def head(fields: str = CHUNKED, decide: str = "allow", method: str = "POST", version: str = "1.1") -> bytes:
    return f"{method} /up HTTP/{version}\r\nHost: localhost\r\nX-Decide: {decide}\r\n{fields}\r\n".encode()


class Upstream:
    """The proxy, its handler and its origin, as one case sees them."""

    def __init__(self, running: Running, tap: Tap, client: WireClient) -> None:
        self.running = running
        self.judge: Judge = running.handler
        self.journal = tap.journal
        self.client = client
        self._tap = tap
        self.mark = self.journal.mark()
        self._before = running.metrics().bytes_from_clients
        self._sent = 0

    def send(self, data: bytes, *, wait: bool = True) -> None:
        """Send, and wait until the proxy has taken it in."""
        self.client.send(data)
        self._sent += len(data)
        if not wait:
            return
        deadline = time.monotonic() + WAIT
        while self.running.metrics().bytes_from_clients < self._before + self._sent:
            assert time.monotonic() < deadline, "the proxy has not taken all of it"

    def asked(self) -> RawRequest:
        """Wait until the handler is asked; return the request."""
        entry = self.journal.wait(self.mark, "asked")[0]
        assert isinstance(entry.value, RawRequest)
        return entry.value

    def assert_not_asked(self) -> None:
        """Assert that neither the handler nor the origin has heard of the request."""
        self.assert_silence()
        assert self.journal.since(self.mark, "asked") == []

    def assert_silence(self) -> None:
        """Assert that the origin has seen nothing since the case began."""
        for _ in range(2):
            self.running.metrics()
        self._tap.assert_silence(self.mark)

    def expect(self, plain: bytes) -> None:
        """Wait until the origin has seen exactly this since the case began."""
        self.journal.wait_plain(self.mark, plain)


Case = Callable[..., Upstream]


@pytest.fixture
def case(proxy: ProxyFactory, tap: Tap) -> Iterator[Case]:
    """Start a proxy and a client with a warm connection: `case(**dotted_keys)`."""
    clients: list[WireClient] = []

    def start(handler: InterceptHandler | None = None, **keys: object) -> Upstream:
        running = proxy(handler or Judge(tap.journal), **{"body.max_size_bytes": LIMIT, **keys})
        client = running.secured(tap.port)
        clients.append(client)
        mark = tap.journal.mark()
        assert client.request("/", "localhost").status == 200
        if isinstance(running.handler, (Judge, Watching)):
            # it hears of the response when its client has it
            tap.journal.wait(mark, "shown")
        return Upstream(running, tap, client)

    yield start
    for client in clients:
        client.close()


def stream_on(upstream: Upstream, sent: bytes, steps: list[bytes]) -> None:
    """Send the steps; each reaches the origin before the next is sent."""
    for step in steps:
        upstream.client.send(step)
        sent += step
        upstream.expect(sent)
    assert upstream.client.read_answer().status == 200


class TestEnforce:
    @pytest.mark.parametrize("decide", ["allow", "suspend"])
    def test_a_body_that_is_collected_goes_upstream_when_it_is_complete(self, case: Case, decide: str) -> None:
        upstream = case()
        for step in [head(decide=decide), *STEPS[:-1]]:
            upstream.send(step)
            upstream.assert_not_asked()
        upstream.client.send(STEPS[-1])
        asked = upstream.asked()
        assert (asked.body, asked.body_complete, asked.trailers.get("x-end")) == (b"0123456789" * 2, True, "1")
        if decide == "suspend":
            upstream.assert_silence()
            upstream.judge.release()
        assert upstream.client.read_answer().status == 200
        upstream.expect(head(decide=decide) + b"".join(STEPS))

    @pytest.mark.parametrize("fields", [CHUNKED, "Content-Length: 30\r\n"])
    def test_what_is_not_buffered_is_decided_on_at_the_head(self, case: Case, fields: str) -> None:
        upstream = case(**{"body.buffer_request_bodies": False})
        steps = STEPS if fields == CHUNKED else [b"0123456789", b"0123456789", b"0123456789"]
        upstream.send(head(fields, "suspend"))
        asked = upstream.asked()
        assert (asked.body, asked.body_complete, asked.body_truncated) == (b"", False, False)
        upstream.client.send(steps[0])
        upstream.assert_silence()
        upstream.judge.release()
        upstream.expect(head(fields, "suspend") + steps[0])
        stream_on(upstream, head(fields, "suspend") + steps[0], steps[1:])
        assert len(upstream.journal.since(upstream.mark, "asked")) == 1

    def test_a_block_at_the_head_does_not_wait_for_the_body(self, case: Case) -> None:
        upstream = case(**{"body.buffer_request_bodies": False})
        upstream.send(head("Content-Length: 5\r\n", "block"))
        answer = upstream.client.read_answer()
        assert (answer.status, answer.get("connection")) == (418, "close")
        assert upstream.client.read_to_end() == b""
        upstream.assert_silence()

    def test_a_client_that_leaves_while_it_is_decided_on(self, case: Case) -> None:
        """An ALLOW that comes too late sends nothing."""
        upstream = case()
        upstream.send(head("Content-Length: 5\r\n", "suspend") + b"hello")
        upstream.asked()
        upstream.client.reset()
        upstream.running.wait_idle("active_flows")
        upstream.judge.release()
        upstream.running.wait_idle()
        upstream.assert_silence()

    def test_the_rest_of_an_upload_that_was_answered_early_arrives(self, case: Case, tap: Tap) -> None:
        """At once, not with the next request on that connection."""
        tap.at_head = lambda connection, head: connection.send(OK)
        upstream = case(**{"body.buffer_request_bodies": False})
        tap.respond = lambda connection, request: None
        upstream.client.send(head("Content-Length: 10\r\n") + b"01234")
        assert upstream.client.read_answer().status == 200
        upstream.client.send(b"56789")
        upstream.expect(head("Content-Length: 10\r\n") + b"0123456789")

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_a_longer_body_is_decided_on_its_first_part(self, case: Case, framing: str) -> None:
        upload = Upload(2500, framing, "suspend")
        upstream = case()
        first, rest = upload.wire[:1700], upload.wire[1700:]
        # of a body of known length no more is taken in than the handler is shown
        upstream.send(first, wait=framing == "chunked")
        asked = upstream.asked()
        assert (asked.body, asked.body_truncated, asked.body_complete) == (upload.content[:LIMIT], True, False)
        upstream.assert_silence()
        upstream.judge.release()
        upstream.expect(first)
        stream_on(upstream, first, [rest[:100], rest[100:]])
        assert len(upstream.journal.since(upstream.mark, "asked")) == 1


class TestTheLimitItself:
    """Of content, and exact wherever the reads were cut."""

    def test_a_chunked_body_that_has_just_reached_it_may_be_complete(self, case: Case) -> None:
        upload = Upload(LIMIT, "chunked", "suspend")
        upstream = case()
        upstream.send(upload.head + b"".join(upload.pieces[:-1]))
        upstream.assert_not_asked()
        upstream.send(upload.pieces[-1])
        asked = upstream.asked()
        assert (asked.body, asked.body_truncated, asked.body_complete) == (upload.content, False, True)
        upstream.judge.release()
        assert upstream.client.read_answer().status == 200
        upstream.expect(upload.wire)

    @pytest.mark.parametrize("overflow", ["stream", "reject"])
    def test_one_byte_more_in_a_later_read(self, case: Case, overflow: str) -> None:
        upload = Upload(LIMIT, "chunked")
        upstream = case(**{"body.overflow": overflow})
        upstream.send(upload.head + b"".join(upload.pieces[:-1]))
        upstream.assert_not_asked()
        upstream.client.send(b"1\r\n!\r\n")
        if overflow == "reject":
            assert upstream.client.read_answer().status == 413
            upstream.assert_not_asked()
            return
        asked = upstream.asked()
        assert (asked.body, asked.body_truncated, asked.body_complete) == (upload.content, True, False)
        upstream.client.send(b"0\r\n\r\n")
        assert upstream.client.read_answer().status == 200
        upstream.expect(upload.wire[:-5] + b"1\r\n!\r\n0\r\n\r\n")

    def test_a_length_that_says_more_is_cut_at_it(self, case: Case) -> None:
        upload = Upload(LIMIT + 1, "length")
        upstream = case()
        upstream.send(upload.wire[:-1])
        asked = upstream.asked()
        assert (asked.body, asked.body_truncated, asked.body_complete) == (upload.content[:LIMIT], True, False)
        stream_on(upstream, upload.wire[:-1], [upload.wire[-1:]])

    def test_a_rejected_body_is_rejected_as_a_whole_when_its_bytes_are_all_there(self, case: Case) -> None:
        """Nothing of it is taken for the next request."""
        upload = Upload(LIMIT + 1, "chunked")
        upstream = case(**{"body.overflow": "reject"})
        upstream.client.send(upload.wire + b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert upstream.client.read_answer().status == 413
        answer = upstream.client.read_answer()
        assert answer.status == 200
        upstream.expect(b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n")


class TestMonitor:
    KEYS = {"intercept_mode": "monitor"}

    @pytest.mark.parametrize("overflow", ["stream", "reject"])
    @pytest.mark.parametrize("size", [20, 2000])
    def test_it_streams_and_the_handler_is_asked_at_the_end(self, case: Case, overflow: str, size: int) -> None:
        upstream = case(**self.KEYS, **{"body.overflow": overflow})
        more = [b"%X\r\n%b\r\n" % (size - 20, bytes(size - 20))] if size > 20 else []
        sent = b""
        for step in [head(decide="block"), *more, *STEPS[:-1]]:
            upstream.client.send(step)
            sent += step
            upstream.expect(sent)
            assert upstream.journal.since(upstream.mark, "asked") == []
        upstream.client.send(STEPS[-1])
        assert upstream.client.read_answer().status == 200
        asked = upstream.asked()
        assert asked.body == (bytes(size - 20) + b"0123456789" * 2)[:LIMIT]
        assert (asked.body_truncated, asked.body_complete, asked.trailers.get("x-end")) == (size > LIMIT, size <= LIMIT, "1")
        assert upstream.running.metrics().ignored_block_count == 1

    @pytest.mark.parametrize(
        ("fields", "buffered"),
        [(CHUNKED, False), (CHUNKED + "Content-Type: application/grpc\r\n", True)],
    )
    def test_it_is_asked_at_the_head_where_nothing_is_copied(self, case: Case, fields: str, buffered: bool) -> None:
        upstream = case(**self.KEYS, **{"body.buffer_request_bodies": buffered})
        upstream.client.send(head(fields))
        asked = upstream.asked()
        assert (asked.body, asked.body_complete, asked.body_truncated) == (b"", False, False)
        upstream.expect(head(fields))
        stream_on(upstream, head(fields), STEPS)
        assert len(upstream.journal.since(upstream.mark, "asked")) == 1

    @pytest.mark.parametrize("decide", ["allow", "suspend"])
    def test_an_early_answer_is_shown_after_the_request(self, case: Case, tap: Tap, decide: str) -> None:
        """The client is answered while it uploads, and neither hook of it is out of its order."""
        tap.at_head = lambda connection, head: connection.send(OK)
        upstream = case(**self.KEYS)
        tap.respond = lambda connection, request: None
        upstream.client.send(head("Content-Length: 10\r\n", decide) + b"01234")
        assert upstream.client.read_answer().status == 200
        asked = upstream.asked()
        upstream.judge.release()
        (shown,) = upstream.journal.wait(upstream.mark, "shown")
        assert [entry.kind for entry in upstream.journal.since(upstream.mark, "asked", "shown")] == ["asked", "shown"]
        assert shown.value.request is asked
        assert b"01234".startswith(asked.body) and not asked.body_complete
        upstream.client.send(b"56789")
        upstream.expect(head("Content-Length: 10\r\n", decide) + b"0123456789")

    def test_a_request_that_no_upstream_takes_is_shown(self, proxy: ProxyFactory, journal: Journal) -> None:
        with Tap(journal) as gone:
            port = gone.port
        running = proxy(Judge(journal), **self.KEYS)
        with running.client() as client:
            assert client.request(f"http://localhost:{port}/", f"localhost:{port}").status == 502
        (asked,) = journal.wait(0, "asked")
        assert asked.value.url == f"http://localhost:{port}/"

    def test_a_request_whose_client_vanishes_is_shown(self, case: Case) -> None:
        upstream = case(**self.KEYS)
        upstream.client.send(head("Content-Length: 10\r\n") + b"01234")
        upstream.expect(head("Content-Length: 10\r\n") + b"01234")
        upstream.client.reset()
        asked = upstream.asked()
        assert (asked.body, asked.body_complete) == (b"01234", False)

    def test_an_answer_that_is_no_decision_is_counted(self, proxy: ProxyFactory, tap: Tap) -> None:
        class Confused(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                return "block"  # type: ignore[return-value]

        running = proxy(Confused(), **self.KEYS)
        with running.secured(tap.port) as client:
            assert client.request("/", "localhost").status == 200
        assert running.metrics().handler_panic_count == 1


class TestConversations:
    """Never held, whatever the keys say."""

    @pytest.mark.parametrize("kind", ["application/grpc", "application/GRPC+proto; a=b"])
    @pytest.mark.parametrize("decide", ["suspend", "block"])
    def test_they_are_decided_on_at_the_head(self, case: Case, kind: str, decide: str) -> None:
        fields = f"{CHUNKED}Content-Type: {kind}\r\n"
        upstream = case(**{"body.overflow": "reject"})
        upstream.client.send(head(fields, decide))
        asked = upstream.asked()
        assert (asked.body, asked.body_complete, asked.body_truncated) == (b"", False, False)
        if decide == "block":
            assert upstream.client.read_answer().status == 418
            upstream.assert_silence()
            return
        upstream.assert_silence()
        upstream.judge.release()
        upstream.expect(head(fields, decide))
        long = b"7D0\r\n%b\r\n" % bytes(2000)
        stream_on(upstream, head(fields, decide), [long, *STEPS])


class Watching(InterceptHandler):
    """Overrides on_response only."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_response(self, response: RawResponse) -> None:
        self.journal.note("shown", response)


class TestWithoutOnRequest:
    """Nothing waits, and nothing is refused for its length."""

    @pytest.mark.parametrize("mode", ["enforce", "monitor"])
    def test_it_streams_and_the_response_knows_the_body(self, case: Case, journal: Journal, mode: str) -> None:
        upstream = case(Watching(journal), intercept_mode=mode, **{"body.overflow": "reject"})
        upstream.client.send(head())
        upstream.expect(head())
        stream_on(upstream, head(), STEPS)
        request = journal.wait(upstream.mark, "shown")[0].value.request
        assert (request.body, request.body_complete, request.trailers.get("x-end")) == (b"0123456789" * 2, True, "1")

    def test_the_copy_is_bounded(self, case: Case, journal: Journal) -> None:
        upload = Upload(2500, "length")
        upstream = case(Watching(journal), **{"body.overflow": "reject"})
        stream_on(upstream, b"", [upload.wire])
        request = journal.wait(upstream.mark, "shown")[0].value.request
        assert (request.body, request.body_complete, request.body_truncated) == (upload.content[:LIMIT], False, True)

    def test_no_copy_is_kept_where_none_is_asked_for(self, case: Case, journal: Journal) -> None:
        upload = Upload(10, "length")
        upstream = case(Watching(journal), **{"body.buffer_request_bodies": False})
        stream_on(upstream, b"", [upload.wire])
        request = journal.wait(upstream.mark, "shown")[0].value.request
        assert (request.body, request.body_complete, request.body_problem) == (b"", False, "conversation")


class TestABodyThatIsLate:
    KEYS = {"body.buffer_timeout_ms": 30}

    @pytest.mark.parametrize("fields", [CHUNKED, "Content-Length: 26\r\n"])
    def test_it_is_decided_on_as_it_is(self, case: Case, fields: str) -> None:
        upstream = case(**self.KEYS)
        steps = STEPS if fields == CHUNKED else [b"0123456789", b"0123456789012345"]
        upstream.client.send(head(fields, "suspend") + steps[0])
        asked = upstream.asked()
        assert (asked.body, asked.body_complete, asked.body_truncated) == (b"0123456789", False, False)
        upstream.assert_silence()
        upstream.judge.release()
        upstream.expect(head(fields, "suspend") + steps[0])
        stream_on(upstream, head(fields, "suspend") + steps[0], steps[1:])

    def test_it_is_rejected_all_the_same_when_it_turns_out_too_long(self, case: Case) -> None:
        """Waiting is no way past body.overflow: what is over the limit does not reach the upstream."""
        upload = Upload(LIMIT + 1, "chunked")
        first = upload.head + b"".join(upload.pieces[:-2])
        upstream = case(**self.KEYS, **{"body.overflow": "reject"})
        upstream.client.send(first)
        upstream.expect(first)
        upstream.client.send(b"".join(upload.pieces[-2:]))
        assert upstream.client.read_answer().status == 413
        upstream.journal.wait(upstream.mark, "ended")
        upstream.expect(first)


def test_a_request_that_was_streamed_on_is_not_sent_again(case: Case, tap: Tap) -> None:
    """Its first part is all that was kept; half a request must not be sent as if it were one."""

    def leave(connection: TapConnection, request: bytes) -> None:
        connection.close()

    upload = Upload(2500, "length")
    upstream = case()
    tap.respond = leave
    wire = upload.wire.replace(b"POST", b"PUT")
    upstream.client.send(wire[:1500])
    upstream.asked()
    upstream.client.send(wire[1500:])
    assert upstream.client.read_answer().status == 502
    upstream.expect(wire)
    assert upstream.running.metrics().retry_count == 0


class TestExpectContinue:
    FIELDS = "Content-Length: 5\r\nExpect: 100-Continue\r\n"

    def test_we_answer_when_we_buffer(self, case: Case, tap: Tap) -> None:
        """The client reads one 100, ours, though the upstream sends another."""
        upstream = case()
        tap.respond = lambda connection, request: connection.send(CONTINUE + OK)
        upstream.client.send(head(self.FIELDS, "suspend"))
        assert upstream.client.read_head().status == 100
        upstream.assert_not_asked()
        upstream.client.send(b"hello")
        assert upstream.asked().body == b"hello"
        upstream.assert_silence()
        upstream.judge.release()
        assert upstream.client.read_answer().status == 200
        upstream.expect(head(self.FIELDS, "suspend") + b"hello")

    def test_a_client_that_waits_for_the_upstream_is_decided_on(self, case: Case) -> None:
        """We have said 100; a client that has not heard sends nothing until we have decided on what there is."""
        upstream = case(**{"body.buffer_timeout_ms": 30})
        upstream.client.send(head(self.FIELDS))
        assert upstream.client.read_head().status == 100
        upstream.expect(head(self.FIELDS))
        stream_on(upstream, head(self.FIELDS), [b"hello"])

    @pytest.mark.parametrize("keys", [{"body.buffer_request_bodies": False}, {"intercept_mode": "monitor"}], ids=["unbuffered", "monitor"])
    def test_it_passes_when_we_do_not(self, case: Case, keys: dict[str, object]) -> None:
        upstream = case(**keys)
        upstream.client.send(head(self.FIELDS))
        upstream.expect(head(self.FIELDS))
        assert upstream.client.read_head().status == 100
        stream_on(upstream, head(self.FIELDS), [b"hello"])

    def test_a_block_is_the_answer(self, case: Case) -> None:
        upstream = case(**{"body.buffer_request_bodies": False})
        upstream.client.send(head(self.FIELDS, "block"))
        assert upstream.client.read_answer().status == 418
        upstream.assert_silence()

    @pytest.mark.parametrize("overflow", ["stream", "reject"])
    def test_a_length_over_the_limit(self, case: Case, overflow: str) -> None:
        upload = Upload(2500, "length", extra="Expect: 100-continue\r\n")
        upstream = case(**{"body.overflow": overflow})
        upstream.client.send(upload.head)
        if overflow == "reject":
            assert upstream.client.read_answer().status == 413
            upstream.assert_not_asked()
            return
        assert upstream.client.read_head().status == 100
        upstream.client.send(upload.content)
        assert upstream.client.read_answer().status == 200
        upstream.expect(upload.wire)

    def test_of_http_10_means_nothing(self, case: Case) -> None:
        upstream = case()
        wire = head(self.FIELDS, version="1.0") + b"hello"
        upstream.client.send(wire)
        assert upstream.client.read_answer().status == 200
        # it goes up as a request of our own version, which does not ask either
        upstream.expect(wire.replace(b"HTTP/1.0", b"HTTP/1.1").replace(b"Expect: 100-Continue\r\n", b""))
