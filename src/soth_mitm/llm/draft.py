"""A model's answer while it arrives: what the readers of the formats fill in, within bounds, and what becomes a `ModelCall`."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from soth_mitm.llm.json_text import mended
from soth_mitm.llm.model_call import Finish, Tokens, ToolCall

MOST_PROBLEMS = 8
# pieces of a text before they are joined
MOST_PIECES = 512
MOST_TOOLS = 256
MOST_CHOICES = 128
# items of lists that are looked at in one event or plain answer, all lists together
MOST_ITEMS = 10_000
# characters of a name, a word or an error that a peer chose
MOST_IN_NAME = 256
MOST_IN_ERROR = 1000
# an error in an error in …
MOST_ERRORS_WITHIN = 4

_KINDS = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}

# What the providers say of why an answer ended, in one word. What is not here is no reason of these.
FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "STOP": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "filtered",
    "content_filtered": "filtered",
    "guardrail_intervened": "filtered",
    "refusal": "filtered",
    "SAFETY": "filtered",
    "RECITATION": "filtered",
    "LANGUAGE": "filtered",
    "BLOCKLIST": "filtered",
    "PROHIBITED_CONTENT": "filtered",
    "SPII": "filtered",
    "IMAGE_SAFETY": "filtered",
    "error": "error",
    "failed": "error",
    "MALFORMED_FUNCTION_CALL": "error",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}


_NO_COUNTS = Tokens()


class Room:
    """How many characters of text an answer may still take, all its parts together."""

    def __init__(self, characters: int) -> None:
        self.left = characters
        self.is_over = False


class Text:
    """Text that arrives in pieces and takes its place in a room."""

    __slots__ = ("_is_cut", "_pieces", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._pieces: list[str] = []
        self._is_cut = False

    def add(self, text: str) -> None:
        """Keep as much of `text` as there is room for."""
        room = self._room
        taken = text if len(text) <= room.left else text[: room.left]
        if len(taken) < len(text):
            self._is_cut = room.is_over = True
        if taken:
            room.left -= len(taken)
            self._pieces.append(taken)
            if len(self._pieces) == MOST_PIECES:
                # a short piece takes many times its length
                self._pieces = ["".join(self._pieces)]

    def clear(self) -> None:
        """Drop what came, and give its room back."""
        self._room.left += sum(map(len, self._pieces))
        self._pieces.clear()
        self._is_cut = False

    @property
    def is_cut(self) -> bool:
        """Whether there was no room for all of it."""
        return self._is_cut

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __str__(self) -> str:
        return mended("".join(self._pieces))


class ToolDraft:
    """A tool call whose arguments arrive."""

    def __init__(self, room: Room) -> None:
        self.id: str | None = None
        self.name = ""
        self.is_closed = False
        self.by_provider = False
        self._arguments = Text(room)

    def add(self, text: str) -> None:
        """More of the arguments came."""
        self._arguments.add(text)

    def replace(self, text: str) -> None:
        """All of the arguments came; pieces of them may have come before."""
        self._arguments.clear()
        self._arguments.add(text)
        self.is_closed = True

    def call(self, is_whole: bool) -> ToolCall:
        """Return what came of it; `is_whole`: its answer ended in order."""
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments=str(self._arguments),
            complete=(is_whole or self.is_closed) and not self._arguments.is_cut,
            by_provider=self.by_provider,
        )


class Draft:
    """What is known of an answer so far.

    `begin` is called before each event is read; `first_at` is when the first token came, in seconds of the monotonic clock. Methods ending
    in `_of` take a field out of what a peer sent; None and a field that is not there are the same, anything else of another type is
    a problem of the answer.
    """

    def __init__(self, characters: int) -> None:
        self.now = 0.0
        self.items_left = 0
        self.first_at: float | None = None
        self.model: str | None = None
        self.response_id: str | None = None
        self.speaks_as: str | None = None
        """Which server software the answer shows."""
        self.counts = _NO_COUNTS
        self.raw: dict[str, int] = {}
        """Counts by the provider's names, for formats that send them one by one."""
        self.has_usage = False
        self.cost: float | None = None
        self.error: str | None = None
        self.is_over = False
        """The format's last event came."""
        self.truncated = False
        self.room = Room(characters)
        self.tools: dict[object, ToolDraft] = {}
        self.stops: dict[int, str | None] = {}
        self.problems: dict[str, None] = {}
        self._text = Text(self.room)
        self._reasoning = Text(self.room)

    def begin(self, now: float) -> None:
        """An event, or a plain answer, is read from now on."""
        self.now = now
        self.items_left = MOST_ITEMS

    # ---- what the readers say

    def problem(self, text: str) -> None:
        """Something could not be read."""
        text = mended(text[:MOST_IN_NAME])
        if text not in self.problems and len(self.problems) < MOST_PROBLEMS:
            if len(self.problems) == MOST_PROBLEMS - 1:
                text = "there were further problems"
            self.problems[text] = None

    def name_answer(self, data: dict[str, Any], id_field: str, model_field: str) -> None:
        """Take the answer's id and model, of which the first that is not empty counts."""
        if self.response_id is None:
            self.response_id = self.str_of(data, id_field) or None
        if self.model is None:
            self.model = self.str_of(data, model_field) or None

    def choice(self, index: int) -> int:
        """An alternative is there."""
        if len(self.stops) < MOST_CHOICES:
            self.stops.setdefault(index, None)
        return index

    def add(self, kind: Literal["text", "reasoning"], text: str | None, choice: int = 0) -> None:
        """More of the answer came. Of further alternatives only the time is of use."""
        if not text:
            return
        self.note_token()
        if choice == 0:
            (self._text if kind == "text" else self._reasoning).add(text)

    def note_token(self) -> None:
        if self.first_at is None:
            self.first_at = self.now

    def tool(self, key: object, id: str | None = None, name: str | None = None) -> ToolDraft:
        """Return the tool call under `key`, a new one if there is none, with what is said of it now."""
        self.note_token()
        tool = self.tools.get(key)
        if tool is None:
            tool = ToolDraft(self.room)
            if len(self.tools) < MOST_TOOLS:
                self.tools[key] = tool
            else:
                self.truncated = True
        tool.id = tool.id or id
        tool.name = tool.name or name or ""
        return tool

    def stop(self, word: str | None, choice: int = 0) -> None:
        """A choice has ended, for the reason that the provider says."""
        if word and self.choice(choice) in self.stops:
            self.stops[choice] = word

    def count(self, counts: Tokens) -> None:
        """Take these counts in place of those before, unless there are none in them."""
        if counts != _NO_COUNTS:
            self.has_usage = True
            self.counts = counts

    def spelt(self, arguments: object) -> str:
        """Spell the arguments of a tool that came as an object; what came as text is as it came."""
        if isinstance(arguments, str):
            return arguments
        try:
            return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            self.problem("the arguments of a tool are nested too deep")
            return ""

    def fail(self, data: object) -> None:
        """The provider reports an error, in one of the shapes in which they do; the first one counts."""
        if self.error is None:
            words = _error_words(data)
            self.error = mended(": ".join(dict.fromkeys(words)))[:MOST_IN_ERROR] or "an error without words"

    # ---- fields of what a peer sent

    def _other(self, name: str, wanted: str, value: object) -> None:
        self.problem(f"`{name}` is {_KINDS.get(type(value), 'something')}, not {wanted}")

    def dict_of(self, data: dict[str, Any], name: str) -> dict[str, Any]:
        """Return an object, an empty one if there is none."""
        value = data.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self._other(name, "an object", value)
        return {}

    def dicts_of(self, data: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a list."""
        value = data.get(name)
        if isinstance(value, list):
            for item in value:
                if self.items_left == 0:
                    self.truncated = True
                    return
                self.items_left -= 1
                if isinstance(item, dict):
                    yield item
                else:
                    self._other(f"{name}[]", "an object", item)
        elif value is not None:
            self._other(name, "a list", value)

    def str_of(self, data: dict[str, Any], name: str) -> str | None:
        """Return a name or a word."""
        value = self.text_of(data, name)
        return None if value is None else mended(value[:MOST_IN_NAME])

    def text_of(self, data: dict[str, Any], name: str) -> str | None:
        """Return text of any length, which may be half of a surrogate pair."""
        value = data.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            self._other(name, "text", value)
        return None

    def count_of(self, data: dict[str, Any], name: str) -> int | None:
        """Return a count: a whole number from 0 on."""
        value = data.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            self.problem(f"`{name}` is no count of tokens")
            return None
        return value

    def index_of(self, data: dict[str, Any], name: str) -> int:
        """Return a position in a list, 0 if there is none."""
        value = data.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if value is not None:
            self._other(name, "a number", value)
        return 0

    # ---- the result

    @property
    def text(self) -> str:
        return str(self._text)

    @property
    def reasoning(self) -> str:
        return str(self._reasoning)

    @property
    def has_content(self) -> bool:
        return bool(self._text or self._reasoning or self.tools)

    @property
    def has_stopped(self) -> bool:
        """Whether every choice has said why it ended."""
        return bool(self.stops) and None not in self.stops.values()


def _error_words(data: object) -> Iterator[str]:
    """Yield the type of an error and its message, from whatever a provider makes of them."""
    for _ in range(MOST_ERRORS_WITHIN):
        # Gemini answers a list where it would have streamed an array
        inner = data[0] if isinstance(data, list) and data else data.get("error") if isinstance(data, dict) else None
        if not isinstance(inner, dict | list | str) or not inner:
            break
        data = inner
    if isinstance(data, str):
        yield data
    if not isinstance(data, dict):
        return
    for name in ("type", "status", "code", "message", "Message", "detail"):
        value = data.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            yield str(value)
        elif isinstance(value, dict | list):
            yield repr(value)[:MOST_IN_ERROR]
