"""Anthropic's messages. A stream has named events; usage comes at its begin and, as totals, at its end.

The counts of input are apart: `input_tokens` has neither what was read from the cache nor what was written to it.
"""

from typing import Any

from soth_mitm.llm.draft import Draft
from soth_mitm.llm.model_call import Tokens

_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
_TOOLS = ("tool_use", "server_tool_use", "mcp_tool_use")


def read_event(draft: Draft, event: str, data: dict[str, Any]) -> None:
    """Take one event of a stream."""
    kind = draft.str_of(data, "type") or event
    if kind == "content_block_delta":
        _read_delta(draft, draft.index_of(data, "index"), draft.dict_of(data, "delta"))
    elif kind == "content_block_start":
        _read_block(draft, draft.index_of(data, "index"), draft.dict_of(data, "content_block"), is_whole=False)
    elif kind == "content_block_stop":
        tool = draft.tools.get(draft.index_of(data, "index"))
        if tool is not None:
            tool.is_closed = True
    elif kind == "message_start":
        message = draft.dict_of(data, "message")
        draft.name_answer(message, "id", "model")
        draft.choice(0)
        _read_usage(draft, message)
    elif kind == "message_delta":
        draft.stop(draft.str_of(draft.dict_of(data, "delta"), "stop_reason"))
        _read_usage(draft, data)
    elif kind == "message_stop":
        draft.is_over = True
    elif kind == "error":
        draft.fail(data)
        draft.is_over = True


def read_answer(draft: Draft, data: dict[str, Any]) -> None:
    """Take a plain answer."""
    if data.get("type") == "error" or data.get("error"):
        draft.fail(data)
    draft.name_answer(data, "id", "model")
    for index, block in enumerate(draft.dicts_of(data, "content")):
        _read_block(draft, index, block, is_whole=True)
        draft.choice(0)
    draft.stop(draft.str_of(data, "stop_reason"))
    _read_usage(draft, data)
    draft.is_over = True


def _read_block(draft: Draft, index: int, block: dict[str, Any], *, is_whole: bool) -> None:
    kind = block.get("type")
    if kind == "text":
        draft.add("text", draft.text_of(block, "text"))
    elif kind == "thinking":
        draft.add("reasoning", draft.text_of(block, "thinking"))
    elif kind in _TOOLS:
        tool = draft.tool(index, draft.str_of(block, "id"), draft.str_of(block, "name"))
        tool.by_provider = kind != "tool_use"
        given = block.get("input")
        if is_whole or given:
            tool.replace(draft.spelt(given if given is not None else {}))
            tool.is_closed = is_whole


def _read_delta(draft: Draft, index: int, delta: dict[str, Any]) -> None:
    kind = delta.get("type")
    if kind == "text_delta":
        draft.add("text", draft.text_of(delta, "text"))
    elif kind == "thinking_delta":
        draft.add("reasoning", draft.text_of(delta, "thinking"))
    elif kind == "input_json_delta":
        draft.tool(index).add(draft.text_of(delta, "partial_json") or "")


def _read_usage(draft: Draft, message: dict[str, Any]) -> None:
    """Take what is there; a count replaces the one before, which it includes."""
    usage = draft.dict_of(message, "usage")
    for name in _COUNTS:
        value = draft.count_of(usage, name)
        if value is not None:
            draft.raw[name] = value
    thinking = draft.count_of(draft.dict_of(usage, "output_tokens_details"), "thinking_tokens")
    if thinking is not None:
        draft.raw["thinking_tokens"] = thinking
    known = draft.raw
    read, written = known.get("cache_read_input_tokens"), known.get("cache_creation_input_tokens")
    draft.count(
        Tokens(
            input=known["input_tokens"] + (read or 0) + (written or 0) if "input_tokens" in known else None,
            output=known.get("output_tokens"),
            cache_read=read,
            cache_write=written,
            reasoning=known.get("thinking_tokens"),
        )
    )
