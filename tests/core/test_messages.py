"""What handlers receive: requests, responses, chunks."""

from __future__ import annotations

import gzip
import pickle
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import soth_mitm
from soth_mitm._dataplane.http.messages import FrameKind, Message, RawRequest, RawResponse, StreamChunk
from soth_mitm.decision import HandlerDecision, Upstream
from soth_mitm.response_decision import ResponseDecision

GZIPPED = gzip.compress(b"hello " * 100)


def test_a_request_says_what_was_built() -> None:
    meta = object()
    request = RawRequest.build(
        method="POST",
        url="https://api.example.com:8443/v1/items?limit=3",
        headers=[("Content-Type", "text/plain"), (b"X-Name", b"\xe9")],
        body=b"abc",
        trailers=[("X-Sum", "9")],
        connection_meta=meta,
        flow_id=7,
    )
    assert (request.method, request.scheme, request.authority) == ("POST", "https", "api.example.com:8443")
    assert (request.path, request.url) == ("/v1/items?limit=3", "https://api.example.com:8443/v1/items?limit=3")
    assert request.http_version == "HTTP/1.1"
    assert request.headers.raw == [(b"Host", b"api.example.com:8443"), (b"Content-Type", b"text/plain"), (b"X-Name", b"\xe9")]
    assert (request.body, request.raw_body, request.decode_error) == (b"abc", b"abc", None)
    assert request.trailers.items() == [("X-Sum", "9")]
    assert request.connection_meta is meta and request.flow_id == 7
    assert request.body_complete and not request.body_truncated


def test_a_request_has_defaults_for_everything() -> None:
    request = RawRequest.build()
    assert (request.method, request.url, request.body, len(request.trailers)) == ("GET", "http://localhost/", b"", 0)
    assert request.began is None and RawRequest.build(began=12.5).began == 12.5


def test_a_given_host_header_is_kept() -> None:
    assert RawRequest.build(url="http://a.example/", headers={"host": "a.example"}).headers.keys() == ["host"]


@pytest.mark.parametrize(
    ("url", "path", "authority"),
    [
        ("http://a.example", "/", "a.example"),
        ("http://a.example?q=1", "/?q=1", "a.example"),
        ("HTTP://user:secret@a.example/x", "/x", "a.example"),
        ("http://[::1]:8080/x", "/x", "[::1]:8080"),
    ],
)
def test_urls(url: str, path: str, authority: str) -> None:
    request = RawRequest.build(url=url)
    assert (request.path, request.authority, request.scheme) == (path, authority, "http")


@pytest.mark.parametrize("url", ["", "/path", "a.example/x", "https:///x"])
def test_a_url_that_is_not_absolute_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url: .* must be absolute"):
        RawRequest.build(url=url)


@pytest.mark.parametrize(
    "headers",
    [[("Bad Name", "x")], [("X", "a\r\nY: b\x00")], [("X", "a\r\n\r\nGET / HTTP/1.1")], [("Host", "a"), ("Host", "b")]],
)
def test_headers_that_http_forbids_are_refused(headers: list[tuple[str | bytes, str | bytes]]) -> None:
    with pytest.raises(ValueError, match="not a valid message head"):
        RawRequest.build(headers=headers)


def test_a_method_that_http_forbids_is_refused() -> None:
    with pytest.raises(ValueError, match="not a valid message head"):
        RawRequest.build(method="GET IT")


def test_a_request_body_is_decoded_when_asked_for() -> None:
    request = RawRequest.build(method="PUT", headers={"Content-Encoding": "gzip"}, body=GZIPPED)
    assert request.body == b"hello " * 100
    assert request.body is request.body
    assert (request.raw_body, request.decode_error) == (GZIPPED, None)


def test_content_codings_may_stand_in_several_headers() -> None:
    headers: list[tuple[str | bytes, str | bytes]] = [("Content-Encoding", "gzip"), ("X", "y"), ("content-encoding", "deflate")]
    assert RawResponse.build(headers=headers, body=zlib.compress(GZIPPED)).body == b"hello " * 100


@pytest.mark.parametrize("kind", [RawRequest, RawResponse])
def test_a_body_that_cannot_be_decoded_is_the_raw_body_with_the_reason(kind: type[RawRequest | RawResponse]) -> None:
    message = kind.build(headers={"Content-Encoding": "gzip"}, body=b"not gzip")
    assert message.body == message.raw_body == b"not gzip"
    assert message.decode_error is not None and message.decode_error.startswith("gzip: ")


