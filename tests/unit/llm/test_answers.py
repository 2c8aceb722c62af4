"""Answers of each provider's format, streamed and whole, cut at every byte, and damaged in any way."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm.llm import AnswerReader, ModelCall, Recogniser
from support import model_answers as answers
from support.feeding import splits
from support.model_answers import ANSWERS, FRAMERS, Spoken, chunk, counts, sse, told, wanted

RECOGNISER = Recogniser()
LIMIT = 10_000


def reader_of(spoken: Spoken, *, whole: bool = False, status: int = 200, limit: int = LIMIT, began: float | None = None) -> AnswerReader:
    call = RECOGNISER.recognise(spoken.request(whole=whole))
    assert call is not None
    return AnswerReader(call, status=status, text_limit=limit, began=began)


def streamed(spoken: Spoken, data: bytes | None = None, **named: Any) -> ModelCall:
    """Read the stream, or other bytes of its kind."""
    reader = reader_of(spoken, **named)
    for number, frame in enumerate(spoken.frames(data)):
        reader.feed(frame.payload, frame.event_type or "", now=100.0 + number, complete=frame.complete, truncated=frame.truncated)
    return reader.end(now=200.0)


def plain(spoken: Spoken, body: bytes | None = None, *, status: int = 200, **named: Any) -> ModelCall:
    """Read the whole answer, or another body."""
    reader = reader_of(spoken, whole=True, status=status)
    reader.read(json.dumps(spoken.whole).encode() if body is None else body, now=150.0, **named)
    return reader.end(now=200.0)


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_a_stream(spoken: Spoken) -> None:
    call = streamed(spoken)
    assert told(call) == wanted(spoken)
    assert (call.streamed, call.choices, call.status) == (True, 1, 200)
    assert all(tool.complete for tool in call.tools)


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_a_plain_answer(spoken: Spoken) -> None:
    call = plain(spoken)
    assert told(call) == wanted(spoken)
    assert (call.streamed, call.choices, call.first_token) == (False, 1, None)


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_a_stream_is_the_same_however_it_is_cut_into_reads(spoken: Spoken) -> None:
    expected = None
    for pieces in splits(spoken.stream):
        framer = FRAMERS[spoken.media](1 << 20)
        frames = [frame for piece in pieces for frame in framer.frames(piece)] + framer.last_frames()
        events = [(frame.payload, frame.event_type) for frame in frames]
        expected = expected or events
        # what is read of equal events is equal
        assert events == expected


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_a_stream_that_ends_anywhere(spoken: Spoken) -> None:
    """What came is kept, nothing is invented, and the end is missed unless the format's own end was there."""
    whole = streamed(spoken)
    for length in range(len(spoken.stream)):
        call = streamed(spoken, spoken.stream[:length])
        assert whole.text.startswith(call.text) and whole.reasoning.startswith(call.reasoning)
        assert call.problems == () and call.error is None
        for tool, full in zip(call.tools, whole.tools, strict=False):
            assert (tool.id, tool.name) == (full.id, full.name) and full.arguments.startswith(tool.arguments)
            assert not tool.complete or tool.parsed() == full.parsed()
        if call.complete:
            assert told(call) == told(whole), f"after {length} of {len(spoken.stream)} bytes"
        else:
            assert call.outcome == "cut"
            assert call.tokens.missing == ("cut" if counts(call) == (None,) * 5 else None)


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_the_end_of_the_format_is_its_last_event(spoken: Spoken) -> None:
    """A stream without its last event is cut; what it has beyond that is told."""
    frames = list(spoken.frames())
    reader = reader_of(spoken)
    for frame in frames[:-1]:
        reader.feed(frame.payload, frame.event_type or "", now=1.0)
    call = reader.end(now=2.0)
    # these say why they ended, and how much it was, before `[DONE]`, which some servers never send
    complete = frames[-1].payload == b"[DONE]"
    assert (call.complete, call.outcome) == ((True, "answered") if complete else (False, "cut"))


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_times(spoken: Spoken) -> None:
    """The first token is text, reasoning or a tool; what opens a stream is none."""
    call = streamed(spoken, began=90.0)
    assert call.first_token == 10.0 + spoken.first
    assert call.duration == 110.0
    assert streamed(spoken).first_token is None and streamed(spoken).duration is None


