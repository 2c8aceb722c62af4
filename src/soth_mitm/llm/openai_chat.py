"""OpenAI's chat completions, the completions before them, and embeddings; and the servers that speak the same.

A stream is events of `data` with `[DONE]` at the end. The dialects differ in where reasoning is (`reasoning_content`, `reasoning`), in
whether usage comes once or as running totals (the last one counts), and in what numbers the tool calls.
"""

from typing import Any

from soth_mitm.llm.draft import Draft, ToolDraft
from soth_mitm.llm.model_call import Tokens

# fields that only vLLM has, in its answers and in their choices
_VLLM = frozenset({"kv_transfer_params", "prompt_logprobs", "prompt_token_ids"})


def read_event(draft: Draft, event: str, data: dict[str, Any]) -> None:
    """Take one chunk of a stream."""
    _read(draft, data, "delta")


def read_answer(draft: Draft, data: dict[str, Any]) -> None:
    """Take a plain answer."""
    _read(draft, data, "message")
    draft.is_over = True


def _read(draft: Draft, data: dict[str, Any], part: str) -> None:
    draft.name_answer(data, "id", "model")
    if data.get("system_fingerprint") == "fp_ollama":
        draft.speaks_as = "ollama"
    elif not _VLLM.isdisjoint(data):
        draft.speaks_as = "vllm"
    if data.get("error"):
        draft.fail(data)
    for choice in draft.dicts_of(data, "choices"):
        index = draft.choice(draft.index_of(choice, "index"))
        if "token_ids" in choice:
            draft.speaks_as = "vllm"
        draft.add("text", draft.text_of(choice, "text"), index)
        _read_message(draft, draft.dict_of(choice, part), index)
        draft.stop(draft.str_of(choice, "finish_reason"), index)
    usage = data.get("usage")
    if usage is None:
        usage = draft.dict_of(data, "x_groq").get("usage")
    if usage is not None:
        read_usage(draft, draft.dict_of({"usage": usage}, "usage"))


def _read_message(draft: Draft, message: dict[str, Any], choice: int) -> None:
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            draft.add("reasoning", draft.text_of(message, name), choice)
            # some send both, with the same text
            break
    content = message.get("content")
    if isinstance(content, list):
        _read_parts(draft, message, choice)
    else:
        draft.add("text", draft.text_of(message, "content"), choice)
    draft.add("text", draft.text_of(message, "refusal"), choice)
    for call in draft.dicts_of(message, "tool_calls"):
        function = draft.dict_of(call, "function") or draft.dict_of(call, "custom")
        tool = _tool_of(draft, call, draft.str_of(function, "name"), choice)
        arguments = function.get("arguments", function.get("input"))
        tool.add(arguments if isinstance(arguments, str) else "" if arguments is None else draft.spelt(arguments))
    if message.get("function_call") is not None:
        function = draft.dict_of(message, "function_call")
        tool = draft.tool((choice, "function_call"), None, draft.str_of(function, "name"))
        tool.add(draft.text_of(function, "arguments") or "")


def _read_parts(draft: Draft, message: dict[str, Any], choice: int) -> None:
    """Take content that is a list of parts, as Mistral sends it: text, and thinking that is a list of texts itself."""
    for part in draft.dicts_of(message, "content"):
        if part.get("type") == "thinking":
            for thought in draft.dicts_of(part, "thinking"):
                draft.add("reasoning", draft.text_of(thought, "text"), choice)
        else:
            draft.add("text", draft.text_of(part, "text"), choice)


def _tool_of(draft: Draft, call: dict[str, Any], name: str | None, choice: int) -> ToolDraft:
    """Return the call that a piece belongs to: by its index; without one by its id, or it goes on with the latest.

    Some servers number all of them 0; then another id, with a name, is another call.
    """
    id = draft.str_of(call, "id") or None
    key: tuple[object, ...]
    if call.get("index") is not None:
        key = (choice, draft.index_of(call, "index"))
        known = draft.tools.get(key)
        while known is not None and id is not None and name and known.id not in (None, id):
            key = (*key, id)
            known = draft.tools.get(key)
        if id is None:
            # a piece behind such a call
            key = next((other for other in reversed(draft.tools) if isinstance(other, tuple) and other[:2] == key), key)
    elif id is not None or name:
        key = (choice, "id", id if id is not None else len(draft.tools))
    else:
        key = next((other for other in reversed(draft.tools) if isinstance(other, tuple) and other[0] == choice), (choice, 0))
    return draft.tool(key, id, name)


def read_usage(draft: Draft, usage: dict[str, Any]) -> None:
    """Take the counts; the last ones stand, since some servers send running totals."""
    prompt = draft.dict_of(usage, "prompt_tokens_details")
    cache_read = draft.count_of(prompt, "cached_tokens")
    if cache_read is None:
        cache_read = draft.count_of(usage, "prompt_cache_hit_tokens")
    draft.count(
        Tokens(
            input=draft.count_of(usage, "prompt_tokens"),
            output=draft.count_of(usage, "completion_tokens"),
            cache_read=cache_read,
            cache_write=draft.count_of(prompt, "cache_write_tokens"),
            reasoning=draft.count_of(draft.dict_of(usage, "completion_tokens_details"), "reasoning_tokens"),
        )
    )
    cost = usage.get("cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < float("inf"):
        draft.cost = float(cost)
