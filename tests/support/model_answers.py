"""Answers of model servers as each of them documents its format: as a stream, whole, and what has to be read of either. Written by hand."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from soth_mitm import FrameKind, RawRequest
from soth_mitm._dataplane.wire.eventstream import EventStreamFramer
from soth_mitm._dataplane.wire.framer import Framer
from soth_mitm._dataplane.wire.ndjson import NdjsonFramer
from soth_mitm._dataplane.wire.sse import SseFramer

SSE, NDJSON, AWS, JSON = "text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", "application/json"
FRAMERS: dict[str, Callable[[int], Framer]] = {SSE: SseFramer, NDJSON: NdjsonFramer, AWS: EventStreamFramer}
KINDS = {SSE: FrameKind.SSE_DATA, NDJSON: FrameKind.NDJSON_LINE, AWS: FrameKind.EVENTSTREAM_MESSAGE}


def sse(*events: object, names: bool = False) -> bytes:
    """Spell events of SSE; `names`: each is named by its `type`."""
    lines = []
    for event in events:
        if names and isinstance(event, Mapping):
            lines.append(f"event: {event['type']}\n")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n")
    return "".join(lines).encode()


def ndjson(*lines: object) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def aws_message(name: str, payload: object, *, kind: str = "event") -> bytes:
    """Spell a message of `application/vnd.amazon.eventstream`."""
    headers = b""
    for key, value in ((f":{kind}-type", name), (":content-type", "application/json"), (":message-type", kind)):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def aws(*messages: tuple[str, object]) -> bytes:
    return b"".join(aws_message(name, payload) for name, payload in messages)


def wrapped(*events: object) -> bytes:
    """Wrap events as Bedrock's `invoke-with-response-stream` does."""
    return aws(*(("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abc"}) for event in events))


@dataclass(frozen=True)
class Spoken:
    """One answer of a model, and what `ModelCall` has to say of it, streamed and whole."""

    name: str
    host: str
    path: str
    asked: dict[str, Any]
    stream: bytes
    whole: Any
    said: dict[str, Any]
    media: str = SSE
    headers: dict[str, str] = field(default_factory=dict)
    whole_path: str = ""
    first: int = 0
    """Which event of the stream has the first text, reasoning or tool."""

    def __str__(self) -> str:
        return self.name

    def request(self, *, whole: bool = False, host: str | None = None, **named: Any) -> RawRequest:
        """Return the request that this answers."""
        asked = {name: value for name, value in self.asked.items() if not whole or name not in ("stream", "stream_options")}
        if whole and self.media == NDJSON:
            asked["stream"] = False
        body = json.dumps(asked).encode()
        url = f"https://{host or self.host}{(whole and self.whole_path) or self.path}"
        return RawRequest.build(method="POST", url=url, headers={"Content-Type": JSON, **self.headers}, body=body, flow_id=7, **named)

    def frames(self, data: bytes | None = None) -> Iterator[Any]:
        """Yield the frames of the stream, or of other bytes of its kind."""
        framer = FRAMERS[self.media](8 << 20)
        yield from framer.frames(self.stream if data is None else data)
        yield from framer.last_frames()


MESSAGES = [{"role": "user", "content": "What is the weather in Berlin?"}]


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return one chunk of OpenAI's chat format."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    frame = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1764400000, "model": "gpt-4.1-2025-04-14"}
    return frame | {"choices": choices} | fields


OPENAI_USAGE = {
    "prompt_tokens": 82,
    "completion_tokens": 17,
    "total_tokens": 99,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
}

