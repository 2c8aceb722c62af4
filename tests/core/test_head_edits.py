"""Edits of header fields, as the encoder applies them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits
from support.heads import parse_request, parse_response

START = b"POST /a HTTP/1.1\r\n"
FIELDS = [b"Host: a\r\n", b"X-One:  1 \r\n", b"Cookie: a\r\n", b"x-one:2\r\n", b"Content-Length: 3\r\n"]


def request(*fields: bytes, start: bytes = START) -> Head:
    """Parse a request head."""
    parsed = parse_request(start + b"".join(fields) + b"\r\n")
    assert parsed is not None
    return parsed[0]


def response(data: bytes) -> Head:
    """Parse a response head."""
    parsed = parse_response(data)
    assert parsed is not None
    return parsed[0]


def fields_of(edits: HeadEdits, *fields: bytes) -> list[bytes]:
    """Return the field lines that leave."""
    sent = rewrite_request(request(*(fields or FIELDS)), edits=edits)
    assert sent.startswith(START) and sent.endswith(b"\r\n\r\n")
    return [line + b"\r\n" for line in sent[len(START) : -4].split(b"\r\n")]


def test_no_edits_copy_nothing() -> None:
    head = request(*FIELDS)
    assert rewrite_request(head, edits=HeadEdits()) is head.raw
    assert rewrite_request(head, edits=None) is head.raw


def test_removing_what_is_not_there_copies_nothing() -> None:
    edits = HeadEdits()
    edits.remove("x-two")
    head = request(*FIELDS)
    assert rewrite_request(head, edits=edits) is head.raw


def test_set_stands_where_the_first_stood() -> None:
    edits = HeadEdits()
    edits.set("X-ONE", "3")
    assert fields_of(edits) == [FIELDS[0], b"X-ONE: 3\r\n", FIELDS[2], FIELDS[4]]


def test_set_of_a_new_field_stands_at_the_end() -> None:
    edits = HeadEdits()
    edits.append("b", "1")
    edits.set("a", "2")
    assert fields_of(edits) == [*FIELDS, b"a: 2\r\n", b"b: 1\r\n"]


def test_append_keeps_what_is_there() -> None:
    edits = HeadEdits()
    edits.append("x-one", "3")
    edits.append("x-one", "4")
    assert fields_of(edits) == [*FIELDS, b"x-one: 3\r\n", b"x-one: 4\r\n"]


def test_remove_takes_all_of_that_name() -> None:
    edits = HeadEdits()
    edits.remove("x-One")
    assert fields_of(edits) == [FIELDS[0], FIELDS[2], FIELDS[4]]


def test_later_edits_of_a_name_replace_earlier_ones() -> None:
    edits = HeadEdits()
    edits.append("x-one", "3")
    edits.set("x-one", "4")
    edits.set("X-One", "5")
    assert fields_of(edits) == [FIELDS[0], b"X-One: 5\r\n", FIELDS[2], FIELDS[4]]
    edits.append("x-one", "6")
    assert fields_of(edits) == [FIELDS[0], b"X-One: 5\r\n", FIELDS[2], FIELDS[4], b"x-one: 6\r\n"]
    edits.remove("x-one")
    assert fields_of(edits) == [FIELDS[0], FIELDS[2], FIELDS[4]]
    assert edits.size == 0


def test_edits_can_be_applied_again() -> None:
    """For a retry."""
    edits = HeadEdits()
    edits.set("x-one", "3")
    edits.set("new", "4")
    edits.append("x-two", "5")
    assert fields_of(edits) == fields_of(edits)


def test_a_field_that_stops_here_is_set_all_the_same() -> None:
    edits = HeadEdits()
    edits.set("x-hop", "2")
    fields = [b"Host: a\r\n", b"X-Hop: 1\r\n", b"Connection: x-hop\r\n"]
    assert fields_of(edits, *fields) == [fields[0], b"x-hop: 2\r\n"]


def test_names_and_values_may_be_bytes() -> None:
    edits = HeadEdits()
    edits.set(b"a", b" \t\xff b\t ")
    edits.append(b"c", "\xe4")
    edits.append("d", "")
    assert fields_of(edits, FIELDS[0]) == [FIELDS[0], b"a: \xff b\r\n", b"c: \xe4\r\n", b"d: \r\n"]


@pytest.mark.parametrize("kind", ["set", "append"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "1"),
        ("a b", "1"),
        ("a:", "1"),
        (":authority", "1"),
        ("a\r\nb", "1"),
        ("\xe4", "1"),
        ("a", "1\r\nb: 2"),
        ("a", "1\n"),
        ("a", "1\r"),
        ("a", "\0"),
        ("a", "\x7f"),
        ("\u20ac", "1"),
        ("a", "\u20ac"),
    ],
)
def test_what_could_not_be_parsed_is_refused(kind: str, name: str, value: str) -> None:
    edits = HeadEdits()
    with pytest.raises(ValueError, match=r"header|latin-1"):
        getattr(edits, kind)(name, value)
    assert edits.size == 0
    assert fields_of(edits) == FIELDS


OWN = [
    "Connection",
    "Content-Length",
    "Expect",
    "Host",
    "Keep-Alive",
    "Max-Forwards",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]


@pytest.mark.parametrize("name", [spelling for name in OWN for spelling in (name, name.lower())])
def test_what_frames_or_routes_is_refused(name: str) -> None:
    edits = HeadEdits()
    for change in (lambda: edits.set(name, "1"), lambda: edits.append(name, "1"), lambda: edits.remove(name)):
        with pytest.raises(ValueError, match="the proxy sets this field itself"):
            change()
    head = request(*FIELDS)
    assert rewrite_request(head, edits=edits) is head.raw


@pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Keys", "Sec-WebSocket", "Origin"])
def test_what_of_a_handshake_a_handler_may_set(name: str) -> None:
    edits = HeadEdits()
    edits.set(name, "chat")
    assert fields_of(edits) == [*FIELDS, f"{name}: chat\r\n".encode()]


CHUNKED = [b"Host: a\r\n", b"Transfer-Encoding: chunked\r\n", b"A: 1\r\n"]


def test_the_proxy_frames_anew() -> None:
    edits = HeadEdits()
    edits.frame_with_length(12)
    assert edits.frames
    assert fields_of(edits) == [*FIELDS[:4], b"Content-Length: 12\r\n"]
    assert fields_of(edits, *CHUNKED) == [CHUNKED[0], CHUNKED[2], b"Content-Length: 12\r\n"]
    edits.frame_with_chunks()
    assert fields_of(edits) == [*FIELDS[:4], b"Transfer-Encoding: chunked\r\n"]
    assert fields_of(edits, *CHUNKED) == CHUNKED
    edits.frame_without_content()
    assert fields_of(edits) == FIELDS[:4]
    assert fields_of(edits, *CHUNKED) == [CHUNKED[0], CHUNKED[2]]


def test_a_repeated_length_is_framed_once() -> None:
    repeated = [FIELDS[0], FIELDS[4], b"A: 1\r\n", FIELDS[4]]
    edits = HeadEdits()
    edits.set("a", "2")
    assert fields_of(edits, *repeated) == [FIELDS[0], b"a: 2\r\n", FIELDS[4]]
    edits.frame_with_length(9)
    assert fields_of(edits, *repeated) == [FIELDS[0], b"Content-Length: 9\r\n", b"a: 2\r\n"]


def test_the_proxy_sets_the_host() -> None:
    edits = HeadEdits()
    edits.set_host(b"b:1")
    assert fields_of(edits) == [b"Host: b:1\r\n", *FIELDS[1:]]
    head = request(b"A: 1\r\n", start=b"GET / HTTP/1.0\r\n")
    assert rewrite_request(head, authority="a", edits=edits) == b"GET / HTTP/1.1\r\nA: 1\r\nHost: b:1\r\n\r\n"


def test_edits_of_a_response() -> None:
    edits = HeadEdits()
    edits.set("server", "b")
    edits.append("Set-Cookie", "x=1")
    head = response(b"HTTP/1.0 200 OK\r\nServer: a\r\nTransfer-Encoding2: x\r\nConnection: close\r\n\r\n")
    assert rewrite_response(head, close=True, edits=edits) == (
        b"HTTP/1.1 200 OK\r\nserver: b\r\nTransfer-Encoding2: x\r\nSet-Cookie: x=1\r\nConnection: close\r\n\r\n"
    )


NAMES = st.sampled_from(["a", "A", "x-one", "X-Two", "cookie"])
CHANGES = st.lists(st.tuples(st.sampled_from(["set", "append", "remove"]), NAMES, st.sampled_from(["", "1", "a b"])), max_size=8)


@given(st.lists(st.tuples(NAMES, st.sampled_from(["1", "2"])), max_size=40), CHANGES)
def test_edits_do_what_their_names_say(fields: list[tuple[str, str]], changes: list[tuple[str, str, str]]) -> None:
    """Compare with a list of fields that is changed step by step: for each name the same values in the same order."""
    edits = HeadEdits()
    expected = [("Host", "a"), *fields]
    for kind, name, value in changes:
        if kind == "remove":
            edits.remove(name)
        else:
            getattr(edits, kind)(name, value)
        if kind != "append":
            expected = [pair for pair in expected if pair[0].lower() != name.lower()]
        if kind != "remove":
            expected.append((name, value))
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in fields)
    sent = rewrite_request(request(b"Host: a\r\n", lines), edits=edits)
    found = [(name.decode(), value.decode()) for name, value in request(start=sent[:-2]).fields]
    for wanted in {name.lower() for name, _ in expected + found}:
        assert [pair for pair in found if pair[0].lower() == wanted] == [pair for pair in expected if pair[0].lower() == wanted]
    kept = {name.lower() for _, name, _ in changes}
    assert [pair for pair in found if pair[0].lower() not in kept] == [pair for pair in expected if pair[0].lower() not in kept]
