"""Bedrock's `converse` and `converse-stream`, whose events are messages of AWS; and what its `invoke` wraps the events of models in."""

import base64
import binascii
from typing import Any

from soth_mitm.llm.draft import Draft
from soth_mitm.llm.json_text import decoded
from soth_mitm.llm.model_call import Tokens


def read_event(draft: Draft, event: str, data: dict[str, Any]) -> None:
    """Take one message of a stream; the name of its exception, or its event, is `event`."""
    index = draft.index_of(data, "contentBlockIndex")
    if event == "messageStart":
        draft.choice(0)
    elif event == "contentBlockStart":
        use = draft.dict_of(draft.dict_of(data, "start"), "toolUse")
        if use:
            draft.tool(index, draft.str_of(use, "toolUseId"), draft.str_of(use, "name"))
    elif event == "contentBlockDelta":
        delta = draft.dict_of(data, "delta")
        draft.add("text", draft.text_of(delta, "text"))
        draft.add("reasoning", draft.text_of(draft.dict_of(delta, "reasoningContent"), "text"))
        if "toolUse" in delta:
            draft.tool(index).add(draft.text_of(draft.dict_of(delta, "toolUse"), "input") or "")
    elif event == "contentBlockStop":
        if index in draft.tools:
            draft.tools[index].is_closed = True
    elif event == "messageStop":
        draft.stop(draft.str_of(data, "stopReason"))
    elif event == "metadata":
        _read_usage(draft, data)
        # it comes behind messageStop
        draft.is_over = True


def read_answer(draft: Draft, data: dict[str, Any]) -> None:
    """Take a plain answer."""
    for index, block in enumerate(draft.dicts_of(draft.dict_of(draft.dict_of(data, "output"), "message"), "content")):
        draft.choice(0)
        draft.add("text", draft.text_of(block, "text"))
        thought = draft.dict_of(draft.dict_of(block, "reasoningContent"), "reasoningText")
        draft.add("reasoning", draft.text_of(thought, "text"))
        use = draft.dict_of(block, "toolUse")
        if use:
            tool = draft.tool(index, draft.str_of(use, "toolUseId"), draft.str_of(use, "name"))
            tool.replace(draft.spelt(use.get("input", {})))
    draft.stop(draft.str_of(data, "stopReason"))
    _read_usage(draft, data)
    draft.is_over = True


def unwrapped(draft: Draft, data: dict[str, Any]) -> dict[str, Any]:
    """Return what a message of `invoke-with-response-stream` carries, a base64 text of JSON."""
    if not isinstance(data.get("bytes"), str):
        return data
    try:
        inner = decoded(base64.b64decode(data["bytes"], validate=True))
    except (binascii.Error, ValueError) as error:
        draft.problem(f"`bytes` holds {error}")
        return {}
    return inner if isinstance(inner, dict) else {}


def _read_usage(draft: Draft, data: dict[str, Any]) -> None:
    """Take the counts. Those of the cache are not in `inputTokens`."""
    usage = draft.dict_of(data, "usage")
    plain = draft.count_of(usage, "inputTokens")
    read = draft.count_of(usage, "cacheReadInputTokens")
    written = draft.count_of(usage, "cacheWriteInputTokens")
    draft.count(
        Tokens(
            input=None if plain is None else plain + (read or 0) + (written or 0),
            output=draft.count_of(usage, "outputTokens"),
            cache_read=read,
            cache_write=written,
        )
    )
