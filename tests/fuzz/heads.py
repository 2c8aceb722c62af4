"""Request and response heads: the verdict does not depend on the split and is that of a plainer reader, and so is what is sent on.

Input: a byte of options, two bytes that cut the rest, then the bytes of a head and whatever follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from fuzz.cutting import every_way
from fuzz.plain_http import TEXT, TOKEN, PlainHead, Refused, read_head, request_sent_on, response_sent_on
from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits
from soth_mitm.errors import WireError
from support.samples import read_samples

RESPONSE, SMALL_LIMIT, CLOSE, KEEP_ALIVE_10, UPGRADE, TO_10 = 1, 2, 4, 8, 16, 32
HOP_BY_HOP = {b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te"}
AUTHORITY = re.compile(r"(.*?)(?::(\d+))?")
# fields that we or an edit may add to the 256 that a head may have
ADDED = 2
UPGRADING = {b"connection", b"upgrade"}


class Verdict(NamedTuple):
    """What came of the bytes: a head, a refusal, or neither yet; `seen` is how many had arrived by then."""

    head: Head | None
    consumed: int
    refused: str
    seen: int

    @property
    def facts(self) -> tuple[object, ...]:
        head = self.head
        if head is None:
            return self.consumed, self.refused
        return self.consumed, head.raw, head.method, head.target, head.status, tuple(head.fields), tuple(head.facts.items())


def read(pieces: Iterable[bytes], is_request: bool, limit: int, most_fields: int = 256) -> Verdict:
    """Read a head that arrives in pieces."""
    reader = HeadReader(is_request, limit, most_fields)
    data = b""
    for piece in pieces:
        data += piece
        try:
            found = reader.feed(data)
        except WireError as error:
            return Verdict(None, 0, f"{error.status} {error}", len(data))
        if found is not None:
            return Verdict(*found, "", len(data))
    return Verdict(None, 0, "", len(data))


def run(data: bytes) -> None:
    """Test one input."""
    if len(data) < 3:
        return
    options, first, second = data[:3]
    text = data[3:]
    is_request = not options & RESPONSE
    # real ones are larger still: a limit inside `HTTP/1.` makes the verdict depend on what arrives with it
    limit = 16 + first * 4 if options & SMALL_LIMIT else 65536
    verdict = read([text], is_request, limit)
    for pieces in every_way(text, first, second):
        other = read(pieces, is_request, limit)
        assert other.facts == verdict.facts, "another split, another verdict"
        # it comes with the byte that decides, neither later nor earlier
        check_verdict(other, text[: other.seen], is_request, limit)
        before = text[: max(0, other.seen - 1)]
        check_verdict(read([before], is_request, limit), before, is_request, limit)
    plain = check_verdict(verdict, text, is_request, limit)
    if verdict.head is None or plain is None:
        return
    head = verdict.head
    # the bytes behind the head have no say, and the limit is exact
    assert read([text[: verdict.consumed]], is_request, len(plain.came)).facts == verdict.facts
    assert read([text], is_request, len(plain.came) - 1).refused.startswith("431" if is_request else "502")
    assert text[: verdict.consumed] in (plain.came, b"\r\n" + plain.came)
    if is_request:
        check_request_sent_on(head, plain, bool(options & UPGRADE))
    else:
        check_response_sent_on(head, plain, options)


def check_verdict(verdict: Verdict, text: bytes, is_request: bool, limit: int) -> PlainHead | None:
    """Compare with the plain reading, which is returned."""
    try:
        plain = read_head(text, is_request, limit)
    except Refused as refusal:
        assert verdict.refused, f"accepted, though there is {refusal}"
        if refusal.too_large and not is_hopeless(text, is_request):
            assert verdict.refused.startswith("431" if is_request else "502")
        return None
    if plain is None:
        assert verdict.head is None and bool(verdict.refused) == is_hopeless(text, is_request), "judged before its end is there"
        return None
    assert verdict.head is not None, f"refused without a reason: {verdict.refused}"
    head = verdict.head
    assert head.raw == plain.raw and head.version == f"HTTP/1.{plain.minor}"
    assert (head.method, head.target, head.path) == (plain.method.decode(), plain.target.decode(), plain.path.decode())
    assert (head.authority or "").encode() == (plain.authority or b"")
    assert (head.status, head.reason) == (plain.status, plain.reason)
    assert [(name.lower(), value) for name, value in head.fields] == plain.fields
    assert head.facts == plain.facts, "other facts"
    return plain


def is_hopeless(text: bytes, is_request: bool) -> bool:
    """Tell whether the first bytes alone are those of no head."""
    if not is_request:
        return not b"HTTP/1.".startswith(text[:7])
    first = text.removeprefix(b"\r\n")[:1]
    return first != b"" and re.fullmatch(TEXT, first) is not None and not re.match(TOKEN, first)


def check_request_sent_on(head: Head, plain: PlainHead, upgrade: bool) -> None:
    """What the upstream is sent is a head of the same meaning."""
    sent = rewrite_request(head, upgrade, "z.example")
    assert sent == request_sent_on(plain, upgrade, b"z.example"), "not what is to be sent on"
    if head.method == "CONNECT":
        # it is answered by us and never sent on
        return
    again = read([sent], True, len(sent), 256 + ADDED)
    assert again.head is not None and again.consumed == len(sent), (again.refused, sent)
    assert again.head.method == head.method and again.head.version == "HTTP/1.1"
    assert again.head.target == again.head.path == head.path
    assert host_and_port(again.head.authority) == host_and_port(head.authority or "z.example")
    assert framing(again.head) == framing(head)
    assert left_out(again.head, upgrade)
    check_edited(head, again.head, lambda edits: rewrite_request(head, upgrade, "z.example", edits))
    counting = b"max-forwards:" in sent.lower()
    assert counting or rewrite_request(again.head, upgrade) == sent
    if sent is not head.raw and not counting:
        assert set(again.head.fields) - {(b"Host", (head.authority or "z.example").encode())} <= set(head.fields) | collapsed(head)


def check_response_sent_on(head: Head, plain: PlainHead, options: int) -> None:
    """What the client is sent is a head of the same meaning."""
    # a connection that switches protocols is not closed, nor said to be kept
    upgrade = bool(options & UPGRADE)
    close, keep_alive_10 = bool(options & CLOSE) and not upgrade, bool(options & KEEP_ALIVE_10) and not upgrade
    to_10 = bool(options & TO_10)
    sent = rewrite_response(head, close, keep_alive_10, upgrade, to_10)
    assert sent == response_sent_on(plain, close, keep_alive_10, upgrade, to_10), "not what is to be sent on"
    again = read([sent], False, len(sent), 256 + ADDED)
    assert again.head is not None and again.consumed == len(sent), (again.refused, sent)
    assert again.head.status == head.status and again.head.reason == head.reason and again.head.version == "HTTP/1.1"
    if head.status < 200 or head.status == 204:
        assert not again.head.facts["chunked"] and again.head.facts["content_length"] <= 0
    elif head.status != 304 and not to_10:
        assert framing(again.head) == framing(head)
    assert left_out(again.head, True)
    check_edited(head, again.head, lambda edits: rewrite_response(head, close, keep_alive_10, upgrade, to_10, edits))
    if close:
        assert not again.head.facts["keeps_alive"]
    elif not upgrade:
        assert again.head.facts["keeps_alive"]


def check_edited(head: Head, sent: Head, write: Callable[[HeadEdits], bytes]) -> None:
    """What leaves with an edit of one field is what leaves without, but for that field."""
    for name in [*dict.fromkeys(name.lower() for name, _ in head.fields), b"x-new"]:
        try:
            HeadEdits().remove(name)
        except ValueError:
            continue
        before = [value for other, value in sent.fields if other.lower() == name]
        for change, values in (("remove", []), ("set", [b"a b"]), ("append", [*before, b"c"])):
            edits = HeadEdits()
            getattr(edits, change)(name, *values[-1:])
            written = write(edits)
            again = read([written], head.is_request, len(written), 256 + ADDED).head
            assert again is not None and again.raw == written
            assert [value for other, value in again.fields if other.lower() == name] == values, "not what was edited"
            assert [field for field in again.fields if field[0].lower() != name] == [
                field for field in sent.fields if field[0].lower() != name
            ], "another field is edited"
            assert framing(again) == framing(sent)


def host_and_port(authority: str | None) -> tuple[str, int]:
    """Return an authority so that two of one meaning compare equal, the schemes' own ports apart."""
    host, digits = AUTHORITY.fullmatch((authority or "").lower()).groups()
    return host, 0 if digits is None or int(digits) in (80, 443) else int(digits)


