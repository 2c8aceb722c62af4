"""A head as a decision of the handler changes it, of a request or of a response."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http.changes import BODY_FIELDS, REPLACED_FIELDS, changed, changed_response
from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.http2.message import fields_of_request, fields_of_response, request_of, response_of
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.decision import HandlerDecision
from soth_mitm.response_decision import ResponseDecision
from support.heads import parse_request, parse_response

forward = HandlerDecision.forward
START = b"POST /a?b HTTP/1.1\r\n"
FIELDS = [b"Host: a\r\n", b"X-One:  1 \r\n", b"Cookie: a\r\n", b"x-one:2\r\n", b"Content-Length: 3\r\n"]


def request(*fields: bytes, start: bytes = START) -> Head:
    """Parse a request head."""
    parsed = parse_request(start + b"".join(fields) + b"\r\n")
    assert parsed is not None
    return parsed[0]


def lines(head: Head) -> list[bytes]:
    """Return the lines of a head, the start line first."""
    return head.raw[:-4].split(b"\r\n")


class TestFields:
    @pytest.mark.parametrize(
        "decision",
        [
            forward(),
            forward(set={"Cookie": "a"}),
            forward(set={"x-one": ["1", "2"]}),
            forward(set=[("X-ONE", "1"), ("cookie", "a"), ("x-one", " 2\t")]),
            forward(remove=["absent", "x-absent"]),
            forward(method="POST", path="/a?b"),
        ],
        ids=repr,
    )
    def test_what_changes_nothing_is_the_head_itself(self, decision: HandlerDecision) -> None:
        head = request(*FIELDS)
        assert changed(head, decision) is head

    def test_set_stands_where_the_first_stood_in_its_spelling(self) -> None:
        head = changed(request(*FIELDS), forward(set={"X-ONE": "3", "cookie": "b"}))
        assert lines(head) == [START[:-2], b"Host: a", b"X-One: 3", b"Cookie: b", b"Content-Length: 3"]

    def test_several_values_are_several_lines_at_one_place(self) -> None:
        head = changed(request(*FIELDS), forward(set={"x-one": ["3", "4", "5"], "Set-Cookie": ("a", "b")}))
        assert lines(head)[2:5] == [b"X-One: 3", b"X-One: 4", b"X-One: 5"]
        assert lines(head)[-2:] == [b"Set-Cookie: a", b"Set-Cookie: b"]

    def test_fewer_or_other_values_are_a_change(self) -> None:
        for values in (["1"], ["2", "1"], ["1", "2", "2"], ["1", "3"]):
            head = changed(request(*FIELDS), forward(set={"x-one": values}))
            assert [line.split(b": ")[1].decode() for line in lines(head) if line.lower().startswith(b"x-one")] == values

    def test_add_and_remove(self) -> None:
        head = changed(request(*FIELDS), forward(add=[("Cookie", "b"), ("B", "1")], remove=["X-ONE", b"absent"]))
        assert lines(head) == [START[:-2], b"Host: a", b"Cookie: a", b"Content-Length: 3", b"Cookie: b", b"B: 1"]

    def test_remove_and_add_of_one_name(self) -> None:
        assert lines(changed(request(*FIELDS), forward(add={"x-one": "9"}, remove=["x-one"])))[-1] == b"x-one: 9"

    def test_a_connection_field_does_not_take_away_what_is_set(self) -> None:
        listed = request(b"Host: a\r\n", b"X-Gate: 1\r\n", b"X-Other: 1\r\n", b"Connection: x-gate, x-new, x-other\r\n")
        for decision in (forward(set={"X-Gate": "1", "X-New": "2"}), forward(set={"X-Gate": "1"}, add={"X-New": "2"})):
            sent = rewrite_request(changed(listed, decision))
            assert sent == START + b"Host: a\r\nX-Gate: 1\r\nX-New: 2\r\n\r\n"
        # of what the handler does not name, the client says that it stops here
        assert rewrite_request(listed) == START + b"Host: a\r\n\r\n"

    @pytest.mark.parametrize(
        "decision",
        [
            forward(set={"X-Gate": "1"}),
            forward(set={"x-gate": "1"}, path="/a?b"),
            forward(set={"X-Gate": "1"}, remove=["x-absent"]),
            forward(set={"X-Gate": "1"}, body=b""),
        ],
        ids=repr,
    )
    def test_not_even_where_the_client_guessed_its_bytes(self, decision: HandlerDecision) -> None:
        listed = request(b"Host: a\r\n", b"X-Gate: 1\r\n", b"Connection: X-Gate\r\n")
        assert b"\r\nX-Gate: 1\r\n" in rewrite_request(changed(listed, decision))
        several = request(b"Host: a\r\n", b"X-Gate: 1\r\n", b"X-Gate: 2\r\n", b"Connection: x-gate\r\n")
        assert (
            rewrite_request(changed(several, forward(set={"X-GATE": ["1", "2"]}))) == START + b"Host: a\r\nX-Gate: 1\r\nX-Gate: 2\r\n\r\n"
        )

    def test_no_path_becomes_a_part_of_the_host(self) -> None:
        for start in (b"OPTIONS http://a/x HTTP/1.1\r\n", b"OPTIONS http://a:80/x HTTP/1.1\r\n"):
            with pytest.raises(ValueError, match=r"^path: a request in absolute form has no `\*`$"):
                changed(request(b"Host: a\r\n", start=start), forward(path="*"))

    def test_a_head_that_becomes_too_long(self) -> None:
        head = request(*FIELDS)
        assert len(changed(head, forward(add={"X": "y" * 10}), limit=len(head.raw) + 15).raw) == len(head.raw) + 15
        with pytest.raises(ValueError, match="the changed head is longer than"):
            changed(head, forward(add={"X": "y" * 11}), limit=len(head.raw) + 15)
        with pytest.raises(ValueError, match="the changed head .*6 "):
            changed(head, forward(add=[("X", "y"), ("X", "z")]), most_fields=6)


class TestBody:
    def test_what_describes_the_old_body_leaves(self) -> None:
        describing = [b"%b: 1\r\n" % name.title() for name in BODY_FIELDS if name not in (b"content-length", b"transfer-encoding")]
        for framing in (b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"):
            head = request(b"Host: a\r\n", framing, *describing, b"Content-Type: x/y\r\n", b"Signature: z\r\n")
            assert lines(changed(head, forward(body=b""))) == [START[:-2], b"Host: a", b"Content-Type: x/y", b"Signature: z"]

    def test_a_coding_that_is_set_describes_the_new_body(self) -> None:
        head = request(b"Host: a\r\n", b"Content-Encoding: gzip\r\n")
        decision = forward(body=b"...", set={"content-encoding": "gzip"})
        assert changed(head, decision) is head


class TestStartLine:
    @pytest.mark.parametrize(
        ("start", "decision", "expected"),
        [
            (b"GET /a HTTP/1.1\r\n", forward(method="POST"), b"POST /a HTTP/1.1"),
            (b"GET /a HTTP/1.1\r\n", forward(path="/b?c=d"), b"GET /b?c=d HTTP/1.1"),
            (b"GET /a HTTP/1.0\r\n", forward(method="PUT", path="/"), b"PUT / HTTP/1.0"),
            (b"GET http://a/x?y HTTP/1.1\r\n", forward(path="/b"), b"GET http://a/b HTTP/1.1"),
            (b"GET http://a HTTP/1.1\r\n", forward(path="/b"), b"GET http://a/b HTTP/1.1"),
            (b"GET http://a?q HTTP/1.1\r\n", forward(path="/b"), b"GET http://a/b HTTP/1.1"),
            (b"GET http://a/x HTTP/1.1\r\n", forward(method="POST"), b"POST http://a/x HTTP/1.1"),
            (b"OPTIONS * HTTP/1.1\r\n", forward(path="/b"), b"OPTIONS /b HTTP/1.1"),
            (b"OPTIONS /x HTTP/1.1\r\n", forward(path="*"), b"OPTIONS * HTTP/1.1"),
        ],
    )
    def test_method_and_path(self, start: bytes, decision: HandlerDecision, expected: bytes) -> None:
        assert lines(changed(request(b"Host: a\r\n", start=start), decision))[0] == expected

    def test_what_no_server_would_take(self) -> None:
        with pytest.raises(ValueError, match="the changed head is malformed"):
            changed(request(b"Host: a\r\n"), forward(path="*"))

    @pytest.mark.parametrize(("start", "path"), [(b"GET /a HTTP/1.1\r\n", b"/a"), (b"GET http://a:80/x?y HTTP/1.1\r\n", b"/x?y")])
    def test_another_authority(self, start: bytes, path: bytes) -> None:
        head = changed(request(b"hOST: a:80\r\n", start=start), forward(), b"b.test")
        assert rewrite_request(head) == b"GET %b HTTP/1.1\r\nhOST: b.test\r\n\r\n" % path


def test_http2() -> None:
    head, _, _ = request_of(
        [
            (b":method", b"GET", False),
            (b":scheme", b"https", False),
            (b":authority", b"a", False),
            (b":path", b"/x", False),
            (b"a", b"1", True),
            (b"b", b"2", False),
            (b"c", b"3", True),
        ]
    )
    sent = fields_of_request(changed(head, forward(set={"B": "9", "A": "8"}, add={"D-New": "4"}, path="/y", method="PUT")))
    assert sent == [
        (b":method", b"PUT", False),
        (b":authority", b"a", False),
        (b":scheme", b"https", False),
        (b":path", b"/y", False),
        (b"a", b"8", True),
        (b"b", b"9", False),
        (b"c", b"3", True),
        (b"d-new", b"4", False),
    ]


NAMES = st.sampled_from([b"X-One", b"x-one", b"Cookie", b"Authorization", b"A", b"aB"])
VALUES = st.binary(max_size=6).map(lambda value: bytes(0x41 + byte % 26 if byte < 0x80 else byte for byte in value))
BLANKS = st.sampled_from([b"", b" ", b"  ", b"\t"])
HEADERS = st.lists(st.tuples(NAMES, BLANKS, VALUES, BLANKS), max_size=12)


def spelt(headers: list[tuple[bytes, bytes, bytes, bytes]]) -> Head:
    return request(b"Host: a\r\n", *(b"%b:%b%b%b\r\n" % parts for parts in headers))


@given(HEADERS, st.data())
def test_setting_what_is_there_leaves_the_bytes(headers: list[tuple[bytes, bytes, bytes, bytes]], data: st.DataObject) -> None:
    head = spelt(headers)
    chosen = data.draw(st.sets(st.sampled_from([name.lower() for name, *_ in headers]))) if headers else set()
    wanted = [(name, value) for name, _, value, _ in headers if name.lower() in chosen]
    assert changed(head, forward(set=wanted)) is head


@given(HEADERS, st.lists(st.tuples(NAMES, VALUES), max_size=5), st.lists(st.tuples(NAMES, VALUES), max_size=5), st.lists(NAMES, max_size=3))
def test_what_is_not_named_keeps_its_bytes_and_order(
    headers: list[tuple[bytes, bytes, bytes, bytes]],
    wanted: list[tuple[bytes, bytes]],
    added: list[tuple[bytes, bytes]],
    removed: list[bytes],
) -> None:
    lowered = {name.lower() for name, _ in wanted}
    removed = [name for name in removed if name.lower() not in lowered]
    head = changed(spelt(headers), forward(set=wanted, add=added, remove=removed))
    # a plainer reader: one list of lines, edited in turn
    named = lowered | {name.lower() for name in removed}
    kept = [b"%b:%b%b%b" % parts for parts in headers if parts[0].lower() not in named]
    left = lines(head)[2:]
    assert [line for line in left[: len(left) - len(added)] if line.split(b":")[0].lower() not in lowered] == kept
    assert left[len(left) - len(added) :] == [b"%b: %b" % pair for pair in added]
    for name in lowered:
        values = [line.split(b":", 1)[1].strip(b" \t") for line in left[: len(left) - len(added)] if line.split(b":")[0].lower() == name]
        assert values == [value for other, value in wanted if other.lower() == name]


change, replace = ResponseDecision.change, ResponseDecision.replace
STATUS = b"HTTP/1.1 200 Fine\r\n"
OF_RESPONSE = [b"X-One:  1 \r\n", b"Set-Cookie: a\r\n", b"x-one:2\r\n", b'ETag: "1"\r\n', b"Content-Length: 3\r\n"]


def response(*fields: bytes, start: bytes = STATUS) -> Head:
    """Parse a response head."""
    parsed = parse_response(start + b"".join(fields) + b"\r\n")
    assert parsed is not None
    return parsed[0]


class TestResponses:
    @pytest.mark.parametrize(
        "decision",
        [change(), change(set={"Set-Cookie": "a", "x-one": ["1", "2"]}), change(remove=["absent"], status=200)],
        ids=repr,
    )
    def test_what_changes_nothing_is_the_head_itself(self, decision: ResponseDecision) -> None:
        head = response(*OF_RESPONSE)
        assert changed_response(head, decision) is head

    def test_a_change(self) -> None:
        decision = change(set={"X-ONE": "3", "New": "n"}, add={"Set-Cookie": "b"}, remove=["etag"], status=404)
        head = changed_response(response(*OF_RESPONSE), decision)
        assert lines(head) == [
            b"HTTP/1.1 404 Not Found",
            *(b"X-One: 3", b"Set-Cookie: a", b"Content-Length: 3", b"New: n", b"Set-Cookie: b"),
        ]
        assert (head.status, head.reason) == (404, b"Not Found")

    @pytest.mark.parametrize(("start", "expected"), [(b"HTTP/1.0 200 \r\n", b"HTTP/1.0 201 Created"), (STATUS, b"HTTP/1.1 201 Created")])
    def test_the_version_stays(self, start: bytes, expected: bytes) -> None:
        assert lines(changed_response(response(start=start), change(status=201))) == [expected]

    @pytest.mark.parametrize(("length", "framing"), [(7, [b"Content-Length: 7"]), (0, [b"Content-Length: 0"]), (-1, [])])
    @pytest.mark.parametrize("old", [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b""])
    def test_what_describes_the_old_body_leaves(self, old: bytes, length: int, framing: list[bytes]) -> None:
        describing = [b"%b: 1\r\n" % name.title() for name in REPLACED_FIELDS]
        head = response(b"A: b\r\n", old, *describing, b"Content-Range: x\r\n", b"Signature: z\r\n")
        made = changed_response(head, replace(body=b"1234567"), length)
        assert sorted(lines(made)) == sorted([STATUS[:-2], b"A: b", b"Signature: z", *framing])
        assert (made.facts["content_length"], made.facts["chunked"]) == (length, False)

    @pytest.mark.parametrize("status", [204, 304])
    def test_no_length_where_there_is_no_body(self, status: int) -> None:
        made = changed_response(response(b"Content-Length: 3\r\n"), replace(status), 0)
        assert lines(made)[1:] == []

    def test_a_coding_that_is_set_describes_the_new_body(self) -> None:
        made = changed_response(response(b"content-encoding: br\r\n"), replace(body=b"x", set={"Content-Encoding": "gzip"}), 1)
        assert lines(made)[1:] == [b"content-encoding: gzip", b"Content-Length: 1"]

    def test_a_range_is_kept_for_a_206(self) -> None:
        part = response(b"Content-Range: bytes 0-2/5\r\n", start=b"HTTP/1.1 206 Partial\r\n")
        assert lines(changed_response(part, replace(body=b"abc"), 3))[1] == b"Content-Range: bytes 0-2/5"
        assert lines(changed_response(part, replace(200, b"abc"), 3)) == [b"HTTP/1.1 200 OK", b"Content-Length: 3"]

    def test_a_head_of_its_own(self) -> None:
        made = changed_response(response(*OF_RESPONSE), replace(404, b"abc", {"X-Two": "2"}), 3)
        plain = b"Content-Type: text/plain; charset=utf-8"
        assert lines(made) == [b"HTTP/1.1 404 Not Found", b"X-Two: 2", plain, b"Content-Length: 3"]
        typed = changed_response(response(*OF_RESPONSE), replace(headers={"content-type": "a/b"}), -1)
        assert lines(typed) == [b"HTTP/1.1 200 OK", b"content-type: a/b"]

    def test_what_is_set_passes_whatever_connection_names(self) -> None:
        head = response(b"X-Gate: 1\r\n", b"Connection: x-gate\r\n")
        assert rewrite_response(head) == STATUS + b"\r\n"
        assert rewrite_response(changed_response(head, change(set={"x-gate": "1"}))) == STATUS + b"X-Gate: 1\r\n\r\n"

    def test_a_head_that_becomes_too_long(self) -> None:
        with pytest.raises(ValueError, match="the changed head is longer than"):
            changed_response(response(*OF_RESPONSE), change(add={"X": "y" * 200}), limit=150)
        with pytest.raises(ValueError, match="the changed head .*6 "):
            changed_response(response(*OF_RESPONSE), change(add=[("X", "y"), ("X", "z")]), most_fields=6)

    def test_http2(self) -> None:
        head = response_of([(b":status", b"200", False), (b"a", b"1", True), (b"b", b"2", False)])
        sent = fields_of_response(changed_response(head, change(set={"B": "9", "A": "8"}, add={"C-New": "3"}, status=418)))
        assert sent == [(b":status", b"418", False), (b"a", b"8", True), (b"b", b"9", False), (b"c-new", b"3", False)]


@given(HEADERS, st.data())
def test_setting_what_is_there_leaves_the_bytes_of_a_response(
    headers: list[tuple[bytes, bytes, bytes, bytes]], data: st.DataObject
) -> None:
    head = response(*(b"%b:%b%b%b\r\n" % parts for parts in headers))
    chosen = data.draw(st.sets(st.sampled_from([name.lower() for name, *_ in headers]))) if headers else set()
    wanted = [(name, value) for name, _, value, _ in headers if name.lower() in chosen]
    assert changed_response(head, change(set=wanted)) is head


@given(HEADERS, st.lists(st.tuples(NAMES, VALUES), max_size=5), st.lists(NAMES, max_size=3), st.sampled_from([-1, 0, 5]))
def test_a_replacement_keeps_what_it_does_not_name(
    headers: list[tuple[bytes, bytes, bytes, bytes]], wanted: list[tuple[bytes, bytes]], removed: list[bytes], length: int
) -> None:
    lowered = {name.lower() for name, _ in wanted}
    removed = [name for name in removed if name.lower() not in lowered]
    head = response(b"Etag: x\r\n", *(b"%b:%b%b%b\r\n" % parts for parts in headers), b"Transfer-Encoding: chunked\r\n")
    made = changed_response(head, replace(body=b"12345", set=wanted, remove=removed), length)
    named = lowered | {name.lower() for name in removed}
    left = lines(made)[1:]
    kept = [b"%b:%b%b%b" % parts for parts in headers if parts[0].lower() not in named]
    assert [line for line in left if line.split(b":")[0].lower() not in {*lowered, b"content-length"}] == kept
    assert [line for line in left if line.startswith(b"Content-Length")] == ([b"Content-Length: %d" % length] if length >= 0 else [])
