"""Request and response heads: the verdict does not depend on the split, and what is sent on says what came in.

Input: a byte of options, two bytes that cut the rest, then the bytes of a head and whatever follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fuzz.cutting import every_way
from soth_mitm._dataplane.head import Head, HeadReader
from soth_mitm._dataplane.writer import rewrite_request, rewrite_response
from soth_mitm.errors import WireError
from support.samples import read_samples

RESPONSE, SMALL_LIMIT, CLOSE, KEEP_ALIVE_10, UPGRADE = 1, 2, 4, 8, 16
HOP_BY_HOP = {b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te"}
AUTHORITY = re.compile(r"(.*?)(?::(\d+))?")
UPGRADING = {b"connection", b"upgrade"}


class Verdict(NamedTuple):
    """What came of the bytes: a head, a refusal, or neither yet."""

    head: Head | None
    consumed: int
    refused: str

    @property
    def facts(self) -> tuple[object, ...]:
        head = self.head
        if head is None:
            return self.consumed, self.refused
        return self.consumed, head.raw, head.method, head.target, head.status, tuple(head.fields), tuple(head.facts.items())


def read(pieces: Iterable[bytes], is_request: bool, limit: int) -> Verdict:
    """Read a head that arrives in pieces."""
    reader = HeadReader(is_request, limit)
    data = b""
    for piece in pieces:
        data += piece
        try:
            found = reader.feed(data)
        except WireError as error:
            return Verdict(None, 0, f"{error.status} {error}")
        if found is not None:
            return Verdict(*found, refused="")
    return Verdict(None, 0, "")


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
        assert read(pieces, is_request, limit).facts == verdict.facts, "another split, another verdict"
    if verdict.head is None:
        return
    head = verdict.head
    # the bytes behind the head have no say, and the limit is exact
    assert read([text[: verdict.consumed]], is_request, len(head.raw)).facts == verdict.facts
    assert read([text], is_request, len(head.raw) - 1).refused.startswith("431" if is_request else "502")
    assert text[: verdict.consumed] in (head.raw, b"\r\n" + head.raw)
    if is_request:
        check_request_sent_on(head, bool(options & UPGRADE))
    else:
        check_response_sent_on(head, options)


def check_request_sent_on(head: Head, upgrade: bool) -> None:
    """What the upstream is sent is a head of the same meaning."""
    sent = rewrite_request(head, upgrade)
    if head.method == "CONNECT":
        # it is answered by us and never sent on
        return
    again = read([sent], True, len(sent))
    assert again.head is not None and again.consumed == len(sent), (again.refused, sent)
    assert again.head.method == head.method and again.head.version == head.version
    assert again.head.target == again.head.path == head.path
    assert host_and_port(again.head.authority) == host_and_port(head.authority)
    assert framing(again.head) == framing(head)
    assert left_out(again.head, upgrade)
    assert rewrite_request(again.head, upgrade) == sent
    if sent is not head.raw:
        assert set(again.head.fields) - {(b"Host", (head.authority or "").encode())} <= set(head.fields) | collapsed(head)


def check_response_sent_on(head: Head, options: int) -> None:
    """What the client is sent is a head of the same meaning."""
    close, keep_alive_10, upgrade = bool(options & CLOSE), bool(options & KEEP_ALIVE_10), bool(options & UPGRADE)
    sent = rewrite_response(head, close, keep_alive_10, upgrade)
    again = read([sent], False, len(sent))
    assert again.head is not None and again.consumed == len(sent), (again.refused, sent)
    assert again.head.status == head.status and again.head.reason == head.reason and again.head.version == "HTTP/1.1"
    assert framing(again.head) == framing(head)
    assert left_out(again.head, True)
    if close:
        assert not again.head.facts["keeps_alive"]
    elif not upgrade:
        assert again.head.facts["keeps_alive"]


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
    """The corpus of HTTP/1 samples."""
    for sample in read_samples("http1"):
        for name, option in (("request", 0), ("response", RESPONSE)):
            if name in sample.blocks:
                yield bytes((option, 5, 40)) + sample.blocks[name].data
                yield bytes((option | UPGRADE | CLOSE, 9, 90)) + sample.blocks[name].data
