"""`rules.redact`: what is found, in which form, and what leaves of a text in pieces."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm import ChunkDecision, FrameKind, HandlerDecision, RawRequest, RawResponse, ResponseDecision, SseEvent, StreamChunk, rules
from soth_mitm.handler import check_handler
from soth_mitm.rules.sought import PATTERN_WINDOW, Sought, charset_of

MAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w+")
PASS, HOLD = ResponseDecision.PASS, ResponseDecision.HOLD


class TestSought:
    @pytest.mark.parametrize(
        ("values", "text", "expected"),
        [
            (("secret",), "a secret, a Secret", "a [x], a Secret"),
            (("secret", "secrets"), "secrets", "[x]"),
            ((MAIL,), "to ann@b.example now", "to [x] now"),
            ((MAIL, "ann"), "ann ann@b.example", "[x] [x]"),
            ((re.compile("bc+"), re.compile("ab")), "abcc", "[x]"),
            ((MAIL,), '{"to": "ann\\u0040b.example"}', '{"to": "[x]"}'),
            (("a/b",), '["a\\/b", "c\\/d"]', '["[x]", "c\\/d"]'),
            (
                ("a@b",),
                json.dumps({"arguments": json.dumps({"to": "a@b"}).replace("@", "\\u0040")}),
                '{"arguments": "{\\"to\\": \\"[x]\\"}"}',
            ),
            (("a@b",), '"cut \\u0040', '"cut \\u0040'),
            (("é",), "caf\xe9", "caf[x]"),
            (("\U0001f600",), '["\\ud83d\\ude00", "\\ud83d"]', '["[x]", "\\ud83d"]'),
            (("a\nb",), '["a\\nb", "a\\\\nb"]', '["[x]", "a\\\\nb"]'),
            (("A/B",), '["\\u0041\\/\\u0042"]', '["[x]"]'),
        ],
    )
    def test_text(self, values: Any, text: str, expected: str) -> None:
        assert Sought(values, "[x]").in_text(text) == expected

    def test_content_that_is_no_utf8_keeps_its_bytes(self) -> None:
        assert Sought(["key"], "x").in_content(b"\xff key \xfe") == b"\xff x \xfe"
        assert Sought([b"\xff\xfe"], "x").in_content(b"a\xff\xfeb") == b"axb"

    def test_charsets(self) -> None:
        sought = Sought(["clé"], "x")
        assert sought.in_content("la clé".encode("utf-16-le"), "utf-16-le") == "la x".encode("utf-16-le")
        assert sought.in_content("la clé".encode("latin-1"), "iso8859-1") == b"la x"
        # a client may know better than its upstream
        assert sought.in_content("la clé!!".encode(), "utf-16-le") == b"la x!!"
        with pytest.raises(ValueError, match="utf-16-le"):
            sought.in_content(b"odd", "utf-16-le")

    @pytest.mark.parametrize(
        ("content_type", "expected"),
        [("text/plain", None), ("text/plain; charset=UTF-8", None), ('text/html;a=b; charset="ISO-8859-1"', "iso8859-1")],
    )
    def test_charset_of(self, content_type: str, expected: str | None) -> None:
        assert charset_of(content_type) == expected

    @pytest.mark.parametrize("name", ["utf-7", "punycode", "zlib", "nonsense", "unicode_escape"])
    def test_charsets_that_are_not_searched(self, name: str) -> None:
        with pytest.raises(ValueError, match="its charset is not known"):
            charset_of(f"text/plain; charset={name}")

    def test_stars_are_as_long(self) -> None:
        assert (
            Sought(["clé", MAIL], "x").starred("a clé \xff".encode() + b"\xff a@b.example") == "a **** \xff".encode() + b"\xff ***********"
        )
        assert Sought([b"\xff\xff"], "x").starred(b"a\xff\xff") == b"a**"

    @pytest.mark.parametrize(
        ("values", "error", "message"),
        [
            ((), ValueError, "at least one"),
            (("",), ValueError, "one is empty"),
            ((5,), TypeError, "expected str, bytes or a compiled pattern, got int"),
            ((re.compile(b"x"),), TypeError, "patterns of text"),
            ((re.compile("x*"),), ValueError, "matches the empty text"),
        ],
    )
    def test_values_that_are_none(self, values: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            rules.redact(*values)

    @pytest.mark.parametrize("replacement", ['"', "\\", "a\nb", 5])
    def test_replacements_that_would_break_json(self, replacement: Any) -> None:
        with pytest.raises(ValueError, match="replacement: expected"):
            rules.redact("x", replacement=replacement)


class TestResponses:
    rule: Any = rules.redact("secret", MAIL, hosts=["a.example:443"])

    def response(self, body: bytes = b"", url: str = "https://a.example/", method: str = "GET", **more: Any) -> RawResponse:
        headers = more.pop("headers", {"Content-Type": "text/plain"})
        return RawResponse.build(body=body, headers=headers, request=RawRequest.build(method=method, url=url), **more)

    def test_it_is_a_handler(self) -> None:
        check_handler(self.rule)

    def test_which_are_held(self) -> None:
        assert self.rule.on_response_head(self.response()) is HOLD
        assert self.rule.on_response_head(self.response(headers={})) is HOLD
        assert self.rule.on_response_head(RawResponse.build()) is HOLD, "of an unknown request"
        assert self.rule.on_response_head(self.response(streaming=True)) is PASS
        assert self.rule.on_response_head(self.response(method="HEAD")) is PASS
        assert self.rule.on_response_head(self.response(url="https://b.example/")) is ResponseDecision.UNFILTERED
        assert self.rule.on_response_head(self.response(headers={"Content-Type": "image/png"})) is PASS
        assert self.rule.on_response_head(self.response(headers={"Content-Type": "image/svg+xml"})) is HOLD
        both = [("Content-Type", "image/png"), ("Content-Type", "text/plain")]
        assert self.rule.on_response_head(self.response(headers=both)) is HOLD

    def test_bodies(self) -> None:
        assert self.rule.on_response_body(self.response(b"nothing")) is PASS
        assert self.rule.on_response_body(self.response(b"a secret of ann@b.example")) == ResponseDecision.replace(
            body=b"a [redacted] of [redacted]"
        )

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            ({"body_truncated": True}, "longer than"),
            ({"body_complete": False}, "or late"),
            ({"headers": {"Content-Encoding": "gzip"}}, "gzip"),
            ({"headers": {"Content-Type": "text/plain; charset=utf-7"}}, "its charset is not known"),
            ({"headers": {"Content-Type": "text/plain; charset=utf-16-le"}}, "utf-16-le"),
        ],
    )
    def test_what_cannot_be_searched_is_blocked(self, more: Any, why: str) -> None:
        decision = self.rule.on_response_body(self.response(b"odd", **more))
        assert decision.kind == "block" and decision.status == 502 and why in decision.body.decode()

    def test_requests_ask_for_whole_bodies(self) -> None:
        names = ["Range", "If-Range", "If-None-Match", "If-Modified-Since"]
        for name in names:
            request = RawRequest.build(url="https://a.example/", headers={name: "x"})
            assert self.rule.on_request(request) == HandlerDecision.forward(remove=names)
            assert self.rule.on_request(RawRequest.build(url="https://b.example/", headers={name: "x"})) is HandlerDecision.ALLOW
        assert self.rule.on_request(RawRequest.build(url="https://a.example/")) is HandlerDecision.ALLOW


def chunk_of(payload: Any, kind: FrameKind = FrameKind.SSE_DATA, **more: Any) -> StreamChunk:
    data = payload if isinstance(payload, bytes) else (payload if isinstance(payload, str) else json.dumps(payload)).encode()
    more.setdefault("request", RawRequest.build(url="https://a.example/"))
    return StreamChunk.build(data, kind, **{"flow_id": 7, "event_type": "message", **more})


def run(rule: Any, *payloads: Any, event_type: str | None = None) -> list[Any]:
    """Return the data of the events that leave."""
    out: list[Any] = []
    for payload in payloads:
        kind = event_type or (payload.get("type", "message") if isinstance(payload, dict) else "message")
        chunk = chunk_of(payload, event_type=kind)
        decision = rule.filter_stream_chunk(chunk)
        if decision == ChunkDecision.END:
            out.append("END")
            break
        left = [payload] if decision == ChunkDecision.PASS else decision.payloads
        for each in left:
            data = each.data if isinstance(each, SseEvent) else each
            data = data.decode() if isinstance(data, bytes) else data
            out.append(json.loads(data) if isinstance(data, str) and data.startswith("{") else data)
    rule.on_stream_end(None, 7)
    assert rule._streams == {}
    return out


def chat(*texts: str, index: int = 0, field: str = "content", finish: bool = True) -> list[Any]:
    events: list[Any] = [{"id": "c", "choices": [{"index": index, "delta": {field: text}, "finish_reason": None}]} for text in texts]
    return [*events, {"id": "c", "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}, "[DONE]"] if finish else events


def chat_text(events: list[Any], field: str = "content", index: int = 0) -> str:
    choices = [choice for event in events if isinstance(event, dict) for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(field) or "" for choice in choices)


def anthropic(*texts: str, kind: str = "text_delta", field: str = "text") -> list[Any]:
    return [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": kind, field: text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    ]


def responses(*texts: str) -> list[Any]:
    where = {"item_id": "m", "output_index": 0, "content_index": 0}
    return [
        *({"type": "response.output_text.delta", **where, "delta": text} for text in texts),
        {"type": "response.output_text.done", **where, "text": "".join(texts)},
        {"type": "response.completed", "response": {"output": "".join(texts)}},
    ]


def split(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


SENTENCE = "Write to ann.lee@mail.example, or ask for the secret word. Bye."
CLEAN = "Write to [redacted], or ask for the [redacted] word. Bye."


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
class TestDeltas:
    @pytest.mark.parametrize("values", [("secret", MAIL), ("secret", "ann.lee@mail.example")], ids=["pattern", "exact"])
    def test_chat(self, size: int, values: Any) -> None:
        out = run(rules.redact(*values), *chat(*split(SENTENCE, size)))
        assert chat_text(out) == CLEAN and out[-1] == "[DONE]"
        assert out[-2]["choices"][0]["finish_reason"] == "stop"
        assert len(out) == len(split(SENTENCE, size)) + 2

    def test_what_can_begin_nothing_leaves_at_once(self, size: int) -> None:
        events = chat(*split("hello there", size), finish=False)
        assert run(rules.redact("secret"), *events) == events

    @pytest.mark.parametrize("field", ["refusal", "reasoning_content"])
    def test_other_fields(self, size: int, field: str) -> None:
        out = run(rules.redact("secret", MAIL), *chat(*split(SENTENCE, size), field=field))
        assert chat_text(out, field) == CLEAN

    def test_choices_are_apart(self, size: int) -> None:
        both = [chat(*split(SENTENCE, size), index=index, finish=False) for index in (0, 1)]
        events = [event for pair in zip(*both, strict=True) for event in pair]
        out = run(rules.redact("secret", MAIL), *events, *chat(index=0)[:1], *chat(index=1))
        assert (chat_text(out), chat_text(out, index=1)) == (CLEAN, CLEAN)

    def test_arguments_of_tools(self, size: int) -> None:
        def call(text: str) -> Any:
            return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 2, "function": {"arguments": text}}]}}]}

        out = run(rules.redact("secret", MAIL), *map(call, split(SENTENCE, size)), *chat())
        calls = [call for event in out[:-1] for call in event["choices"][0]["delta"].get("tool_calls", [])]
        assert "".join(call["function"]["arguments"] for call in calls) == CLEAN

    def test_completions(self, size: int) -> None:
        events = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in split(SENTENCE, size)]
        events[-1]["choices"][0]["finish_reason"] = "stop"
        out = run(rules.redact("secret", MAIL), *events)
        assert "".join(event["choices"][0]["text"] for event in out) == CLEAN

    @pytest.mark.parametrize("kind, field", [("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json")])
    def test_anthropic(self, size: int, kind: str, field: str) -> None:
        out = run(rules.redact("secret", MAIL), *anthropic(*split(SENTENCE, size), kind=kind, field=field))
        deltas = [event["delta"] for event in out if event["type"] == "content_block_delta"]
        assert "".join(delta[field] for delta in deltas) == CLEAN and {delta["type"] for delta in deltas} == {kind}
        assert [event["type"] for event in out[-2:]] == ["content_block_stop", "message_stop"]

    def test_responses(self, size: int) -> None:
        out = run(rules.redact("secret", MAIL), *responses(*split(SENTENCE, size)))
        assert "".join(event["delta"] for event in out if event["type"] == "response.output_text.delta") == CLEAN
        assert out[-2]["text"] == CLEAN and out[-1]["response"]["output"] == CLEAN

    def test_a_ping_between_does_not_let_it_go(self, size: int) -> None:
        start, *deltas, stop, end = anthropic(*split(SENTENCE, size))
        out = run(rules.redact(MAIL), start, *(each for delta in deltas for each in (delta, {"type": "ping"})), stop, end)
        assert "ann" not in json.dumps(out) and "mail.example" not in json.dumps(out)


def test_the_rest_leaves_before_done() -> None:
    out = run(rules.redact(MAIL), *chat("a@b.example", finish=False), "[DONE]")
    assert chat_text(out) == "[redacted]" and out[-1] == "[DONE]"


def test_probabilities_do_not_spell_it_again() -> None:
    event = chat("se", finish=False)[0]
    event["choices"][0]["logprobs"] = {"content": [{"token": "se"}]}
    assert run(rules.redact("secret"), event)[0]["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    "events",
    [
        [*chat("se"), *chat("cret")],
        [*chat("se")[:2], *chat("cret")],
        [*anthropic("se"), *anthropic("cret")],
        [*anthropic("se")[:3], *anthropic("cret")[1:]],
    ],
)
def test_a_text_that_goes_on_behind_its_end_ends_the_stream(events: list[Any]) -> None:
    out = run(rules.redact("secret"), *events)
    assert out[-1] == "END" and "cret" not in json.dumps(out)


def test_more_than_is_held_ends_the_stream() -> None:
    greedy: Any = rules.redact(re.compile("k=.+", re.DOTALL))
    assert run(greedy, *chat("k=" + "x" * 70_000, "y"))[-1] == "END"
    many = [{"type": "content_block_delta", "index": index, "delta": {"text": "s"}} for index in range(300)]
    assert run(rules.redact("secret"), *many)[-1] == "END"
    assert run(rules.redact("secret"), '{"a":' * 100_000)[-1] == "END"


@given(st.lists(st.text("se@ab. ", min_size=0, max_size=6), max_size=40), st.sampled_from(["chat", "anthropic"]))
def test_the_pieces_do_not_matter(pieces: list[str], form: str) -> None:
    whole = "".join(pieces)
    if len(whole) >= PATTERN_WINDOW:
        return
    values = ("seas", re.compile(r"[ab]+@[ab]+\.s"), re.compile(r"(?<=e: )b+"))
    out = run(rules.redact(*values), *(chat(*pieces) if form == "chat" else anthropic(*pieces)))
    text = chat_text(out) if form == "chat" else "".join(each["delta"]["text"] for each in out if each["type"] == "content_block_delta")
    assert text == Sought(values, "[redacted]").in_text(whole)


class TestFrames:
    rule: Any = rules.redact("secret", MAIL, hosts=["a.example:443"])

    @pytest.mark.parametrize(
        ("kind", "payload", "expected"),
        [
            (FrameKind.SSE_DATA, "a secret\nfor ann@b.example", "a [redacted]\nfor [redacted]"),
            (FrameKind.SSE_DATA, '["a secret"]', '["a [redacted]"]'),
            (FrameKind.NDJSON_LINE, '{"a": "ann\\u0040b.example"}', '{"a": "[redacted]"}'),
            (FrameKind.EVENTSTREAM_MESSAGE, "secret", "[redacted]"),
            (FrameKind.WEBSOCKET_TEXT, "secret", "[redacted]"),
            (FrameKind.WEBSOCKET_BINARY, "a secret", "a ******"),
            (FrameKind.GRPC_MESSAGE, "a secret", "a ******"),
        ],
    )
    def test_kinds(self, kind: FrameKind, payload: str, expected: str) -> None:
        assert self.rule.filter_stream_chunk(chunk_of(payload, kind)) == ChunkDecision.replace(expected)
        assert self.rule.filter_stream_chunk(chunk_of("nothing", kind)) == ChunkDecision.PASS
        assert self.rule.filter_stream_chunk(chunk_of(payload, kind, direction="to_upstream")) == ChunkDecision.PASS
        other = RawRequest.build(url="https://b.example/")
        assert self.rule.filter_stream_chunk(chunk_of(payload, kind, request=other)) == ChunkDecision.PASS
        assert self.rule.filter_stream_chunk(chunk_of(payload, kind, request=None)) == ChunkDecision.replace(expected)
        assert self.rule.filter_stream_chunk(chunk_of(payload, kind, truncated=True)) == ChunkDecision.END

    def test_without_deltas_each_event_is_by_itself(self) -> None:
        rule: Any = rules.redact("secret", deltas=False)
        events = chat("sec", "ret", "secret", finish=False)
        assert chat_text(run(rule, *events)) == "secret[redacted]"

    def test_the_lines_of_an_event_stay(self) -> None:
        rule: Any = rules.redact(MAIL)
        for event in anthropic("a@b.example")[:2]:
            rule.filter_stream_chunk(chunk_of(event, event_type=event["type"]))
        stop = chunk_of({"type": "content_block_stop", "index": 0}, event_type="content_block_stop", event_id="3", retry=5)
        first, last = rule.filter_stream_chunk(stop).payloads
        assert (first.event, first.id) == ("content_block_delta", None)
        assert (last.event, last.id, last.retry) == ("content_block_stop", "3", 5)