@pytest.mark.parametrize("kind", [RawRequest, RawResponse])
def test_a_body_that_decodes_to_more_than_the_limit_is_the_raw_body(kind: type[RawRequest | RawResponse]) -> None:
    message = kind.build(headers={"Content-Encoding": "gzip"}, body=GZIPPED, decode_limit=599)
    assert (message.decode_error, message.body) == ("the decoded body is longer than 599 bytes", GZIPPED)
    assert kind.build(headers={"Content-Encoding": "gzip"}, body=GZIPPED, decode_limit=600).body == b"hello " * 100


def test_a_body_that_is_known_to_be_cut_is_decoded_as_far_as_it_goes() -> None:
    content = bytes(range(256)) * 8
    packer = zlib.compressobj(level=0, wbits=31)
    cut = (packer.compress(content) + packer.flush())[:1000]
    headers = {"Content-Encoding": "gzip"}
    for message in (
        RawRequest.build(headers=headers, body=cut, body_truncated=True),
        RawRequest.build(headers=headers, body=cut, body_complete=False),
        RawResponse.build(headers=headers, body=cut, body_truncated=True),
    ):
        assert message.decode_error is None
        assert len(message.body) > 900 and content.startswith(message.body)
    assert RawRequest.build(headers=headers, body=cut).decode_error == "gzip: the stream is cut"


def test_a_request_says_why_its_body_is_not_seen_whole() -> None:
    build = RawRequest.build
    assert build(body=b"x").body_problem is None
    assert build(body=b"x", body_complete=False).body_problem == "late"
    assert build(body=b"x", body_complete=False, body_truncated=True).body_problem == "too_long"
    assert build(body_complete=False, conversation=True).body_problem == "conversation"
    assert build(headers={"Content-Encoding": "gzip"}, body=b"x").body_problem == "undecodable"
    assert build(headers={"Content-Encoding": "gzip"}, body=GZIPPED).body_problem is None


def test_a_request_is_not_decoded_beyond_the_end_of_its_stream_and_a_response_is() -> None:
    for more in (b"x", GZIPPED):
        request = RawRequest.build(headers={"Content-Encoding": "gzip"}, body=GZIPPED + more)
        assert (request.body, request.decode_error) == (GZIPPED + more, "gzip: bytes follow the end of the stream")
        response = RawResponse.build(headers={"Content-Encoding": "gzip"}, body=GZIPPED + more)
        assert response.decode_error is None and response.body.startswith(b"hello " * 100)


def test_a_request_shows_neither_header_values_nor_query_in_its_repr() -> None:
    request = RawRequest.build(
        method="POST", url="https://a.example/v1?key=s3cret", headers={"Authorization": "s3cret"}, body=b"s3cret", body_truncated=True
    )
    assert repr(request) == "<RawRequest POST https://a.example/v1?… 6 bytes, truncated>"


def test_a_response_says_what_was_built() -> None:
    request = RawRequest.build(connection_meta="meta", flow_id=9)
    cookies: list[tuple[str | bytes, str | bytes]] = [("Set-Cookie", "a"), ("Set-Cookie", "b")]
    response = RawResponse.build(status=404, headers=cookies, body=b"no", request=request, trailers={"T": "1"})
    assert (response.status, response.reason, response.http_version) == (404, "Not Found", "HTTP/1.1")
    assert response.headers.get_all("set-cookie") == ["a", "b"]
    assert (response.body, response.raw_body, response.trailers["t"]) == (b"no", b"no", "1")
    assert response.request is request and response.connection_meta == "meta" and response.flow_id == 9
    assert not response.streaming and not response.body_truncated
    assert repr(response) == "<RawResponse 404 2 bytes>"


def test_a_response_has_defaults_for_everything() -> None:
    response = RawResponse.build()
    assert (response.status, response.reason, response.body, response.request, response.flow_id) == (200, "OK", b"", None, 0)
    assert repr(RawResponse.build(streaming=True)) == "<RawResponse 200 streaming>"


def test_a_status_without_a_known_phrase_has_none_unless_given() -> None:
    assert RawResponse.build(status=599).reason == ""
    assert RawResponse.build(status=599, reason="Odd Thing").reason == "Odd Thing"