OPENAI_CHAT = Spoken(
    name="openai chat",
    first=1,
    host="api.openai.com",
    path="/v1/chat/completions",
    asked={"model": "gpt-4.1", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}},
    stream=sse(
        chunk({"role": "assistant", "content": "", "refusal": None}, usage=None, obfuscation="x9"),
        chunk({"content": "It is "}, usage=None),
        chunk({"content": "sünny 🌞"}, usage=None),
        chunk(
            {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]}, usage=None
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}, usage=None),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Berlin"}'}}]}, usage=None),
        chunk({"tool_calls": [{"index": 1, "id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}}]}),
        chunk({}, "tool_calls", usage=None),
        chunk(usage=OPENAI_USAGE),
        "[DONE]",
    ),
    whole={
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 1764400000,
        "model": "gpt-4.1-2025-04-14",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "It is sünny 🌞",
                    "refusal": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Berlin"}'}},
                        {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": OPENAI_USAGE,
    },
    said={
        "provider": "openai",
        "family": "openai.chat",
        "operation": "chat",
        "model_asked": "gpt-4.1",
        "model_answered": "gpt-4.1-2025-04-14",
        "response_id": "chatcmpl-7",
        "text": "It is sünny 🌞",
        "reasoning": "",
        "tools": [("call_1", "weather", {"city": "Berlin"}), ("call_2", "time", {})],
        "tokens": (82, 17, 64, None, 5),
        "stops": ["tool_calls"],
        "finish": "tool_calls",
    },
)

RESPONSE = {"id": "resp_5", "object": "response", "created_at": 1764400000, "model": "gpt-5-2025-08-07", "error": None}
RESPONSE_OUTPUT = [
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "The user wants weather."}]},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_9",
        "name": "weather",
        "arguments": '{"city":"Berlin"}',
        "status": "completed",
    },
]
RESPONSE_END = RESPONSE | {
    "status": "completed",
    "incomplete_details": None,
    "output": RESPONSE_OUTPUT,
    "usage": {
        "input_tokens": 120,
        "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 8},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 25},
        "total_tokens": 160,
    },
}

OPENAI_RESPONSES = Spoken(
    name="openai responses",
    first=3,
    host="api.openai.com",
    path="/v1/responses",
    asked={"model": "gpt-5", "input": "What is the weather in Berlin?", "stream": True},
    stream=sse(
        {"type": "response.created", "sequence_number": 0, "response": RESPONSE | {"status": "in_progress", "output": [], "usage": None}},
        {"type": "response.in_progress", "sequence_number": 1, "response": RESPONSE | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1", "summary": []}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "The user "},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "wants weather."},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "id": "msg_1", "content": []}},
        {"type": "response.content_part.added", "output_index": 1, "content_index": 0, "part": {"type": "output_text", "text": ""}},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Let me ", "obfuscation": "q"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "look."},
        {"type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "Let me look."},
        {"type": "response.output_item.added", "output_index": 2, "item": RESPONSE_OUTPUT[2] | {"arguments": "", "status": "in_progress"}},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "item_id": "fc_1", "delta": '{"city":'},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "item_id": "fc_1", "delta": '"Berlin"}'},
        {"type": "response.function_call_arguments.done", "output_index": 2, "item_id": "fc_1", "arguments": '{"city":"Berlin"}'},
        {"type": "response.output_item.done", "output_index": 2, "item": RESPONSE_OUTPUT[2]},
        {"type": "response.completed", "sequence_number": 20, "response": RESPONSE_END},
        names=True,
    ),
    whole=RESPONSE_END,
    said={
        "provider": "openai",
        "family": "openai.responses",
        "operation": "chat",
        "model_asked": "gpt-5",
        "model_answered": "gpt-5-2025-08-07",
        "response_id": "resp_5",
        "text": "Let me look.",
        "reasoning": "The user wants weather.",
        "tools": [("call_9", "weather", {"city": "Berlin"})],
        "tokens": (120, 40, 100, 8, 25),
        "stops": ["completed"],
        "finish": "tool_calls",
    },
)