def framing(head: Head) -> tuple[object, ...]:
    """Everything that says where the message ends, and whether its sender waits for an answer before it goes on."""
    return head.facts["content_length"], head.facts["chunked"], head.is_request and head.facts["expect_continue"]


def collapsed(head: Head) -> set[tuple[bytes, bytes]]:
    """The field that stands for a Content-Length which repeats itself."""
    return {(b"Content-Length", b"%d" % head.facts["content_length"])}


def left_out(head: Head, upgrade: bool) -> bool:
    """Tell whether nothing of the connection is in a head that goes to the other side."""
    banned = HOP_BY_HOP if upgrade else HOP_BY_HOP | UPGRADING
    return not {name.lower() for name, _ in head.fields} & banned


def seeds() -> Iterator[bytes]:
    """The corpus of HTTP/1 samples, and heads of as many fields and options as there may be, and of one more."""
    for count in (256, 257):
        yield bytes((RESPONSE, 5, 40)) + b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * count + b"\r\n"
    for count in (64, 65):
        yield b"\0\5\x28GET / HTTP/1.1\r\nHost: a\r\nConnection: " + b"a," * count + b"\r\n\r\n"
    for sample in read_samples("http1"):
        for name, option in (("request", 0), ("response", RESPONSE)):
            if name in sample.blocks:
                yield bytes((option, 5, 40)) + sample.blocks[name].data
                yield bytes((option | UPGRADE, 9, 90)) + sample.blocks[name].data
                yield bytes((option | CLOSE, 9, 90)) + sample.blocks[name].data