class TestCounts:
    def test_usage_that_was_not_asked_for(self) -> None:
        spoken = answers.OPENAI_CHAT
        asked = {name: value for name, value in spoken.asked.items() if name != "stream_options"}
        stream = sse(chunk({"content": "a"}), chunk({}, "stop"), "[DONE]")
        call = streamed(Spoken("x", spoken.host, spoken.path, asked, stream, {}, {}))
        assert call.tokens.missing == "not_requested" and call.tokens.input is None and call.complete

    def test_usage_that_was_asked_for_and_forgotten(self) -> None:
        call = streamed(answers.OPENAI_CHAT, sse(chunk({"content": "a"}), chunk({}, "stop"), "[DONE]"))
        assert call.tokens.missing == "absent" and call.complete

    def test_usage_that_was_asked_for_and_cut(self) -> None:
        """A client that leaves behind the finish reason has not seen the end."""
        call = streamed(answers.OPENAI_CHAT, sse(chunk({"content": "a"}), chunk({}, "stop")))
        assert (call.tokens.missing, call.complete, call.outcome) == ("cut", False, "cut")

    def test_a_reported_zero_stays_zero(self) -> None:
        call = streamed(answers.OPENAI_CHAT, sse(chunk({}, "stop"), chunk(usage={"prompt_tokens": 0, "completion_tokens": 0}), "[DONE]"))
        assert (call.tokens.input, call.tokens.output, call.tokens.missing) == (0, 0, None)
        assert call.tokens.cache_read is None

    def test_the_last_totals_count(self) -> None:
        stream = sse(
            chunk({"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": 1}),
            chunk({"content": "b"}, usage={"prompt_tokens": 9, "completion_tokens": 2}),
            chunk({}, "stop", usage=None),
            "[DONE]",
        )
        assert streamed(answers.OPENAI_CHAT, stream).tokens.output == 2

    def test_what_came_of_a_cut_stream_is_kept(self) -> None:
        """Anthropic counts the input at the begin."""
        call = streamed(answers.ANTHROPIC, sse(*answers.ANTHROPIC_EVENTS[:5], names=True))
        assert (call.tokens.input, call.tokens.cache_read, call.tokens.missing, call.complete) == (442, 400, None, False)
        assert call.reasoning == "I need a tool." and call.outcome == "cut"

    def test_totals_of_anthropic_replace_one_by_one(self) -> None:
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 20, "output_tokens": 0}}
        call = streamed(answers.ANTHROPIC, sse(answers.ANTHROPIC_EVENTS[0], end, {"type": "message_stop"}, names=True))
        assert (call.tokens.input, call.tokens.output, call.tokens.cache_read) == (450, 0, 400)

    @pytest.mark.parametrize("bad", [-1, 1.5, "12", True, [1], 2**64, float("nan")])
    def test_what_is_no_count_is_unknown(self, bad: object) -> None:
        call = streamed(answers.OPENAI_CHAT, sse(chunk({}, "stop"), chunk(usage={"prompt_tokens": bad, "completion_tokens": 4}), "[DONE]"))
        assert (call.tokens.input, call.tokens.output) == (None, 4)
        assert call.problems == ("`prompt_tokens` is no count of tokens",)

    def test_a_count_may_be_written_with_a_point(self) -> None:
        assert streamed(answers.OPENAI_CHAT, sse(chunk({}, "stop", usage={"prompt_tokens": 12.0}), "[DONE]")).tokens.input == 12

    def test_embeddings(self) -> None:
        asked = {"model": "text-embedding-3-small", "input": ["a", "b"]}
        whole = {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 6, "total_tokens": 6},
        }
        call = plain(Spoken("e", "api.openai.com", "/v1/embeddings", asked, b"", whole, {}))
        assert (call.operation, call.tokens.input, call.tokens.output, call.tokens.missing) == ("embeddings", 6, None, None)
        assert call.outcome == "answered" and call.problems == ()


