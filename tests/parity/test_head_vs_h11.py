"""Our reading of HTTP/1 messages against h11's; `h11_readings` lists what they may differ in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parity.h11_readings import STRICTER, compare, ours

NAMES = [b"Host", b"Content-Length", b"Transfer-Encoding", b"X", b"content-length", b"Connection", b"Expect", b"x-y_z!"]
VALUES = [
    b"a.example",
    b"a.example:80",
    b"5",
    b"3",
    b"5, 5",
    b"05",
    b"chunked",
    b"gzip, chunked",
    b"",
    b" v\t",
    b"v w",
    b"\xff",
    b"close",
    b"A.example",
]
METHODS = [b"GET", b"POST", b"OPTIONS", b"CONNECT", b"g!t", b"HEAD"]
TARGETS = [
    b"/",
    b"/a?b",
    b"*",
    b"http://a.example/x",
    b"https://a.example",
    b"a.example:443",
    b"/#f",
    b"http://u@a/",
    b"http://[::1]:1/",
    b"/\xff",
]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"]
STATUSES = [b"200 OK", b"200 ", b"404 Not Found", b"204 No Content", b"304 ", b"599 X", b"600 X", b"200", b"2x0 OK", b"200 \xe9 \t"]
BODIES = [
    b"",
    b"hello",
    b"hello, and more",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y \r\nZ:\r\n\r\nGET ",
    b"3;e=f\r\nabc\r\n00\r\n\r\n",
    b"0\r\n\r\n",
]
FAULTS = [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b";", b"0", b"f", b"\x7f", b"\x0b", b",", b"-", b"x", b"\xe9", b"#", b"@"]


FRAMED = [
    ([], b""),
    ([(b"Content-Length", b"5")], b"hello, and more"),
    ([(b"Content-Length", b"5"), (b"content-length", b"5")], b"hello"),
    ([(b"Transfer-Encoding", b"chunked")], b"5\r\nhello\r\n0\r\nX: y \r\nZ:\r\n\r\nGET "),
    ([(b"Transfer-Encoding", b"Chunked")], b"3;e=f\r\nabc\r\n00\r\n\r\n"),
]
PLAIN_FIELDS = [(b"X", b"\xff"), (b"x-y_z!", b" v\t"), (b"Connection", b"close"), (b"X", b""), (b"Expect", b"v w"), (b"connection", b"X")]


@st.composite
def messages(draw: st.DrawFn, is_request: bool) -> bytes:
    """Build a message of likely parts, half of them in good order, and damage it in up to two places."""
    if draw(st.booleans()):
        start = draw(st.sampled_from([b"GET /a?b HTTP/1.1", b"g!t http://a.example/x HTTP/1.1", b"OPTIONS * HTTP/1.1", b"POST / HTTP/1.1"]))
        if not is_request:
            start = b"HTTP/1.1 " + draw(st.sampled_from(STATUSES[:6]))
        framing, body = draw(st.sampled_from(FRAMED))
        fields = framing + draw(st.lists(st.sampled_from(PLAIN_FIELDS), max_size=3))
        faults = draw(st.sampled_from([0, 0, 0, 1]))
    else:
        start = draw(st.sampled_from(VERSIONS)) + b" " + draw(st.sampled_from(STATUSES))
        if is_request:
            start = b" ".join([draw(st.sampled_from(METHODS)), draw(st.sampled_from(TARGETS)), draw(st.sampled_from(VERSIONS))])
        fields = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3))
        body = draw(st.sampled_from(BODIES))
        faults = draw(st.sampled_from([0, 1, 2]))
    if is_request and draw(st.integers(0, 9)):
        fields = [(b"Host", b"a.example"), *fields]
    data = start + b"\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n" + body
    for _ in range(faults):
        at, dropped = draw(st.integers(0, len(data))), draw(st.integers(0, 1))
        data = data[:at] + draw(st.sampled_from([b"", *FAULTS])) + data[at + dropped :]
    return data


@given(messages(is_request=True))
def test_requests(data: bytes) -> None:
    compare(data, is_request=True)


@given(messages(is_request=False))
def test_responses(data: bytes) -> None:
    compare(data, is_request=False)


def test_the_lists_are_not_longer_than_they_need_to_be() -> None:
    """Every difference that is listed exists."""
    host = b"Host: a.example\r\n"
    chunked = b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    stricter = [
        b"GET / HTTP/1.1\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X: a\x01b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.2\r\n" + host + b"\r\n",
        b"GET /#f HTTP/1.1\r\n" + host + b"\r\n",
        b"GET http://u@a.example/ HTTP/1.1\r\n" + host + b"\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\n" + host + b"\r\n",
        b"GET http://a.example:x/ HTTP/1.1\r\n" + host + b"\r\n",
        b"GET a.example:80 HTTP/1.1\r\n" + host + b"\r\n",
        b"CONNECT / HTTP/1.1\r\n" + host + b"\r\n",
        b"CONNECT a.example:1 HTTP/1.1\r\n" + host + b"Content-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET http://b.example/ HTTP/1.1\r\n" + host + b"\r\n",
        b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        chunked + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        chunked + b"5 \r\nhello\r\n0\r\n\r\n",
        chunked + b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        chunked + b"0\r\nHost: b\r\n\r\n",
    ]
    found = [ours(data, True).why for data in stricter if compare(data, True) == ("refused", "accepted")]
    responses = [b"HTTP/1.1 200\r\n\r\n", b"HTTP/1.1 600 X\r\n\r\n"]
    found += [ours(data, False).why for data in responses if compare(data, False) == ("refused", "accepted")]
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n"
    assert compare(endless, False, "HEAD") == ("refused", "accepted")
    found.append(ours(endless, False, "HEAD").why)
    # the limits of bodies have a test of their own
    unseen = [words for words, rule in STRICTER.items() if "limit" not in rule and not any(words in why for why in found)]
    assert unseen == []
    assert compare(b"\r\nGET / HTTP/1.1\r\n" + host + b"\r\n", True) == ("accepted", "refused")
    assert compare(b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 1, 01\r\n\r\nx", True) == ("accepted", "refused")
