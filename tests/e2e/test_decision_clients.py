"""Decisions for clients of HTTP/1.0, and for clients that do not wait for an answer before they send the next request."""

from __future__ import annotations

import pytest

from support.judge import Judge, Upload
from support.running import ProxyFactory, Running
from support.tap import OK, Journal, Tap, TapConnection
from support.wire_client import WireClient

DECISIONS = {"allow": 200, "block": 418, "raise": 502, "suspend": 200, "suspend-block": 418}


def old(decide: str, fields: str = "", body: bytes = b"") -> bytes:
    """Return a request of HTTP/1.0, which need not have a Host."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"POST /old HTTP/1.0\r\nX-Decide: {decide}\r\n{length}{fields}\r\n".encode() + body


def forwarded(tap: Tap, decide: str, body: bytes) -> bytes:
    """Return the request as the upstream is sent it: in HTTP/1.1, which needs a Host."""
    return old(decide, body=body).replace(b" HTTP/1.0\r\n", b" HTTP/1.1\r\nHost: localhost:%d\r\n" % tap.port)


def settle(running: Running, journal: Journal, mark: int, decide: str) -> None:
    """Wait for the question and let the handler go on."""
    journal.wait(mark, "asked")
    if decide.startswith("suspend"):
        running.handler.release()


def warm(running: Running, tap: Tap) -> WireClient:
    """Return a client with an answered request behind it, so that nothing has to be dialled any more."""
    client = running.secured(tap.port)
    assert client.request("/", "localhost").status == 200
    return client


class TestHttp10:
    KEYS = {"handler.failure_policy": "block"}

    @pytest.mark.parametrize("decide", DECISIONS)
    @pytest.mark.parametrize("body", [b"", b"hello"], ids=["empty", "body"])
    @pytest.mark.parametrize("mode", ["enforce", "monitor"])
    def test_the_connection_ends_with_the_answer(
        self, proxy: ProxyFactory, journal: Journal, tap: Tap, decide: str, body: bytes, mode: str
    ) -> None:
        running = proxy(Judge(journal), intercept_mode=mode, **self.KEYS)
        with warm(running, tap) as client:
            mark = journal.mark()
            client.send(old(decide, body=body))
            settle(running, journal, mark, decide)
            answer = client.read_answer()
            expected = 200 if mode == "monitor" else DECISIONS[decide]
            assert (answer.status, answer.version, answer.get("connection")) == (expected, "HTTP/1.1", "close")
            assert client.read_to_end() == b""
        assert journal.plain_since(mark) == (forwarded(tap, decide, body) if expected == 200 else b"")
        (asked,) = journal.wait(mark, "asked")
        assert (asked.value.http_version, asked.value.body) == ("HTTP/1.0", body)

    @pytest.mark.parametrize("decide", ["allow", "block"])
    def test_who_asks_to_stay_reads_what_becomes_of_it(self, proxy: ProxyFactory, journal: Journal, tap: Tap, decide: str) -> None:
        """An HTTP/1.0 client that is not told `keep-alive` waits for the end of the connection; so an answer says so, or ends it."""
        running = proxy(Judge(journal))
        with warm(running, tap) as client:
            client.send(old(decide, "Connection: Keep-Alive\r\n"))
            answer = client.read_answer()
            assert answer.status == DECISIONS[decide]
            if answer.get("connection") == "keep-alive":
                client.send(old("allow"))
                assert client.read_answer().status == 200
            assert client.read_to_end() == b""

    def test_a_chunked_body_is_not_of_this_version(self, proxy: ProxyFactory, journal: Journal, tap: Tap) -> None:
        running = proxy(Judge(journal))
        with warm(running, tap) as client:
            mark = journal.mark()
            client.send(old("allow", "Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n")
            assert client.read_answer().status == 400
            assert client.read_to_end() == b""
        tap.assert_silence(mark)

    def test_interim_answers_are_kept_from_it(self, proxy: ProxyFactory, journal: Journal, tap: Tap) -> None:
        running = proxy(Judge(journal))
        with warm(running, tap) as client:
            tap.respond = lambda connection, request: connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
            client.send(old("allow"))
            assert client.read_answer().status == 200

    def test_a_body_until_the_end_of_the_connection(self, proxy: ProxyFactory, journal: Journal, tap: Tap) -> None:
        def answer(connection: TapConnection, request: bytes) -> None:
            connection.send(b"HTTP/1.0 200 OK\r\n\r\nto the end")
            connection.close()

        running = proxy(Judge(journal))
        with warm(running, tap) as client:
            tap.respond = answer
            client.send(old("allow", "Connection: keep-alive\r\n"))
            assert client.read_answer().body == b"to the end"


class TestPipelined:
    """Answered in order, each decided on for itself, and the upstream sees the allowed ones only."""

    @pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
    def test_decisions_do_not_touch_each_other(self, proxy: ProxyFactory, journal: Journal, tap: Tap, buffered: bool) -> None:
        running = proxy(Judge(journal), **{"body.buffer_request_bodies": buffered, "handler.failure_policy": "block"})
        bodies = (0, "length"), (700, "length"), (0, "chunked"), (30, "trailers")
        # a blocked body that we have not read would end the connection, so without buffering only bodiless ones are blocked
        uploads = [
            Upload(size, framing, decide)
            for size, framing in bodies
            for decide in ("allow", "block", "raise", "suspend", "suspend-block", "allow")
            if buffered or (size, framing) == (0, "length") or decide in ("allow", "suspend")
        ]
        with warm(running, tap) as client:
            mark = journal.mark()
            client.send(b"".join(upload.wire for upload in uploads))
            for number, upload in enumerate(uploads, 1):
                journal.wait(mark, "asked", number)
                if upload.decide.startswith("suspend"):
                    # while it is decided on, what stands behind it is neither shown nor sent
                    running.metrics()
                    assert len(journal.since(mark, "asked")) == number
                    journal.wait_plain(mark, sent(uploads[: number - 1]))
                    running.handler.release()
                assert client.read_answer().status == DECISIONS[upload.decide]
            assert client.request("/last", "localhost").status == 200
        journal.wait_plain(mark, sent(uploads) + b"GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [entry.value.headers["x-decide"] for entry in journal.since(mark, "asked")[:-1]] == [upload.decide for upload in uploads]

    def test_in_monitor_mode(self, proxy: ProxyFactory, journal: Journal, tap: Tap, caplog: pytest.LogCaptureFixture) -> None:
        """The next request is served while the handler thinks about the one before."""
        uploads = [Upload(5, "chunked", decide) for decide in ("suspend", "block", "suspend-block", "raise", "allow")]
        running = proxy(Judge(journal), intercept_mode="monitor")
        with warm(running, tap) as client:
            mark = journal.mark()
            client.send(b"".join(upload.wire for upload in uploads))
            assert [client.read_answer().status for _ in uploads] == [200] * len(uploads)
            journal.wait_plain(mark, b"".join(upload.wire for upload in uploads))
            journal.wait(mark, "asked", len(uploads))
            running.handler.release()
            journal.wait(mark, "shown", len(uploads))
        assert running.metrics().ignored_block_count == 2
        assert sum("intercept_mode is monitor" in record.getMessage() for record in caplog.records) == 1

    @pytest.mark.parametrize("first", ["allow", "block", "suspend", "suspend-block"])
    def test_a_malformed_one_is_refused_in_its_turn(self, proxy: ProxyFactory, journal: Journal, tap: Tap, first: str) -> None:
        upload = Upload(10, "trailers", first)
        running = proxy(Judge(journal))
        with warm(running, tap) as client:
            mark = journal.mark()
            client.send(upload.wire + b"GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + upload.wire)
            settle(running, journal, mark, first)
            assert client.read_answer().status == DECISIONS[first]
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (400, "close")
            assert client.read_to_end() == b""
        assert journal.plain_since(mark) == sent([upload])
        assert len(journal.since(mark, "asked")) == 1

    @pytest.mark.parametrize("decide", ["allow", "block"])
    def test_a_slow_one_is_told_so(self, proxy: ProxyFactory, journal: Journal, tap: Tap, decide: str) -> None:
        upload = Upload(0, "length", decide)
        running = proxy(Judge(journal), **{"timeouts.client_head_ms": 200})
        with warm(running, tap) as client:
            client.send(upload.wire + b"GET /slo")
            assert client.read_answer().status == DECISIONS[decide]
            answer = client.read_answer()
            assert answer.status == 408 and "timeouts.client_head_ms" in answer.text
            assert client.read_to_end() == b""

    def test_a_block_without_its_body_ends_the_pipeline(self, proxy: ProxyFactory, journal: Journal, tap: Tap) -> None:
        """The body of a refused request is never read as the next request, whatever it looks like."""
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
        running = proxy(Judge(journal), **{"body.buffer_request_bodies": False})
        with warm(running, tap) as client:
            mark = journal.mark()
            head = b"POST /a HTTP/1.1\r\nHost: localhost\r\nX-Decide: block\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
            client.send(head + smuggled)
            answer = client.read_answer()
            assert (answer.status, answer.get("connection")) == (418, "close")
            assert client.read_to_end() == b""
        tap.assert_silence(mark)
        assert len(journal.since(mark, "asked")) == 1


def sent(uploads: list[Upload]) -> bytes:
    """Return what the upstream sees of them."""
    return b"".join(upload.wire for upload in uploads if DECISIONS[upload.decide] == 200)
