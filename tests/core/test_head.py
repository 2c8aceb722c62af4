"""Heads: what the samples of tests/corpus/http1 cannot say. How early, how many, how often, and what Python sees."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.errors import WireError
from support.heads import parse_request, parse_response

REQUEST = b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"
RESPONSE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def request(data: bytes, limit: int = 65536) -> Head:
    """Parse a request head that is all there."""
    parsed = parse_request(data, limit)
    assert parsed is not None
    head, consumed = parsed
    assert consumed == len(data)
    return head


def response(data: bytes) -> Head:
    """Parse a response head that is all there."""
    parsed = parse_response(data)
    assert parsed is not None
    return parsed[0]


def test_what_python_sees_of_a_request() -> None:
    head = request(REQUEST)
    assert head.raw == REQUEST
    assert head.is_request
    assert (head.method, head.target, head.path, head.version) == ("GET", "/a?b", "/a?b", "HTTP/1.1")
    assert (head.host, head.authority) == ("a.example", "a.example")
    assert head.fields == [(b"Host", b"a.example"), (b"Accept", b"*/*")]
    assert (head.status, head.reason) == (0, b"")
    assert repr(head) == "<Head 'GET /a?b HTTP/1.1', 2 fields>"


def test_what_python_sees_of_a_response() -> None:
    head = response(RESPONSE)
    assert not head.is_request
    assert (head.status, head.reason, head.version) == (404, b"Not Found", "HTTP/1.1")
    assert (head.method, head.target, head.path, head.host, head.authority) == ("", "", "", None, None)
    assert head.facts == {"content_length": 0, "chunked": False, "expect_continue": False, "upgrade": False, "keeps_alive": True}
    assert repr(head) == "<Head 'HTTP/1.1 404 Not Found', 1 fields>"


def test_authority_is_the_targets_where_it_has_one() -> None:
    head = request(b"GET http://A.example:80/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert (head.authority, head.host) == ("A.example:80", "a.example")


def test_a_head_that_was_not_parsed_is_empty() -> None:
    head = Head()
    assert repr(head) == "<Head, not parsed>"
    assert (head.raw, head.fields, head.target, head.host, head.reason) == (b"", [], "", None, b"")


def test_heads_outlive_the_bytes_and_each_other() -> None:
    """More than the free list holds, so that places are used again."""
    heads = [request(b"GET /%d HTTP/1.1\r\nHost: a\r\nX-%d: %d\r\n\r\n" % (n, n, n)) for n in range(200)]
    del heads[::2]
    heads += [request(b"GET /%d HTTP/1.1\r\nHost: b\r\n\r\n" % n) for n in range(200)]
    assert [head.path for head in heads] == [f"/{n}" for n in range(1, 200, 2)] + [f"/{n}" for n in range(200)]
    assert heads[0].fields == [(b"Host", b"a"), (b"X-1", b"1")]


@pytest.mark.parametrize("count", [31, 32, 33, 100, 256])
def test_many_fields(count: int) -> None:
    """Up to 32 fields lie in the head itself, more in memory of their own."""
    names = [b"Host"] + [b"X-%d" % n for n in range(count - 1)]
    head = request(b"GET / HTTP/1.1\r\n" + b"".join(name + b": v\r\n" for name in names) + b"\r\n")
    assert head.fields == [(name, b"v") for name in names]
    assert head.host == "v"


def test_too_many_fields() -> None:
    fields = b"".join(b"X-%d: v\r\n" % n for n in range(256))
    with pytest.raises(WireError, match=r"has more than 256 fields \(max_header_fields\)") as caught:
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert caught.value.status == 431


@pytest.mark.parametrize("count", [64, 65])
def test_connection_options_are_bounded(count: int) -> None:
    """Each is compared with each field."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + b",".join(b"x%d" % n for n in range(count)) + b"\r\n\r\n"
    if count == 64:
        assert request(data).fields
    else:
        with pytest.raises(WireError, match="Connection names more than 64 options"):
            parse_request(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16",
        b"\n",
        b"\r\n\n",
        b"\xc3",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\r",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET / HTTP/1.1\r\nHost: a\0",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\r",
    ],
)
def test_refused_at_the_byte_that_is_wrong(data: bytes) -> None:
    assert parse_request(data[:-1]) is None
    with pytest.raises(WireError):
        parse_request(data)


