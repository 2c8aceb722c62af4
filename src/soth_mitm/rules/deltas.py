"""Text of a language model that comes in many events: of OpenAI's chat, completions and responses, and of Anthropic's messages.

What may be the beginning of something sought is held back until it is known, so a value is found wherever the events divide it. It leaves
with a later event of the same text, or before the event that ends the text.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from soth_mitm import SseEvent
from soth_mitm.rules.sought import PATTERN_WINDOW, Sought

# of one stream: texts that go on at once, and characters of them that are held
_MOST_TEXTS = 256
_MOST_HELD = 65536

_CHAT_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
_BLOCK_FIELDS = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}
_ENDS_ALL = ("message_delta", "message_stop", "response.completed", "response.incomplete", "response.failed", "error")


Key = tuple[int | str | None, ...]
"""Which text it is: the kind of its place, and where that is."""


class CannotFollow(Exception):
    """A stream goes on where it has said that it ended, or has more in it than is held."""


class _Slot(NamedTuple):
    """A place in an event that has a piece of a text in it."""

    key: Key
    holder: dict[str, Any]
    field: str


class _Text:
    """One text that comes in pieces."""

    __slots__ = ("again", "began", "raw")

    def __init__(self) -> None:
        # what has left and is still looked back at, and what is held, which begins at `began`
        self.raw = ""
        self.began = 0
        # an event that may carry more of it, and where in it
        self.again: tuple[dict[str, Any], str | None, _Slot] | None = None

    @property
    def held(self) -> int:
        return len(self.raw) - self.began

    def feed(self, sought: Sought, more: str, *, is_end: bool = False) -> str:
        """Return what may leave now."""
        self.raw += more
        spans = sought.spans(self.raw, self.began)
        border = len(self.raw) if is_end else sought.border(self.raw, self.began)
        for start, end in reversed(spans):
            if start < border < end:
                border = start
        left = sought.replaced(self.raw, [span for span in spans if span[1] <= border], self.began, border)
        begin = max(0, border - PATTERN_WINDOW)
        self.raw, self.began = self.raw[begin:], border - begin
        return left


class Deltas:
    """The texts of one stream."""

    def __init__(self, sought: Sought) -> None:
        self._sought = sought
        self._texts: dict[Key, _Text] = {}
        self._over: set[Key] = set()
        self._is_over = False

    def feed(self, payload: str, event: str | None) -> list[SseEvent | str] | None:
        """Take an event; return what leaves in its place, a string for the event itself. None: there is none of these texts in it."""
        if payload.strip() == "[DONE]":
            rest = self._rest(lambda key: True)
            self._is_over = True
            return [*rest, payload] if rest else None
        try:
            data = json.loads(payload)
        except ValueError:
            return None
        if not isinstance(data, dict):
            return None
        slots = list(_slots(data))
        for slot in slots:
            self._pass(slot, data, event)
        is_chat = self._end_choices(data)
        rest = self._rest(_ended_by(data))
        if not slots and not is_chat:
            return [*rest, self._sought.in_text(payload)] if rest else None
        return [*rest, self._written(data)]

    def _written(self, data: dict[str, Any]) -> str:
        return self._sought.in_text(json.dumps(data, separators=(",", ":")))

    def _pass(self, slot: _Slot, data: dict[str, Any], event: str | None) -> None:
        if self._is_over or slot.key in self._over or slot.key[:2] in self._over:
            raise CannotFollow("a text goes on behind its end")
        text = self._texts.get(slot.key)
        if text is None:
            text = self._texts[slot.key] = _Text()
        slot.holder[slot.field] = text.feed(self._sought, slot.holder[slot.field])
        text.again = data, event, slot
        if len(self._texts) + len(self._over) > _MOST_TEXTS or sum(each.held for each in self._texts.values()) > _MOST_HELD:
            raise CannotFollow("a stream has more in it than is held")

    def _end_choices(self, data: dict[str, Any]) -> bool:
        """Put what is left of the texts of a choice into the event that ends it. Tell whether there is such a choice."""
        found = False
        for choice in _dicts(data.get("choices")):
            if choice.get("logprobs") is not None:
                # they spell the text once more, piece by piece
                choice["logprobs"] = None
                found = True
            if not choice.get("finish_reason"):
                continue
            ended = "choice", _plain(choice.get("index"))
            self._over.add(ended)
            for key in [key for key in self._texts if key[:2] == ended]:
                rest = self._texts.pop(key).feed(self._sought, "", is_end=True)
                if rest:
                    found = True
                    _add(choice, key, rest)
        return found

    def _rest(self, is_ended: Callable[[Key], bool]) -> list[SseEvent | str]:
        """Return events with what is left of the texts that have ended."""
        events: list[SseEvent | str] = []
        for key in [key for key in self._texts if is_ended(key)]:
            text = self._texts.pop(key)
            self._over.add(key)
            rest = text.feed(self._sought, "", is_end=True)
            if not rest or text.again is None:
                continue
            if key[0] == "block":
                field = str(key[2])
                delta = {"type": _BLOCK_FIELDS[field], field: rest}
                more = {"type": "content_block_delta", "index": key[1], "delta": delta}
                events.append(SseEvent(json.dumps(more, separators=(",", ":")), event="content_block_delta"))
                continue
            data, event, slot = text.again
            for each in _slots(data):
                each.holder[each.field] = rest if each.key == slot.key else ""
            events.append(SseEvent(self._written(data), event=None if event in (None, "message") else event))
        return events


def _slots(data: dict[str, Any]) -> Iterator[_Slot]:
    """Yield the places of an event that have a piece of a text in them."""
    for choice in _dicts(data.get("choices")):
        index = _plain(choice.get("index"))
        if isinstance(choice.get("text"), str):
            yield _Slot(("choice", index, "text"), choice, "text")
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            continue
        for field in _CHAT_FIELDS:
            if isinstance(delta.get(field), str):
                yield _Slot(("choice", index, field), delta, field)
        for call in _dicts(delta.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                yield _Slot(("choice", index, "tool_calls", _plain(call.get("index"))), function, "arguments")
    kind = data.get("type")
    if kind in ("content_block_delta", "content_block_start"):
        block = data.get("delta" if kind == "content_block_delta" else "content_block")
        for field in _BLOCK_FIELDS:
            if isinstance(block, dict) and isinstance(block.get(field), str):
                yield _Slot(("block", _plain(data.get("index")), field), block, field)
    elif isinstance(kind, str) and kind.endswith(".delta") and isinstance(data.get("delta"), str):
        where = tuple(_plain(data.get(name)) for name in ("item_id", "output_index", "content_index", "summary_index"))
        yield _Slot(("item", where[0], kind, *where[1:]), data, "delta")


def _ended_by(data: dict[str, Any]) -> Callable[[Key], bool]:
    """Return what tells whether a text has ended with this event."""
    kind = data.get("type")
    if kind in _ENDS_ALL or (isinstance(data.get("error"), dict) and "choices" not in data):
        return lambda key: True
    if kind == "content_block_stop":
        index = _plain(data.get("index"))
        return lambda key: key[:2] == ("block", index)
    if isinstance(kind, str) and kind.endswith(".done"):
        item, name = _plain(data.get("item_id")), f"{kind.removesuffix('.done')}.delta"
        return lambda key: key[:3] == ("item", item, name)
    return lambda key: False


def _add(choice: dict[str, Any], key: Key, rest: str) -> None:
    """Put the rest of a text into the choice that ends it."""
    if key[2] == "text":
        choice["text"] = choice.get("text", "") + rest
        return
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        delta = choice["delta"] = {}
    if key[2] != "tool_calls":
        field = str(key[2])
        delta[field] = (delta.get(field) or "") + rest
        return
    calls = delta.get("tool_calls")
    calls = delta["tool_calls"] = calls if isinstance(calls, list) else []
    for call in _dicts(calls):
        if call.get("index") == key[3] and isinstance(call.get("function"), dict):
            call["function"]["arguments"] = (call["function"].get("arguments") or "") + rest
            return
    calls.append({"index": key[3], "function": {"arguments": rest}})


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _plain(value: Any) -> int | str | None:
    # an index or a name; what else a peer may write cannot be hashed
    return value if isinstance(value, int | str) else None