class TestTools:
    def calls(self, *deltas: list[dict[str, Any]]) -> list[tuple[str | None, str, str]]:
        stream = sse(*(chunk({"tool_calls": delta}) for delta in deltas), chunk({}, "tool_calls"), chunk(usage=answers.FEW), "[DONE]")
        return [(tool.id, tool.name, tool.arguments) for tool in streamed(answers.OPENAI_CHAT, stream).tools]

    def test_interleaved(self) -> None:
        assert self.calls(
            [{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}, {"index": 0, "id": "a", "function": {"name": "f"}}],
            [{"index": 0, "function": {"arguments": "[1,"}}, {"index": 1, "function": {"arguments": "{"}}],
            [{"index": 1, "function": {"arguments": "}"}}, {"index": 0, "function": {"arguments": "2]"}}],
        ) == [("b", "g", "{}"), ("a", "f", "[1,2]")]

    def test_without_an_index(self) -> None:
        assert self.calls(
            [{"id": "a", "function": {"name": "f", "arguments": "{"}}],
            [{"function": {"arguments": "}"}}],
            [{"id": "b", "function": {"name": "f", "arguments": "[]"}}],
        ) == [("a", "f", "{}"), ("b", "f", "[]")]

    def test_all_numbered_zero(self) -> None:
        assert self.calls(
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}}],
            [{"index": 0, "id": "b", "function": {"name": "g", "arguments": "2"}}],
            [{"index": 0, "function": {"arguments": "3"}}],
        ) == [("a", "f", "1"), ("b", "g", "23")]

    def test_id_and_name_said_again(self) -> None:
        again = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}}
        assert self.calls([again], [again]) == [("a", "f", "11")]

    def test_the_function_call_of_old(self) -> None:
        stream = sse(
            chunk({"function_call": {"name": "f", "arguments": "{"}}),
            chunk({"function_call": {"arguments": "}"}}),
            chunk({}, "function_call"),
        )
        call = streamed(answers.OPENAI_CHAT, stream)
        assert [(tool.id, tool.name, tool.arguments) for tool in call.tools] == [(None, "f", "{}")]
        assert call.finish == "tool_calls"

    def test_a_custom_tool(self) -> None:
        stream = sse(
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": ""},
            },
            {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": "ls "},
            {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": "-l"},
            {"type": "response.custom_tool_call_input.done", "output_index": 0, "input": "ls -l"},
        )
        (tool,) = streamed(answers.OPENAI_RESPONSES, stream).tools
        assert (tool.id, tool.name, tool.arguments, tool.complete) == ("c", "sh", "ls -l", True)
        with pytest.raises(ValueError):
            tool.parsed()

    def test_what_the_provider_runs_itself(self) -> None:
        block = {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}}
        events = [
            answers.ANTHROPIC_EVENTS[0],
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"query": "x"}'}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ]
        call = streamed(answers.ANTHROPIC, sse(*events, names=True))
        assert [(tool.name, tool.by_provider, tool.parsed()) for tool in call.tools] == [("web_search", True, {"query": "x"})]
        assert call.finish == "stop"

    def test_arguments_that_are_no_json_are_kept(self) -> None:
        stream = sse(
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x": tru'}}]}),
            chunk({}, "stop"),
            "[DONE]",
        )
        (tool,) = streamed(answers.OPENAI_CHAT, stream).tools
        assert tool.arguments == '{"x": tru' and tool.complete
        with pytest.raises(ValueError):
            tool.parsed()

    def test_a_tool_that_is_cut_is_not_complete(self) -> None:
        call = streamed(answers.ANTHROPIC, sse(*answers.ANTHROPIC_EVENTS[:14], names=True))
        assert [(tool.arguments, tool.complete) for tool in call.tools] == [('{"city": "Ber', False)]

    def test_more_tools_than_are_kept(self) -> None:
        pieces = [{"index": number, "id": str(number), "function": {"name": "f", "arguments": "{}"}} for number in range(300)]
        call = streamed(answers.OPENAI_CHAT, sse(chunk({"tool_calls": pieces}), chunk({}, "tool_calls"), "[DONE]"))
        assert len(call.tools) == 256 and call.truncated


