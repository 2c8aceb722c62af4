"""Our reading of HTTP/1 messages against h11's.

Where both accept a message they must see the same one: method, target or status, fields, content, trailers, and what is left over. Where
one refuses what the other accepts, the reason must stand in one of the two lists below; anything else is a bug in one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11
from hypothesis import given
from hypothesis import strategies as st

from support.feed import Reading, read_message

# What we refuse and h11 may accept: our words, and the rule
STRICTER = {
    "a line ends in LF without CR": "RFC 9112 section 2.2: MAY recognise LF; we do not",
    "a CR is not followed by LF": "RFC 9112 section 2.2: a bare CR is invalid; h11 lets it stand in chunk extensions",
    "a control byte stands in a line": "RFC 9110 section 5.5: CTLs are invalid; h11 lets most through",
    "folded lines are obsolete": "RFC 9112 section 5.2: reject, or replace by spaces as h11 does",
    "the HTTP version is neither 1.0 nor 1.1": "RFC 9112 section 2.3; h11 reads any two digits",
    "the request target carries a fragment": "RFC 9112 section 3.2; h11 takes any visible bytes for a target",
    "the request target carries user information": "RFC 9110 section 4.2.4",
    "the request target is no path, and no http or https URI": "RFC 9112 section 3.2",
    "the host or port in the request target is not valid": "RFC 3986 section 3.2",
    "this form of request target does not go with this method": "RFC 9112 section 3.2",
    "the target of CONNECT is not host:port": "RFC 9112 section 3.2.3",
    "a CONNECT request has content": "RFC 9110 section 9.3.6",
    "Host is not a valid host and port": "RFC 9112 section 3.2: respond 400",
    "Host and the request target name different hosts": "RFC 9112 section 3.2.2: ignore Host; we refuse, as for a proxy that is an attack",
    "Transfer-Encoding and Content-Length are both there": "RFC 9112 section 6.3: ought to be handled as an error",
    "Transfer-Encoding stands in an HTTP/1.0 message": "RFC 9112 section 6.1: treat as faulty framing",
    "the status line is not": "RFC 9112 section 4: the space before an empty reason must be there",
    "the status is not a number from 100 to 599": "RFC 9110 section 15",
    "a chunk does not begin with its size in hexadecimal digits": "RFC 9112 section 7.1; h11 lets white space follow",
    "a chunk size is too large a number": "RFC 9112 section 7.1: anticipate overflow; h11 reads 20 digits",
    "a field stands in the trailer section": "RFC 9110 section 6.5.1",
}

# What h11 refuses and we accept
LOOSER = {
    "an empty line before the request": re.compile(rb"\A\r\n"),  # RFC 9112 section 2.2: SHOULD ignore at least one
    "lengths that are equal, written with other zeros": re.compile(rb"(?i)content-length:[^\r]*\b0"),  # RFC 9110 section 8.6
}


@dataclass
class Seen:
    """One party's reading; `verdict` is "accepted", "refused" or "more"."""

    verdict: str
    start: tuple[str, ...] = ()
    fields: tuple[tuple[bytes, bytes], ...] = ()
    content: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    left: bytes = b""
    why: str = ""


# h11 rewrites these two
FRAMING = (b"content-length", b"transfer-encoding")


def lowered(fields: object) -> tuple[tuple[bytes, bytes], ...]:
    """Return fields the way h11 shows them."""
    assert isinstance(fields, list)
    return tuple((name.lower(), value) for name, value in fields if name.lower() not in FRAMING)


def ours(data: bytes, is_request: bool) -> Seen:
    """Read with our parser."""
    outcome, head = read_message([data], Reading(is_request, eof=not is_request))
    if outcome.refused or head is None:
        return Seen("refused" if outcome.refused else "more", why=outcome.refused)
    if not outcome.complete:
        return Seen("more")
    start = (head.method, head.target) if is_request else (str(head.status), head.reason.decode("latin-1"))
    trailers = [tuple(line.split(b":", 1)) for line in outcome.trailers.splitlines()]
    values = [(name, value.strip(b" \t")) for name, value in trailers]
    return Seen("accepted", start, lowered(head.fields), outcome.content, lowered(values), outcome.left)


def theirs(data: bytes, is_request: bool) -> Seen:
    """Read with h11."""
    connection = h11.Connection(h11.SERVER if is_request else h11.CLIENT, max_incomplete_event_size=1 << 20)
    seen = Seen("more")
    try:
        if not is_request:
            connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
            connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        if not is_request:
            connection.receive_data(b"")
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                seen.start = (event.method.decode(), event.target.decode())
                seen.fields = lowered(list(event.headers))
            elif isinstance(event, h11.Response):
                seen.start = (str(event.status_code), event.reason.decode("latin-1"))
                seen.fields = lowered(list(event.headers))
            elif isinstance(event, h11.Data):
                seen.content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                seen.verdict = "accepted"
                seen.trailers = lowered(list(event.headers))
                seen.left = connection.trailing_data[0]
                break
            elif isinstance(event, h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        return Seen("refused", why=str(error))
    return seen


def compare(data: bytes, is_request: bool) -> tuple[str, str]:
    """Assert that both read the same, or differ for a reason that is listed; return both verdicts."""
    us, them = ours(data, is_request), theirs(data, is_request)
    if us.verdict == them.verdict == "accepted":
        assert us == them
    elif them.verdict == "accepted" or us.verdict == "refused":
        assert us.verdict == "refused", f"h11 sees a whole message, we wait for more: {them}"
        assert them.verdict != "accepted" or any(words in us.why for words in STRICTER), f"we refuse ({us.why}) what h11 reads as {them}"
    elif us.verdict == "accepted":
        assert any(pattern.search(data) for pattern in LOOSER.values()), f"h11 does not accept ({them.why}) what we read as {us}"
    return us.verdict, them.verdict


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
    unseen = [words for words in STRICTER if not any(words in why for why in found)]
    assert unseen == []
    assert compare(b"\r\nGET / HTTP/1.1\r\n" + host + b"\r\n", True) == ("accepted", "refused")
    assert compare(b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 1, 01\r\n\r\nx", True) == ("accepted", "refused")
