"""Real tasks with the SDKs of OpenAI and Anthropic: a key that the program does not have, a mock of a model, a local server instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from tests.e2e.test_credentials import named, serving

from soth_mitm import Chain, Credential, Secret, SseEvent, rules
from support.origin import Origin, Request, ScriptedConnection
from support.running import HOST, ProxyFactory, Running

__all__ = ["serving"]

OPENAI = Credential("sk-placeholder-of-openai", Secret("sk-live-openai-0123456789"), ["localhost:*"])
# either, by the version of the SDK
KEYS = ["header:x-api-key", "header:authorization"]
ANTHROPIC = Credential("sk-ant-placeholder-01", Secret("sk-ant-live-0123456789"), ["localhost:*"], place=KEYS)
WORDS = ("Hello", " ", "there")


def openai_events() -> list[SseEvent]:
    chunks: list[dict[str, Any]] = [{"delta": {"content": word}, "index": 0} for word in WORDS]
    common = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return [SseEvent(json.dumps({**common, "choices": [chunk]})) for chunk in chunks] + [SseEvent("[DONE]")]


def anthropic_events() -> list[SseEvent]:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    return [SseEvent(json.dumps(event), event=event["type"]) for event in events]


def wire(events: list[SseEvent]) -> bytes:
    lines = [(f"event: {event.event}\n" if event.event else "") + f"data: {bytes(event.data).decode()}\n\n" for event in events]  # type: ignore[arg-type]
    return "".join(lines).encode()


def streaming(events: list[SseEvent]) -> Callable[[ScriptedConnection, Request], None]:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            piece = wire([event])
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")

    return script


def refusing(text: str) -> Callable[[ScriptedConnection, Request], None]:
    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        body = json.dumps({"error": {"message": text, "type": "invalid_request_error"}}).encode()
        connection.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return script


def client(running: Running, sdk: Any) -> Any:
    return sdk.DefaultHttpxClient(proxy=running.url, verify=running.client_context(), trust_env=False)


def ask_openai(running: Running, origin: Origin) -> str:
    with client(running, openai) as http:
        sdk = openai.OpenAI(api_key=OPENAI.placeholder, base_url=origin.url("/v1"), http_client=http, max_retries=0)
        stream = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def ask_anthropic(running: Running, origin: Origin) -> str:
    with client(running, anthropic) as http:
        sdk = anthropic.Anthropic(api_key=ANTHROPIC.placeholder, base_url=origin.url(""), http_client=http, max_retries=0)
        with sdk.messages.stream(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}]) as stream:
            return "".join(stream.text_stream)


SDKS = pytest.mark.parametrize(
    "ask, events, key",
    [(ask_openai, openai_events, "sk-live-openai-0123456789"), (ask_anthropic, anthropic_events, "sk-ant-live-0123456789")],
    ids=["openai", "anthropic"],
)


@SDKS
def test_a_key_is_put_into_a_streamed_call(
    proxy: ProxyFactory, serving: Any, ask: Any, events: Callable[[], list[SseEvent]], key: str
) -> None:
    origin = serving(HOST)
    origin.script(streaming(events()))
    running = proxy(credentials=[OPENAI, ANTHROPIC])
    assert ask(running, origin) == "Hello there"
    sent = [*named(origin.requests[-1], "authorization"), *named(origin.requests[-1], "x-api-key")]
    assert [text.removeprefix("Bearer ") for text in sent] == [key]
    assert key.encode() not in b"".join(value for _, value in running.handler.requests[-1].headers.raw)


@SDKS
def test_a_key_that_an_error_repeats_does_not_come_back(proxy: ProxyFactory, serving: Any, ask: Any, events: Any, key: str) -> None:
    origin = serving(HOST)
    origin.script(refusing(f"Incorrect API key provided: {key}."))
    running = proxy(credentials=[OPENAI, ANTHROPIC])
    with pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)) as caught:
        ask(running, origin)
    assert key not in str(caught.value) and "placeholder" in str(caught.value)


@SDKS
def test_a_model_is_mocked(proxy: ProxyFactory, serving: Any, ask: Any, events: Callable[[], list[SseEvent]], key: str) -> None:
    origin = serving(HOST)
    running = proxy(Chain(rules.set_header("X-Team", "a"), rules.mock_json("POST", "https://localhost:*/v1/*", events())))
    for _ in range(2):
        assert ask(running, origin) == "Hello there"
    assert origin.requests == []
    assert running.metrics().answered_request_count == 2


@SDKS
def test_a_local_server_stands_in(proxy: ProxyFactory, serving: Any, ask: Any, events: Callable[[], list[SseEvent]], key: str) -> None:
    origin, local = serving(HOST), serving()
    local.script(streaming(events()))
    running = proxy(
        Chain(rules.map_remote("https://localhost:*/v1/*", f"http://127.0.0.1:{local.port}", path="/local/*")),
        **{"interception.destinations": ["localhost:*"]},
    )
    assert ask(running, origin) == "Hello there"
    assert origin.requests == [] and local.requests[-1].path.startswith("/local/")


def test_a_key_does_not_follow_to_a_local_server(proxy: ProxyFactory, serving: Any) -> None:
    origin, local = serving(HOST), serving()
    running = proxy(rules.map_remote("https://localhost:*/v1/*", f"http://127.0.0.1:{local.port}"), credentials=[OPENAI])
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask_openai(running, origin)
    assert caught.value.response.text.startswith("placeholder_misdirected")
    assert local.requests == []
