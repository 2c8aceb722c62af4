"""Ollama's own format: lines of JSON, of which the last one says `done` and has the counts; a plain answer is one such object."""

from typing import Any

from soth_mitm.llm.draft import Draft
from soth_mitm.llm.model_call import Tokens


def read_event(draft: Draft, event: str, data: dict[str, Any]) -> None:
    """Take one line of a stream."""
    if data.get("error"):
        draft.fail(data)
        draft.is_over = True
    draft.name_answer(data, "id", "model")
    draft.choice(0)
    message = draft.dict_of(data, "message")
    draft.add("reasoning", draft.text_of(message, "thinking"))
    draft.add("reasoning", draft.text_of(data, "thinking"))
    draft.add("text", draft.text_of(message, "content"))
    draft.add("text", draft.text_of(data, "response"))
    for call in draft.dicts_of(message, "tool_calls"):
        function = draft.dict_of(call, "function")
        tool = draft.tool(len(draft.tools), draft.str_of(call, "id"), draft.str_of(function, "name"))
        tool.replace(draft.spelt(function.get("arguments", {})))
    draft.stop(draft.str_of(data, "done_reason"))
    draft.count(Tokens(input=draft.count_of(data, "prompt_eval_count"), output=draft.count_of(data, "eval_count")))
    draft.is_over = draft.is_over or data.get("done") is True


def read_answer(draft: Draft, data: dict[str, Any]) -> None:
    """Take a plain answer."""
    read_event(draft, "", data)
    draft.is_over = True