@pytest.mark.parametrize("status", [0, 99, 1000, -1])
def test_a_status_that_http_forbids_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="not a valid message head"):
        RawResponse.build(status=status)


def test_a_chunk_says_what_was_built() -> None:
    chunk = StreamChunk.build(
        b"payload",
        truncated=True,
        event_type="delta",
        event_id="4",
        retry=10,
        connection_id="c",
        flow_id=3,
        direction="to_upstream",
        sequence=5,
    )
    assert (chunk.payload, chunk.frame_kind, chunk.truncated) == (b"payload", FrameKind.SSE_DATA, True)
    assert (chunk.event_type, chunk.event_id, chunk.retry) == ("delta", "4", 10)
    assert (chunk.connection_id, chunk.flow_id, chunk.direction, chunk.sequence) == ("c", 3, "to_upstream", 5)
    assert repr(chunk) == "<StreamChunk sse_data #5 to_upstream event='delta' 7 bytes, truncated>"


def test_a_chunk_has_defaults_for_all_but_its_payload() -> None:
    chunk = StreamChunk.build(b"{}", "ndjson_line")
    assert chunk.frame_kind is FrameKind.NDJSON_LINE
    assert (chunk.event_type, chunk.event_id, chunk.retry, chunk.connection_id) == (None, None, None, None)
    assert repr(chunk) == "<StreamChunk ndjson_line #0 to_client 2 bytes>"


def test_a_chunk_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        StreamChunk.build(b"", "nonsense")


def test_a_chunk_can_be_handed_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(StreamChunk.build(b"x", FrameKind.GRPC_MESSAGE, flow_id=2)))
    assert (copy.payload, copy.frame_kind, copy.flow_id) == (b"x", FrameKind.GRPC_MESSAGE, 2)


def test_frame_kinds_are_strings() -> None:
    assert [str(kind) for kind in FrameKind] == [
        "sse_data",
        "ndjson_line",
        "grpc_message",
        "eventstream_message",
        "websocket_text",
        "websocket_binary",
        "websocket_close",
    ]
    assert "sse_data" in list(FrameKind)


@pytest.mark.parametrize("made", [RawRequest.build(), RawResponse.build(), StreamChunk.build(b"")], ids=lambda made: type(made).__name__)
def test_nothing_can_be_assigned_from_python(made: object) -> None:
    names = [name for name in dir(made) if not name.startswith("_") and name != "build"]
    assert len(names) >= 10
    for name in names:
        with pytest.raises(AttributeError):
            setattr(made, name, getattr(made, name))
    with pytest.raises(AttributeError):
        made.note = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [RawRequest, RawResponse, StreamChunk])
def test_build_is_the_only_way_to_make_one(kind: type[object]) -> None:
    with pytest.raises(TypeError, match=r"use \w+\.build"):
        kind()


def test_what_both_have_is_there_once() -> None:
    """And is public only through them."""
    assert RawRequest.__base__ is RawResponse.__base__ is Message
    assert "Message" not in soth_mitm.__all__
    shared = {"headers", "trailers", "body", "raw_body", "decode_error", "http_version", "flow_id", "connection_meta"}
    assert shared <= set(vars(Message)) and not shared & (set(vars(RawRequest)) | set(vars(RawResponse)))
    with pytest.raises(TypeError, match=r"use \w+\.build"):
        Message()


@pytest.mark.parametrize("kind", [RawRequest, RawResponse])
@pytest.mark.parametrize("name", ["headers", "http_version"])
def test_a_message_without_a_head_does_not_crash(kind: type[RawRequest], name: str) -> None:
    with pytest.raises(TypeError, match="not made by build"):
        getattr(kind.__new__(kind), name)


