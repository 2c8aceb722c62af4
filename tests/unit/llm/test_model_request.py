"""What requests ask of models, in one shape for all formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from soth_mitm import RawRequest
from soth_mitm.llm import AnswerReader, Recogniser
from soth_mitm.llm.model_request import ModelRequest, read_model_request

PICTURE = {"type": "base64", "media_type": "image/png", "data": "QUJD" * 100}


def said(found: ModelRequest) -> list[tuple[str, str, str, str]]:
    """Return role, kind, name and text of every part."""
    return [(turn.role, part.kind, part.name, part.text) for turn in found.turns for part in turn.parts]


def read(family: str, asked: Any) -> ModelRequest:
    return read_model_request(family, json.dumps(asked).encode())


def test_anthropic() -> None:
    found = read(
        "anthropic.messages",
        {
            "system": [{"type": "text", "text": "Be short."}],
            "tools": [{"name": "bash", "description": "Runs a command."}, {"type": "web_search_20250305", "name": "web_search"}],
            "messages": [
                {"role": "user", "content": "Why?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Let me see."},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "bash", "input": {"command": "ls"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t1",
                            "is_error": True,
                            "content": [{"type": "text", "text": "no"}, {"type": "image", "source": PICTURE}],
                        },
                        {"type": "image", "source": PICTURE},
                        {"type": "novelty", "x": 1},
                    ],
                },
            ],
        },
    )
    assert said(found) == [
        ("system", "text", "", "Be short."),
        ("user", "text", "", "Why?"),
        ("assistant", "reasoning", "", "Let me see."),
        ("assistant", "reasoning", "", "not shown by the provider"),
        ("assistant", "text", "", "I look."),
        ("assistant", "call", "bash", '{"command": "ls"}'),
        ("user", "result", "", "no\n[image, image/png, 300 bytes]"),
        ("user", "media", "", "image, image/png, 300 bytes"),
        ("user", "other", "", '{"type": "novelty", "x": 1}'),
    ]
    call, result = found.turns[2].parts[-1], found.turns[3].parts[0]
    assert (call.id, result.id, result.is_error) == ("t1", "t1", True)
    assert [(tool.name, tool.description) for tool in found.tools] == [("bash", "Runs a command."), ("web_search", "")]


def test_of_a_call() -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
    request = RawRequest.build(method="POST", url="https://api.anthropic.com/v1/messages", body=json.dumps(asked).encode())
    recognised = Recogniser().recognise(request)
    assert recognised is not None
    call = AnswerReader(recognised, status=200, text_limit=10).end(now=0.0, request=request)
    assert [(turn.role, turn.parts[0].text) for turn in call.messages()] == [("user", "Why?")]
    assert AnswerReader(recognised, status=200, text_limit=10).end(now=0.0).messages() == ()


def test_openai_chat() -> None:
    found = read(
        "openai.chat",
        {
            "tools": [{"type": "function", "function": {"name": "add", "description": "Adds."}}],
            "messages": [
                {"role": "developer", "content": "Be short."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "Hm.",
                    "tool_calls": [{"id": "c1", "function": {"name": "add", "arguments": '{"a":1}'}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "3"},
                {"role": "assistant", "refusal": "No."},
            ],
        },
    )
    assert said(found) == [
        ("system", "text", "", "Be short."),
        ("user", "text", "", "Look"),
        ("user", "media", "", "image, https://example.com/a.png"),
        ("assistant", "reasoning", "", "Hm."),
        ("assistant", "call", "add", '{"a":1}'),
        ("tool", "result", "", "3"),
        ("assistant", "text", "", "No."),
    ]
    assert [tool.name for tool in found.tools] == ["add"]


def test_openai_responses() -> None:
    found = read(
        "openai.responses",
        {
            "instructions": "Be short.",
            "tools": [{"type": "function", "name": "add"}, {"type": "web_search"}],
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}],
                },
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "3"},
                {"type": "web_search_call", "id": "w1", "action": {"query": "x"}},
                "as text",
            ],
        },
    )
    assert said(found) == [
        ("system", "text", "", "Be short."),
        ("user", "text", "", "Look"),
        ("user", "media", "", "image, 3 bytes"),
        ("assistant", "reasoning", "", "Hm."),
        ("assistant", "call", "add", "{}"),
        ("tool", "result", "", "3"),
        ("assistant", "call", "web_search", '{"query": "x"}'),
        ("user", "text", "", "as text"),
    ]
    assert said(read("openai.responses", {"input": "Hello"})) == [("user", "text", "", "Hello")]


def test_gemini() -> None:
    found = read(
        "gemini.generate",
        {
            "systemInstruction": {"parts": [{"text": "Be short."}]},
            "tools": [{"functionDeclarations": [{"name": "add"}, {"name": "sub"}]}],
            "contents": [
                {"role": "user", "parts": [{"text": "Look"}, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]},
                {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"functionCall": {"name": "add", "args": {"a": 1}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "add", "response": {"sum": 3}}}]},
            ],
        },
    )
    assert said(found) == [
        ("system", "text", "", "Be short."),
        ("user", "text", "", "Look"),
        ("user", "media", "", "file, image/png, 3 bytes"),
        ("assistant", "reasoning", "", "Hm."),
        ("assistant", "call", "add", '{"a": 1}'),
        ("user", "result", "add", '{"sum": 3}'),
    ]
    assert [tool.name for tool in found.tools] == ["add", "sub"]


def test_ollama_and_completions() -> None:
    chat = {
        "messages": [
            {"role": "user", "content": "Look", "images": ["QUJD"]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        ]
    }
    assert said(read("ollama.chat", chat)) == [
        ("user", "text", "", "Look"),
        ("user", "media", "", "image, 3 bytes"),
        ("assistant", "call", "add", '{"a": 1}'),
    ]
    assert said(read("ollama.generate", {"system": "Be short.", "prompt": "Hello"})) == [
        ("system", "text", "", "Be short."),
        ("user", "text", "", "Hello"),
    ]
    assert said(read("openai.embeddings", {"input": ["one", "two"]})) == [("user", "text", "", "one"), ("user", "text", "", "two")]


def test_bedrock() -> None:
    found = read(
        "bedrock.converse",
        {
            "system": [{"text": "Be short."}],
            "toolConfig": {"tools": [{"toolSpec": {"name": "add", "description": "Adds."}}]},
            "messages": [
                {"role": "user", "content": [{"text": "Look"}, {"image": {"format": "png", "source": {"bytes": "QUJD"}}}]},
                {
                    "role": "assistant",
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "Hm."}}},
                        {"toolUse": {"toolUseId": "t", "name": "add", "input": {}}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"toolResult": {"toolUseId": "t", "status": "error", "content": [{"json": {"a": 1}}, {"text": "x"}]}}],
                },
            ],
        },
    )
    assert [part[:3] for part in said(found)] == [
        ("system", "text", ""),
        ("user", "text", ""),
        ("user", "media", ""),
        ("assistant", "reasoning", ""),
        ("assistant", "call", "add"),
        ("user", "result", ""),
    ]
    assert (found.turns[-1].parts[0].text, found.turns[-1].parts[0].is_error) == ('{"a": 1}\nx', True)
    assert [tool.name for tool in found.tools] == ["add"]


FAMILIES = (
    "anthropic.messages",
    "openai.chat",
    "openai.responses",
    "openai.completions",
    "openai.embeddings",
    "gemini.generate",
    "ollama.chat",
    "ollama.generate",
    "bedrock.converse",
)
ODD: tuple[Any, ...] = (
    None,
    7,
    "text",
    [],
    {},
    [
        None,
        3,
        [],
        "x",
        {"role": 5, "content": 7},
        {"content": {"type": ["x"]}, "parts": {"text": None}, "tool_calls": [3, {"function": 4}]},
    ],
    {"parts": [{"text": 5}, None], "type": 9, "messages": {"a": 1}},
    [{"type": "image", "source": 3}, {"type": "tool_result", "content": {"x": [1]}}, {"inlineData": "x"}, {"image": 4, "text": 3}],
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_nothing_that_a_client_sends_raises(family: str, odd: Any) -> None:
    names = ("messages", "system", "input", "instructions", "contents", "systemInstruction", "prompt", "tools", "toolConfig", "functions")
    read(family, dict.fromkeys(names, odd))
    read(
        family,
        {"messages": [{"role": "user", "content": odd}, {"role": "tool", "content": odd}], "input": [odd], "contents": [{"parts": odd}]},
    )


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000], ids=["empty", "cut", "list", "text", "octets", "deep"]
)
def test_a_body_that_is_no_request(body: bytes) -> None:
    found = read_model_request("openai.chat", body)
    assert found.turns == () and len(found.problems) == 1


def test_halves_of_characters_are_replaced() -> None:
    found = read_model_request("openai.chat", b'{"messages": [{"role": "user", "content": "\\ud83d"}]}')
    found.turns[0].parts[0].text.encode()
