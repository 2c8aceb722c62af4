"""Credentials of requests without a proxy: which values a head needs, what is written, and what may not go there."""

from __future__ import annotations

import base64
import json

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
        # of the string itself no more has left than a beginning that occurs by chance
        assert len(out) < first + 8


def test_a_short_beginning_does_not_wait() -> None:
    lookout = Lookout(SearchedStrings([b"sk-0123456789"]))
    assert lookout.feed(b"ends in sk-0123") == b"ends in sk-0123"
    assert lookout.feed(b"4") == b""
    assert lookout.feed(b"5x") == b"45x"
    assert lookout.feed(b"sk-012345678") == b""
    assert lookout.feed(b"9") is None
    assert lookout.feed(b"more") is None and lookout.finish() is None


def test_a_lookout_takes_no_string_that_could_pass_as_a_short_beginning() -> None:
    with pytest.raises(ValueError, match="fewer than 8 bytes"):
        Lookout(SearchedStrings([b"long enough", b"short"]))


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
