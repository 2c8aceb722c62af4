"""Our reading of bodies against h11's: chunks and their faults, trailers, what ends a response, what follows a message, who may go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.h11_readings import compare, ours

CRLF = b"\r\n"
REQUEST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
SIZES = [
    b"%x",
    b"%x",
    b"%x",
    b"%X",
    b"0%x",
    b"%016x",
    b"%017x",
    b"8000000000000000",
    b"-%x",
    b"+%x",
    b"0x%x",
    b" %x",
    b"%x ",
    b"%x\t",
    b"_%x",
    b"",
]
EXTENSIONS = [
    b"",
    b"",
    b"",
    b";",
    b";a",
    b";a=b",
    b';a="x;y"',
    b";a\tb",
    b" ;a",
    b"; a",
    b";\xff",
    b";\x7f",
    b";a\rb",
    b";" + b"x" * 4090,
    b":",
]
DATA = [b"x", b"hello", b"0\r\n\r\n", b"\r\n", bytes(range(26))]
ENDS = [CRLF, CRLF, CRLF, CRLF, CRLF, b"\n", b"\r", b"", b"xx", b"\r\r\n"]
TRAILERS = [
    *(b"X: y", b"X:", b"x-y_z!: \t v w ", b"X: \xff", b"Trailer-Like: 1"),
    *(b"Host: b", b"content-length: 3", b"Transfer-Encoding: chunked", b"X : y", b" folded", b": v", b"X: \0", b"no colon", b"X\t: y"),
]
LEFT = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"x"]
HEADS = [
    *(b"200 OK", b"200 OK", b"204 No Content", b"304 Not Modified", b"404 No", b"205 Reset"),
    *(b"100 Continue", b"103 Early Hints", b"199 X"),
]
LENGTHS = [
    *(b"", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5, 5\r\n"),
    *(b"Content-Length: 9999999999999999999\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: +5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: CHUNKED\r\n", b"Transfer-Encoding: chunked, chunked\r\n"),
    *(b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
]
CONNECTIONS = [b"", b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: x, Close\r\n", b"Connection: closed\r\n"]


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    """Build chunks of which most are in good order, and what follows."""
    body = b""
    for _ in range(draw(st.integers(0, 3))):
        data = draw(st.sampled_from(DATA))
        size = draw(st.sampled_from(SIZES))
        size = size % len(data) if b"%" in size else size
        body += size + draw(st.sampled_from(EXTENSIONS)) + draw(st.sampled_from(ENDS)) + data + draw(st.sampled_from(ENDS))
    body += draw(st.sampled_from([b"0", b"00", b"0;a", b"", b"0 "])) + draw(st.sampled_from(ENDS))
    for line in draw(st.lists(st.sampled_from(TRAILERS), max_size=2)):
        body += line + draw(st.sampled_from(ENDS))
    return body + draw(st.sampled_from([CRLF, CRLF, CRLF, b"\n", b""])) + draw(st.sampled_from(LEFT))


@given(chunked_bodies())
def test_chunks_of_a_request(body: bytes) -> None:
    compare(REQUEST + b"Transfer-Encoding: chunked\r\n\r\n" + body, is_request=True)


@given(chunked_bodies())
def test_chunks_of_a_response(body: bytes) -> None:
    compare(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body, is_request=False)


@given(
    st.lists(st.sampled_from(HEADS), min_size=1, max_size=3),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from([b"1.1", b"1.1", b"1.0"]),
    st.sampled_from(LENGTHS),
    st.sampled_from(CONNECTIONS),
    st.sampled_from([b"", b"hello", b"hello, and more", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"hel"]),
)
def test_what_ends_a_response(heads: list[bytes], method: str, version: bytes, length: bytes, connection: bytes, body: bytes) -> None:
    """Interim ones come before a final one, whose framing may be of any kind, and whose end of the connection may be a cut."""
    data = b"".join(b"HTTP/%b %b\r\n%b%b\r\n" % (version, head, connection, length if head is heads[-1] else b"") for head in heads) + body
    compare(data, is_request=False, method=method)


@given(
    st.lists(st.tuples(st.sampled_from(LENGTHS), st.sampled_from(CONNECTIONS), st.sampled_from([b"1.1", b"1.0"])), min_size=1, max_size=4)
)
def test_where_one_request_ends_the_next_begins(parts: list[tuple[bytes, bytes, bytes]]) -> None:
    data = b""
    for length, connection, version in parts:
        body = {b"C": b"hello", b"T": b"5\r\nhello\r\n0\r\n\r\n"}.get(length[:1], b"")
        data += b"POST / HTTP/%b\r\nHost: a.example\r\n%b%b\r\n%b" % (version, connection, length, body)
    while data:
        verdicts = compare(data, is_request=True)
        us = ours(data, is_request=True)
        if verdicts != ("accepted", "accepted") or not us.keeps:
            break
        data = us.left


LONG = b";" + b"x" * 4000
REFUSED_ONLY_BY_US = [
    (b"5;" + b"x" * 4096 + b"\r\nhello\r\n0\r\n\r\n", "a chunk-size line is longer than"),
    ((b"1" + LONG + b"\r\n.\r\n") * 5 + b"0\r\n\r\n", "the chunk extensions together are"),
    (b"0\r\nX: " + b"x" * 65536 + b"\r\n\r\n", "the trailer section is longer than"),
    (b"0\r\n" + b"X:\r\n" * 257 + b"\r\n", "the trailer section has more fields than"),
]


@pytest.mark.parametrize(("body", "why"), REFUSED_ONLY_BY_US, ids=[why for _, why in REFUSED_ONLY_BY_US])
def test_limits_that_are_listed_exist(body: bytes, why: str) -> None:
    """Each difference in the list that is about a body's limits is one."""
    data = REQUEST + b"Transfer-Encoding: chunked\r\n\r\n" + body
    assert compare(data, is_request=True) == ("refused", "accepted")
    assert why in ours(data, is_request=True).why