@pytest.mark.parametrize("data", [b"h", b"\r", b"HTTQ", b"HTTP/2", b"HTTP/1,", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\n\n"])
def test_responses_are_refused_at_the_byte_that_is_wrong(data: bytes) -> None:
    assert parse_response(data[:-1]) is None
    with pytest.raises(WireError) as caught:
        parse_response(data)
    assert (caught.value.side, caught.value.status) == ("upstream", 502)


def test_errors_of_requests_are_the_clients() -> None:
    with pytest.raises(WireError, match="Host is missing") as caught:
        parse_request(b"GET / HTTP/1.1\r\n\r\n")
    assert (caught.value.side, caught.value.status, caught.value.retryable) == ("client", 400, False)


@pytest.mark.parametrize("limit", [0, -1, 2**30 + 1])
def test_the_limit_has_limits(limit: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"limit: {limit} is not in 1..{2**30}")):
        parse_request(REQUEST, limit)


def test_bytes_only() -> None:
    for wrong in ("GET", None, bytearray(REQUEST)):
        with pytest.raises(TypeError):
            parse_request(wrong)  # type: ignore[arg-type]


def test_a_head_that_grows_is_not_read_again_and_again() -> None:
    """A megabyte that arrives 512 bytes at a time: reading it from the start each time would take a thousand times as long as once."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n"
    pieces = [data[:end] for end in range(0, len(data), 512)] + [data]

    def spent(fresh: bool) -> float:
        reader = HeadReader(True, 1 << 21)
        begin = time.process_time()
        for piece in pieces:
            if fresh:
                reader = HeadReader(True, 1 << 21)
            parsed = reader.feed(piece)
        assert parsed is not None and parsed[1] == len(data)
        return time.process_time() - begin

    assert min(spent(False) for _ in range(3)) * 10 < spent(True)


LINE_BYTES = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b" ", b":", b"\t", b"\0", b"\x7f", b"\xe9", b"Host: a", b"Content-Length: 1", b"x", b"GET / HTTP/1.1"]
)


@given(st.lists(LINE_BYTES, max_size=30), st.lists(st.integers(0, 200), max_size=6), st.integers(1, 120), st.booleans())
def test_the_verdict_does_not_depend_on_the_pieces(parts: list[bytes], cuts: list[int], limit: int, proper: bool) -> None:
    data = (b"GET / HTTP/1.1\r\nHost: a\r\n" if proper else b"") + b"".join(parts)

    def verdict(ends: list[int]) -> tuple[object, ...]:
        reader = HeadReader(True, limit)
        try:
            for end in ends:
                if (parsed := reader.feed(data[:end])) is not None:
                    return parsed[0].raw, parsed[1]
        except WireError as error:
            return error.status, str(error)
        return ("more",)

    whole = verdict([len(data)])
    assert verdict(list(range(len(data) + 1))) == whole
    assert verdict(sorted(min(cut, len(data)) for cut in cuts) + [len(data)]) == whole


@given(st.binary(max_size=80))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    for parse in (parse_request, parse_response):
        try:
            parsed = parse(data + b"\r\n\r\n")
        except WireError:
            continue
        assert parsed is None or (data + b"\r\n\r\n").startswith(parsed[0].raw)


@given(st.binary(max_size=40))
def test_any_value_without_control_bytes_is_kept(value: bytes) -> None:
    control = any(byte < 0x20 and byte != 9 or byte == 0x7F for byte in value)
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX:" + value + b"\r\n\r\n"
    if control:
        with pytest.raises(WireError):
            assert request(data)
    else:
        assert request(data).fields[1] == (b"X", value.strip(b" \t"))
