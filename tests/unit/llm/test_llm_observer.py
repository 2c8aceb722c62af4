"""`LlmObserver` as a handler, without a proxy: what it is called with, and what it tells."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from soth_mitm import ConnectionMeta, InterceptHandler, RawRequest, RawResponse, StreamChunk, TcpV4
from soth_mitm.handler import check_handler, overridden_hooks
from soth_mitm.llm import LlmObserver, ModelCall, answer_reader, observer, span_attributes, span_name
from support import model_answers as answers
from support.model_answers import ANSWERS, KINDS, Spoken, told, wanted

CONNECTION = uuid4()
META = ConnectionMeta(connection_id=CONNECTION, socket_family=TcpV4(("127.0.0.1", 1), ("127.0.0.1", 2)))


class Told(list[ModelCall]):
    """What an observer told."""

    def __init__(self, **named: Any) -> None:
        super().__init__()
        self.observer = LlmObserver(self.append, **named)


def answer(handler: LlmObserver, spoken: Spoken, *, flow_id: int = 7, skip: tuple[int, ...] = (), end: bool = True) -> None:
    """Call the hooks as the proxy does for a stream."""
    request = spoken.request(connection_meta=META)
    handler.on_response(RawResponse.build(headers={"Content-Type": spoken.media}, request=request, flow_id=flow_id, streaming=True))
    for number, frame in enumerate(spoken.frames()):
        if number not in skip:
            handler.on_stream_chunk(
                StreamChunk.build(
                    frame.payload,
                    KINDS[spoken.media],
                    event_type=frame.event_type,
                    complete=frame.complete,
                    flow_id=flow_id,
                    sequence=number,
                )
            )
    if end:
        handler.on_stream_end(CONNECTION, flow_id)


def test_it_overrides_what_observes_and_nothing_else() -> None:
    """Nothing waits for it."""
    handler = LlmObserver(print)
    assert overridden_hooks(handler) == {"on_response", "on_stream_chunk", "on_stream_end"}
    check_handler(handler)
    assert isinstance(handler, InterceptHandler)


@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_a_stream(spoken: Spoken) -> None:
    calls = Told()
    answer(calls.observer, spoken)
    (call,) = calls
    assert told(call) == wanted(spoken)
    assert (call.flow_id, call.connection_id) == (7, CONNECTION)
    assert call.request is not None and call.request.url == spoken.request().url


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("spoken", ANSWERS, ids=str)
def test_a_plain_answer(spoken: Spoken, coded: bool) -> None:
    calls = Told()
    body = json.dumps(spoken.whole).encode()
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if coded else {})
    request = spoken.request(whole=True, connection_meta=META)
    calls.observer.on_response(RawResponse.build(headers=headers, body=gzip.compress(body) if coded else body, request=request))
    (call,) = calls
    assert told(call) == wanted(spoken) and call.first_token is None


def test_streams_at_the_same_time_are_apart() -> None:
    calls = Told()
    begun = [(number, spoken) for number, spoken in enumerate(ANSWERS, 1)]
    for number, spoken in begun:
        answer(calls.observer, spoken, flow_id=number, end=False)
    for number, _ in reversed(begun):
        calls.observer.on_stream_end(CONNECTION, number)
    assert [told(call) for call in calls] == [wanted(spoken) for spoken in reversed(ANSWERS)]
    calls.observer.on_stream_end(CONNECTION, 3)
    assert len(calls) == len(ANSWERS)


def test_other_traffic_is_not_told_of() -> None:
    calls = Told()
    handler = calls.observer
    other = RawRequest.build(method="POST", url="https://api.openai.com/v1/files", body=b"{}")
    handler.on_response(RawResponse.build(body=b"{}", request=other))
    handler.on_response(RawResponse.build(request=other, streaming=True, flow_id=3))
    handler.on_stream_chunk(StreamChunk.build(b"data", flow_id=3))
    handler.on_stream_end(CONNECTION, 3)
    handler.on_response(RawResponse.build(body=b"{}"))
    assert calls == []


def test_the_body_of_other_answers_is_not_decoded() -> None:
    """A body that cannot be: had it been looked at, it would say so."""
    other = RawRequest.build(method="POST", url="https://a.example/upload", headers={"Content-Encoding": "gzip"}, body=b"no gzip")
    response = RawResponse.build(headers={"Content-Encoding": "gzip"}, body=b"no gzip", request=other)

    class Sealed:
        status, streaming, request = 200, False, other

        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"{name} was looked at")

    Told().observer.on_response(Sealed())  # type: ignore[arg-type]
    assert response.decode_error is not None


def test_messages_of_the_client_are_no_answer() -> None:
    calls = Told()
    spoken = answers.OPENAI_CHAT
    handler = calls.observer
    handler.on_response(RawResponse.build(request=spoken.request(), streaming=True))
    handler.on_stream_chunk(StreamChunk.build(b'{"choices": [{"delta": {"content": "x"}}]}', flow_id=7, direction="to_upstream"))
    handler.on_stream_chunk(StreamChunk.build(b"\x00\x01", "grpc_message", flow_id=7))
    handler.on_stream_end(CONNECTION, 7)
    assert (calls[0].text, calls[0].problems, calls[0].outcome) == ("", (), "cut")


def test_events_that_were_dropped_are_missed() -> None:
    calls = Told()
    answer(calls.observer, answers.OPENAI_CHAT, skip=(2,))
    (call,) = calls
    assert call.truncated and call.text == "It is " and call.tokens.output == 17
    assert call.problems == ("events of the answer were not shown, since a handler was slow",)


def test_times_are_those_of_the_request() -> None:
    calls = Told()
    spoken = answers.ANTHROPIC
    began = time.monotonic() - 5
    calls.observer.on_response(RawResponse.build(request=spoken.request(began=began), streaming=True))
    for frame in spoken.frames():
        calls.observer.on_stream_chunk(StreamChunk.build(frame.payload, event_type=frame.event_type, flow_id=7))
    calls.observer.on_stream_end(CONNECTION, 7)
    (call,) = calls
    assert call.first_token is not None and call.duration is not None
    assert 5 <= call.first_token <= call.duration < 60


def test_a_coroutine_may_be_told() -> None:
    calls: list[ModelCall] = []

    async def on_call(call: ModelCall) -> None:
        await asyncio.sleep(0)
        calls.append(call)

    handler = LlmObserver(on_call)
    spoken = answers.OPENAI_CHAT
    response = RawResponse.build(body=json.dumps(spoken.whole).encode(), request=spoken.request(whole=True))

    async def run() -> None:
        waiting = handler.on_response(response)
        assert waiting is not None and calls == []
        await waiting

    asyncio.run(run())
    assert told(calls[0]) == wanted(spoken)


def test_what_the_user_raises_is_the_handlers_failure() -> None:
    def fail(call: ModelCall) -> None:
        raise LookupError("on purpose")

    spoken = answers.OPENAI_CHAT
    with pytest.raises(LookupError):
        LlmObserver(fail).on_response(RawResponse.build(body=b"{}", request=spoken.request()))


def test_our_own_mistake_is_counted_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(answer_reader.AnswerReader, "feed", fail)
    monkeypatch.setattr(answer_reader.AnswerReader, "read", fail)
    calls = Told()
    answer(calls.observer, answers.OPENAI_CHAT)
    calls.observer.on_response(RawResponse.build(body=b"{}", request=answers.OPENAI_CHAT.request()))
    assert [(call.truncated, call.problems) for call in calls] == [(True, ("the observer failed to read the answer",))] * 2
    assert calls.observer.failures == 11
    assert [record.getMessage() for record in caplog.records].count(
        "reading a call of a model failed: ZeroDivisionError('on purpose') (further failures are counted only)"
    ) == 1
    monkeypatch.setattr(observer.Recogniser, "recognise", fail)
    calls.observer.on_response(RawResponse.build(body=b"{}", request=answers.OPENAI_CHAT.request()))
    assert (calls.observer.failures, len(calls)) == (12, 2)


def test_streams_whose_end_is_never_told_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "MOST_OPEN", 3)
    calls = Told()
    for number in range(1, 6):
        answer(calls.observer, answers.OPENAI_CHAT, flow_id=number, end=False)
    for number in range(1, 6):
        calls.observer.on_stream_end(CONNECTION, number)
    assert len(calls) == 3 and calls.observer.unread == 2


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"on_call": None}, "on_call must be a function that takes a ModelCall, got None"),
        ({"on_call": print, "text_limit": -1}, "text_limit must be 0 or more characters, not -1"),
        ({"on_call": print, "endpoints": {"x": "y"}}, "endpoints: `x` has no port"),
    ],
)
def test_mistakes(named: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        LlmObserver(**named)


def one(spoken: Spoken) -> ModelCall:
    calls = Told()
    answer(calls.observer, spoken)
    return calls[0]


class TestModelCall:
    def test_it_does_not_change(self) -> None:
        call = one(answers.ANTHROPIC)
        with pytest.raises(AttributeError):
            call.text = "x"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            call.tokens.input = 1  # type: ignore[misc]

    @pytest.mark.parametrize("spoken", ANSWERS, ids=str)
    def test_as_a_dict_it_is_json(self, spoken: Spoken) -> None:
        call = one(spoken)
        plain = call.as_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert plain["tokens"]["input"] == call.tokens.input and plain["outcome"] == "answered" and plain["model"] == call.model
        assert UUID(plain["connection_id"]) == CONNECTION and "request" not in plain
        assert set(plain) == (set(ModelCall.__slots__) - {"request"}) | {"model", "stop", "outcome"}

    def test_no_credential_in_what_is_shown(self) -> None:
        assert "secret" not in repr(one(answers.GEMINI)) and "secret" not in json.dumps(one(answers.GEMINI).as_dict())


class TestConventions:
    def test_attributes(self) -> None:
        assert span_attributes(one(answers.ANTHROPIC)) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.request.stream": True,
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "gen_ai.response.id": "msg_01X",
            "gen_ai.response.finish_reasons": ["tool_use"],
            "gen_ai.usage.input_tokens": 442,
            "gen_ai.usage.output_tokens": 89,
            "gen_ai.usage.cache_read.input_tokens": 400,
            "gen_ai.usage.cache_write.input_tokens": 30,
            "gen_ai.usage.reasoning.output_tokens": 20,
            "server.address": "api.anthropic.com",
            "server.port": 443,
        }
        assert span_name(one(answers.ANTHROPIC)) == "chat claude-sonnet-4-5"

    def test_what_is_unknown_has_none(self) -> None:
        calls = Told()
        request = RawRequest.build(method="POST", url="http://localhost:9/v1/chat/completions", body=b'{"messages": []}')
        calls.observer.on_response(RawResponse.build(request=request, streaming=True, flow_id=1))
        calls.observer.on_stream_end(CONNECTION, 1)
        assert span_attributes(calls[0]) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai-compatible",
            "gen_ai.request.stream": True,
            "error.type": "cut",
            "server.address": "localhost",
            "server.port": 9,
        }
        assert span_name(calls[0]) == "chat"

    @pytest.mark.parametrize(("status", "word"), [(429, "429"), (200, "provider_error")])
    def test_errors(self, status: int, word: str) -> None:
        calls = Told()
        body = b'{"error": {"message": "x"}}'
        calls.observer.on_response(RawResponse.build(status=status, body=body, request=answers.OPENAI_CHAT.request()))
        assert span_attributes(calls[0])["error.type"] == word

    def test_zero_is_told(self) -> None:
        calls = Told()
        body = b'{"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}'
        calls.observer.on_response(RawResponse.build(body=body, request=answers.OPENAI_CHAT.request()))
        assert span_attributes(calls[0])["gen_ai.usage.input_tokens"] == 0
