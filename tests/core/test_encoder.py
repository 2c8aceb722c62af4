"""Heads as they leave, and answers of our own; most of what stops here is said in tests/corpus/http1/connection.md."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.wire.head import Head
from support.heads import parse_request, parse_response

PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\nX-Odd:  v \r\nx-odd:w\r\n\r\n"
UPGRADE = b"GET /c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X\r\nUpgrade: websocket\r\nX: 1\r\nTE: trailers\r\n\r\n"


def request(data: bytes) -> Head:
    """Parse a request head."""
    parsed = parse_request(data)
    assert parsed is not None
    return parsed[0]


def response(data: bytes) -> Head:
    """Parse a response head."""
    parsed = parse_response(data)
    assert parsed is not None
    return parsed[0]


def test_what_does_not_change_is_not_copied() -> None:
    head = request(PLAIN)
    assert rewrite_request(head) is head.raw
    assert rewrite_request(head, keep_upgrade=True) is head.raw
    answer = response(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n")
    assert rewrite_response(answer) is answer.raw


def test_an_empty_line_before_a_request_does_not_leave() -> None:
    head = request(b"\r\n" + PLAIN)
    assert rewrite_request(head) == PLAIN


def test_a_relayed_upgrade_keeps_what_asks_for_it() -> None:
    """And nothing else that stops here."""
    assert rewrite_request(request(UPGRADE), keep_upgrade=True) == (
        b"GET /c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X\r\nUpgrade: websocket\r\n\r\n"
    )
    switching = response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert rewrite_response(switching, keep_upgrade=True) is switching.raw
    assert rewrite_response(switching) == b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def test_fields_beyond_the_inline_ones_stop_too() -> None:
    fields = b"".join(b"X-%d: v\r\n" % n for n in range(60))
    head = request(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"Connection: x-7, x-55\r\n\r\n")
    kept = fields.replace(b"X-7: v\r\n", b"").replace(b"X-55: v\r\n", b"")
    assert rewrite_request(head) == b"GET / HTTP/1.1\r\nHost: a\r\n" + kept + b"\r\n"


@pytest.mark.parametrize(
    ("close", "keep_alive_10", "line"),
    [
        (True, False, b"Connection: close\r\n"),
        (False, True, b"Connection: keep-alive\r\n"),
        (False, False, b""),
        (True, True, b"Connection: close\r\n"),
    ],
)
@pytest.mark.parametrize("version", [b"0", b"1"])
def test_persistence_is_ours_to_say(close: bool, keep_alive_10: bool, line: bytes, version: bytes) -> None:
    head = response(b"HTTP/1.%b 200 \r\nConnection: keep-alive\r\nX: 1\r\n\r\n" % version)
    assert rewrite_response(head, close=close, keep_alive_10=keep_alive_10) == b"HTTP/1.1 200 \r\nX: 1\r\n" + line + b"\r\n"


def test_a_response_without_fields() -> None:
    assert rewrite_response(response(b"HTTP/1.0 200 OK\r\n\r\n"), close=True) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_an_answer_of_our_own(made_bytes: Any) -> None:
    assert made_bytes.own_response(403, b"not allowed\n") == (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\n\r\nnot allowed\n"
    )


def test_an_answer_with_fields_of_its_own(made_bytes: Any) -> None:
    answer = made_bytes.own_response(451, b"{}", [(b"content-TYPE", b"application/json"), (b"X", b"")], close=True)
    assert answer == (
        b"HTTP/1.1 451 Unavailable For Legal Reasons\r\ncontent-TYPE: application/json\r\nX: \r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )


def test_an_answer_to_head_counts_what_it_leaves_out(made_bytes: Any) -> None:
    assert made_bytes.own_response(403, b"no", head_only=True).endswith(b"Content-Length: 2\r\n\r\n")


@pytest.mark.parametrize("status", [100, 204, 304])
def test_statuses_that_have_no_content(made_bytes: Any, status: int) -> None:
    assert made_bytes.own_response(status, b"dropped").partition(b"\r\n")[2] == b"\r\n"


def test_a_status_without_a_known_reason(made_bytes: Any) -> None:
    assert made_bytes.own_response(299, b"", None).startswith(b"HTTP/1.1 299 \r\n")


@given(st.integers(200, 599), st.binary(max_size=100), st.booleans())
def test_others_can_read_our_answers(made_bytes: Any, status: int, body: bytes, close: bool) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(made_bytes.own_response(status, body, close=close))
    answer = client.next_event()
    assert isinstance(answer, h11.Response) and answer.status_code == status
    content = b""
    while isinstance(event := client.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert content == (b"" if status in (204, 304) else body)


TOKENS = st.sampled_from(["Connection", "X-A", "X-B", "Keep-Alive", "Upgrade", "TE", "Accept", "Proxy-Authorization", "Content-Type"])
VALUES = st.sampled_from(["x-a", "close, X-B", "Upgrade", "a", "", "host", "x-a, x-b, keep-alive"])


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=8))
def test_what_leaves_says_the_same_without_what_stops(fields: list[tuple[str, str]]) -> None:
    """Rewriting is idempotent, adds nothing, and leaves no trace of the connection it came on."""
    data = "GET / HTTP/1.1\r\nHost: a\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    once = rewrite_request(request(data.encode()))
    head = request(once)
    assert rewrite_request(head) is head.raw
    stops = {"connection", "keep-alive", "upgrade", "te", "proxy-authorization"}
    named = {option.strip().lower() for name, value in fields if name == "Connection" for option in value.split(",")}
    kept = [(name, value) for name, value in fields if name.lower() not in stops | (named - {"host", "content-type", "upgrade", "close"})]
    assert [(name.decode(), value.decode()) for name, value in head.fields] == [("Host", "a"), *kept]