class TestBounds:
    def test_text_over_the_limit_is_left_out_and_marked(self) -> None:
        call = streamed(answers.ANTHROPIC, limit=20)
        assert (call.reasoning, call.text, call.truncated) == ("I need a tool.", "Ich se", True)
        assert [(tool.arguments, tool.complete) for tool in call.tools] == [("", False), ("", True)]
        # counts are counts
        assert counts(call) == answers.ANTHROPIC.said["tokens"] and call.outcome == "answered"

    def test_a_limit_that_is_met_exactly(self) -> None:
        size = len("I need a tool.Ich sehe nach." + '{"city": "Berlin"}')
        assert not streamed(answers.ANTHROPIC, limit=size).truncated
        assert streamed(answers.ANTHROPIC, limit=size - 1).truncated

    def test_no_text_at_all(self) -> None:
        call = streamed(answers.OPENAI_CHAT, limit=0)
        assert (call.text, call.truncated, call.tokens.output) == ("", True, 17)

    def test_arguments_that_come_again_whole_take_their_room_once(self) -> None:
        size = len("The user wants weather.Let me look." + '{"city":"Berlin"}')
        assert told(streamed(answers.OPENAI_RESPONSES, limit=size)) == wanted(answers.OPENAI_RESPONSES)

    def test_an_event_that_was_cut(self) -> None:
        reader = reader_of(answers.OPENAI_CHAT)
        reader.feed(b'{"choices": [{"delta": {"content": "aaaaa', now=1.0, complete=False, truncated=True)
        call = reader.end(now=2.0)
        assert (call.truncated, call.complete, call.problems) == (True, None, ())

    def test_what_is_over_the_limit_and_cut_is_cut(self) -> None:
        call = streamed(answers.ANTHROPIC, sse(*answers.ANTHROPIC_EVENTS[:12], names=True), limit=5)
        assert (call.truncated, call.complete, call.outcome) == (True, False, "cut")

    def test_problems_are_few(self) -> None:
        events = [chunk({}, **{"usage": {"prompt_tokens": number, "completion_tokens": -number}}) for number in range(1, 5)]
        assert len(streamed(answers.OPENAI_CHAT, sse(*events)).problems) == 1
        kinds = ["id", "model", "choices", "usage", "x_groq"]
        events = [{name: value} for name in kinds for value in (1, [1], {"a": 1}, True)]
        call = streamed(answers.OPENAI_CHAT, sse(*events))
        assert len(call.problems) == 8 and call.problems[-1] == "there were further problems"

    def test_names_are_short(self) -> None:
        call = streamed(answers.OPENAI_CHAT, sse(chunk({"content": "x"}) | {"id": "i" * 5000, "model": "m" * 5000}))
        assert (len(call.response_id or ""), len(call.model_answered or "")) == (256, 256)

    def test_choices_are_bounded(self) -> None:
        event = chunk() | {"choices": [{"index": number, "delta": {"content": "x"}} for number in range(5000)]}
        call = streamed(answers.OPENAI_CHAT, sse(event))
        assert (call.choices, call.text) == (128, "x")

    def test_a_long_answer_is_read_by_its_fields(self) -> None:
        """Vectors take no memory but their text, and the counts behind them are read."""
        vectors = [{"index": number, "embedding": [0.123456789] * 500} for number in range(400)]
        whole = {"object": "list", "data": vectors, "model": "e", "usage": {"prompt_tokens": 6, "total_tokens": 6}}
        asked = {"model": "e", "input": ["a"]}
        call = plain(Spoken("e", "api.openai.com", "/v1/embeddings", asked, b"", whole, {}))
        assert len(json.dumps(whole)) > 2_000_000
        assert (call.tokens.input, call.model_answered, call.truncated, call.outcome) == (6, "e", False, "answered")

    def test_a_long_last_event_keeps_its_counts(self) -> None:
        picture = {"type": "image_generation_call", "id": "ig", "result": "A" * 2_000_000}
        end = answers.RESPONSE_END | {"output": [picture]}
        call = streamed(answers.OPENAI_RESPONSES, sse({"type": "response.completed", "response": end}, names=True))
        assert (counts(call), call.complete, call.truncated) == (answers.OPENAI_RESPONSES.said["tokens"], True, True)

    def test_a_long_text_is_cut(self) -> None:
        event = chunk({"content": "x" * 2_000_000}, usage=answers.FEW)
        call = streamed(answers.OPENAI_CHAT, sse(event))
        assert (call.truncated, call.text, call.tokens.output) == (True, "", 3)

    @pytest.mark.parametrize("limit", [0, 50_000])
    def test_a_stream_without_end_takes_no_more_memory_than_its_limit(self, limit: int) -> None:
        """Whatever the length of its pieces, and of the pieces that are left out."""
        reader = reader_of(answers.ANTHROPIC, limit=limit)
        deltas = [
            json.dumps({"type": "content_block_delta", "index": index, "delta": delta}).encode()
            for index, delta in enumerate(
                (
                    {"type": "text_delta", "text": "ab"},
                    {"type": "thinking_delta", "thinking": "cd"},
                    {"type": "input_json_delta", "partial_json": "12"},
                )
            )
        ]
        tracemalloc.start()
        try:
            for _ in range(15_000):
                for delta in deltas:
                    reader.feed(delta, now=1.0)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert kept < 200_000
        call = reader.end(now=2.0)
        assert len(call.text) + len(call.reasoning) + len(call.tools[0].arguments) == limit and call.truncated

    def test_lists_without_end_are_not_looked_through(self) -> None:
        choices = [{"index": 0, "delta": {"tool_calls": [{}] * 500}}] * 500
        call = streamed(answers.OPENAI_CHAT, sse(chunk() | {"choices": choices}))
        assert call.truncated

    @pytest.mark.parametrize("spoken", ANSWERS, ids=str)
    def test_a_bomb_holds_nothing_up(self, spoken: Spoken) -> None:
        """A body that would be far more in memory, or in time, than it is long."""
        for body in (b'{"choices":[' + b"{}," * 1_000_000 + b"{}]}", b"[" * 3_000_000, b"data: {}\n\n" * 300_000, b"{}\n" * 500_000):
            began = time.process_time()
            call = plain(spoken, body)
            # 20 times what it takes
            assert time.process_time() - began < 10
            assert call.truncated or call.problems