ANTHROPIC_START = {
    "id": "msg_01X",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 12, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 400, "output_tokens": 1},
}
ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": ANTHROPIC_START},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "I need "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a tool."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Ich sehe "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "nach."}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city": "Ber'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": 'lin"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 89, "output_tokens_details": {"thinking_tokens": 20}},
    },
    {"type": "message_stop"},
]
ANTHROPIC_WHOLE = ANTHROPIC_START | {
    "content": [
        {"type": "thinking", "thinking": "I need a tool.", "signature": "EqQB"},
        {"type": "text", "text": "Ich sehe nach."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Berlin"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use",
    "usage": ANTHROPIC_START["usage"] | {"output_tokens": 89, "output_tokens_details": {"thinking_tokens": 20}},  # type: ignore[operator]
}
ANTHROPIC_SAID = {
    "provider": "anthropic",
    "family": "anthropic.messages",
    "operation": "chat",
    "model_asked": "claude-sonnet-4-5",
    "model_answered": "claude-sonnet-4-5-20250929",
    "response_id": "msg_01X",
    "text": "Ich sehe nach.",
    "reasoning": "I need a tool.",
    "tools": [("toolu_1", "weather", {"city": "Berlin"}), ("toolu_2", "now", {})],
    "tokens": (442, 89, 400, 30, 20),
    "stops": ["tool_use"],
    "finish": "tool_calls",
}

ANTHROPIC = Spoken(
    name="anthropic messages",
    first=3,
    host="api.anthropic.com",
    path="/v1/messages",
    asked={"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": MESSAGES, "stream": True},
    headers={"anthropic-version": "2023-06-01"},
    stream=sse(*ANTHROPIC_EVENTS, names=True),
    whole=ANTHROPIC_WHOLE,
    said=ANTHROPIC_SAID,
)

BEDROCK_INVOKE = Spoken(
    name="bedrock invoke",
    first=3,
    host="bedrock-runtime.eu-central-1.amazonaws.com",
    path="/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream",
    whole_path="/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
    asked={"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1024, "messages": MESSAGES},
    media=AWS,
    stream=wrapped(*ANTHROPIC_EVENTS),
    whole=ANTHROPIC_WHOLE,
    said=ANTHROPIC_SAID | {"provider": "aws.bedrock", "model_asked": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"},
)

VERTEX_ANTHROPIC = Spoken(
    name="anthropic on vertex",
    first=3,
    host="europe-west1-aiplatform.googleapis.com",
    path="/v1/projects/p/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
    whole_path="/v1/projects/p/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
    asked={"anthropic_version": "vertex-2023-10-16", "max_tokens": 1024, "messages": MESSAGES, "stream": True},
    stream=sse(*ANTHROPIC_EVENTS, names=True),
    whole=ANTHROPIC_WHOLE,
    said=ANTHROPIC_SAID | {"provider": "gcp.vertex_ai", "model_asked": "claude-sonnet-4-5@20250929"},
)


def candidate(*parts: dict[str, Any], finish: str | None = None, usage: dict[str, int] | None = None) -> dict[str, Any]:
    """Return one event of Gemini."""
    found: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        found["finishReason"] = finish
    event: dict[str, Any] = {"candidates": [found], "modelVersion": "gemini-2.5-pro", "responseId": "r-3"}
    return event | ({"usageMetadata": usage} if usage else {})


GEMINI_EVENTS = [
    candidate({"text": "Thinking of ", "thought": True}, usage={"promptTokenCount": 50, "totalTokenCount": 50}),
    candidate({"text": "weather.", "thought": True}, usage={"promptTokenCount": 50, "thoughtsTokenCount": 10, "totalTokenCount": 60}),
    candidate({"text": "Sunny"}),
    candidate({"text": " today."}, {"functionCall": {"name": "weather", "args": {"city": "Berlin"}}}),
    candidate(
        {"text": ""},
        finish="STOP",
        usage={
            "promptTokenCount": 50,
            "toolUsePromptTokenCount": 7,
            "cachedContentTokenCount": 32,
            "candidatesTokenCount": 9,
            "thoughtsTokenCount": 11,
            "totalTokenCount": 77,
        },
    ),
]
GEMINI_SAID = {
    "provider": "gcp.gemini",
    "family": "gemini.generate",
    "operation": "generate_content",
    "model_asked": "gemini-2.5-pro",
    "model_answered": "gemini-2.5-pro",
    "response_id": "r-3",
    "text": "Sunny today.",
    "reasoning": "Thinking of weather.",
    "tools": [(None, "weather", {"city": "Berlin"})],
    "tokens": (57, 20, 32, None, 11),
    "stops": ["STOP"],
    "finish": "tool_calls",
}

GEMINI = Spoken(
    name="gemini",
    host="generativelanguage.googleapis.com",
    path="/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=secret",
    whole_path="/v1beta/models/gemini-2.5-pro:generateContent?key=secret",
    asked={"contents": [{"role": "user", "parts": [{"text": "What is the weather?"}]}]},
    stream=sse(*GEMINI_EVENTS),
    whole=candidate(
        {"text": "Thinking of weather.", "thought": True},
        {"text": "Sunny today."},
        {"functionCall": {"name": "weather", "args": {"city": "Berlin"}}},
        finish="STOP",
        usage=GEMINI_EVENTS[-1]["usageMetadata"],
    ),
    said=GEMINI_SAID,
)

OLLAMA_END = {
    "done_reason": "stop",
    "done": True,
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}
OLLAMA_LINE = {"model": "qwen3:8b", "created_at": "2026-11-29T12:00:00Z"}

OLLAMA_CHAT = Spoken(
    name="ollama chat",
    host="localhost:11434",
    path="/api/chat",
    asked={"model": "qwen3:8b", "messages": MESSAGES},
    media=NDJSON,
    stream=ndjson(
        OLLAMA_LINE | {"message": {"role": "assistant", "content": "", "thinking": "Hm"}, "done": False},
        OLLAMA_LINE | {"message": {"role": "assistant", "content": "", "thinking": "mm."}, "done": False},
        OLLAMA_LINE | {"message": {"role": "assistant", "content": "Sun"}, "done": False},
        OLLAMA_LINE
        | {
            "message": {
                "role": "assistant",
                "content": "ny.",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Berlin"}}}],
            },
            "done": False,
        },
        OLLAMA_LINE | {"message": {"role": "assistant", "content": ""}} | OLLAMA_END,
    ),
    whole=OLLAMA_LINE
    | {
        "message": {
            "role": "assistant",
            "content": "Sunny.",
            "thinking": "Hmmm.",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Berlin"}}}],
        }
    }
    | OLLAMA_END,
    said={
        "provider": "ollama",
        "family": "ollama.chat",
        "operation": "chat",
        "model_asked": "qwen3:8b",
        "model_answered": "qwen3:8b",
        "response_id": None,
        "text": "Sunny.",
        "reasoning": "Hmmm.",
        "tools": [(None, "weather", {"city": "Berlin"})],
        "tokens": (26, 282, None, None, None),
        "stops": ["stop"],
        "finish": "tool_calls",
    },
)

OLLAMA_GENERATE = Spoken(
    name="ollama generate",
    host="localhost:11434",
    path="/api/generate",
    asked={"model": "qwen3:8b", "prompt": "Why is the sky blue?"},
    media=NDJSON,
    stream=ndjson(
        OLLAMA_LINE | {"response": "Ray", "done": False},
        OLLAMA_LINE | {"response": "leigh.", "done": False},
        OLLAMA_LINE | {"response": "", "context": [1, 2, 3]} | OLLAMA_END | {"done_reason": "length"},
    ),
    whole=OLLAMA_LINE | {"response": "Rayleigh.", "context": [1, 2, 3]} | OLLAMA_END | {"done_reason": "length"},
    said={
        "provider": "ollama",
        "family": "ollama.generate",
        "operation": "text_completion",
        "model_asked": "qwen3:8b",
        "model_answered": "qwen3:8b",
        "response_id": None,
        "text": "Rayleigh.",
        "reasoning": "",
        "tools": [],
        "tokens": (26, 282, None, None, None),
        "stops": ["length"],
        "finish": "length",
    },
)

CONVERSE = Spoken(
    name="bedrock converse",
    first=1,
    host="bedrock-runtime.us-east-1.amazonaws.com",
    path="/model/us.amazon.nova-pro-v1%3A0/converse-stream",
    whole_path="/model/us.amazon.nova-pro-v1%3A0/converse",
    asked={"messages": [{"role": "user", "content": [{"text": "What is the weather?"}]}]},
    media=AWS,
    stream=aws(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Tool "}}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "time."}}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "x"}}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Look"}}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "ing."}}),
        ("contentBlockStop", {"contentBlockIndex": 1}),
        ("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "tooluse_1", "name": "weather"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"city"'}}}),
        ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": ':"Berlin"}'}}}),
        ("contentBlockStop", {"contentBlockIndex": 2}),
        ("messageStop", {"stopReason": "tool_use"}),
        (
            "metadata",
            {
                "usage": {
                    "inputTokens": 10,
                    "outputTokens": 33,
                    "totalTokens": 193,
                    "cacheReadInputTokens": 100,
                    "cacheWriteInputTokens": 50,
                },
                "metrics": {"latencyMs": 700},
            },
        ),
    ),
    whole={
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Tool time.", "signature": "x"}}},
                    {"text": "Looking."},
                    {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Berlin"}}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {"inputTokens": 10, "outputTokens": 33, "totalTokens": 193, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 50},
        "metrics": {"latencyMs": 700},
    },
    said={
        "provider": "aws.bedrock",
        "family": "bedrock.converse",
        "operation": "chat",
        "model_asked": "us.amazon.nova-pro-v1:0",
        "model_answered": None,
        "response_id": None,
        "text": "Looking.",
        "reasoning": "Tool time.",
        "tools": [("tooluse_1", "weather", {"city": "Berlin"})],
        "tokens": (160, 33, 100, 50, None),
        "stops": ["tool_use"],
        "finish": "tool_calls",
    },
)


def dialect(name: str, host: str, path: str, stream: bytes, whole: dict[str, Any], *, first: int = 0, **said: Any) -> Spoken:
    """Return an answer of a server that speaks OpenAI's chat format in its own way."""
    expected = {
        "family": "openai.chat",
        "operation": "chat",
        "model_asked": "m",
        "model_answered": "gpt-4.1-2025-04-14",
        "response_id": "chatcmpl-7",
        "text": "Hi.",
        "reasoning": "",
        "tools": [],
        "tokens": (5, 3, None, None, None),
        "stops": ["stop"],
        "finish": "stop",
    }
    asked = {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    frame = {"id": "chatcmpl-7", "object": "chat.completion", "model": "gpt-4.1-2025-04-14"}
    return Spoken(name, host, path, asked, stream, frame | whole, expected | said, first=first)


def whole_choice(**message: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}]


FEW = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}

