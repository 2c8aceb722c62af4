"""OpenAI's responses. A stream has named events, each with its name as `type`; the last one holds the whole response once more."""

from typing import Any

from soth_mitm.llm.draft import Draft
from soth_mitm.llm.model_call import Tokens

_TEXT = ("response.output_text.delta", "response.refusal.delta")
_REASONING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_TOOL_DELTA = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta", "response.mcp_call_arguments.delta")
_TOOL_DONE = ("response.function_call_arguments.done", "response.custom_tool_call_input.done", "response.mcp_call_arguments.done")
_LAST = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_TOOLS = ("function_call", "custom_tool_call", "mcp_call")


def read_event(draft: Draft, event: str, data: dict[str, Any]) -> None:
    """Take one event of a stream."""
    kind = draft.str_of(data, "type") or event
    if kind in _TEXT:
        draft.add("text", draft.text_of(data, "delta"))
    elif kind in _REASONING:
        draft.add("reasoning", draft.text_of(data, "delta"))
    elif kind in _TOOL_DELTA:
        draft.tool(draft.index_of(data, "output_index")).add(draft.text_of(data, "delta") or "")
    elif kind in _TOOL_DONE:
        whole = draft.text_of(data, "arguments" if "arguments" in data else "input")
        if whole is not None:
            draft.tool(draft.index_of(data, "output_index")).replace(whole)
    elif kind in ("response.output_item.added", "response.output_item.done"):
        _read_tool(draft, draft.index_of(data, "output_index"), draft.dict_of(data, "item"), kind.endswith("done"))
    elif kind == "error":
        draft.fail({name: value for name, value in data.items() if name != "type"})
        draft.is_over = True
    elif isinstance(data.get("response"), dict):
        # created, in_progress, queued, and the last one
        _read_response(draft, data["response"])
        draft.is_over = draft.is_over or kind in _LAST


def read_answer(draft: Draft, data: dict[str, Any]) -> None:
    """Take a plain answer."""
    _read_response(draft, data)
    draft.is_over = True


def _read_response(draft: Draft, response: dict[str, Any]) -> None:
    draft.name_answer(response, "id", "model")
    draft.choice(0)
    if response.get("error"):
        draft.fail(response)
    if response.get("usage") is not None:
        _read_usage(draft, draft.dict_of(response, "usage"))
    if not draft.has_content:
        _read_output(draft, response)
    status = draft.str_of(response, "status")
    if status not in (None, "in_progress", "queued"):
        draft.stop(draft.str_of(draft.dict_of(response, "incomplete_details"), "reason") or status)


def _read_output(draft: Draft, response: dict[str, Any]) -> None:
    for index, item in enumerate(draft.dicts_of(response, "output")):
        kind = item.get("type")
        if kind == "message":
            for part in draft.dicts_of(item, "content"):
                draft.add("text", draft.text_of(part, "refusal" if part.get("type") == "refusal" else "text"))
        elif kind == "reasoning":
            for part in (*draft.dicts_of(item, "summary"), *draft.dicts_of(item, "content")):
                draft.add("reasoning", draft.text_of(part, "text"))
        else:
            _read_tool(draft, index, item, True)


def _read_tool(draft: Draft, index: int, item: dict[str, Any], is_done: bool) -> None:
    if item.get("type") not in _TOOLS:
        return
    tool = draft.tool(index, draft.str_of(item, "call_id") or draft.str_of(item, "id"), draft.str_of(item, "name"))
    tool.by_provider = item["type"] == "mcp_call"
    whole = draft.text_of(item, "arguments" if "arguments" in item else "input")
    if is_done and whole is not None:
        tool.replace(whole)


def _read_usage(draft: Draft, usage: dict[str, Any]) -> None:
    read = draft.dict_of(usage, "input_tokens_details")
    draft.count(
        Tokens(
            input=draft.count_of(usage, "input_tokens"),
            output=draft.count_of(usage, "output_tokens"),
            cache_read=draft.count_of(read, "cached_tokens"),
            cache_write=draft.count_of(read, "cache_write_tokens"),
            reasoning=draft.count_of(draft.dict_of(usage, "output_tokens_details"), "reasoning_tokens"),
        )
    )