class TestChanged:
    """A request as a decision would send it."""

    REQUEST = RawRequest.build(
        method="POST",
        url="https://a.test/x?y",
        headers=[("X-One", "1"), ("X-Two", "2"), ("Content-Encoding", "gzip"), ("Trailer", "x-end, x-two")],
        body=gzip.compress(b"hello"),
        trailers=[("X-End", "1"), ("x-two", "3")],
        flow_id=7,
        connection_meta="meta",  # type: ignore[arg-type]
    )

    def test_the_head(self) -> None:
        decision = HandlerDecision.forward(set={"x-two": "new"}, add={"X-Three": "3"}, remove=["X-One"], method="PUT", path="/z")
        changed = self.REQUEST.changed(decision)
        assert (changed.method, changed.url, changed.body) == ("PUT", "https://a.test/z", b"hello")
        assert changed.headers.items() == [
            ("Host", "a.test"),
            ("X-Two", "new"),
            ("Content-Encoding", "gzip"),
            ("Trailer", "x-end, x-two"),
            ("X-Three", "3"),
        ]
        assert changed.trailers.items() == [("X-End", "1")]
        assert (changed.flow_id, changed.connection_meta, changed.body_problem) == (7, "meta", None)
        # it is read-only
        assert (self.REQUEST.method, self.REQUEST.headers["x-two"], len(self.REQUEST.trailers)) == ("POST", "2", 2)

    def test_one_change_after_the_other(self) -> None:
        assert RawRequest.build(began=12.5).changed(HandlerDecision.forward(path="/z")).began == 12.5
        changed = self.REQUEST.changed(HandlerDecision.forward(set={"X-Two": "new"}, path="/z"))
        changed = changed.changed(HandlerDecision.forward(remove=["X-One"], body="later"))
        assert (changed.path, changed.headers.keys(), changed.body) == ("/z", ["Host", "X-Two"], b"later")
        assert changed.trailers.items() == []
        assert RawRequest.build(headers={"X-Two": "2"}, url="http://a.test/").changed(HandlerDecision.ALLOW).headers["x-two"] == "2"

    @pytest.mark.parametrize(
        "decision",
        [
            HandlerDecision.ALLOW,
            HandlerDecision.forward(),
            HandlerDecision.forward(set={"x-one": "1"}, remove=["absent"], method="POST", path="/x?y", to="127.0.0.1:1"),
        ],
        ids=repr,
    )
    def test_what_changes_nothing(self, decision: HandlerDecision) -> None:
        assert self.REQUEST.changed(decision) is self.REQUEST

    def test_a_trailer_alone(self) -> None:
        request = RawRequest.build(method="POST", headers={"X": "1"}, body=b"a", trailers={"x": "2"})
        changed = request.changed(HandlerDecision.forward(set={"X": "1"}))
        assert (changed.body, changed.trailers.items(), changed.headers.raw) == (b"a", [], request.headers.raw)

    def test_another_body(self) -> None:
        changed = self.REQUEST.changed(HandlerDecision.forward(body=b"new"))
        assert (changed.body, changed.raw_body, changed.body_problem) == (b"new", b"new", None)
        coded = self.REQUEST.changed(HandlerDecision.forward(body=gzip.compress(b"new"), set={"Content-Encoding": "gzip"}))
        assert coded.body == b"new"
        # the same bytes read in another way
        assert self.REQUEST.changed(HandlerDecision.forward(remove=["Content-Encoding"])).body == self.REQUEST.raw_body

    def test_an_iterable_is_not_asked(self) -> None:
        async def items() -> AsyncIterator[bytes]:
            raise AssertionError("asked")
            yield b""

        decision = HandlerDecision.forward(body=items())
        changed = self.REQUEST.changed(decision)
        assert (changed.body, changed.body_problem) == (b"", "conversation")
        with pytest.raises(ValueError, match="was not shown whole"):
            changed.changed(HandlerDecision.forward(body=b"x"))
        # nor taken: the request itself still has it
        assert self.REQUEST.changed(decision).body_problem == "conversation"

    @pytest.mark.parametrize(
        ("to", "url", "host"),
        [
            ("10.0.0.1:80", "https://a.test/x?y", "a.test"),
            ("http://b.test", "http://b.test/x?y", "b.test"),
            ("https://b.test:81", "https://b.test:81/x?y", "b.test:81"),
            (Upstream("10.0.0.1", 80, tls=False), "https://a.test/x?y", "a.test"),
            (Upstream("10.0.0.1", 80, tls=False, authority="b.test"), "http://b.test/x?y", "b.test"),
        ],
        ids=repr,
    )
    def test_elsewhere(self, to: str | Upstream, url: str, host: str) -> None:
        changed = self.REQUEST.changed(HandlerDecision.forward(to=to))
        assert (changed.url, changed.headers["host"]) == (url, host)

    @pytest.mark.parametrize(
        "decision", [HandlerDecision.block(403), HandlerDecision.respond(), HandlerDecision.abort(), None, 1], ids=repr
    )
    def test_other_decisions_send_nothing(self, decision: HandlerDecision) -> None:
        with pytest.raises((ValueError, TypeError)):
            self.REQUEST.changed(decision)

    @pytest.mark.parametrize(
        ("request_", "decision", "why"),
        [
            (REQUEST, HandlerDecision.forward(method="HEAD"), "become HEAD"),
            (REQUEST, HandlerDecision.forward(method="TRACE"), "a TRACE has no body"),
            (RawRequest.build(), HandlerDecision.forward(method="TRACE", body=b"x"), "a TRACE has none"),
            (RawRequest.build(body=b"x", body_truncated=True), HandlerDecision.forward(body=b"x"), "too_long"),
            (RawRequest.build(body=b"x", body_complete=False), HandlerDecision.forward(body=b"x"), "late"),
            (RawRequest.build(conversation=True), HandlerDecision.forward(body=b"x"), "conversation"),
            (RawRequest.build(), HandlerDecision.forward(set={"X": "y" * 70_000}), "max_http_head_bytes"),
        ],
        ids=str,
    )
    def test_what_cannot_be_applied(self, request_: RawRequest, decision: HandlerDecision, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            request_.changed(decision)


class TestChangedResponse:
    """What a decision makes of a response: by the code that makes the real one."""

    RESPONSE = RawResponse.build(headers=[("A", "1"), ("ETag", "x"), ("Content-Encoding", "gzip")], body=gzip.compress(b"old"))

    def test_what_changes_nothing(self) -> None:
        for decision in (ResponseDecision.PASS, ResponseDecision.UNFILTERED, ResponseDecision.change(set={"a": "1"})):
            assert self.RESPONSE.changed(decision) is self.RESPONSE

    def test_a_change_keeps_the_body(self) -> None:
        other = self.RESPONSE.changed(ResponseDecision.change(set={"A": "2"}, status=404))
        assert (other.status, other.headers.get("a"), other.body, other.body_complete) == (404, "2", b"old", True)
        assert (self.RESPONSE.status, self.RESPONSE.headers.get("a")) == (200, "1")

    def test_a_replacement(self) -> None:
        other = self.RESPONSE.changed(ResponseDecision.replace(body=b"new", set={"B": "2"}))
        assert (other.body, other.raw_body, other.body_complete) == (b"new", b"new", True)
        assert [name for name, _ in other.headers.raw] == [b"A", b"B", b"Content-Length"]

        async def items() -> AsyncIterator[bytes]:
            yield b"x"

        streamed = self.RESPONSE.changed(ResponseDecision.replace(body=items()))
        assert (streamed.body, streamed.body_complete) == (b"", False)

    @pytest.mark.parametrize("decision", [ResponseDecision.HOLD, ResponseDecision.block(), "PASS"], ids=repr)
    def test_what_sends_no_response_of_its_kind(self, decision: Any) -> None:
        with pytest.raises(ValueError, match="decision: expected ResponseDecision.PASS"):
            self.RESPONSE.changed(decision)

    def test_what_was_not_shown_whole_is_not_replaced(self) -> None:
        with pytest.raises(ValueError, match="the response was not shown whole"):
            RawResponse.build(body=b"x", body_complete=False).changed(ResponseDecision.replace())

    @pytest.mark.parametrize(
        ("accepted", "passes"),
        [
            (None, True),
            ("gzip", True),
            ("gzip, identity;q=0.5", True),
            ("identity; q=0", False),
            ("gzip, Identity;q=0.000", False),
            ("*;q=0", False),
            ("*;q=0, identity", True),
            ("gzip;q=0", True),
        ],
    )
    def test_a_client_that_refuses_bodies_without_a_coding(self, accepted: str | None, passes: bool) -> None:
        request = RawRequest.build(headers={} if accepted is None else {"Accept-Encoding": accepted})
        coded = RawResponse.build(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"old"), request=request)
        decisions = [ResponseDecision.replace(body=b"new")]
        if passes:
            assert coded.changed(decisions[0]).body == b"new"
        else:
            with pytest.raises(ValueError, match="the client refuses a body without a coding"):
                coded.changed(decisions[0])
        # what is coded by the handler, empty, or was not coded by the upstream
        coded.changed(ResponseDecision.replace(body=gzip.compress(b"new"), set={"Content-Encoding": "gzip"}))
        coded.changed(ResponseDecision.replace())
        RawResponse.build(request=request).changed(decisions[0])