DIALECTS = [
    dialect(
        "azure",
        "corp.openai.azure.com",
        "/openai/deployments/our-gpt/chat/completions?api-version=2024-10-21",
        sse(
            {"choices": [], "id": "", "model": "", "object": "", "prompt_filter_results": [{"prompt_index": 0}]},
            chunk({"content": "Hi."}),
            chunk({}, "stop"),
            chunk(usage=FEW),
            "[DONE]",
        ),
        {"choices": whole_choice(content="Hi."), "usage": FEW},
        provider="azure.ai.openai",
        first=1,
    ),
    dialect(
        "deepseek",
        "api.deepseek.com",
        "/chat/completions",
        sse(
            chunk({"content": None, "reasoning_content": "Greet "}),
            chunk({"content": None, "reasoning_content": "back."}),
            chunk({"content": "Hi."}),
            chunk({"content": ""}, "stop", usage=FEW | {"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 1}),
            "[DONE]",
        ),
        {
            "choices": whole_choice(content="Hi.", reasoning_content="Greet back."),
            "usage": FEW | {"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 1},
        },
        provider="deepseek",
        reasoning="Greet back.",
        tokens=(5, 3, 4, None, None),
    ),
    dialect(
        "openrouter",
        "openrouter.ai",
        "/api/v1/chat/completions",
        b": OPENROUTER PROCESSING\n\n"
        + sse(chunk({"content": "", "reasoning": "Greet back."}), chunk({"content": "Hi."}))
        + b": OPENROUTER PROCESSING\n\n"
        + sse(chunk({"content": ""}, "stop", native_finish_reason="end_turn"), chunk(usage=FEW | {"cost": 0.00012}), "[DONE]"),
        {"choices": whole_choice(content="Hi.", reasoning="Greet back."), "usage": FEW | {"cost": 0.00012}},
        provider="openrouter",
        reasoning="Greet back.",
        cost=0.00012,
    ),
    dialect(
        "groq",
        "api.groq.com",
        "/openai/v1/chat/completions",
        sse(chunk({"content": "Hi."}, x_groq={"id": "req_1"}), chunk({}, "stop", x_groq={"id": "req_1", "usage": FEW}), "[DONE]"),
        {"choices": whole_choice(content="Hi."), "usage": FEW, "x_groq": {"id": "req_1"}},
        provider="groq",
    ),
    dialect(
        "vllm",
        "models.corp.example",
        "/v1/chat/completions",
        sse(
            chunk({"content": "Hi"}, prompt_token_ids=None, usage={"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}),
            chunk({"content": "."}, usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}),
            chunk({}, "stop", usage=FEW),
            chunk(usage=FEW),
            "[DONE]",
        ),
        {"choices": whole_choice(content="Hi."), "usage": FEW, "prompt_logprobs": None, "kv_transfer_params": None},
        provider="vllm",
    ),
    dialect(
        "unknown server without [DONE]",
        "models.corp.example",
        "/api/v2/chat/completions/",
        sse(chunk({"content": "Hi."}), chunk({}, "stop", usage=FEW)),
        {"choices": whole_choice(content="Hi."), "usage": FEW},
        provider="openai-compatible",
    ),
    dialect(
        "mistral",
        "api.mistral.ai",
        "/v1/chat/completions",
        sse(
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Greet back."}]}]}),
            chunk({"content": [{"type": "text", "text": "Hi."}]}),
            chunk({"content": ""}, "stop", usage=FEW),
            "[DONE]",
        ),
        {
            "choices": whole_choice(
                content=[
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Greet back."}]},
                    {"type": "text", "text": "Hi."},
                ]
            ),
            "usage": FEW,
        },
        provider="mistral_ai",
        reasoning="Greet back.",
    ),
]

COMPLETIONS = Spoken(
    name="openai completions",
    host="api.openai.com",
    path="/v1/completions",
    asked={"model": "gpt-3.5-turbo-instruct", "prompt": "Once", "stream": True, "stream_options": {"include_usage": True}},
    stream=sse(
        {"id": "cmpl-1", "object": "text_completion", "model": "i", "choices": [{"text": " upon", "index": 0, "finish_reason": None}]},
        {"id": "cmpl-1", "object": "text_completion", "model": "i", "choices": [{"text": " a", "index": 0, "finish_reason": "length"}]},
        {"id": "cmpl-1", "object": "text_completion", "model": "i", "choices": [], "usage": FEW},
        "[DONE]",
    ),
    whole={
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "i",
        "choices": [{"text": " upon a", "index": 0, "finish_reason": "length"}],
        "usage": FEW,
    },
    said={
        "provider": "openai",
        "family": "openai.completions",
        "operation": "text_completion",
        "model_asked": "gpt-3.5-turbo-instruct",
        "model_answered": "i",
        "response_id": "cmpl-1",
        "text": " upon a",
        "reasoning": "",
        "tools": [],
        "tokens": (5, 3, None, None, None),
        "stops": ["length"],
        "finish": "length",
    },
)

ANSWERS = [
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    ANTHROPIC,
    BEDROCK_INVOKE,
    VERTEX_ANTHROPIC,
    GEMINI,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    CONVERSE,
    COMPLETIONS,
    *DIALECTS,
]


def counts(call: Any) -> tuple[int | None, ...]:
    """Return the counts of a `ModelCall`: input, output, read from a cache, written to one, reasoning."""
    tokens = call.tokens
    return tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.reasoning


def told(call: Any) -> dict[str, Any]:
    """Return what a `ModelCall` says, in the terms of `Spoken.said`."""
    return {
        name: getattr(call, name)
        for name in (
            "provider",
            "family",
            "operation",
            "model_asked",
            "model_answered",
            "response_id",
            "text",
            "reasoning",
            "finish",
            "cost",
        )
    } | {
        "tools": [(tool.id, tool.name, tool.parsed()) for tool in call.tools],
        "tokens": counts(call),
        "stops": list(call.stops),
        "missing": call.tokens.missing,
        "complete": call.complete,
        "truncated": call.truncated,
        "problems": call.problems,
        "error": call.error,
        "outcome": call.outcome,
    }


def wanted(spoken: Spoken, **changes: Any) -> dict[str, Any]:
    """Return what `told` has to return of an answer that came whole."""
    fine = {"missing": None, "complete": True, "truncated": False, "problems": (), "error": None, "outcome": "answered", "cost": None}
    return fine | spoken.said | changes