class TestErrors:
    @pytest.mark.parametrize(
        ("spoken", "body", "words"),
        [
            (
                answers.OPENAI_CHAT,
                {"error": {"message": "Too many.", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}},
                "tokens: rate_limit_exceeded: Too many.",
            ),
            (
                answers.ANTHROPIC,
                {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
                "overloaded_error: Overloaded",
            ),
            (
                answers.GEMINI,
                [{"error": {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED"}}],
                "RESOURCE_EXHAUSTED: 429: Quota.",
            ),
            (answers.OLLAMA_CHAT, {"error": "model 'x' not found"}, "model 'x' not found"),
            (answers.CONVERSE, {"message": "Too many tokens."}, "Too many tokens."),
            (answers.OPENAI_CHAT, {"detail": "Not authenticated"}, "Not authenticated"),
            (answers.OPENAI_CHAT, "<html>bad gateway</html>", "HTTP 529"),
            (answers.OPENAI_CHAT, {}, "HTTP 529"),
            (answers.OPENAI_CHAT, "", "HTTP 529"),
        ],
    )
    def test_an_error_in_place_of_an_answer(self, spoken: Spoken, body: object, words: str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        call = plain(spoken, data, status=529)
        assert (call.error, call.outcome, call.finish, call.status) == (words, "failed", "error", 529)
        assert (call.tokens.missing, call.complete, call.problems) == ("error", True, ())

    @pytest.mark.parametrize(
        ("spoken", "event", "words"),
        [
            (answers.OPENAI_CHAT, {"error": {"message": "Boom", "type": "server_error"}}, "server_error: Boom"),
            (
                answers.OPENAI_RESPONSES,
                {"type": "error", "code": "rate_limit_exceeded", "message": "Slow down", "param": None, "sequence_number": 3},
                "rate_limit_exceeded: Slow down",
            ),
            (
                answers.OPENAI_RESPONSES,
                {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "Boom"}}},
                "server_error: Boom",
            ),
            (
                answers.ANTHROPIC,
                {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
                "overloaded_error: Overloaded",
            ),
            (answers.GEMINI, {"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}}, "UNAVAILABLE: 503: Busy"),
        ],
    )
    def test_an_error_within_a_stream(self, spoken: Spoken, event: dict[str, Any], words: str) -> None:
        begin = list(spoken.frames())[:4]
        reader = reader_of(spoken)
        for frame in begin:
            reader.feed(frame.payload, frame.event_type or "", now=1.0)
        reader.feed(json.dumps(event).encode(), event.get("type", ""), now=2.0)
        call = reader.end(now=3.0)
        assert (call.error, call.outcome) == (words, "failed")

    def test_an_error_of_ollama_within_a_stream(self) -> None:
        stream = answers.ndjson(answers.OLLAMA_LINE | {"message": {"content": "a"}, "done": False}, {"error": "out of memory"})
        call = streamed(answers.OLLAMA_CHAT, stream)
        assert (call.error, call.text, call.outcome, call.tokens.missing) == ("out of memory", "a", "failed", "error")

    def test_an_exception_of_aws_within_a_stream(self) -> None:
        stream = answers.aws(
            ("messageStart", {"role": "assistant"}), ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}})
        )
        stream += answers.aws_message("throttlingException", {"message": "Too many requests"}, kind="exception")
        call = streamed(answers.CONVERSE, stream)
        assert (call.error, call.text, call.outcome) == ("throttlingException: Too many requests", "a", "failed")

    def test_an_error_with_status_200_is_one(self) -> None:
        call = plain(answers.OPENAI_CHAT, b'{"error": {"message": "No", "code": 402}}')
        assert (call.error, call.outcome, call.tokens.missing) == ("402: No", "failed", "error")

    def test_a_stream_under_a_status_of_failure_failed(self) -> None:
        call = streamed(answers.OPENAI_CHAT, sse(chunk({"content": "sorry"})), status=503)
        assert (call.error, call.outcome, call.text, call.tokens.missing) == ("HTTP 503", "failed", "sorry", "error")

    def test_a_long_error_is_cut(self) -> None:
        assert len(plain(answers.OLLAMA_CHAT, json.dumps({"error": "x" * 5000}).encode(), status=500).error or "") == 1000

    def test_an_error_in_errors(self) -> None:
        text = b'{"error":' * 500 + b'"deep"' + b"}" * 500
        assert plain(answers.OPENAI_CHAT, text, status=500).outcome == "failed"


class TestEnds:
    def test_the_last_event_may_come_without_its_blank_line(self) -> None:
        """Its counts are read: there models say what they cost."""
        stream = sse(chunk({"content": "a"}), chunk({}, "stop"), chunk(usage=answers.FEW)).rstrip(b"\n")
        call = streamed(answers.OPENAI_CHAT, stream)
        assert (call.tokens.output, call.complete) == (3, True)

    def test_incomplete_responses(self) -> None:
        end = answers.RESPONSE_END | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
        call = streamed(answers.OPENAI_RESPONSES, sse({"type": "response.incomplete", "response": end}, names=True))
        assert (call.stops, call.finish, call.tokens.output, call.complete) == (("max_output_tokens",), "length", 40, True)

    def test_what_only_the_last_event_has_is_taken_from_it(self) -> None:
        call = streamed(answers.OPENAI_RESPONSES, sse({"type": "response.completed", "response": answers.RESPONSE_END}, names=True))
        assert told(call) == wanted(answers.OPENAI_RESPONSES)

    def test_a_prompt_that_gemini_blocks(self) -> None:
        event = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}, "modelVersion": "gemini-2.5-pro"}
        call = streamed(answers.GEMINI, sse(event))
        assert (call.stops, call.finish, call.tokens.input, call.tokens.output, call.complete) == (("SAFETY",), "filtered", 4, None, True)

    @pytest.mark.parametrize(
        ("word", "finish"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("content_filter", "filtered"),
            ("error", "error"),
            ("insufficient_system_resource", None),
        ],
    )
    def test_words_of_why(self, word: str, finish: str | None) -> None:
        call = streamed(answers.OPENAI_CHAT, sse(chunk({"content": "a"}, word), "[DONE]"))
        assert (call.stop, call.finish) == (word, finish)

    def test_several_choices(self) -> None:
        def both(first: str, second: str, why: str | None = None) -> dict[str, Any]:
            return chunk() | {
                "choices": [
                    {"index": 1, "delta": {"content": second}, "finish_reason": why},
                    {"index": 0, "delta": {"content": first}, "finish_reason": None if why is None else "stop"},
                ]
            }

        call = streamed(answers.OPENAI_CHAT, sse(both("a", "x"), both("b", "y"), both("", "", "length"), "[DONE]"))
        assert (call.text, call.choices, call.stops, call.finish) == ("ab", 2, ("stop", "length"), "stop")

    def test_one_of_several_choices_is_cut(self) -> None:
        second = chunk() | {"choices": [{"index": 1, "delta": {"content": "y"}, "finish_reason": None}]}
        assert not streamed(answers.OPENAI_CHAT, sse(chunk({}, "stop"), second, chunk(usage=answers.FEW))).complete


class TestOtherForms:
    def test_a_stream_of_gemini_as_an_array(self) -> None:
        call = plain(answers.GEMINI, json.dumps(answers.GEMINI_EVENTS, indent=2).encode())
        assert told(call) == wanted(answers.GEMINI) and call.streamed and call.first_token is None

    def test_an_array_that_is_no_json(self) -> None:
        text = json.dumps(answers.GEMINI_EVENTS).encode().replace(b"Sunny", b"Sun\\ud83cny")
        assert plain(answers.GEMINI, text).text == "Sun\ufffdny today."
        assert not plain(answers.GEMINI, text[:-1]).problems

    def test_a_long_array(self) -> None:
        """Of more than a MiB the beginning is read, and that is said."""
        text = json.dumps([answers.GEMINI_EVENTS[2]] * 10_000 + answers.GEMINI_EVENTS[3:]).encode()
        call = plain(answers.GEMINI, text)
        assert call.truncated and call.text.startswith("SunnySunny") and call.tokens.missing == "not_shown"
        short = json.dumps([answers.GEMINI_EVENTS[2]] * 3_000 + answers.GEMINI_EVENTS[3:]).encode()
        call = plain(answers.GEMINI, short)
        assert len(short) > 300_000 and call.tokens.output == 20 and call.complete

    def test_an_array_that_is_cut(self) -> None:
        text = json.dumps(answers.GEMINI_EVENTS).encode()
        for length in range(1, len(text)):
            call = plain(answers.GEMINI, text[:length], truncated=True)
            assert call.problems == () and answers.GEMINI_SAID["text"].startswith(call.text)  # type: ignore[attr-defined]

    def test_an_event_stream_under_another_media_type(self) -> None:
        assert told(plain(answers.ANTHROPIC, answers.ANTHROPIC.stream)) == wanted(answers.ANTHROPIC)

    def test_lines_of_ollama_under_another_media_type(self) -> None:
        assert told(plain(answers.OLLAMA_CHAT, answers.OLLAMA_CHAT.stream)) == wanted(answers.OLLAMA_CHAT)

    def test_a_body_over_the_budget(self) -> None:
        text = json.dumps(answers.OPENAI_CHAT.whole).encode()
        call = plain(answers.OPENAI_CHAT, text[:200], truncated=True)
        assert (call.truncated, call.complete, call.tokens.missing, call.outcome) == (True, None, "not_shown", "answered")

    def test_a_body_that_cannot_be_decoded(self) -> None:
        call = plain(answers.OPENAI_CHAT, b"\x1f\x8b???", problem="gzip: not a gzip file")
        assert call.problems == ("the answer's body: gzip: not a gzip file",) and call.tokens.missing == "absent"

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            (b"", "the answer is empty"),
            (b"hello", "the answer is no JSON: Expecting value: line 1 column 1 (char 0)"),
            (b"17", "the answer is no object"),
            (b'{"choices": 3}', "`choices` is a number, not a list"),
            (b'{"choices": [3]}', "`choices[]` is a number, not an object"),
            (b'{"choices": [{"message": "hi"}]}', "`message` is text, not an object"),
            (b'{"usage": []}', "`usage` is a list, not an object"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, body: bytes, problem: str) -> None:
        assert plain(answers.OPENAI_CHAT, body).problems == (problem,)

    @pytest.mark.parametrize("spoken", ANSWERS, ids=str)
    def test_events_and_fields_of_another_year(self, spoken: Spoken) -> None:
        """What is not known is left alone, wherever it stands."""
        reader = reader_of(spoken)
        for frame in spoken.frames():
            if frame.payload != b"[DONE]":
                reader.feed(b'{"type": "something.new", "news": [{"a": 1}], "contentBlockIndex": 99}', "something.new", now=1.0)
                event = json.loads(frame.payload)
                reader.feed(json.dumps(event | {"obfuscation": "x" * 9, "news": {"b": [None]}}).encode(), frame.event_type or "", now=1.0)
            else:
                reader.feed(frame.payload, now=1.0)
        assert told(reader.end(now=2.0)) == wanted(spoken)

    def test_events_that_were_dropped(self) -> None:
        reader = reader_of(answers.OPENAI_CHAT)
        reader.miss("events of the answer were not shown")
        call = reader.end(now=1.0)
        assert call.truncated and call.problems == ("events of the answer were not shown",)

    def test_halves_of_a_character_in_two_events(self) -> None:
        halves = (b'data: {"choices":[{"delta":{"content":"\\ud83c"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"\\udf1e!"}}]}\n\n')
        assert streamed(answers.OPENAI_CHAT, b"".join(halves)).text == "🌞!"
        assert streamed(answers.OPENAI_CHAT, halves[0]).text == "\ufffd"

    def test_bytes_that_are_no_utf8(self) -> None:
        call = streamed(answers.OPENAI_CHAT, b'data: {"choices":[{"index":0,"delta":{"content":"a\xffb"}}]}\n\n')
        assert call.text == "a\ufffdb"

    @pytest.mark.parametrize("inner", ["?", "bm8=", "W10="])
    def test_what_bedrock_wraps_may_be_anything(self, inner: str) -> None:
        call = streamed(answers.BEDROCK_INVOKE, answers.aws(("chunk", {"bytes": inner})))
        assert not call.complete and call.outcome == "cut"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value in which something is replaced, left out or said twice."""
    how = draw(st.integers(0, 8))
    if how == 0:
        return draw(JSON)
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        if how == 1:
            return {key: item for key, item in value.items() if key != name}
        return value | {name: draw(damaged(value[name]))}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        if how == 2:
            return value + value
        return [*value[:at], draw(damaged(value[at])), *value[at + 1 :]]
    return value


def events_of(spoken: Spoken) -> list[tuple[str, Any]]:
    return [(frame.event_type or "", frame.payload) for frame in spoken.frames()]


def sane(call: ModelCall) -> None:
    """Whatever came, what is told of it can be shown, stored and sent."""
    json.dumps(call.as_dict()).encode()
    call.text.encode()
    assert len(call.text) + len(call.reasoning) + sum(len(tool.arguments) for tool in call.tools) <= LIMIT
    assert len(call.problems) <= 8 and len(call.error or "") <= 1000
    for count in counts(call):
        assert count is None or (type(count) is int and count >= 0)
    assert (call.tokens.missing is None) == any(count is not None for count in counts(call))


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
@given(data=st.data())
def test_damaged_events_never_raise(spoken: Spoken, data: st.DataObject) -> None:
    reader = reader_of(spoken)
    for event, payload in events_of(spoken):
        if data.draw(st.integers(0, 3)) == 0:
            try:
                payload = json.dumps(data.draw(damaged(json.loads(payload)))).encode()
            except ValueError:
                payload = data.draw(st.binary(max_size=20))
        reader.feed(payload, event, now=1.0, complete=data.draw(st.booleans()))
    sane(reader.end(now=2.0))


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
@given(data=st.data())
def test_damaged_answers_never_raise(spoken: Spoken, data: st.DataObject) -> None:
    text = json.dumps(data.draw(damaged(spoken.whole))).encode()
    cut = data.draw(st.integers(0, len(text)))
    for body in (text, text[:cut], data.draw(st.binary(max_size=30)) + text):
        sane(plain(spoken, body))
        sane(plain(spoken, body, status=500))


@given(st.sampled_from(ANSWERS), st.lists(st.tuples(st.binary(max_size=40), st.text(max_size=12)), max_size=6))
def test_any_bytes_never_raise(spoken: Spoken, events: list[tuple[bytes, str]]) -> None:
    reader = reader_of(spoken)
    for payload, event in events:
        reader.feed(payload, event, now=1.0)
    sane(reader.end(now=2.0))


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"choices":' + b"[" * 5000, b"1" * 5000])
def test_nesting_and_numbers_without_end(text: bytes) -> None:
    for spoken in ANSWERS:
        sane(plain(spoken, text))
        reader = reader_of(spoken)
        reader.feed(text, now=1.0)
        sane(reader.end(now=1.0))


def test_arguments_that_are_nested_deep() -> None:
    """What the JSON reader accepts may be more than can be spelt again."""
    depth = 900
    text = b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": ' + b"[" * depth + b"]" * depth + b"}}]}}"
    reader = reader_of(answers.OLLAMA_CHAT)
    reader.feed(text, now=1.0)
    sane(reader.end(now=1.0))
