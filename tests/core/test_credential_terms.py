"""Credentials of requests without a proxy: which values a head needs, what is written, and what may not go there."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.exchange import credentials
from soth_mitm._dataplane.exchange.credentials import CredentialPlaces, CredentialTerms, forbids, talked, uploaded
from soth_mitm._dataplane.http2.message import fields_of_request
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.redactor import Lookout, SearchedStrings
from soth_mitm.spellings import spellings_in_form, spellings_in_json, spellings_of
from support.feeding import splits
from support.heads import parse_request

PLACEHOLDER = b"key-placeholder-1"
SECOND = b"second/placeholder+2"
VALUE = b'sk "live"\\/1+%'
OTHER = b"other-value-0123"


def places(number: int, placeholder: bytes, *where: str) -> CredentialPlaces:
    in_body = (frozenset((placeholder,)), frozenset(spellings_in_json(placeholder)), frozenset(spellings_in_form(placeholder)))
    return CredentialPlaces(number, placeholder, where, in_body)


def terms(*where: str, second: tuple[str, ...] = (), forbidden: tuple[bytes, ...] = ()) -> CredentialTerms:
    wanted = spellings_of(PLACEHOLDER) | (spellings_of(SECOND) if second else set())
    permitted = [places(0, PLACEHOLDER, *where)] + ([places(1, SECOND, *second)] if second else [])
    return CredentialTerms({spelling for text in forbidden for spelling in spellings_of(text) | {text.lower()}}, permitted, wanted)


def head(target: str = "/", *lines: str, method: str = "GET") -> Head:
    text = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", "Host: a.example", *lines)) + "\r\n"
    found = parse_request(text.encode("latin-1"))
    assert found is not None
    return found[0]


def lines_of(raw: bytes) -> list[bytes]:
    return raw.split(b"\r\n")[:-2]


def filled(terms: CredentialTerms, head: Head, values: dict[int, bytes]) -> tuple[set[int], bytes, list[bytes]]:
    """Return which values are needed, the head with them, and the names of what no HPACK table may keep."""
    needed, with_values = credentials.filled(terms, head, values)
    return needed, with_values.raw, [name for name, _, never in fields_of_request(with_values) if never]


class TestHead:
    @pytest.mark.parametrize(
        "where, line, expected",
        [
            ("header:authorization", b"Authorization: Bearer key-placeholder-1", b"Authorization: Bearer " + VALUE),
            ("header:X-Api-Key", b"x-api-KEY:key-placeholder-1  ", b"x-api-KEY:" + VALUE + b"  "),
            ("header:cookie", b"Cookie: a=key-placeholder-1; b=key-placeholder-1", b"Cookie: a=" + VALUE + b"; b=" + VALUE),
            ("header:sec-websocket-protocol", b"Sec-WebSocket-Protocol: v, key-placeholder-1", b"Sec-WebSocket-Protocol: v, " + VALUE),
        ],
    )
    def test_a_header(self, where: str, line: bytes, expected: bytes) -> None:
        needed, raw, sensitive = filled(terms(where), head("/", line.decode()), {0: VALUE})
        assert needed == {0}
        assert lines_of(raw) == [b"GET / HTTP/1.1", b"Host: a.example", expected]
        assert sensitive == [line.partition(b":")[0].lower()] * (2 if b"a=" in line else 1)

    @pytest.mark.parametrize("text", ["user:key-placeholder-1", "key-placeholder-1:", "a key-placeholder-1 b"])
    def test_basic(self, text: str) -> None:
        line = f"Authorization: basic {base64.b64encode(text.encode()).decode()}"
        needed, raw, sensitive = filled(terms("basic"), head("/", line), {0: VALUE})
        assert (needed, sensitive) == ({0}, [b"authorization"])
        scheme, _, encoded = lines_of(raw)[2].removeprefix(b"Authorization: ").partition(b" ")
        assert scheme == b"basic"
        assert base64.b64decode(encoded) == text.encode().replace(PLACEHOLDER, VALUE)

    @pytest.mark.parametrize(
        "where, target, expected",
        [
            ("query:key", "/p?a=1&key=key-placeholder-1&b=2", "/p?a=1&key=sk%20%22live%22%5C%2F1%2B%25&b=2"),
            ("query:key", "/p?key=x-key-placeholder-1+y", "/p?key=x-sk%20%22live%22%5C%2F1%2B%25+y"),
            ("query:key", "/p?k%65y=key%2Dplaceholder%2d1", "/p?k%65y=sk%20%22live%22%5C%2F1%2B%25"),
            ("query:a b", "/?a+b=key-placeholder-1", "/?a+b=sk%20%22live%22%5C%2F1%2B%25"),
            ("path", "/bot/key-placeholder-1/send?key=key-placeholder-1", "/bot/sk%20%22live%22%5C%2F1%2B%25/send?key=key-placeholder-1"),
            ("path", "/botkey%2dplaceholder-1/send", "/botsk%20%22live%22%5C%2F1%2B%25/send"),
        ],
    )
    def test_the_target(self, where: str, target: str, expected: str) -> None:
        needed, raw, sensitive = filled(terms(where), head(target), {0: VALUE})
        assert (needed, sensitive) == ({0}, [b":path"])
        assert lines_of(raw)[0] == f"GET {expected} HTTP/1.1".encode()

    @pytest.mark.parametrize(
        "where, lines, target",
        [
            ("header:authorization", ("X-Api-Key: key-placeholder-1",), "/?key=key-placeholder-1"),
            ("query:key", ("Authorization: key-placeholder-1",), "/key-placeholder-1?other=key-placeholder-1"),
            ("basic", ("Authorization: Bearer key-placeholder-1", "Authorization: Basic !!key-placeholder-1"), "/"),
            ("body", ("Authorization: key-placeholder-1",), "/"),
        ],
    )
    def test_another_place_stays(self, where: str, lines: tuple[str, ...], target: str) -> None:
        before = head(target, *lines)
        needed, raw, _ = filled(terms(where), before, {0: VALUE})
        assert needed == set() and raw is before.raw

    def test_a_value_that_looks_like_a_placeholder_stays(self) -> None:
        allowed = terms("header:a", second=("header:a",))
        before = head("/", f"A: {PLACEHOLDER.decode()}, {SECOND.decode()}")
        needed, raw, _ = filled(allowed, before, {0: SECOND, 1: PLACEHOLDER})
        assert needed == {0, 1}
        assert lines_of(raw)[2] == b"A: " + SECOND + b", " + PLACEHOLDER

    def test_only_what_is_needed_is_asked_for(self) -> None:
        allowed = terms("header:a", second=("header:a",))
        assert filled(allowed, head("/", f"A: {SECOND.decode()}"), {1: b"x"})[0] == {1}

    def test_a_trace_needs_none(self) -> None:
        assert filled(terms("header:a"), head("/", f"A: {PLACEHOLDER.decode()}", method="TRACE"), {0: OTHER})[0] == set()

    def test_a_value_cannot_become_a_line(self) -> None:
        before = head("/", f"A: {PLACEHOLDER.decode()}")
        for value in (b"x\r\nHost: b.example", b"x\nB: c", b"x\x00", b"x\x07"):
            with pytest.raises(ValueError, match="the value cannot stand there"):
                filled(terms("header:a"), before, {0: value})

    @given(st.lists(st.sampled_from(["X-A: key-placeholder-1", "X-B: b", "X-A: a", "X-C: key-placeholder-1", "Connection: x-b"])))
    def test_what_is_not_named_keeps_its_bytes(self, lines: list[str]) -> None:
        before = head("/", *lines)
        raw = filled(terms("header:x-a"), before, {0: OTHER})[1]
        expected = [line.replace(PLACEHOLDER.decode(), OTHER.decode()) if line.startswith("X-A") else line for line in lines]
        assert [line.decode() for line in lines_of(raw)[2:]] == expected


class TestBody:
    @pytest.mark.parametrize(
        "media_type, body, expected",
        [
            ("text/plain", b"k=key-placeholder-1", b"k=" + VALUE),
            ("application/json", b'{"k": "key-placeholder-1"}', json.dumps({"k": VALUE.decode()}).encode()),
            ("application/vnd.x+json; charset=utf-8", b'["key-placeholder-1"]', json.dumps([VALUE.decode()]).encode()),
            ("application/x-www-form-urlencoded", b"a=1&k=key-placeholder-1&b=2", b"a=1&k=sk%20%22live%22%5C%2F1%2B%25&b=2"),
        ],
    )
    def test_a_value_is_written_as_the_type_wants(self, media_type: str, body: bytes, expected: bytes) -> None:
        before = head("/", f"Content-Type: {media_type}", "Content-Length: 5", method="POST")
        for pieces in splits(body):
            assert uploaded(terms("body"), before, {0: VALUE}, pieces) == (expected, True)

    def test_bytes_cannot_stand_in_json(self) -> None:
        before = head("/", "Content-Type: application/json", method="POST")
        with pytest.raises(ValueError, match="is not UTF-8") as caught:
            uploaded(terms("body"), before, {0: b"\xff\xfe0123456"}, [])
        assert caught.value.__suppress_context__

    def test_what_may_not_go_there_ends_it(self) -> None:
        body = b"x" * 50 + OTHER + b"y" * 50
        for pieces in splits(body):
            left, is_allowed = uploaded(terms("header:a", forbidden=(OTHER,)), head("/", method="POST"), {}, pieces)
            assert not is_allowed
            assert body.startswith(left) and len(left) < 50 + 8


class TestForbidden:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET /?k=other-value-0123 HTTP/1.1",
            b"GET / HTTP/1.1\r\nA: b\r\nOther-Value-0123: c",
            b"Authorization: Basic " + base64.b64encode(b"user:other-value-0123"),
            b"Authorization: Basic " + base64.b64encode(b"some-user:other-value-0123:"),
            b'{"a": "other-value-0123"}',
        ],
    )
    def test_it_is_seen_wherever_it_stands(self, data: bytes) -> None:
        assert forbids(terms("header:a", forbidden=(b"Other-Value-0123", OTHER)), data)
        assert not forbids(terms("header:a", forbidden=(b"Other-Xalue-0123", b"other-xalue-0123")), data)

    @pytest.mark.parametrize("target", ["/other%2Dvalue%2D0123", "/?a=other-%76alue-0123", "/?%6fther-value-0123"])
    def test_a_target_is_read_as_servers_read_it(self, target: str) -> None:
        assert forbids(terms("header:a", forbidden=(OTHER,)), head(target))
        assert not forbids(terms("header:a", forbidden=(OTHER,)), head(target.replace("0123", "0124")))


STRINGS = st.sets(st.text("ab", min_size=8, max_size=12).map(str.encode), min_size=1, max_size=20)


@given(data=st.text("ab", max_size=60).map(str.encode), strings=STRINGS, cuts=st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=1000, deadline=None)
def test_a_lookout_in_any_pieces(data: bytes, strings: set[bytes], cuts: list[int]) -> None:
    """It ends exactly where one of the strings is; what leaves is a beginning of the data, with no string in it."""
    lookout = Lookout(SearchedStrings(strings))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    out = b""
    for begin, end in zip(edges, edges[1:], strict=False):
        left = lookout.feed(data[begin:end])
        if left is None:
            break
        out += left
    else:
        left = lookout.finish()
        out += left or b""
    is_there = any(string in data for string in strings)
    assert lookout.has_found is (left is None) is is_there
    assert data.startswith(out) and not any(string in out for string in strings)
    if not is_there:
        assert out == data
    else:
        first = min(data.index(string) for string in strings if string in data)
        # not a byte of the string has left
        assert len(out) <= first


def test_a_beginning_waits() -> None:
    lookout = Lookout(SearchedStrings([b"sk-0123456789"]))
    assert lookout.feed(b"ends in s") == b"ends in "
    assert lookout.held_bytes == 1
    assert lookout.feed(b"k-01234") == b""
    assert lookout.feed(b"5x") == b"sk-012345x"
    assert lookout.held_bytes == 0
    assert lookout.feed(b"sk-012345678") == b""
    assert lookout.feed(b"9") is None
    assert lookout.feed(b"more") is None and lookout.finish() is None


def test_what_was_let_go_is_searched_with_what_follows() -> None:
    lookout = Lookout(SearchedStrings([b"sk-0123456789"]))
    assert lookout.feed(b"a sk-01") == b"a "
    assert lookout.let_go() == b"sk-01"
    assert (lookout.held_bytes, lookout.let_go()) == (0, b"")
    assert lookout.feed(b"23") == b""
    assert lookout.let_go() == b"23"
    assert lookout.feed(b"x") == b"x"
    assert lookout.feed(b"sk-01234567") == b""
    assert lookout.let_go() == b"sk-01234567"
    assert lookout.feed(b"89") is None


def coded(coding: str, data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) if coding == "gzip" else zlib.compress(data)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
class TestCodedUploads:
    """A body that is decoded as it passes."""

    @pytest.mark.parametrize("size", [1, 3, 10, 1000])
    def test_placeholders_are_replaced_in_it(self, coding: str, size: int) -> None:
        body = b"x" * 50 + PLACEHOLDER + bytes(range(256)) * 5 + PLACEHOLDER
        data = coded(coding, body)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        out = uploaded(terms("body"), head("/", method="POST"), {0: VALUE}, pieces, coding=coding.encode())
        assert out == (body.replace(PLACEHOLDER, VALUE), True)

    @pytest.mark.parametrize("size", [1, 3, 10, 1000])
    def test_it_goes_on_as_it_came_where_it_is_only_searched(self, coding: str, size: int) -> None:
        data = coded(coding, bytes(range(256)) * 5 + OTHER[:-1])
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        guard = terms("header:a", forbidden=(OTHER,))
        assert uploaded(guard, head("/", method="POST"), {}, pieces, coding=coding.encode()) == (data, True)

    def test_what_is_forbidden_ends_it(self, coding: str) -> None:
        guard = terms("header:a", forbidden=(OTHER,))
        for spelling in spellings_of(OTHER):
            data = coded(coding, b"x" * 50 + spelling + b"y" * 50)
            for size in (1, 7, 1000):
                pieces = [data[at : at + size] for at in range(0, len(data), size)]
                out, is_whole = uploaded(guard, head("/", method="POST"), {}, pieces, coding=coding.encode())
                assert not is_whole and spelling not in zlib.decompressobj(47 if coding == "gzip" else 15).decompress(out)

    @pytest.mark.parametrize("fills", [False, True])
    def test_what_cannot_be_decoded_ends_it(self, coding: str, fills: bool) -> None:
        data = coded(coding, b"x" * 5000)
        made = terms("body" if fills else "header:a", forbidden=(OTHER,))
        for bad in (data[:-1], data[:10] + b"\xff" * 10, data + b"more"):
            assert uploaded(made, head("/", method="POST"), {0: VALUE} if fills else {}, [bad], coding=coding.encode())[1] is False


def test_a_coded_upload_that_brings_no_content_ends() -> None:
    packer = zlib.compressobj(wbits=31)
    begin = packer.compress(b"x" * 20 + OTHER[:-1]) + packer.flush(zlib.Z_SYNC_FLUSH)
    empty = b"\0\0\0\xff\xff" * 20_000
    guard = terms("header:a", forbidden=(OTHER,))
    assert uploaded(guard, head("/", method="POST"), {}, [begin, empty], coding=b"gzip") == (b"", False)


def message(payload: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(payload).to_bytes(4, "big") + payload


class TestGrpcUploads:
    guard = terms("header:a", forbidden=(OTHER,))

    def sent(self, pieces: list[bytes], grpc: bytes = b"gzip") -> tuple[bytes, bool]:
        return uploaded(self.guard, head("/", method="POST"), {}, pieces, grpc=grpc)

    def test_nothing_waits_behind_the_end_of_a_message(self) -> None:
        first, second = message(b"ends in " + OTHER[:-1]), message(gzip.compress(b"packed"), 1)
        for pieces in ([first, second, b""], [first[:7], first[7:], second[:3], second[3:]]):
            assert self.sent(pieces) == (first + second, True)
        # the first piece alone has left whole
        assert self.sent([first, message(OTHER)])[0].startswith(first)

    @pytest.mark.parametrize("data", [message(b"a " + OTHER), message(gzip.compress(b"a " + OTHER), 1)], ids=["plain", "compressed"])
    def test_what_is_forbidden_ends_it(self, data: bytes) -> None:
        good = message(b"good")
        for size in (1, 4, 1000):
            whole = good + data
            out, is_whole = self.sent([whole[at : at + size] for at in range(0, len(whole), size)])
            # a piece that holds it does not leave at all
            assert not is_whole and out.startswith(good if size < 1000 else b"") and OTHER not in out
            assert b"\x1f\x8b" not in out

    @pytest.mark.parametrize("grpc", [b"", b"snappy"])
    def test_a_compressed_message_that_cannot_be_looked_into_ends_it(self, grpc: bytes) -> None:
        assert self.sent([message(b"some", 1)], grpc) == (b"", False)

    def test_a_compressed_message_that_is_cut_ends_it(self) -> None:
        assert self.sent([message(gzip.compress(b"some"), 1)[:-1]]) == (b"", False)


class Counted:
    """What is told of values that are put in and turned back."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def count(self, numbers: list[int]) -> None:
        self.told.append(numbers)

    def count_redacted(self, count: int) -> None:
        self.told.append(count)


