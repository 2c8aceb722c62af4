"""Gemini's `generateContent` and its stream, whose events (or elements of an array) each look like a plain answer."""

from typing import Any

from soth_mitm.llm.draft import Draft
from soth_mitm.llm.model_call import Tokens

_COUNTS = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount")


def read_event(draft: Draft, event: str, data: dict[str, Any]) -> None:
    """Take one event of a stream. It has no last one: it is over when every candidate has a reason to be."""
    _read(draft, data)
    draft.is_over = draft.is_over or draft.has_stopped or draft.error is not None


def read_answer(draft: Draft, data: dict[str, Any]) -> None:
    """Take a plain answer."""
    _read(draft, data)
    draft.is_over = True


def _read(draft: Draft, data: dict[str, Any]) -> None:
    if data.get("error"):
        draft.fail(data)
    draft.name_answer(data, "responseId", "modelVersion")
    for candidate in draft.dicts_of(data, "candidates"):
        index = draft.choice(draft.index_of(candidate, "index"))
        for part in draft.dicts_of(draft.dict_of(candidate, "content"), "parts"):
            _read_part(draft, part, index)
        draft.stop(draft.str_of(candidate, "finishReason"), index)
    blocked = draft.str_of(draft.dict_of(data, "promptFeedback"), "blockReason")
    draft.stop(blocked)
    _read_usage(draft, data)


def _read_part(draft: Draft, part: dict[str, Any], choice: int) -> None:
    draft.add("reasoning" if part.get("thought") is True else "text", draft.text_of(part, "text"), choice)
    if part.get("functionCall") is not None:
        call = draft.dict_of(part, "functionCall")
        tool = draft.tool((choice, len(draft.tools)), draft.str_of(call, "id"), draft.str_of(call, "name"))
        tool.replace(draft.spelt(call.get("args", {})))


def _read_usage(draft: Draft, data: dict[str, Any]) -> None:
    """Take what is there: totals so far, of which a missing one erases nothing."""
    usage = draft.dict_of(data, "usageMetadata")
    for name in _COUNTS:
        value = draft.count_of(usage, name)
        if value is not None:
            draft.raw[name] = value
    known = draft.raw

    def total(first: str, second: str) -> int | None:
        return known.get(first, 0) + known.get(second, 0) if first in known or second in known else None

    draft.count(
        Tokens(
            input=total("promptTokenCount", "toolUsePromptTokenCount"),
            output=total("candidatesTokenCount", "thoughtsTokenCount"),
            cache_read=known.get("cachedContentTokenCount"),
            reasoning=known.get("thoughtsTokenCount"),
        )
    )
