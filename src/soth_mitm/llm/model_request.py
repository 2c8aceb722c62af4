"""What a request asks a model: instructions, tools and messages, in one shape for all formats. It looks at stored bodies, for people.

Nothing that a client sends raises: what cannot be read is in `ModelRequest.problems`, and a part of an unknown kind is shown as it is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from soth_mitm.llm.json_text import decoded, mended

PartKind = Literal["text", "reasoning", "call", "result", "media", "other"]
Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[object, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a message."""

    kind: PartKind
    """`call`: a tool that the model asked for, `text` has its arguments. `result`: what it gave. `media`: `text` says what it is."""
    text: str
    name: str = ""
    """Of the tool, where that is said."""
    id: str | None = None
    """The provider's name of the call."""
    is_error: bool = False
    """The tool failed, as far as its result says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model is offered."""

    name: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a request asks."""

    turns: tuple[Turn, ...] = ()
    """Instructions first, as turns of the role `system`, wherever the format has them."""
    tools: tuple[Tool, ...] = ()
    problems: tuple[str, ...] = ()


def read_model_request(family: str, body: bytes) -> ModelRequest:
    """Read the body of a request, its content codings removed; `family` is `ModelCall.family`."""
    try:
        asked = decoded(body)
    except ValueError as error:
        return ModelRequest(problems=(f"the request's body is {error}",))
    if not isinstance(asked, dict):
        return ModelRequest(problems=("the request's body is no object",))
    read = _READERS.get(family, _openai_chat)
    turns = tuple(turn for turn in read(asked) if turn.parts)
    return ModelRequest(turns=turns, tools=tuple(_tools(asked)))


def _turn(role: object, parts: Iterator[Part]) -> Turn:
    return Turn(role=_ROLES.get(role, "user"), parts=tuple(parts))


def _text(value: object) -> str:
    """Return text as it is, and anything else as JSON."""
    return mended(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(value: object) -> str:
    return mended(value) if isinstance(value, str) else ""


def _id(value: object) -> str | None:
    return mended(value) if isinstance(value, str) and value else None


def _media(what: str, source: object) -> Part:
    """Describe an image, a file or sound; its content is in the request's body."""
    known = _dict(source)
    data = (
        known.get("data") or known.get("bytes") or known.get("file_data") or known.get("url") or (source if isinstance(source, str) else "")
    )
    kind = known.get("media_type") or known.get("mimeType") or known.get("mime_type") or known.get("format") or known.get("filename") or ""
    size = ""
    if isinstance(data, str) and data:
        is_address = data.startswith(("http:", "https:", "gs:", "file:"))
        size = data[:200] if is_address else f"{len(data.rpartition(',')[2]) * 3 // 4:,} bytes"
    return Part(kind="media", text=mended(", ".join(str(part) for part in (what, kind, size) if part)))


def _flat(content: object) -> str:
    """Join the texts of a tool's result."""
    if isinstance(content, str):
        return mended(content)
    texts = []
    for block in _list(content):
        known = _dict(block)
        if isinstance(block, str):
            texts.append(mended(block))
        elif isinstance(known.get("text"), str):
            texts.append(mended(known["text"]))
        elif known.get("type") in ("image", "document", "input_image", "input_file"):
            texts.append(f"[{_media(str(known['type']), known.get('source') or known.get('image_url')).text}]")
        else:
            texts.append(_text(block))
    return "\n".join(texts)


def _anthropic_parts(content: object) -> Iterator[Part]:
    for block in _list(content):
        known = _dict(block)
        kind = known.get("type")
        if isinstance(block, str):
            yield Part(kind="text", text=mended(block))
        elif kind == "text":
            yield Part(kind="text", text=_text(known.get("text", "")))
        elif kind in ("thinking", "redacted_thinking"):
            yield Part(kind="reasoning", text=_text(known.get("thinking", "")) or "not shown by the provider")
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            yield Part(kind="call", text=_text(known.get("input", {})), name=_name(known.get("name")), id=_id(known.get("id")))
        elif isinstance(kind, str) and kind.endswith("tool_result"):
            is_error = known.get("is_error") is True
            yield Part(kind="result", text=_flat(known.get("content")), id=_id(known.get("tool_use_id")), is_error=is_error)
        elif kind in ("image", "document"):
            yield _media(kind, known.get("source"))
        else:
            yield Part(kind="other", text=_text(block))