class TestMessages:
    @pytest.mark.parametrize(
        "payload, expected, told",
        [
            (b"auth " + PLACEHOLDER, b"auth " + VALUE, [[0]]),
            (b' {"k": "' + PLACEHOLDER + b'"}', b' {"k": "' + json.dumps(VALUE.decode())[1:-1].encode() + b'"}', [[0]]),
            (PLACEHOLDER + SECOND + PLACEHOLDER, VALUE + OTHER + VALUE, [[0, 1]]),
            (b"[" + SECOND.replace(b"/", b"\\/"), b"[" + OTHER, [[1]]),
            (PLACEHOLDER[:-1], PLACEHOLDER[:-1], []),
        ],
    )
    def test_to_the_upstream(self, payload: bytes, expected: bytes, told: list[object]) -> None:
        counted = Counted()
        assert talked(terms("websocket", second=("websocket",)), {0: VALUE, 1: OTHER}, payload, True, counted=counted) == expected
        assert counted.told == told

    def test_only_in_its_place_and_in_text(self) -> None:
        assert talked(terms("body"), {0: VALUE}, PLACEHOLDER, True) == PLACEHOLDER
        assert talked(terms("websocket"), {0: VALUE}, PLACEHOLDER, True, is_text=False) == PLACEHOLDER

    def test_what_is_forbidden(self) -> None:
        guarded = terms("websocket", forbidden=(OTHER,))
        for spelling in spellings_of(OTHER):
            assert talked(guarded, {0: VALUE}, b"a " + spelling + b" b", True) is None
            assert talked(guarded, {0: VALUE}, b"a " + spelling, True, is_text=False) is None
        assert talked(guarded, {0: VALUE}, OTHER, False) == OTHER, "of the upstream's"

    def test_to_the_client(self) -> None:
        redacting = CredentialTerms(set(), [places(0, PLACEHOLDER, "body")], set(), dict.fromkeys(spellings_of(OTHER), PLACEHOLDER))
        counted = Counted()
        for spelling in sorted(spellings_of(OTHER)):
            assert talked(redacting, {}, b"a " + spelling, False, counted=counted) == b"a " + PLACEHOLDER
            assert talked(redacting, {}, b"a " + spelling, False, is_text=False, counted=counted) == b"a " + b"*" * len(spelling)
        assert counted.told == [1] * 2 * len(spellings_of(OTHER))
        close = b"\x0f\xa1" + OTHER * 7 + "é".encode() * 5
        left = talked(redacting, {}, close, False, is_close=True, counted=counted)
        assert left == b"\x0f\xa1" + (PLACEHOLDER * 7 + "éé".encode())
        assert talked(redacting, {}, b"", False, is_close=True, counted=counted) == b""

    def test_a_value_that_is_no_text(self) -> None:
        with pytest.raises(ValueError, match="not UTF-8"):
            talked(terms("websocket"), {0: b"\xff" * 9}, b"x", True)
