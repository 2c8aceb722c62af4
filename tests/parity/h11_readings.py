"""What we and h11 read in the same bytes, and the list of all that we may differ in, with the rule of the RFC for each.

Where both accept a message they must see the same one: method, target or status, fields, content, trailers, and what is left over. Where
one refuses what the other accepts, the reason must stand in one of the two lists below; anything else is a bug in one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

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
    "Transfer-Encoding and Content-Length are both there": "RFC 9112 section 6.3: ought to be handled as an error",
    "Transfer-Encoding stands in an HTTP/1.0 message": "RFC 9112 section 6.1: treat as faulty framing",
    "Content-Length is too large a number": "RFC 9110 section 8.6: anticipate overflow; h11 reads 20 digits",
    "a chunk does not begin with its size in hexadecimal digits": "RFC 9112 section 7.1; h11 lets white space follow in requests too",
    "a chunk size is too large a number": "RFC 9112 section 7.1: anticipate overflow; h11 reads 20 digits",
    "a field stands in the trailer section": "RFC 9110 section 6.5.1",
    "a chunk-size line is longer than": "RFC 9112 section 7.1.1: ought to limit the length of chunk extensions",
    "the chunk extensions together are": "RFC 9112 section 7.1.1: ought to limit the length of chunk extensions",
    "the trailer section is longer than": "RFC 9110 section 5.4: a recipient may have limits; h11 has one for what is incomplete",
    "the trailer section has more fields than": "RFC 9110 section 5.4: a recipient may have limits",
}

# What h11 refuses and we accept: the rule, where it matters, and h11's words
LOOSER = {
    "RFC 9112 section 2.2: SHOULD ignore an empty line before the request": (re.compile(rb"\A\r\n"), "no request line received"),
    "RFC 9112 section 5.1: a proxy removes white space before the colon from a response": (
        re.compile(rb"\AHTTP/(?s:.*)[^\s:][ \t]+:"),
        "illegal header line",
    ),
    "RFC 9110 section 5.5: a recipient MAY retain control bytes in a value, but for CR, LF and NUL": (
        re.compile(rb"\AHTTP/(?s:.*)[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"),
        "illegal header line",
    ),
    "RFC 9110 section 8.6: lengths that are equal, if written with other zeros": (
        re.compile(rb"(?i)content-length:[^\r]*\b0\d"),
        "conflicting Content-Length",
    ),
}


@dataclass
class Seen:
    """One party's reading; `verdict` is "accepted", "refused" or "more". `keeps`: the connection may go on; None: that is not compared."""

    verdict: str
    start: tuple[str, ...] = ()
    fields: tuple[tuple[bytes, bytes], ...] = ()
    content: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    left: bytes = b""
    why: str = ""
    keeps: bool | None = None


# h11 rewrites these two
FRAMING = (b"content-length", b"transfer-encoding")


def lowered(fields: object) -> tuple[tuple[bytes, bytes], ...]:
    """Return fields the way h11 shows them."""
    assert isinstance(fields, list)
    return tuple((name.lower(), value) for name, value in fields if name.lower() not in FRAMING)


def without_host(fields: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Leave Host out."""
    return tuple(field for field in fields if field[0] != b"host")


def ours(data: bytes, is_request: bool, method: str = "GET") -> Seen:
    """Read with our parser; a response answers such a request, and what is interim is passed over."""
    outcome, head = read_message([data], Reading(is_request, eof=not is_request, request_method=method))
    if outcome.refused or head is None:
        return Seen("refused" if outcome.refused else "more", why=outcome.refused)
    if not outcome.complete:
        return Seen("more")
    if 100 <= head.status < 200:
        return ours(outcome.left, is_request, method)
    start = (head.method, head.target) if is_request else (str(head.status), head.reason.decode("latin-1"))
    trailers = [tuple(line.split(b":", 1)) for line in outcome.trailers.splitlines()]
    values = [(name, value.strip(b" \t")) for name, value in trailers]
    # RFC 9112 section 9.3 lets HTTP/1.0 peers ask for it, h11 does not; CONNECT and a body until the end settle it
    compared = head.version == "HTTP/1.1" and head.method != "CONNECT" and outcome.framing != "until_close"
    keeps = bool(head.facts["keeps_alive"]) if compared else None
    return Seen("accepted", start, lowered(head.fields), outcome.content, lowered(values), outcome.left, keeps=keeps)


def theirs(data: bytes, is_request: bool, method: str = "GET") -> Seen:
    """Read with h11; a response answers such a request."""
    connection = h11.Connection(h11.SERVER if is_request else h11.CLIENT, max_incomplete_event_size=1 << 20)
    seen = Seen("more")
    try:
        if not is_request:
            connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
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
                seen.keeps = connection.their_state is h11.DONE
                break
            elif isinstance(event, h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        return Seen("refused", why=str(error))
    return seen


def compare(data: bytes, is_request: bool, method: str = "GET") -> tuple[str, str]:
    """Assert that both read the same, or differ for a reason that is listed; return both verdicts."""
    us, them = ours(data, is_request, method), theirs(data, is_request, method)
    if us.verdict == them.verdict == "accepted":
        them.keeps = them.keeps if us.keeps is not None else None
        if is_request and us.start[1].lower().startswith("http"):
            # RFC 9112 section 3.2.2: a proxy replaces it; h11 is no proxy
            us.fields, them.fields = without_host(us.fields), without_host(them.fields)
        assert us == them
    elif them.verdict == "accepted" or us.verdict == "refused":
        assert us.verdict == "refused", f"h11 sees a whole message, we wait for more: {them}"
        assert them.verdict != "accepted" or any(words in us.why for words in STRICTER), f"we refuse ({us.why}) what h11 reads as {them}"
    elif us.verdict == "accepted":
        assert any(pattern.search(data) and words in them.why for pattern, words in LOOSER.values()), (
            f"h11 does not accept ({them.why}) what we read as {us}"
        )
    return us.verdict, them.verdict