def _anthropic(asked: dict[str, Any]) -> Iterator[Turn]:
    yield _turn("system", _anthropic_parts(asked.get("system")))
    for message in _list(asked.get("messages")):
        known = _dict(message)
        yield _turn(known.get("role"), _anthropic_parts(known.get("content")))


def _openai_content(content: object) -> Iterator[Part]:
    for block in _list(content):
        known = _dict(block)
        kind = known.get("type")
        if isinstance(block, str):
            yield Part(kind="text", text=mended(block))
        elif kind in ("text", "input_text", "output_text", "summary_text", "reasoning_text"):
            yield Part(kind="text", text=_text(known.get("text", "")))
        elif kind == "refusal":
            yield Part(kind="text", text=_text(known.get("refusal", "")))
        elif kind in ("image_url", "input_image"):
            image = known.get("image_url")
            yield _media("image", image)
        elif kind in ("input_audio", "file", "input_file"):
            yield _media("sound" if kind == "input_audio" else "file", known.get(kind) or known)
        else:
            yield Part(kind="other", text=_text(block))


def _openai_message(known: dict[str, Any]) -> Iterator[Part]:
    role = known.get("role")
    if role in ("tool", "function"):
        yield Part(kind="result", text=_flat(known.get("content")), name=_name(known.get("name")), id=_id(known.get("tool_call_id")))
        return
    reasoning = known.get("reasoning_content") or known.get("reasoning") or known.get("thinking")
    if reasoning:
        yield Part(kind="reasoning", text=_text(reasoning))
    yield from _openai_content(known.get("content"))
    if known.get("refusal"):
        yield Part(kind="text", text=_text(known["refusal"]))
    # ollama has pictures beside the text, and its tools' arguments as objects
    for image in _list(known.get("images")):
        yield _media("image", image)
    for call in _list(known.get("tool_calls")):
        function = _dict(_dict(call).get("function")) or _dict(_dict(call).get("custom"))
        arguments = function.get("arguments", function.get("input", ""))
        yield Part(kind="call", text=_text(arguments), name=_name(function.get("name")), id=_id(_dict(call).get("id")))


def _openai_chat(asked: dict[str, Any]) -> Iterator[Turn]:
    for message in _list(asked.get("messages")):
        known = _dict(message)
        yield _turn(known.get("role"), _openai_message(known))


def _plain(asked: dict[str, Any]) -> Iterator[Turn]:
    """Of completions, of Ollama's generate and of embeddings."""
    yield _turn("system", _openai_content(asked.get("system")))
    wanted = asked.get("prompt", asked.get("input"))
    yield _turn("user", (Part(kind="text", text=_text(text)) for text in _list(wanted)))


def _openai_responses(asked: dict[str, Any]) -> Iterator[Turn]:
    yield _turn("system", _openai_content(asked.get("instructions")))
    for item in _list(asked.get("input")):
        known = _dict(item)
        kind = known.get("type", "message")
        if isinstance(item, str):
            yield _turn("user", iter((Part(kind="text", text=mended(item)),)))
        elif kind == "message":
            yield _turn(known.get("role"), _openai_content(known.get("content")))
        elif kind == "reasoning":
            text = _flat(known.get("summary") or known.get("content") or []) or "not shown by the provider"
            yield _turn("assistant", iter((Part(kind="reasoning", text=text),)))
        elif isinstance(kind, str) and kind.endswith("_output"):
            yield _turn("tool", iter((Part(kind="result", text=_flat(known.get("output")), id=_id(known.get("call_id"))),)))
        elif isinstance(kind, str) and kind.endswith("_call"):
            given = known.get("arguments", known.get("input", known.get("action", "")))
            name = _name(known.get("name")) or kind.removesuffix("_call")
            yield _turn(
                "assistant", iter((Part(kind="call", text=_text(given), name=name, id=_id(known.get("call_id") or known.get("id"))),))
            )
        else:
            yield _turn("user", iter((Part(kind="other", text=_text(item)),)))


def _gemini_parts(content: object) -> Iterator[Part]:
    parts = content if isinstance(content, list) else _dict(content).get("parts", content)
    for part in _list(parts):
        known = _dict(part)
        call, result = known.get("functionCall"), known.get("functionResponse")
        if isinstance(part, str):
            yield Part(kind="text", text=mended(part))
        elif "text" in known:
            yield Part(kind="reasoning" if known.get("thought") is True else "text", text=_text(known["text"]))
        elif isinstance(call, dict):
            yield Part(kind="call", text=_text(call.get("args", {})), name=_name(call.get("name")), id=_id(call.get("id")))
        elif isinstance(result, dict):
            yield Part(kind="result", text=_text(result.get("response", {})), name=_name(result.get("name")), id=_id(result.get("id")))
        elif "inlineData" in known or "fileData" in known:
            yield _media("file", known.get("inlineData") or known.get("fileData"))
        else:
            yield Part(kind="other", text=_text(part))


def _gemini(asked: dict[str, Any]) -> Iterator[Turn]:
    yield _turn("system", _gemini_parts(asked.get("systemInstruction", asked.get("system_instruction"))))
    for content in _list(asked.get("contents")):
        yield _turn(_dict(content).get("role", "user"), _gemini_parts(content))


def _bedrock_parts(content: object) -> Iterator[Part]:
    for block in _list(content):
        known = _dict(block)
        call, result = known.get("toolUse"), known.get("toolResult")
        reasoning = _dict(_dict(known.get("reasoningContent")).get("reasoningText"))
        if isinstance(known.get("text"), str):
            yield Part(kind="text", text=mended(known["text"]))
        elif isinstance(call, dict):
            yield Part(kind="call", text=_text(call.get("input", {})), name=_name(call.get("name")), id=_id(call.get("toolUseId")))
        elif isinstance(result, dict):
            text = "\n".join(_text(_dict(each).get("text", _dict(each).get("json", each))) for each in _list(result.get("content")))
            yield Part(kind="result", text=text, id=_id(result.get("toolUseId")), is_error=result.get("status") == "error")
        elif reasoning:
            yield Part(kind="reasoning", text=_text(reasoning.get("text", "")))
        elif isinstance(known.get("image") or known.get("document"), dict):
            yield _media("image" if "image" in known else "document", known.get("image") or known.get("document"))
        else:
            yield Part(kind="other", text=_text(block))


def _bedrock(asked: dict[str, Any]) -> Iterator[Turn]:
    yield _turn("system", _bedrock_parts(asked.get("system")))
    for message in _list(asked.get("messages")):
        known = _dict(message)
        yield _turn(known.get("role"), _bedrock_parts(known.get("content")))


def _tools(asked: dict[str, Any]) -> Iterator[Tool]:
    offered = _list(asked.get("tools")) or _list(_dict(asked.get("toolConfig")).get("tools")) or _list(asked.get("functions"))
    for each in offered:
        known = _dict(each)
        declared = _list(known.get("functionDeclarations") or known.get("function_declarations"))
        for tool in declared or [known.get("function") or known.get("custom") or known.get("toolSpec") or known]:
            said = _dict(tool)
            name = said.get("name") or known.get("type") or next(iter(known), "")
            yield Tool(name=_name(name), description=_name(said.get("description")))


_READERS: dict[str, Callable[[dict[str, Any]], Iterator[Turn]]] = {
    "anthropic.messages": _anthropic,
    "openai.chat": _openai_chat,
    "openai.responses": _openai_responses,
    "openai.completions": _plain,
    "openai.embeddings": _plain,
    "gemini.generate": _gemini,
    "ollama.chat": _openai_chat,
    "ollama.generate": _plain,
    "bedrock.converse": _bedrock,
}
